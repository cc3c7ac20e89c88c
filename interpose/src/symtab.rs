//! Names of the program's own functions that it does not export: from the symbol table in its file, or
//! from separate debug symbols if they are installed.
//!
//! The file is mapped while it is read. Nothing in it is believed: every offset is checked.

use crate::elf::{LinkMap, Symbol};
use crate::sys;
use crate::text::Text;
use core::ffi::CStr;

/// A mapped file.
struct Mapped(&'static [u8]);

impl Mapped {
    fn open(path: &CStr) -> Option<Mapped> {
        let fd = sys::open(path, sys::O_RDONLY | sys::O_CLOEXEC, 0);
        if fd < 0 {
            return None;
        }
        let bytes = sys::fstat(fd as i32).map_or(0, |stat| stat.bytes as usize);
        let mut at = -1;
        if bytes > 0 {
            // SAFETY: a new mapping.
            at = unsafe { sys::mmap(0, bytes, sys::PROT_READ, sys::MAP_PRIVATE, fd as i32) };
        }
        sys::close(fd as i32);
        // SAFETY: mapped for reading, that long, until it is dropped.
        (at > 0).then(|| Mapped(unsafe { core::slice::from_raw_parts(at as *const u8, bytes) }))
    }

    fn part(&self, offset: u64, bytes: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(bytes).ok()?)?;
        self.0.get(start..end)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        sys::munmap(self.0.as_ptr() as usize, self.0.len());
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The longest name that matters, its end included.
const NAME_BYTES_MAX: usize = 48;

/// Whether a name that begins so may be an allocation function's: nearly all others end here.
fn may_matter(start: &[u8]) -> bool {
    match start {
        [b'_', b'Z', third, ..] => matches!(third, b'n' | b'd'),
        [b'_', second, ..] => *second == b'r',
        [first, ..] => matches!(
            first,
            b'a' | b'c' | b'd' | b'f' | b'j' | b'm' | b'p' | b'r' | b's' | b't' | b'v' | b'x'
        ),
        [] => false,
    }
}

/// The sections and the program headers of a file.
struct Image {
    file: Mapped,
}

impl Image {
    fn open(path: &CStr) -> Option<Image> {
        let file = Mapped::open(path)?;
        // ELF, 64 bit, little endian.
        file.0
            .starts_with(&[0x7f, b'E', b'L', b'F', 2, 1])
            .then_some(Image { file })
    }

    /// Program header `n`.
    fn program(&self, n: u16) -> Option<&[u8]> {
        let head = self.file.part(0, 64)?;
        let (offset, bytes, count) = (long(head, 32)?, half(head, 54)?, half(head, 56)?);
        if n >= count || bytes < 56 {
            return None;
        }
        let at = offset.checked_add(u64::from(n).checked_mul(u64::from(bytes))?)?;
        self.file.part(at, u64::from(bytes))
    }

    /// Section header `n`.
    fn section(&self, n: u32) -> Option<&[u8]> {
        let head = self.file.part(0, 64)?;
        let (offset, bytes, count) = (long(head, 40)?, half(head, 58)?, half(head, 60)?);
        if offset == 0 || n >= u32::from(count) || bytes < 64 {
            return None;
        }
        let at = offset.checked_add(u64::from(n).checked_mul(u64::from(bytes))?)?;
        self.file.part(at, u64::from(bytes))
    }

    fn content(&self, section: &[u8]) -> Option<&[u8]> {
        self.file.part(long(section, 24)?, long(section, 32)?)
    }

    /// Whether `program`, loaded in this process, came from this file.
    fn is_of(&self, program: &LinkMap) -> bool {
        const PT_DYNAMIC: u32 = 2;
        (0..)
            .map_while(|n| self.program(n))
            .filter(|header| word(header, 0) == Some(PT_DYNAMIC))
            .any(|header| {
                long(header, 16).map(|at| program.base().wrapping_add(at as usize))
                    == Some(program.dynamic())
            })
    }

    /// Shows `see` the name and place of each function that may matter. Whether there was a symbol table.
    fn functions(&self, program: &LinkMap, see: &mut impl FnMut(&[u8], Symbol)) -> Option<()> {
        const SHT_SYMTAB: u32 = 2;
        let table = (0..)
            .map_while(|n| self.section(n))
            .find(|section| word(section, 4) == Some(SHT_SYMTAB))?;
        let strings = self.content(self.section(word(table, 40)?)?)?;
        for entry in self.content(table)?.chunks_exact(24) {
            let &[
                n0,
                n1,
                n2,
                n3,
                info,
                _,
                s0,
                s1,
                v0,
                v1,
                v2,
                v3,
                v4,
                v5,
                v6,
                v7,
                ..,
            ] = entry
            else {
                continue;
            };
            const FUNCTION: u8 = 2;
            if info & 15 != FUNCTION || s0 | s1 == 0 {
                continue;
            }
            let name = u32::from_le_bytes([n0, n1, n2, n3]) as usize;
            let Some(rest) = strings.get(name..) else {
                continue;
            };
            if !may_matter(rest) {
                continue;
            }
            let rest = rest.get(..NAME_BYTES_MAX).unwrap_or(rest);
            let Some(end) = rest.iter().position(|byte| *byte == 0) else {
                continue;
            };
            let value = u64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]);
            let bytes = long(entry, 16).unwrap_or(0);
            if let Some(name) = rest.get(..end)
                && self.is_code(value, bytes)
            {
                let symbol = Symbol {
                    address: program.base().wrapping_add(value as usize),
                    bytes: bytes as usize,
                };
                see(name, symbol);
            }
        }
        Some(())
    }

    /// Whether the addresses lie in what is loaded to be executed.
    fn is_code(&self, value: u64, bytes: u64) -> bool {
        const PT_LOAD: u32 = 1;
        const PF_X: u32 = 1;
        bytes > 0
            && (0..).map_while(|n| self.program(n)).any(|header| {
                let (Some(flags), Some(start), Some(length)) =
                    (word(header, 4), long(header, 16), long(header, 40))
                else {
                    return false;
                };
                word(header, 0) == Some(PT_LOAD)
                    && flags & PF_X != 0
                    && value >= start
                    && bytes <= length
                    && value.wrapping_sub(start) <= length.wrapping_sub(bytes)
            })
    }

    /// Where separate debug symbols of this build are installed below `directory`, if they are.
    fn debug_path(&self, directory: &[u8]) -> Option<Text> {
        const PT_NOTE: u32 = 4;
        const BUILD_ID: u32 = 3;
        let notes = (0..)
            .map_while(|n| self.program(n))
            .filter(|header| word(header, 0) == Some(PT_NOTE));
        for header in notes {
            let mut notes = self.file.part(long(header, 8)?, long(header, 32)?)?;
            while let (Some(name), Some(bytes), Some(kind)) =
                (word(notes, 0), word(notes, 4), word(notes, 8))
            {
                let up = |n: u32| (n as usize).wrapping_add(3) & !3;
                let id = notes.get(12usize.wrapping_add(up(name))..)?;
                if kind == BUILD_ID
                    && notes.get(12..16) == Some(b"GNU\0")
                    && let Some((first, rest)) = id.get(..bytes as usize)?.split_first()
                {
                    let mut path = Text::of(&[directory, b"/.build-id/"]);
                    push_byte(&mut path, *first);
                    path.push(b"/");
                    rest.iter().for_each(|byte| push_byte(&mut path, *byte));
                    path.push(b".debug");
                    return Some(path);
                }
                notes = id.get(up(bytes)..)?;
            }
        }
        None
    }
}

fn push_byte(text: &mut Text, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in [byte >> 4, byte & 15] {
        if let Some(digit) = DIGITS.get(digit as usize) {
            text.push(&[*digit]);
        }
    }
}

/// Shows `see` the functions of `program` whose names begin as those of allocation functions do.
/// Debug symbols of a stripped program are looked for below `debug`, if that is given.
pub fn functions(program: &LinkMap, debug: Option<&[u8]>, mut see: impl FnMut(&[u8], Symbol)) {
    let Some(image) = Image::open(c"/proc/self/exe") else {
        return;
    };
    // Where the dynamic linker is run as a command, the file is the linker's own.
    if !image.is_of(program) || image.functions(program, &mut see).is_some() {
        return;
    }
    let path = debug.and_then(|directory| image.debug_path(directory));
    if let Some(debug) = path.and_then(|path| Image::open(path.path()?)) {
        debug.functions(program, &mut see);
    }
}
