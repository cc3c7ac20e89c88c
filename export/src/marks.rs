//! Named marks, to say for a block after which of them it was born.

use rmtrace_file::{ReadError, TraceReader};

/// The named marks of a trace, in time order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Time in nanoseconds, the process that it is of (none: the run), place in `names`.
    marks: Vec<(u64, Option<u32>, u32)>,
    names: Vec<String>,
}

impl Marks {
    /// The marks of `reader` that somebody gave a name: by `rmtrace ctl mark` for the run, by
    /// `rmtrace_mark` for one process.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn of(reader: &TraceReader) -> Result<Marks, ReadError> {
        let mut found = Marks::default();
        for (time_ns, mark) in reader.all_marks()? {
            if mark.is_named() {
                let process = (!mark.is_of_run()).then_some(mark.process);
                found.add(time_ns, process, mark.name);
            }
        }
        Ok(found)
    }

    fn add(&mut self, time_ns: u64, process: Option<u32>, name: String) {
        let known = self.names.iter().position(|other| *other == name);
        let place = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        self.marks.push((time_ns, process, place as u32));
    }

    /// The names, each once.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The mark that holds for `process` at `time_ns`. `at` is kept by the caller for each process,
    /// [`At::default`] at first; times do not go back.
    pub(crate) fn at(&self, at: &mut At, process: u32, time_ns: u64) -> Option<u32> {
        while let Some((time, of, place)) = self.marks.get(at.next)
            && *time <= time_ns
        {
            at.next += 1;
            if of.is_none_or(|of| of == process) {
                at.last = Some(*place);
            }
        }
        at.last
    }
}

/// How far the marks have been passed by a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct At {
    next: usize,
    last: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mark_of_the_process_or_the_run_holds() {
        let mut marks = Marks::default();
        for (time_ns, process, name) in [
            (10, None, "load"),
            (20, Some(1), "mine"),
            (30, Some(2), "other"),
            (40, None, "load"),
        ] {
            marks.add(time_ns, process, name.to_owned());
        }
        assert_eq!(marks.names(), ["load", "mine", "other"]);
        let name = |at: &mut At, time_ns| {
            let place = marks.at(at, 1, time_ns)?;
            Some(marks.names()[place as usize].as_str())
        };
        let mut at = At::default();
        assert_eq!(name(&mut at, 9), None);
        assert_eq!(name(&mut at, 10), Some("load"));
        assert_eq!(name(&mut at, 35), Some("mine"));
        assert_eq!(name(&mut at, 41), Some("load"));
    }
}
