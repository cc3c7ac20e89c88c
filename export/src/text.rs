//! Rows as lines of text: CSV (RFC 4180, a header line, LF) and JSON lines (an object a line, whole
//! numbers exact, `null` where a column has no value; CSV leaves such a field empty).

use crate::ExportError;
use crate::column::{Column, Kind, Sink};
use std::io::Write;

/// A column with all that is the same in each row written out once.
struct Field<R> {
    value: fn(&R) -> Option<u64>,
    /// Of a column of names, each as it stands in the line.
    names: Option<Vec<String>>,
    /// What stands before the value.
    before: String,
}

/// Writes rows as lines.
pub struct Lines<R, W> {
    out: W,
    fields: Vec<Field<R>>,
    line: Vec<u8>,
    /// What stands for no value.
    missing: &'static str,
    /// What ends a line.
    end: &'static str,
}

/// A field of CSV: in quotes where it must be.
fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// A string of JSON.
fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl<R, W: Write> Lines<R, W> {
    /// CSV to `out`; the header line is written at once.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn csv(mut out: W, columns: &[Column<R>]) -> Result<Self, ExportError> {
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        writeln!(out, "{}", names.join(","))?;
        let before = |n: usize, _: &Column<R>| match n {
            0 => String::new(),
            _ => ",".to_owned(),
        };
        Ok(Lines {
            fields: fields(columns, before, csv_field),
            out,
            line: Vec::new(),
            missing: "",
            end: "\n",
        })
    }

    /// JSON lines to `out`.
    pub fn json(out: W, columns: &[Column<R>]) -> Self {
        let before = |n: usize, column: &Column<R>| {
            let open = if n == 0 { '{' } else { ',' };
            format!("{open}{}:", json_string(column.name))
        };
        Lines {
            fields: fields(columns, before, json_string),
            out,
            line: Vec::new(),
            missing: "null",
            end: "}\n",
        }
    }
}

fn fields<R>(
    columns: &[Column<R>],
    before: impl Fn(usize, &Column<R>) -> String,
    quoted: fn(&str) -> String,
) -> Vec<Field<R>> {
    let names = |kind: &Kind| match kind {
        Kind::Name(names) => Some(names.iter().map(|name| quoted(name)).collect()),
        Kind::Flag => Some(vec!["false".to_owned(), "true".to_owned()]),
        _ => None,
    };
    let fields = columns.iter().enumerate().map(|(n, column)| Field {
        value: column.value,
        names: names(&column.kind),
        before: before(n, column),
    });
    fields.collect()
}

/// Appends a number in decimal digits.
fn digits(line: &mut Vec<u8>, mut number: u64) {
    let mut buffer = [0; 20];
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&buffer[at..]);
}

impl<R, W: Write> Sink<R> for Lines<R, W> {
    fn row(&mut self, row: &R) -> Result<(), ExportError> {
        self.line.clear();
        for field in &self.fields {
            self.line.extend_from_slice(field.before.as_bytes());
            let value = (field.value)(row);
            match (value, &field.names) {
                (None, _) => self.line.extend_from_slice(self.missing.as_bytes()),
                (Some(number), None) => digits(&mut self.line, number),
                (Some(place), Some(names)) => {
                    let name = usize::try_from(place).ok().and_then(|at| names.get(at));
                    let text = name.map_or(self.missing, String::as_str);
                    self.line.extend_from_slice(text.as_bytes());
                }
            }
        }
        self.line.extend_from_slice(self.end.as_bytes());
        Ok(self.out.write_all(&self.line)?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::Shape;

    struct Row(u64, Option<u64>);

    fn columns() -> Vec<Column<Row>> {
        let names = ["plain", "a,b", "say \"x\"\n", "\u{e4}\\"].map(str::to_owned);
        vec![
            Column::new("n", Kind::U64, Shape::Scattered, |row: &Row| Some(row.0)),
            Column::new(
                "name",
                Kind::Name(names.into()),
                Shape::Repeating,
                |row: &Row| row.1,
            )
            .optional(),
            Column::new("flag", Kind::Flag, Shape::Repeating, |row| Some(row.0 & 1)),
        ]
    }

    fn rows() -> [Row; 6] {
        [
            Row(0, Some(0)),
            Row(1, Some(1)),
            Row(10, Some(2)),
            Row(u64::MAX, Some(3)),
            Row(4, None),
            Row(6, Some(99)), // No such name: never made, and no reason to panic.
        ]
    }

    fn written(make: impl Fn(&mut Vec<u8>) -> Box<dyn Sink<Row> + '_>) -> String {
        let mut out = Vec::new();
        let mut sink = make(&mut out);
        for row in rows() {
            sink.row(&row).expect("memory takes it");
        }
        sink.finish().expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn csv_quotes_what_must_be() {
        let text = written(|out| Box::new(Lines::csv(out, &columns()).expect("a header")));
        assert_eq!(
            text,
            "n,name,flag\n0,plain,false\n1,\"a,b\",true\n10,\"say \"\"x\"\"\n\",false\n\
             18446744073709551615,\u{e4}\\,true\n4,,false\n6,,false\n"
        );
    }

    #[test]
    fn json_lines_are_json() {
        let text = written(|out| Box::new(Lines::json(out, &columns())));
        let values: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let names = ["plain", "a,b", "say \"x\"\n", "\u{e4}\\"];
        for (at, row) in rows().iter().enumerate() {
            assert_eq!(values[at]["n"], row.0);
            assert_eq!(values[at]["flag"], row.0 & 1 == 1);
            assert_eq!(values[at]["name"].as_str(), names.get(at).copied());
        }
        assert_eq!(values.len(), rows().len());
    }
}
