//! A trace as a table for other programs: Parquet, CSV or JSON lines; one row a block ([`block`]) or
//! one row an event ([`event`]). `docs/export.md` has the columns and what to do with them.
//!
//! Everything is written while the trace is read: memory grows with the blocks live at the same time
//! (32 bytes each) and with one row group of Parquet, not with the trace.
#![forbid(unsafe_code)]

pub mod block;
pub mod column;
pub mod columnar;
mod error;
pub mod event;
pub mod marks;
pub mod text;

pub use columnar::Pages;
pub use error::ExportError;

use block::{Block, Blocks};
use column::{Column, Sink};
use rmtrace_analyzer::fact::Fact;
use rmtrace_analyzer::ledger::{self, Filter};
use rmtrace_file::{Consumer, MergeOptions, ReadError, TraceReader};
use rmtrace_format::Event;
use std::cell::RefCell;
use std::io::Write;
use std::ops::{ControlFlow, Range};

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// A block with its life; in the order of the ends.
    Blocks,
    /// An event; in time order.
    Events,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Parquet, with pages compressed so.
    Parquet(Pages),
    /// Comma-separated values with a header line.
    Csv,
    /// A JSON object a line.
    JsonLines,
}

impl Form {
    /// Opens a table of `columns` in this form. `out` is written to in pieces of any size.
    ///
    /// # Errors
    /// When its beginning can't be written.
    pub fn open<'w, R: 'w>(
        self,
        out: impl Write + Send + 'w,
        columns: &[Column<R>],
        remarks: Vec<(String, String)>,
    ) -> Result<Box<dyn Sink<R> + 'w>, ExportError> {
        Ok(match self {
            Form::Parquet(pages) => Box::new(columnar::Groups::new(out, columns, pages, remarks)?),
            Form::Csv => Box::new(text::Lines::csv(out, columns)?),
            Form::JsonLines => Box::new(text::Lines::json(out, columns)),
        })
    }
}

/// What to export and how.
pub struct Options<'a> {
    /// What a row is.
    pub table: Table,
    /// The form of the output.
    pub form: Form,
    /// Only the process of this number.
    pub process: Option<u32>,
    /// Only calls of these threads, of each process.
    pub threads: Option<Vec<u32>>,
    /// Only calls of this time, in nanoseconds since the run's first record.
    pub window: Option<Range<u64>>,
    /// Which blocks; of events all are exported.
    pub filter: Filter,
    /// Called every few hundred events with the number read so far; may end the export.
    pub progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
}

/// What was exported.
#[derive(Debug, Default)]
pub struct Exported {
    /// Rows written.
    pub rows: u64,
    /// Why reading ended early, if it did: the rows are those of what came before.
    pub broken: Option<ReadError>,
}

/// Version of the columns: raised when one changes its meaning or goes; new ones may come without.
pub const SCHEMA: u32 = 1;

/// Writes `reader`'s trace to `out`. A trace that can't be read to its end yields a whole file of what
/// came before.
///
/// # Errors
/// When `out` can't be written, or the marks of the trace can't be read.
pub fn export(
    reader: &TraceReader,
    out: impl Write + Send,
    options: Options<'_>,
) -> Result<Exported, ExportError> {
    let remarks = |table: &str| {
        vec![
            ("rmtrace.table".to_owned(), table.to_owned()),
            ("rmtrace.schema".to_owned(), SCHEMA.to_string()),
        ]
    };
    let Options {
        table,
        form,
        process,
        threads,
        window,
        filter,
        progress,
    } = options;
    let part = MergeOptions {
        threads,
        window,
        ..MergeOptions::default()
    };
    match table {
        Table::Events => {
            let columns = event::columns();
            let mut rows = Rows::new(form.open(out, &columns, remarks("events"))?, progress);
            let broken = events(reader, process, part, &mut rows);
            rows.finish(broken)
        }
        Table::Blocks => {
            let marks = marks::Marks::of(reader)?;
            let columns = block::columns(&marks);
            let mut rows = Rows::new(form.open(out, &columns, remarks("blocks"))?, progress);
            let broken = blocks(reader, (process, part), &filter, marks, &mut rows);
            rows.finish(broken)
        }
    }
}

/// Where rows go. After the first failure nothing more is written, and reading ends soon.
struct Rows<'a, 'w, R> {
    sink: Box<dyn Sink<R> + 'w>,
    rows: u64,
    failed: Option<ExportError>,
    progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
}

impl<'a, 'w, R> Rows<'a, 'w, R> {
    fn new(
        sink: Box<dyn Sink<R> + 'w>,
        progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Rows<'a, 'w, R> {
        Rows {
            sink,
            rows: 0,
            failed: None,
            progress,
        }
    }

    /// Writes a row, unless writing has failed.
    fn row(&mut self, row: &R) {
        if self.failed.is_none() {
            self.failed = self.sink.row(row).err();
            self.rows += 1;
        }
    }

    fn told(&mut self, events: u64) -> ControlFlow<()> {
        match self.failed {
            Some(_) => ControlFlow::Break(()),
            None => (self.progress)(events),
        }
    }

    fn finish(self, broken: Option<ReadError>) -> Result<Exported, ExportError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.sink.finish()?;
        Ok(Exported {
            rows: self.rows,
            broken,
        })
    }
}

fn events(
    reader: &TraceReader,
    process: Option<u32>,
    part: MergeOptions<'_>,
    rows: &mut Rows<'_, '_, Event>,
) -> Option<ReadError> {
    struct ToRows<'r, 'a, 'w>(&'r RefCell<&'r mut Rows<'a, 'w, Event>>);

    impl Consumer for ToRows<'_, '_, '_> {
        fn event(&mut self, event: &Event) {
            self.0.borrow_mut().row(event);
        }
    }

    let rows = RefCell::new(rows);
    let mut told = |events| rows.borrow_mut().told(events);
    let merge = MergeOptions {
        processes: process.map(|process| vec![process]),
        progress: Some(&mut told),
        ..part
    };
    reader.merge_with(&mut ToRows(&rows), merge).err()
}

fn blocks(
    reader: &TraceReader,
    (process, part): (Option<u32>, MergeOptions<'_>),
    filter: &Filter,
    marks: marks::Marks,
    rows: &mut Rows<'_, '_, Block>,
) -> Option<ReadError> {
    let mut blocks = Blocks::new(reader.processes(), marks);
    let rows = RefCell::new(rows);
    let mut told = |events| rows.borrow_mut().told(events);
    let merge = MergeOptions {
        // What a process inherited is told apart from its own by those it inherited from.
        processes: process.map(|process| reader.with_ancestors(process)),
        progress: Some(&mut told),
        ..part
    };
    let each = |fact: &Fact| {
        if process.is_none_or(|process| process == fact.process)
            && let Some(row) = blocks.fact(fact)
        {
            rows.borrow_mut().row(&row);
        }
    };
    ledger::facts(reader, merge, filter, each).err()
}
