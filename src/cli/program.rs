//! What kind of program a file is: whether the recorder can be loaded into it, and if not, why and what
//! can be done.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why nothing of a program can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It has no dynamic linker.
    Static,
    /// It has none, and was made by the Go toolchain, whose heap is its own.
    Go,
    /// The dynamic linker ignores LD_PRELOAD, as the program changes user or group.
    SetUser,
    /// The same for file capabilities.
    Capabilities,
    /// A program of 32 bits.
    Bits32,
    /// A program for another processor.
    Machine,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Obstacle::Static => {
                "it is linked statically, so no library can be loaded into it; a build that is linked \
                 dynamically can be recorded"
            }
            Obstacle::Go => {
                "it is a static program of the Go toolchain, whose heap is its own; what C code of a Go \
                 program allocates can be recorded if it is linked dynamically (CGO_ENABLED=1)"
            }
            Obstacle::SetUser => {
                "it changes its user or group (set-user-id, set-group-id), for which LD_PRELOAD is \
                 ignored; run it as the user that it changes to, or a copy without that bit"
            }
            Obstacle::Capabilities => {
                "its file has capabilities, for which LD_PRELOAD is ignored; run it as root, or a copy \
                 without them (a plain `cp` leaves them out)"
            }
            Obstacle::Bits32 => {
                "it is a program of 32 bits; a build for x86-64 can be recorded"
            }
            Obstacle::Machine => "it is a program for another processor than x86-64",
        })
    }
}

/// A program that can't be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrecordable {
    /// Its file.
    pub path: PathBuf,
    /// Why.
    pub why: Obstacle,
}

impl Unrecordable {
    /// Whether both are one file.
    pub fn is_same(&self, other: &Unrecordable) -> bool {
        let identity = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        self.path == other.path
            || identity(&self.path).is_some_and(|own| identity(&other.path) == Some(own))
    }
}

impl fmt::Display for Unrecordable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} can't be recorded: {}",
            self.path.display(),
            self.why
        )
    }
}

/// Interpreters that name interpreters end here, as in the kernel.
const SCRIPTS_MAX: usize = 5;

/// What the command can't be recorded for, if there is such a thing: looked up in PATH, through the
/// interpreter lines of scripts and through env(1).
pub fn inspect_command(command: &[OsString]) -> Option<Unrecordable> {
    let (first, rest) = command.split_first()?;
    let mut path = find_in_path(first)?;
    let mut rest = rest.to_vec();
    for _ in 0..SCRIPTS_MAX {
        if let Some((interpreter, argument)) = interpreter_of(&path) {
            let mut words: Vec<OsString> = argument.into_iter().collect();
            words.push(path.into_os_string());
            words.append(&mut rest);
            (path, rest) = (interpreter, words);
        } else if path.file_name() == Some(OsStr::new("env")) {
            // What env starts, if no option of it has to be understood for that.
            let is_setting = |word: &OsString| word.as_bytes().contains(&b'=');
            let at = rest.iter().position(|word| !is_setting(word))?;
            rest.drain(..at);
            if rest[0].as_bytes().starts_with(b"-") {
                break;
            }
            path = find_in_path(&rest.remove(0))?;
        } else {
            break;
        }
    }
    let why = inspect(&path)?;
    Some(Unrecordable { path, why })
}

/// The file that a command's name leads to.
pub fn find_in_path(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| {
            std::fs::metadata(path)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

/// The interpreter of a script and the one argument that its first line may give.
fn interpreter_of(path: &Path) -> Option<(PathBuf, Option<OsString>)> {
    const LINE_BYTES_MAX: u64 = 256;
    let mut line = Vec::new();
    let file = File::open(path).ok()?;
    file.take(LINE_BYTES_MAX).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let (name, argument) = match line.iter().position(u8::is_ascii_whitespace) {
        Some(at) => (&line[..at], line[at..].trim_ascii()),
        None => (line, &[][..]),
    };
    let word = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let argument = (!argument.is_empty()).then(|| word(argument));
    (!name.is_empty()).then(|| (PathBuf::from(word(name)), argument))
}

/// Why the program in a file can't be recorded; `None` also where it can't be read, or is no program.
pub fn inspect(path: &Path) -> Option<Obstacle> {
    if changes_user(path) {
        return Some(Obstacle::SetUser);
    }
    let file = File::open(path).ok()?;
    let image = Image::read(&file)?;
    if image.machine != Image::X86_64 {
        return Some(match image.machine {
            Image::I386 => Obstacle::Bits32,
            _ => Obstacle::Machine,
        });
    }
    if image.bits_32 {
        return Some(Obstacle::Bits32);
    }
    if image.is_static() {
        return Some(match image.is_go(&file) {
            true => Obstacle::Go,
            false => Obstacle::Static,
        });
    }
    // SAFETY: a plain call.
    let user = unsafe { libc::getuid() };
    (user != 0 && has_capabilities(path)).then_some(Obstacle::Capabilities)
}

/// Whether the program would run as another user or group than we do.
fn changes_user(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else {
        return false;
    };
    // SAFETY: plain calls.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    let mode = metadata.mode();
    let sets_user = mode & libc::S_ISUID != 0 && metadata.uid() != user;
    let sets_group =
        mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 && metadata.gid() != group;
    metadata.is_file() && (sets_user || sets_group)
}

fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let name = c"security.capability";
    // SAFETY: both texts end in NUL; without a buffer the call only tells a length.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) > 0 }
}

/// The parts of an ELF file that matter here.
struct Image {
    bits_32: bool,
    machine: u16,
    /// ET_EXEC, not ET_DYN.
    is_fixed: bool,
    /// Type, file offset and bytes of each program header.
    programs: Vec<(u32, u64, u64)>,
    /// DT_FLAGS_1.
    flags_1: u64,
}

impl Image {
    const X86_64: u16 = 62;
    const I386: u16 = 3;
    const PT_DYNAMIC: u32 = 2;
    const PT_INTERP: u32 = 3;
    const PT_NOTE: u32 = 4;

    fn read(file: &File) -> Option<Image> {
        let mut head = [0u8; 64];
        let mut length = 0;
        while let Ok(more @ 1..) = file.read_at(&mut head[length..], length as u64) {
            length += more;
        }
        if length < 52 || !head.starts_with(b"\x7fELF") {
            return None;
        }
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let mut image = Image {
            bits_32: head[4] == 1,
            machine: half(18),
            is_fixed: half(16) == 2,
            programs: Vec::new(),
            flags_1: 0,
        };
        if image.bits_32 || length < 64 {
            return Some(image);
        }
        let offset = long(&head, 32)?;
        let (bytes, count) = (usize::from(half(54)), usize::from(half(56)));
        if bytes < 56 {
            return Some(image);
        }
        let mut table = vec![0u8; bytes * count];
        file.read_exact_at(&mut table, offset).ok()?;
        for header in table.chunks_exact(bytes) {
            let kind = u32::from_le_bytes(*header.first_chunk()?);
            image
                .programs
                .push((kind, long(header, 8)?, long(header, 32)?));
        }
        const DT_FLAGS_1: u64 = 0x6fff_fffb;
        let dynamic = image.part(file, Image::PT_DYNAMIC).unwrap_or_default();
        for entry in dynamic.chunks_exact(16) {
            if long(entry, 0)? == DT_FLAGS_1 {
                image.flags_1 = long(entry, 8)?;
            }
        }
        Some(image)
    }

    /// What the first program header of a kind names; nothing where that is too long to be true.
    fn part(&self, file: &File, kind: u32) -> Option<Vec<u8>> {
        const BYTES_MAX: u64 = 64 << 10;
        let (_, offset, bytes) = *self.programs.iter().find(|(of, _, _)| *of == kind)?;
        if bytes > BYTES_MAX {
            return None;
        }
        let mut part = vec![0u8; bytes as usize];
        file.read_exact_at(&mut part, offset).ok()?;
        Some(part)
    }

    /// Whether it runs without a dynamic linker. The dynamic linker itself, which can be called as a
    /// command, is a shared library and no position-independent program.
    fn is_static(&self) -> bool {
        const DF_1_PIE: u64 = 0x0800_0000;
        let has_linker = self
            .programs
            .iter()
            .any(|(kind, ..)| *kind == Image::PT_INTERP);
        !has_linker && (self.is_fixed || self.flags_1 & DF_1_PIE != 0)
    }

    /// Whether the Go toolchain left its note.
    fn is_go(&self, file: &File) -> bool {
        let notes = self.part(file, Image::PT_NOTE).unwrap_or_default();
        notes.windows(4).any(|name| name == b"Go\0\0")
    }
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(bits: u8, kind: u16, machine: u16, headers: &[u32]) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.extend([bits, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(machine.to_le_bytes());
        bytes.resize(32, 0);
        bytes.extend(64u64.to_le_bytes());
        bytes.resize(54, 0);
        bytes.extend(56u16.to_le_bytes());
        bytes.extend((headers.len() as u16).to_le_bytes());
        bytes.resize(64, 0);
        for kind in headers {
            bytes.extend(kind.to_le_bytes());
            bytes.resize(bytes.len() + 52, 0);
        }
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Obstacle> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        inspect(file.path())
    }

    #[test]
    fn programs_are_told_apart() {
        assert_eq!(of(&image(2, 2, 62, &[1])), Some(Obstacle::Static));
        assert_eq!(of(&image(2, 2, 62, &[1, 3])), None);
        assert_eq!(of(&image(2, 3, 62, &[1, 3, 2])), None);
        // The dynamic linker.
        assert_eq!(of(&image(2, 3, 62, &[1, 2])), None);
        assert_eq!(of(&image(1, 2, 3, &[])), Some(Obstacle::Bits32));
        assert_eq!(of(&image(2, 3, 183, &[1, 3])), Some(Obstacle::Machine));
        assert_eq!(of(b"#!/bin/sh\n"), None);
        assert_eq!(of(b""), None);
    }

    /// Bytes that are no program, or a damaged one, are no reason to fail.
    #[test]
    fn damaged_headers_are_survived() {
        let whole = image(2, 3, 62, &[2, 4, 3]);
        for end in 0..whole.len() {
            of(&whole[..end]);
        }
        for at in 0..whole.len() {
            let mut spoiled = whole.clone();
            spoiled[at] = 0xff;
            of(&spoiled);
        }
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            interpreter_of(file.path())
        };
        let path = PathBuf::from("/bin/sh");
        assert_eq!(of("#!/bin/sh\necho"), Some((path.clone(), None)));
        assert_eq!(of("#! /bin/sh  -e \n"), Some((path, Some("-e".into()))));
        assert_eq!(of("#!\n"), None);
        assert_eq!(of("echo"), None);
    }
}
