//! Rows as Parquet. Rows are gathered column by column; every [`GROUP_ROWS`] rows become a row group
//! and are forgotten, so memory does not grow with the trace.

use crate::ExportError;
use crate::column::{Column, Kind, Shape, Sink};
use parquet::basic::{Compression, ConvertedType, Encoding, LogicalType, Repetition, ZstdLevel};
use parquet::basic::{IntType, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnPath, Type};
use std::io::Write;
use std::sync::Arc;

/// Rows of a row group. Gathering one took about 50 MB for the 22 columns of blocks
/// (`traces/firefox-content.rmt`, beside CSV of the same).
pub const GROUP_ROWS: usize = 128 * 1024;

/// Values of a column that wait for their row group.
struct Gathered<R> {
    value: fn(&R) -> Option<u64>,
    optional: bool,
    values: Values,
    /// 1 where a row has a value, 0 where not; empty where all have.
    levels: Vec<i16>,
}

enum Values {
    Narrow(Vec<i32>),
    Wide(Vec<i64>),
    Flags(Vec<bool>),
    /// The names with what was gathered of them.
    Names(Vec<ByteArray>, Vec<ByteArray>),
}

impl Values {
    fn of(kind: &Kind) -> Values {
        match kind {
            Kind::U8 | Kind::U32 => Values::Narrow(Vec::new()),
            Kind::U64 => Values::Wide(Vec::new()),
            Kind::Flag => Values::Flags(Vec::new()),
            Kind::Name(names) => {
                let names = names.iter().map(|name| name.clone().into_bytes().into());
                Values::Names(names.collect(), Vec::new())
            }
        }
    }

    /// Appends a value; unsigned numbers keep their bits.
    fn push(&mut self, value: u64) {
        match self {
            Values::Narrow(values) => values.push(value as u32 as i32),
            Values::Wide(values) => values.push(value as i64),
            Values::Flags(values) => values.push(value != 0),
            Values::Names(names, values) => {
                let name = usize::try_from(value).ok().and_then(|at| names.get(at));
                values.push(name.cloned().unwrap_or_default());
            }
        }
    }

    fn write(
        &self,
        out: &mut SerializedColumnWriter<'_>,
        levels: Option<&[i16]>,
    ) -> Result<usize, ParquetError> {
        match self {
            Values::Narrow(values) => out.typed::<Int32Type>().write_batch(values, levels, None),
            Values::Wide(values) => out.typed::<Int64Type>().write_batch(values, levels, None),
            Values::Flags(values) => out.typed::<BoolType>().write_batch(values, levels, None),
            Values::Names(_, values) => out
                .typed::<ByteArrayType>()
                .write_batch(values, levels, None),
        }
    }

    fn clear(&mut self) {
        match self {
            Values::Narrow(values) => values.clear(),
            Values::Wide(values) => values.clear(),
            Values::Flags(values) => values.clear(),
            Values::Names(_, values) => values.clear(),
        }
    }
}

/// How the pages of a Parquet file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// With zstd at this level, 1 to 22.
    Zstd(i32),
    /// Not at all.
    Plain,
}

/// Writes rows as a Parquet file.
pub struct Groups<R, W: Write + Send> {
    out: SerializedFileWriter<W>,
    columns: Vec<Gathered<R>>,
    rows: usize,
}

impl<R, W: Write + Send> Groups<R, W> {
    /// A file of `columns`; `remarks` go into its metadata as keys and values.
    ///
    /// # Errors
    /// When its beginning can't be written or the level of compression does not exist.
    pub fn new(
        out: W,
        columns: &[Column<R>],
        pages: Pages,
        remarks: Vec<(String, String)>,
    ) -> Result<Self, ExportError> {
        let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
        let schema = Type::group_type_builder("rmtrace")
            .with_fields(fields)
            .build()?;
        let compression = match pages {
            Pages::Zstd(level) => Compression::ZSTD(ZstdLevel::try_new(level)?),
            Pages::Plain => Compression::UNCOMPRESSED,
        };
        let remarks = remarks
            .into_iter()
            .map(|(key, value)| KeyValue::new(key, value))
            .collect();
        let mut properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_created_by(format!("rmtrace {}", env!("CARGO_PKG_VERSION")))
            .set_compression(compression)
            .set_key_value_metadata(Some(remarks));
        for column in columns.iter().filter(|c| c.shape != Shape::Repeating) {
            // A dictionary of values that are nearly all different is made in vain.
            let path = ColumnPath::from(column.name);
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
            if column.shape == Shape::Growing {
                properties = properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        }
        let out = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties.build()))?;
        let gathered = columns.iter().map(|column| Gathered {
            value: column.value,
            optional: column.optional,
            values: Values::of(&column.kind),
            levels: Vec::new(),
        });
        Ok(Groups {
            out,
            columns: gathered.collect(),
            rows: 0,
        })
    }

    fn write_group(&mut self) -> Result<(), ExportError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.out.next_row_group()?;
        for column in &mut self.columns {
            if let Some(mut out) = group.next_column()? {
                let levels = column.optional.then_some(column.levels.as_slice());
                column.values.write(&mut out, levels)?;
                out.close()?;
            }
            column.values.clear();
            column.levels.clear();
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

/// The column in the file's schema. Numbers are unsigned there too.
fn field<R>(column: &Column<R>) -> Result<Arc<Type>, ParquetError> {
    let unsigned = |bit_width| {
        Some(LogicalType::Integer(IntType {
            bit_width,
            is_signed: false,
        }))
    };
    let (physical, logical, converted) = match column.kind {
        Kind::U8 => (Physical::INT32, unsigned(8), ConvertedType::UINT_8),
        Kind::U32 => (Physical::INT32, unsigned(32), ConvertedType::UINT_32),
        Kind::U64 => (Physical::INT64, unsigned(64), ConvertedType::UINT_64),
        Kind::Flag => (Physical::BOOLEAN, None, ConvertedType::NONE),
        Kind::Name(_) => (
            Physical::BYTE_ARRAY,
            Some(LogicalType::String),
            ConvertedType::UTF8,
        ),
    };
    let repetition = match column.optional {
        true => Repetition::OPTIONAL,
        false => Repetition::REQUIRED,
    };
    let field = Type::primitive_type_builder(column.name, physical)
        .with_repetition(repetition)
        .with_logical_type(logical)
        .with_converted_type(converted);
    Ok(Arc::new(field.build()?))
}

impl<R, W: Write + Send> Sink<R> for Groups<R, W> {
    fn row(&mut self, row: &R) -> Result<(), ExportError> {
        for column in &mut self.columns {
            let value = (column.value)(row);
            if column.optional {
                column.levels.push(value.is_some().into());
                if let Some(value) = value {
                    column.values.push(value);
                }
            } else {
                column.values.push(value.unwrap_or(0));
            }
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS {
            self.write_group()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        self.write_group()?;
        self.out.close()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    struct Row(u64, Option<u64>);

    fn columns() -> Vec<Column<Row>> {
        let name: fn(&Row) -> Option<u64> = |row| row.1;
        let names = vec!["a".to_owned(), "\u{e4},b".to_owned()];
        vec![
            Column::new("wide", Kind::U64, Shape::Growing, |row: &Row| Some(row.0)),
            Column::new("narrow", Kind::U32, Shape::Scattered, |row| {
                Some(row.0 >> 32)
            }),
            Column::new("byte", Kind::U8, Shape::Repeating, |row| Some(row.0 >> 56)),
            Column::new("flag", Kind::Flag, Shape::Repeating, |row| Some(row.0 & 1)),
            Column::new("name", Kind::Name(names), Shape::Repeating, name).optional(),
        ]
    }

    /// Numbers with all bits in use, in no order.
    fn row(n: u64) -> Row {
        let name = Some(n % 3).filter(|name| *name < 2);
        Row(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7), name)
    }

    fn read_back(pages: Pages, rows: u64) {
        let mut bytes = Vec::new();
        let remarks = vec![("key".to_owned(), "value".to_owned())];
        let mut groups = Groups::new(&mut bytes, &columns(), pages, remarks).expect("a file");
        for n in 0..rows {
            groups.row(&row(n)).expect("memory takes it");
        }
        Box::new(groups).finish().expect("memory takes it");
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).expect("a whole file");
        let metadata = reader.metadata();
        let expected = rows.div_ceil(GROUP_ROWS as u64) as usize;
        assert_eq!(metadata.num_row_groups(), expected);
        let remarks = metadata.file_metadata().key_value_metadata();
        assert!(remarks.is_some_and(|all| all.iter().any(|one| one.key == "key")));
        let mut read = 0;
        for (n, found) in (0..).zip(reader.get_row_iter(None).expect("rows")) {
            let Row(number, name) = row(n);
            let found: Vec<Field> = found
                .expect("a row")
                .get_column_iter()
                .map(|(_, field)| field.clone())
                .collect();
            let name = match name {
                None => Field::Null,
                Some(0) => Field::Str("a".to_owned()),
                Some(_) => Field::Str("\u{e4},b".to_owned()),
            };
            let expected = [
                Field::ULong(number),
                Field::UInt((number >> 32) as u32),
                Field::UByte((number >> 56) as u8),
                Field::Bool(number & 1 == 1),
                name,
            ];
            assert_eq!(found, expected, "row {n}");
            read += 1;
        }
        assert_eq!(read, rows);
    }

    #[test]
    fn what_was_written_is_read_back_over_several_groups() {
        read_back(Pages::Zstd(1), 2 * GROUP_ROWS as u64 + 3);
    }

    #[test]
    fn no_rows_and_no_compression_are_files_too() {
        read_back(Pages::Zstd(1), 0);
        read_back(Pages::Plain, 1000);
    }

    #[test]
    fn a_level_that_is_none_is_an_error() {
        let made = Groups::new(Vec::new(), &columns(), Pages::Zstd(99), Vec::new());
        assert!(matches!(made, Err(ExportError::Parquet(_))));
    }

    /// Takes a few bytes, then nothing more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_as_one() {
        let out = Full(10_000);
        let mut groups = Groups::new(out, &columns(), Pages::Plain, Vec::new()).expect("room");
        let rows = (0..GROUP_ROWS as u64).try_for_each(|n| groups.row(&row(n)));
        match rows {
            Err(ExportError::Write(error)) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull)
            }
            other => panic!("{other:?}"),
        }
    }
}
