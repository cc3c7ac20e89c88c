//! Opens an executable as if it were a library, for programs that have an allocator of their own (Firefox: mozjemalloc).
//!
//! The dynamic linker refuses to open what is marked as a program, and rightly so: its code takes for granted that the
//! thread's variables of the program lie directly below the thread pointer, where those of *our* program are. So a copy is
//! changed in three places and opened: the mark goes, the thread's variables are declared gone, and each instruction sequence that
//! takes their place from the thread pointer takes that of [`ROOM`] instead, which is a thread's variable of ours. An
//! executable that gets at its variables in any other way is refused.

use std::arch::asm;
use std::cell::UnsafeCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of an executable's own variables of a thread that there is room for.
const ROOM_BYTES: usize = 512;

/// Room for another program's variables of a thread.
#[repr(align(64))]
struct Room(UnsafeCell<[u8; ROOM_BYTES]>);

thread_local! {
    // Without a destructor and constant: it lies at the same distance from the thread pointer in all threads.
    static ROOM: Room = const { Room(UnsafeCell::new([0; ROOM_BYTES])) };
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NULL: u32 = 0;
const PT_TLS: u32 = 7;
const PF_X: u32 = 1;
const DT_NULL: u64 = 0;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;
const PROGRAM_HEADER_BYTES: usize = 56;
const DYNAMIC_BYTES: usize = 16;

/// `data16 data16 data16 mov %fs:0,%rax`: what linkers make of a call that asks for the module's variables
/// ("local dynamic to local exec", ELF Handling For Thread-Local Storage, 5.5).
const TAKES_POINTER: [u8; 12] = [0x66, 0x66, 0x66, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];

/// `rdfsbase %rax; lea distance(%rax),%rax`: as long, and without effect on flags.
fn takes_room(distance: i32) -> [u8; 12] {
    let mut code = [0xf3, 0x48, 0x0f, 0xae, 0xc0, 0x48, 0x8d, 0x80, 0, 0, 0, 0];
    code[8..].copy_from_slice(&distance.to_le_bytes());
    code
}

/// Bytes of a file that hold its program headers, and the most that are read of its dynamic section.
const HEAD_BYTES: usize = 1 << 16;

/// Whether a file is a position-independent executable, which `dlopen` refuses. Reads its headers only.
pub fn is_one(path: &Path) -> bool {
    let read = |offset: usize, bytes: usize| {
        let mut part = Vec::new();
        let mut file = File::open(path).ok()?;
        file.seek(SeekFrom::Start(offset as u64)).ok()?;
        file.take(bytes as u64).read_to_end(&mut part).ok()?;
        Some(part)
    };
    let Some(bytes) = read(0, HEAD_BYTES) else {
        return false;
    };
    let segments = Image { bytes }.segments().unwrap_or_default();
    let mut dynamic = segments.iter().filter(|segment| segment.kind == PT_DYNAMIC);
    dynamic.any(|segment| {
        let part = read(segment.offset, segment.file_bytes.min(HEAD_BYTES));
        part.is_some_and(|part| flag_in(&part).is_some())
    })
}

/// A copy of an executable that can be opened as a library; the file is removed when this is dropped, which a library that
/// is open does not mind.
///
/// # Errors
/// Why that can't be had.
pub fn openable(path: &Path) -> Result<tempfile::TempPath, String> {
    if !has_fs_base() {
        return Err(
            "the instruction rdfsbase is not to be had: it takes Linux 5.9 or newer".into(),
        );
    }
    let distance = distance();
    let of_thread = std::thread::spawn(self::distance).join();
    if of_thread.ok() != Some(distance) {
        return Err("this build of rmtrace has no room at a fixed place in each thread".into());
    }
    let distance =
        i32::try_from(distance).map_err(|_| "the room for its variables is too far away")?;
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut image = Image { bytes };
    image.make_library(distance)?;
    let mut copy = tempfile::Builder::new()
        .prefix("rmtrace-")
        .suffix(".so")
        .tempfile()
        .map_err(|error| format!("no place for a copy: {error}"))?;
    std::io::Write::write_all(&mut copy, &image.bytes)
        .map_err(|error| format!("no place for a copy: {error}"))?;
    Ok(copy.into_temp_path())
}

/// What an executable's directory says of its version: `Firefox 140.1` from Mozilla's `application.ini`, or empty.
pub fn version(path: &Path) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let text = std::fs::read_to_string(real.with_file_name("application.ini")).unwrap_or_default();
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value.trim())
    };
    match (value("Name"), value("Version")) {
        (Some(name), Some(version)) => format!("mozjemalloc of {name} {version}"),
        _ => String::new(),
    }
}

/// From this thread's pointer to the end of its room.
fn distance() -> i64 {
    let pointer: i64;
    // SAFETY: the word at the thread pointer holds the thread pointer (x86-64 psABI, TLS variant II).
    unsafe {
        asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(nostack, readonly, preserves_flags))
    };
    let room = ROOM.with(|room| room.0.get() as i64);
    room + ROOM_BYTES as i64 - pointer
}

/// Whether programs may read the thread pointer's register (AT_HWCAP2, bit 1).
fn has_fs_base() -> bool {
    // SAFETY: reads a word of the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & 2 != 0 }
}

/// The bytes of an ELF file.
struct Image {
    bytes: Vec<u8>,
}

/// What a program header says.
struct Segment {
    at: usize,
    kind: u32,
    flags: u32,
    offset: usize,
    file_bytes: usize,
    memory_bytes: usize,
    alignment: usize,
}

impl Image {
    fn word(&self, at: usize) -> Result<u64, String> {
        let bytes = at.checked_add(8).and_then(|end| self.bytes.get(at..end));
        let bytes = bytes.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        bytes
            .map(u64::from_le_bytes)
            .ok_or_else(|| format!("its ELF headers point behind its end, at {at}"))
    }

    fn half(&self, at: usize) -> Result<u32, String> {
        Ok(self.word(at)? as u32)
    }

    fn segments(&self) -> Result<Vec<Segment>, String> {
        // 64 bits, little-endian; a shared object; x86-64.
        let head = self.bytes.get(..20).unwrap_or_default();
        if !head.starts_with(b"\x7fELF\x02\x01") || head[16..20] != [3, 0, 62, 0] {
            return Err("it is no position-independent executable for x86-64".into());
        }
        let first = self.word(32)? as usize;
        let size = (self.half(54)? & 0xffff) as usize;
        let number = (self.half(56)? & 0xffff) as usize;
        if size != PROGRAM_HEADER_BYTES {
            return Err(format!("its program headers have {size} bytes"));
        }
        let read = |number: usize| {
            let at = first.saturating_add(number * size);
            Ok(Segment {
                at,
                kind: self.half(at)?,
                flags: self.half(at.saturating_add(4))?,
                offset: self.word(at.saturating_add(8))? as usize,
                file_bytes: self.word(at.saturating_add(32))? as usize,
                memory_bytes: self.word(at.saturating_add(40))? as usize,
                alignment: self.word(at.saturating_add(48))? as usize,
            })
        };
        (0..number).map(read).collect()
    }

    /// Where the flags are that mark a program.
    fn pie_flag(&self) -> Result<usize, String> {
        let segments = self.segments()?;
        let mut dynamic = segments.iter().filter(|segment| segment.kind == PT_DYNAMIC);
        let found = dynamic.find_map(|segment| {
            let end = segment.offset.saturating_add(segment.file_bytes);
            let at = flag_in(self.bytes.get(segment.offset..end)?)?;
            Some(segment.offset + at)
        });
        found.ok_or_else(|| "it is not marked as a program".into())
    }

    /// Makes the three changes.
    fn make_library(&mut self, distance: i32) -> Result<(), String> {
        let flag = self.pie_flag()?;
        let flags = self.word(flag)? & !DF_1_PIE;
        self.bytes[flag..flag + 8].copy_from_slice(&flags.to_le_bytes());
        let segments = self.segments()?;
        let Some(variables) = segments.iter().find(|segment| segment.kind == PT_TLS) else {
            return Ok(());
        };
        if variables.file_bytes != 0 {
            return Err("its variables of a thread do not begin as zeros".into());
        }
        if variables.memory_bytes > ROOM_BYTES || variables.alignment > 64 {
            return Err(format!(
                "its variables of a thread take {} bytes, aligned to {}; there is room for {ROOM_BYTES}, aligned to 64",
                variables.memory_bytes, variables.alignment
            ));
        }
        let at = variables.at;
        self.bytes[at..at + 4].copy_from_slice(&PT_NULL.to_le_bytes());
        for segment in &segments {
            if segment.kind == PT_LOAD && segment.flags & PF_X != 0 {
                let end = segment.offset.saturating_add(segment.file_bytes);
                let code = self.bytes.get_mut(segment.offset..end);
                replace(code.ok_or("its code ends behind its end")?, distance)?;
            }
        }
        Ok(())
    }
}

/// Where in a dynamic section the flags are that mark a program.
fn flag_in(dynamic: &[u8]) -> Option<usize> {
    let word = |at: usize| {
        Some(u64::from_le_bytes(
            dynamic.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    for at in (0..dynamic.len()).step_by(DYNAMIC_BYTES) {
        match word(at)? {
            DT_NULL => return None,
            DT_FLAGS_1 if word(at + 8)? & DF_1_PIE != 0 => return Some(at + 8),
            _ => {}
        }
    }
    None
}

/// Replaces what takes the place of variables from the thread pointer.
fn replace(code: &mut [u8], distance: i32) -> Result<(), String> {
    let mut at = 0;
    while at < code.len() {
        if code[at..].starts_with(&TAKES_POINTER) {
            code[at..at + TAKES_POINTER.len()].copy_from_slice(&takes_room(distance));
            at += TAKES_POINTER.len();
        } else if takes_otherwise(&code[at..]) {
            return Err(format!(
                "it gets at its variables of a thread in a way that is not known, at byte {at} of its code"
            ));
        } else {
            at += 1;
        }
    }
    Ok(())
}

/// Whether an instruction may begin here that reads or writes at the thread pointer or below, with the address in the
/// instruction: prefix fs, perhaps REX, an opcode, ModRM and SIB without base and index, the address. (Above it is the
/// stack protector's word.)
fn takes_otherwise(code: &[u8]) -> bool {
    if code.first() != Some(&0x64) {
        return false;
    }
    (2..=4).any(|modrm| {
        let Some(rest) = code.get(modrm..modrm + 6) else {
            return false;
        };
        let address = i32::from_le_bytes([rest[2], rest[3], rest[4], rest[5]]);
        rest[0] & 0xc7 == 0x04 && rest[1] == 0x25 && (-(1 << 20)..=0).contains(&address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_at_the_same_distance_in_all_threads_and_begins_as_zeros() {
        let here = distance();
        let there = std::thread::spawn(|| {
            // SAFETY: nobody else has this thread's room.
            let is_zero =
                ROOM.with(|room| unsafe { (*room.0.get()).iter().all(|byte| *byte == 0) });
            (distance(), is_zero)
        });
        assert_eq!(there.join().unwrap(), (here, true));
    }

    #[test]
    fn only_the_known_way_to_variables_is_replaced() {
        let canary = [0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0];
        let mut code = [&[0x90][..], &TAKES_POINTER, &canary].concat();
        replace(&mut code, -0x40).unwrap();
        assert_eq!(code, [&[0x90][..], &takes_room(-0x40), &canary].concat());
        // mov %fs:0,%rax; mov %fs:-8,%rcx; movl $1,%fs:-4 (c7 /0).
        for other in [
            &[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0][..],
            &[0x64, 0x48, 0x8b, 0x0c, 0x25, 0xf8, 0xff, 0xff, 0xff],
            &[0x64, 0xc7, 0x04, 0x25, 0xfc, 0xff, 0xff, 0xff, 1, 0, 0, 0],
        ] {
            assert!(replace(&mut other.to_vec(), 0).is_err(), "{other:x?}");
        }
    }

    #[test]
    fn what_is_no_executable_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0x7f; 4096]] {
            let mut image = Image {
                bytes: bytes.to_vec(),
            };
            assert!(image.make_library(0).is_err());
        }
        // Cut off anywhere, this test's own program is refused or changed, and nothing panics.
        let whole = std::fs::read("/proc/self/exe").unwrap();
        for cut in [64, 100, 1_000, 5_000] {
            let bytes = whole[..cut.min(whole.len())].to_vec();
            let _ = Image { bytes }.make_library(0);
        }
        assert!(!is_one(Path::new("/no/such/file")));
        assert!(is_one(Path::new("/proc/self/exe")));
    }
}
