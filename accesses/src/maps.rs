//! What lies at an address that is of no block, from `/proc/PID/maps`.

/// Kinds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A thread's stack.
    Stack,
    /// Code and data of programs and libraries, and other mapped files.
    File,
    /// Everything else.
    Other,
}

/// A mapping.
#[derive(Clone, Debug)]
struct Region {
    start: u64,
    end: u64,
    kind: Kind,
    /// Address that offset 0 of the file would have; 0 without a file.
    bias: u64,
    file: String,
}

/// Mappings of a process, as they were when they were looked at last.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    regions: Vec<Region>,
    stacks: Vec<u64>,
    hit: usize,
}

impl Maps {
    /// Takes the text of `/proc/PID/maps`. Lines that are none are left out.
    pub fn read(&mut self, text: &str) {
        self.regions = text.lines().filter_map(region).collect();
        self.regions.sort_by_key(|region| region.start);
        // Zeroed data of an image has no file, but lies right behind its written data.
        for at in 1..self.regions.len() {
            let (earlier, later) = self.regions.split_at_mut(at);
            let (before, region) = (&earlier[at - 1], &mut later[0]);
            if region.file.is_empty() && before.end == region.start && before.kind == Kind::File {
                region.kind = Kind::File;
            }
        }
        for address in std::mem::take(&mut self.stacks) {
            self.stack_at(address);
        }
        self.hit = 0;
    }

    /// Says that a thread's stack is around an address.
    pub fn stack_at(&mut self, address: u64) {
        if let Some(at) = self.find(address)
            && self.regions[at].file.is_empty()
        {
            self.regions[at].kind = Kind::Stack;
        }
        if !self.stacks.contains(&address) {
            self.stacks.push(address);
        }
    }

    fn find(&self, address: u64) -> Option<usize> {
        let at = self.regions.partition_point(|region| region.end <= address);
        (self.regions.get(at)?.start <= address).then_some(at)
    }

    /// What is at an address; `None`: no mapping that is known.
    #[inline]
    pub fn kind(&mut self, address: u64) -> Option<Kind> {
        let is_in = |region: &Region| address >= region.start && address < region.end;
        if let Some(region) = self.regions.get(self.hit).filter(|region| is_in(region)) {
            return Some(region.kind);
        }
        self.hit = self.find(address)?;
        Some(self.regions[self.hit].kind)
    }

    /// File and place in it of a code address.
    pub fn code(&self, address: u64) -> Option<(&str, u64)> {
        let region = &self.regions[self.find(address)?];
        (!region.file.is_empty()).then(|| (region.file.as_str(), address.wrapping_sub(region.bias)))
    }
}

/// `04000000-04001000 r--p 00000000 fe:00 1234    /usr/lib/x`
fn region(line: &str) -> Option<Region> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
    let _rights = words.next()?;
    let offset = hexadecimal(words.next()?)?;
    let (_device, _node) = (words.next()?, words.next()?);
    let file = words.collect::<Vec<_>>().join(" ");
    let is_file = file.starts_with('/');
    Some(Region {
        start,
        end,
        kind: if is_file { Kind::File } else { Kind::Other },
        bias: if is_file {
            start.wrapping_sub(offset)
        } else {
            0
        },
        file: if is_file { file } else { String::new() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
04000000-04001000 r--p 00000000 fe:00 12 /lib/a b.so
04001000-04003000 r-xp 00001000 fe:00 12 /lib/a b.so
04003000-04004000 rw-p 00000000 00:00 0
04005000-04006000 rw-p 00000000 00:00 0
1ffe000000-1fff001000 rw-p 00000000 00:00 0
not a line
";

    #[test]
    fn addresses_are_of_files_stacks_or_neither() {
        let mut maps = Maps::default();
        maps.read(TEXT);
        maps.stack_at(0x1fff000100);
        for (address, kind) in [
            (0x0400_0000, Some(Kind::File)),
            (0x0400_3fff, Some(Kind::File)),
            (0x0400_4000, None),
            (0x0400_5000, Some(Kind::Other)),
            (0x1f_ff00_0ff8, Some(Kind::Stack)),
            (0, None),
        ] {
            assert_eq!(maps.kind(address), kind, "{address:#x}");
        }
        assert_eq!(maps.code(0x0400_1010), Some(("/lib/a b.so", 0x1010)));
        maps.read(TEXT);
        assert_eq!(maps.kind(0x1fff000000), Some(Kind::Stack));
    }
}
