//! Instructions by Valgrind's callgrind: a worker is run twice under it, once up to where the clock would start, once to
//! the end of the program; the difference is what the operations take. The same in every run, and some 50 times slower.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Functions of allocators that are told by name.
const FUNCTIONS: [&str; 11] = [
    "malloc",
    "calloc",
    "realloc",
    "free",
    "posix_memalign",
    "rmalloc",
    "rmalloc_aligned",
    "rmlock",
    "rmunlock",
    "rmresize",
    "rmfree",
];

/// What callgrind counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Instructions of the process.
    pub instructions: u64,
    /// Calls of a function of an allocator, and the instructions of these, of what they call included.
    pub functions: BTreeMap<&'static str, (u64, u64)>,
}

impl Counted {
    /// Without what another run counted too.
    pub fn since(&self, before: &Counted) -> Counted {
        let mut functions = self.functions.clone();
        for (name, (calls, instructions)) in &mut functions {
            let (less_calls, less) = before.functions.get(name).copied().unwrap_or_default();
            *calls = calls.saturating_sub(less_calls);
            *instructions = instructions.saturating_sub(less);
        }
        functions.retain(|_, (calls, _)| *calls != 0);
        Counted {
            instructions: self.instructions.saturating_sub(before.instructions),
            functions,
        }
    }
}

/// Reads a file that callgrind wrote.
///
/// # Errors
/// When it can't be read, or holds no total.
pub fn read(path: &Path) -> io::Result<Counted> {
    let text = std::fs::read(path)?;
    parse(&String::from_utf8_lossy(&text)).ok_or_else(|| {
        let what = "callgrind wrote no total";
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Format: valgrind's manual, "Callgrind Format Specification". Names are written once as `(number) name`, then
/// as `(number)`; a line `calls=` is followed by one with the inclusive cost.
fn parse(text: &str) -> Option<Counted> {
    let mut counted = Counted::default();
    let mut numbers: BTreeMap<&str, &'static str> = BTreeMap::new();
    let mut total = None;
    let (mut callee, mut calls) = (None, None);
    for line in text.lines() {
        if let Some(calls) = calls.take() {
            let cost = line
                .split(' ')
                .nth(1)
                .and_then(|cost| cost.parse::<u64>().ok());
            if let (Some(name), Some(cost)) = (callee, cost) {
                let sum: &mut (u64, u64) = counted.functions.entry(name).or_default();
                *sum = (sum.0 + calls, sum.1 + cost);
            }
        } else if let Some(rest) = line.strip_prefix("calls=") {
            calls = rest
                .split(' ')
                .next()
                .and_then(|calls| calls.parse::<u64>().ok());
        } else if let Some(rest) = line.strip_prefix("cfn=").or(line.strip_prefix("fn=")) {
            let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
            if let Some(known) = FUNCTIONS.iter().find(|known| **known == name) {
                numbers.insert(number, known);
            }
            if line.starts_with('c') {
                callee = numbers.get(number).copied();
            }
        } else if let Some(rest) = line
            .strip_prefix("totals: ")
            .or(line.strip_prefix("summary: "))
        {
            total = rest
                .split(' ')
                .next()
                .and_then(|total| total.parse().ok())
                .or(total);
        }
    }
    counted.instructions = total?;
    Some(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_totals_are_read() {
        let text = "\
version: 1
events: Ir
summary: 900
fn=(1) main
16 400
cfn=(2) malloc
calls=3 50
16 120
cfn=(3) other
calls=1 1
17 7
fn=(2)
5 100
fn=(4) more
cfn=(2)
calls=2 50
18 80
totals: 1000
";
        let counted = parse(text).unwrap();
        assert_eq!(counted.instructions, 1000);
        assert_eq!(counted.functions, BTreeMap::from([("malloc", (5, 200))]));
        let before = Counted {
            instructions: 400,
            functions: BTreeMap::from([("malloc", (1, 50))]),
        };
        let since = counted.since(&before);
        assert_eq!(
            (since.instructions, since.functions["malloc"]),
            (600, (4, 150))
        );
        assert_eq!(parse("fn=(1) main\n1 2\n"), None);
    }
}
