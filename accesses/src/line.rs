//! Lackey's text: `I  04001000,3`, ` L 1fff000548,8`, ` S ...`, ` M ...` for instructions, loads, stores and both in one, with
//! the lines of Valgrind's scheduler (`--trace-sched=yes`) between them that name the thread which runs.
//! The stream is some 15 bytes an instruction, so nothing is done twice: no search for line ends, no copy.

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads.
    Load,
    /// Writes.
    Store,
    /// Reads, then writes.
    Modify,
}

/// Takes what the lines say, in their order.
pub trait Sink {
    /// So many instructions; `last` is the address of the last one in hexadecimal digits, cut off at the first other byte.
    fn instructions(&mut self, count: u64, last: &[u8]);
    /// An access of `bytes` bytes at `address`.
    fn access(&mut self, access: Access, address: u64, bytes: u32);
    /// From here on Valgrind's thread `number` runs (from 1); `new`: it has just begun.
    fn thread(&mut self, number: u32, new: bool);
    /// A line that is none of these.
    fn other(&mut self, line: &[u8]);
}

/// Longest line that is kept; what is longer is cut.
const LINE_BYTES_MAX: usize = 4096;
/// Longest line of an instruction or an access.
const SHORT_BYTES_MAX: usize = 40;

/// Reads the text, which comes in pieces of any length.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end is not there yet.
    partial: Vec<u8>,
}

const fn digits() -> [u8; 256] {
    let mut table = [0xff; 256];
    let mut n = 0;
    while n < 10 {
        table[b'0' as usize + n] = n as u8;
        n += 1;
    }
    let mut n = 0;
    while n < 6 {
        table[b'a' as usize + n] = 10 + n as u8;
        table[b'A' as usize + n] = 10 + n as u8;
        n += 1;
    }
    table
}

static DIGITS: [u8; 256] = digits();

/// The address and the size of ` L 1fff000548,8` behind its third byte, and the length with the line end; `None`: no such line.
#[inline(always)]
fn place(bytes: &[u8]) -> Option<(u64, u32, usize)> {
    let mut address = 0u64;
    let mut at = 0;
    loop {
        let digit = DIGITS[*bytes.get(at)? as usize];
        if digit == 0xff {
            break;
        }
        address = address << 4 | u64::from(digit);
        at += 1;
    }
    if at == 0 || at > 16 || bytes[at] != b',' {
        return None;
    }
    let mut size = 0u32;
    loop {
        at += 1;
        match *bytes.get(at)? {
            digit @ b'0'..=b'9' => {
                size = size.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))
            }
            b'\n' => return Some((address, size, at + 1)),
            _ => return None,
        }
    }
}

/// The length of an instruction's line behind its third byte, line end included.
#[inline(always)]
fn skip(bytes: &[u8]) -> Option<usize> {
    // Eight or more digits, a comma, a digit or two.
    const USUAL: usize = 10;
    if *bytes.get(USUAL)? == b'\n' {
        return Some(USUAL + 1);
    }
    let short = &bytes[..bytes.len().min(SHORT_BYTES_MAX)];
    let end = short.iter().position(|byte| *byte == b'\n')?;
    Some(end + 1)
}

impl Lines {
    /// Takes a piece of the text.
    pub fn feed<S: Sink>(&mut self, mut text: &[u8], sink: &mut S) {
        if !self.partial.is_empty() {
            let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
                self.keep(text);
                return;
            };
            let (head, rest) = text.split_at(end + 1);
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(head);
            lines(&line, sink);
            line.clear();
            self.partial = line;
            text = rest;
        }
        let used = lines(text, sink);
        self.keep(&text[used..]);
    }

    /// Says what an unfinished last line says.
    pub fn finish<S: Sink>(&mut self, sink: &mut S) {
        if !self.partial.is_empty() {
            self.partial.push(b'\n');
            lines(&std::mem::take(&mut self.partial), sink);
        }
    }

    fn keep(&mut self, text: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.partial.len());
        self.partial
            .extend_from_slice(&text[..text.len().min(room)]);
    }
}

/// Takes all whole lines; how many bytes they are.
fn lines<S: Sink>(text: &[u8], sink: &mut S) -> usize {
    let mut at = 0;
    // Instructions since the last other line, and where the last one's address is.
    let (mut count, mut last) = (0, 0);
    while let Some(line) = text.get(at..).filter(|line| line.len() > 3) {
        match (line[0], line[1], line[2]) {
            (b'I', b' ', b' ') => {
                if let Some(length) = skip(&line[3..]) {
                    count += 1;
                    last = at + 3;
                    at += 3 + length;
                    continue;
                }
                if line.len() <= 3 + SHORT_BYTES_MAX && !line.contains(&b'\n') {
                    break;
                }
            }
            (b' ', kind @ (b'L' | b'S' | b'M'), b' ') => {
                if let Some((address, bytes, length)) = place(&line[3..]) {
                    if count != 0 {
                        sink.instructions(count, &text[last..at]);
                        count = 0;
                    }
                    let access = match kind {
                        b'L' => Access::Load,
                        b'S' => Access::Store,
                        _ => Access::Modify,
                    };
                    sink.access(access, address, bytes);
                    at += 3 + length;
                    continue;
                }
            }
            _ => {}
        }
        let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
            break;
        };
        if count != 0 {
            sink.instructions(count, &text[last..at]);
            count = 0;
        }
        rare(&line[..end], sink);
        at += end + 1;
    }
    if count != 0 {
        sink.instructions(count, &text[last..at]);
    }
    // A line of two bytes or fewer that is whole says nothing.
    match text[at..].iter().position(|byte| *byte == b'\n') {
        Some(end) if text.len() - at <= 3 => {
            sink.other(&text[at..at + end]);
            at + end + 1
        }
        _ => at,
    }
}

/// `--4711--   SCHED[2]:  acquired lock (thread_wrapper(starting new thread))`, and others.
#[cold]
fn rare<S: Sink>(line: &[u8], sink: &mut S) {
    match scheduled(line) {
        Some((number, new)) => sink.thread(number, new),
        None => sink.other(line),
    }
}

fn scheduled(line: &[u8]) -> Option<(u32, bool)> {
    let text = std::str::from_utf8(line).ok()?;
    let (_, rest) = text.strip_prefix("--")?.split_once("SCHED[")?;
    let (number, what) = rest.split_once("]:")?;
    let number = number.trim().parse().ok()?;
    let what = what.trim();
    let runs = what.strip_prefix("acquired lock")?;
    Some((number, runs.contains("starting new thread")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Said {
        Access(Access, u64, u32),
        Thread(u32, bool),
        Other(Vec<u8>),
    }

    #[derive(Default)]
    struct Heard {
        instructions: u64,
        last: Vec<u8>,
        said: Vec<(u64, Said)>,
    }

    impl Sink for Heard {
        fn instructions(&mut self, count: u64, last: &[u8]) {
            self.instructions += count;
            self.last = last.to_vec();
        }
        fn access(&mut self, access: Access, address: u64, bytes: u32) {
            self.said
                .push((self.instructions, Said::Access(access, address, bytes)));
        }
        fn thread(&mut self, number: u32, new: bool) {
            self.said
                .push((self.instructions, Said::Thread(number, new)));
        }
        fn other(&mut self, line: &[u8]) {
            self.said
                .push((self.instructions, Said::Other(line.to_vec())));
        }
    }

    fn line() -> impl Strategy<Value = (String, Option<Said>)> {
        let address = prop_oneof![0u64..1 << 28, any::<u64>()];
        let kind = prop_oneof![
            Just(Access::Load),
            Just(Access::Store),
            Just(Access::Modify)
        ];
        prop_oneof![
            (address.clone(), 1u32..16)
                .prop_map(|(at, size)| (format!("I  {at:08x},{size}\n"), None)),
            (kind, address, 1u32..600).prop_map(|(kind, at, size)| {
                let letter = match kind {
                    Access::Load => 'L',
                    Access::Store => 'S',
                    Access::Modify => 'M',
                };
                let text = format!(" {letter} {at:08x},{size}\n");
                (text, Some(Said::Access(kind, at, size)))
            }),
            (1u32..200).prop_map(|n| {
                let text =
                    format!("--77--   SCHED[{n}]:  acquired lock (VG_(scheduler):timeslice)\n");
                (text, Some(Said::Thread(n, false)))
            }),
            Just((
                "--77--   SCHED[3]:  acquired lock (thread_wrapper(starting new thread))\n"
                    .to_string(),
                Some(Said::Thread(3, true))
            )),
            "[=a-z ,]{0,60}"
                .prop_filter("another line", |text| !text.starts_with("I  ")
                    && !text.starts_with(" "))
                .prop_map(|text| { (format!("{text}\n"), Some(Said::Other(text.into_bytes()))) }),
        ]
    }

    proptest! {
        /// However the text is cut into pieces, each line says what it says, in its place among the instructions.
        #[test]
        fn lines_are_read_in_any_pieces(lines in proptest::collection::vec(line(), 0..60), cuts in proptest::collection::vec(1usize..40, 1..40)) {
            let mut heard = Heard::default();
            let mut reader = Lines::default();
            let text: String = lines.iter().map(|(text, _)| text.as_str()).collect();
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let length = cuts.next().unwrap_or(1).min(rest.len());
                reader.feed(&rest[..length], &mut heard);
                rest = &rest[length..];
            }
            reader.finish(&mut heard);
            let mut instructions = 0;
            let mut expected = Vec::new();
            for (_, said) in lines {
                match said {
                    Some(said) => expected.push((instructions, said)),
                    None => instructions += 1,
                }
            }
            prop_assert_eq!(heard.said, expected);
            prop_assert_eq!(heard.instructions, instructions);
        }

        /// Whatever bytes come, nothing panics, and a text without line ends is not kept.
        #[test]
        fn any_bytes_are_survived(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..99), 0..60)) {
            let mut heard = Heard::default();
            let mut reader = Lines::default();
            for piece in pieces {
                reader.feed(&piece, &mut heard);
                prop_assert!(reader.partial.len() <= LINE_BYTES_MAX);
            }
            reader.finish(&mut heard);
        }
    }

    #[test]
    fn the_last_instruction_is_told() {
        let mut heard = Heard::default();
        Lines::default().feed(b"I  04001000,3\nI  0400beef,4\n L 1fff,8\n", &mut heard);
        assert!(heard.last.starts_with(b"0400beef,"), "{:?}", heard.last);
    }
}
