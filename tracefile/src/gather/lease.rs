//! Whether other processes have a file open or mapped, without knowing which.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// What asking for a write lease tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// No other process has the file.
    Alone,
    /// Another one has it open or mapped.
    InUse,
    /// The file system or our rights do not let us ask.
    Unknown,
}

/// Asks for a write lease on `file`, which must be the only descriptor of this process for it, and
/// gives it back at once.
pub fn ask(file: &File) -> Lease {
    let fd = file.as_raw_fd();
    // SAFETY: plain calls on a descriptor that is open while `file` is borrowed.
    let got = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) };
    if got == 0 {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        return Lease::Alone;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Lease::InUse,
        _ => Lease::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_descriptor_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create_new(&path).unwrap();
        if ask(&file) == Lease::Unknown {
            return; // Not on this file system.
        }
        assert_eq!(ask(&file), Lease::Alone);
        let other = File::open(&path).unwrap();
        assert_eq!(ask(&file), Lease::InUse);
        drop(other);
        assert_eq!(ask(&file), Lease::Alone);
    }
}
