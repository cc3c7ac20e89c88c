//! The table of raw events: the merged stream as it is, a row for each step (a realloc is two).

use crate::column::{Column, Kind, Shape};
use rmtrace_format::{Entry, Event, Kind as CallKind, Step};

/// Names by [`Entry`] number; numbers that no entry has are empty.
pub(crate) fn entry_names() -> Vec<String> {
    let last = Entry::ALL.iter().map(|entry| *entry as u8).max();
    (0..=last.unwrap_or(0))
        .map(|number| Entry::from_number(number).map_or(String::new(), |e| e.name().to_owned()))
        .collect()
}

fn kind_names() -> Vec<String> {
    CallKind::ALL.map(|kind| kind.name().to_owned()).into()
}

/// Names by [`Step`] number.
const STEPS: [(Step, &str); 4] = [
    (Step::Alloc, "alloc"),
    (Step::Free, "free"),
    (Step::ReallocBegin, "realloc_begin"),
    (Step::ReallocEnd, "realloc_end"),
];

const _: () = {
    let mut at = 0;
    while at < STEPS.len() {
        assert!(STEPS[at].0 as usize == at);
        at += 1;
    }
};

/// The columns: the keys of `rmtrace dump --json-lines`.
pub fn columns() -> Vec<Column<Event>> {
    use Kind::{Flag, Name, U8, U32, U64};
    use Shape::{Growing, Repeating, Scattered};
    let steps = STEPS.map(|(_, name)| name.to_owned()).into();
    vec![
        Column::new("time_ns", U64, Growing, |e: &Event| Some(e.time_ns)),
        Column::new("process", U32, Repeating, |e| Some(e.process.into())),
        Column::new("thread", U32, Repeating, |e| Some(e.thread.into())),
        Column::new("call", Name(entry_names()), Repeating, |e| {
            Some(e.entry as u64)
        }),
        Column::new("kind", Name(kind_names()), Repeating, |e| {
            Some(e.kind() as u64)
        }),
        Column::new("step", Name(steps), Repeating, |e| Some(e.step as u64)),
        Column::new("requested_bytes", U64, Repeating, |e| {
            Some(e.requested_bytes)
        }),
        Column::new("address", U64, Scattered, |e| Some(e.address)),
        Column::new("old_address", U64, Repeating, |e| Some(e.old_address)),
        Column::new("align_log2", U8, Repeating, |e| Some(e.align_log2.into())),
        Column::new("usable_bytes", U64, Repeating, |e| Some(e.usable_bytes)),
        Column::new("caller", U64, Repeating, |e| Some(e.caller)),
        Column::new("freed", Flag, Repeating, |e| {
            Some(u64::from(e.flags & Event::FREED != 0))
        }),
        Column::new("failed", Flag, Repeating, |e| Some(e.failed().into())),
    ]
}
