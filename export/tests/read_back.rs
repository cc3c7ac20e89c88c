//! The three forms say the same; and the table of blocks is what a slow reading of the events by
//! definition gives.

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use rmtrace_export::{Form, Options, Pages, Table, export};
use rmtrace_file::TraceReader;
use rmtrace_format::{Event, Step};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

fn sample(name: &str) -> TraceReader {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces");
    TraceReader::open(&traces.join(name)).expect("a shipped trace")
}

fn exported(reader: &TraceReader, table: Table, form: Form) -> Vec<u8> {
    let mut bytes = Vec::new();
    let options = Options {
        table,
        form,
        process: None,
        threads: None,
        window: None,
        filter: Default::default(),
        progress: &mut |_| ControlFlow::Continue(()),
    };
    let exported = export(reader, &mut bytes, options).expect("memory takes it");
    assert!(exported.broken.is_none());
    bytes
}

type Row = Map<String, Value>;

fn of_json(bytes: &[u8]) -> Vec<Row> {
    let text = std::str::from_utf8(bytes).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect()
}

fn of_parquet(bytes: Vec<u8>) -> Vec<Row> {
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).expect("a whole file");
    let rows = reader.get_row_iter(None).expect("rows");
    rows.map(|row| {
        let row = row.expect("a row");
        let fields = row.get_column_iter().map(|(name, field)| {
            let value = match field {
                Field::Null => Value::Null,
                Field::Bool(flag) => json!(flag),
                Field::UByte(number) => json!(number),
                Field::UInt(number) => json!(number),
                Field::ULong(number) => json!(number),
                Field::Str(text) => json!(text),
                other => panic!("{name}: {other:?}"),
            };
            (name.clone(), value)
        });
        fields.collect()
    })
    .collect()
}

/// Lines of CSV whose fields hold no line ends.
fn of_csv(bytes: &[u8]) -> Vec<Vec<String>> {
    let text = std::str::from_utf8(bytes).expect("text");
    let fields = |line: &str| {
        let mut fields = vec![String::new()];
        let mut quoted = false;
        for letter in line.chars() {
            match letter {
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                letter => fields.last_mut().expect("one").push(letter),
            }
        }
        fields
    };
    text.lines().map(fields).collect()
}

#[test]
fn the_three_forms_say_the_same() {
    for name in ["tiny.rmt", "by_hand.rmt", "sqlite.rmt"] {
        let reader = sample(name);
        for table in [Table::Blocks, Table::Events] {
            let rows = of_json(&exported(&reader, table, Form::JsonLines));
            assert!(!rows.is_empty(), "{name}");
            for pages in [Pages::Zstd(1), Pages::Plain] {
                let parquet = of_parquet(exported(&reader, table, Form::Parquet(pages)));
                assert!(parquet == rows, "{name} {table:?} {pages:?}");
            }
            let csv = of_csv(&exported(&reader, table, Form::Csv));
            assert_eq!(csv.len(), rows.len() + 1);
            for (line, row) in csv[1..].iter().zip(&rows) {
                for (column, field) in csv[0].iter().zip(line) {
                    let expected = match &row[column] {
                        Value::Null => String::new(),
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    assert_eq!(*field, expected, "{name} {column}");
                }
                assert_eq!(csv[0].len(), line.len());
            }
        }
    }
}

/// A live block of the slow reading.
struct Live {
    born: Event,
    /// Calls, bytes and allocations of the process at its birth.
    clocks: [u64; 3],
    bytes: u64,
    resizes: u64,
    moves: u64,
}

#[derive(Default)]
struct Process {
    clocks: [u64; 3],
    live: HashMap<u64, Live>,
    rows: Vec<Row>,
}

impl Process {
    fn born(&mut self, event: &Event) {
        self.clocks[1] += event.requested_bytes;
        self.clocks[2] += 1;
        let live = Live {
            born: *event,
            clocks: self.clocks,
            bytes: event.requested_bytes,
            resizes: 0,
            moves: 0,
        };
        let before = self.live.insert(event.address, live);
        assert!(before.is_none(), "the sample has no lost frees");
    }

    fn row(&self, address: u64, live: &Live, end_ns: u64) -> Row {
        let born = &live.born;
        let life: Vec<u64> = (0..3).map(|n| self.clocks[n] - live.clocks[n]).collect();
        let row = json!({
            "thread_born": born.thread, "address_first": born.address, "address_last": address,
            "bytes_first": born.requested_bytes, "bytes_last": live.bytes, "born_ns": born.time_ns,
            "life_ns": end_ns - born.time_ns, "life_events": life[0], "life_bytes": life[1],
            "life_allocations": life[2], "entry": born.entry.name(), "align_log2": born.align_log2,
            "resizes": live.resizes, "moves": live.moves,
        });
        row.as_object().expect("an object").clone()
    }

    fn event(&mut self, event: &Event) {
        if event.counts() {
            self.clocks[0] += 1;
        }
        match event.step {
            Step::Alloc if event.address != 0 => self.born(event),
            Step::ReallocEnd if event.old_address == 0 && event.address != 0 => self.born(event),
            Step::Free => {
                let Some(live) = self.live.remove(&event.address) else {
                    return;
                };
                let mut row = self.row(event.address, &live, event.time_ns);
                row.insert("entry_ended".into(), json!(event.entry.name()));
                row.insert("thread_ended".into(), json!(event.thread));
                row.insert("ended".into(), json!("freed"));
                self.rows.push(row);
            }
            // One thread at a time reallocs in these samples: both halves at the end.
            Step::ReallocEnd if event.address != 0 => {
                let Some(mut live) = self.live.remove(&event.old_address) else {
                    return self.born(event);
                };
                self.clocks[1] += event.requested_bytes.saturating_sub(live.bytes);
                live.bytes = event.requested_bytes;
                live.resizes += 1;
                live.moves += u64::from(event.address != event.old_address);
                self.live.insert(event.address, live);
            }
            _ => {}
        }
    }
}

#[test]
fn blocks_are_what_a_slow_reading_gives() {
    for name in ["by_hand.rmt", "sqlite.rmt", "gcc.rmt"] {
        let reader = sample(name);
        let mut slow: HashMap<u32, Process> = HashMap::new();
        let each = |event: &Event| {
            slow.entry(event.process).or_default().event(event);
            ControlFlow::Continue(())
        };
        reader.for_each_event(each).expect("a whole trace");
        let rows = of_json(&exported(&reader, Table::Blocks, Form::JsonLines));
        let mut ended = 0;
        for (number, process) in &slow {
            let of = rows.iter().filter(|row| row["process"] == *number);
            let (kept, freed): (Vec<&Row>, Vec<&Row>) = of.partition(|row| row["ended"] == "kept");
            assert_eq!(freed.len(), process.rows.len(), "{name}");
            for (found, expected) in freed.iter().zip(&process.rows) {
                for (key, value) in expected {
                    assert_eq!(&found[key], value, "{name} {key}: {found:?}");
                }
            }
            ended += freed.len();
            assert_eq!(kept.len(), process.live.len(), "{name}");
            for found in kept {
                let address = found["address_last"].as_u64().expect("a number");
                let live = &process.live[&address];
                let born = found["born_ns"].as_u64().expect("a number");
                let life = found["life_ns"].as_u64().expect("a number");
                for (key, value) in process.row(address, live, born + life) {
                    assert_eq!(found[&key], value, "{name} {key}: {found:?}");
                }
                assert!(found["entry_ended"].is_null() && found["thread_ended"].is_null());
            }
        }
        assert!(ended > 2);
    }
}
