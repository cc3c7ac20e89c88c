//! Marks in the program's own recording, to tell its phases apart in the analysis.
//!
//! ```
//! rmtrace_marks::mark("parsed");
//! ```
//!
//! Without `librmtrace.so` in the process (`rmtrace record`, or LD_PRELOAD) both functions do nothing;
//! they look for the library once. On other systems than Linux they never find it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of a name that count.
pub const NAME_BYTES_MAX: usize = 63;

/// A function of the library, looked for at its first use.
struct Symbol {
    name: &'static CStr,
    /// The symbol's own place until it was looked for; null if it is not there.
    address: AtomicPtr<c_void>,
}

static UNKNOWN: u8 = 0;

impl Symbol {
    const fn new(name: &'static CStr) -> Symbol {
        let unknown = &raw const UNKNOWN;
        Symbol {
            name,
            address: AtomicPtr::new(unknown.cast_mut().cast()),
        }
    }

    fn address(&self) -> *mut c_void {
        let known = self.address.load(Relaxed);
        if !std::ptr::eq(known.cast_const().cast(), &raw const UNKNOWN) {
            return known;
        }
        let found = find(self.name);
        self.address.store(found, Relaxed);
        found
    }
}

#[cfg(target_os = "linux")]
fn find(name: &CStr) -> *mut c_void {
    unsafe extern "C" {
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    // SAFETY: a null handle is RTLD_DEFAULT on Linux; `name` ends with NUL.
    unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) }
}

#[cfg(not(target_os = "linux"))]
fn find(_name: &CStr) -> *mut c_void {
    std::ptr::null_mut()
}

static MARK: Symbol = Symbol::new(c"rmtrace_mark");
static IS_RECORDING: Symbol = Symbol::new(c"rmtrace_is_recording");

/// Sets a mark with this name, of which the first [`NAME_BYTES_MAX`] bytes up to a NUL count. Whether it
/// is in the trace. Does not allocate, but for the first call in a process without the library.
pub fn mark(name: &str) -> bool {
    let address = MARK.address();
    if address.is_null() {
        return false;
    }
    let mut text = [0u8; NAME_BYTES_MAX + 1];
    let length = length_of(name);
    text[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: the library exports a function of this type under this name.
    let mark = unsafe {
        std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> c_int>(address)
    };
    // SAFETY: `text` ends with NUL.
    unsafe { mark(text.as_ptr().cast()) != 0 }
}

/// Whether calls are being recorded at the moment: the library is loaded, and recording is not paused.
pub fn is_recording() -> bool {
    let address = IS_RECORDING.address();
    if address.is_null() {
        return false;
    }
    // SAFETY: the library exports a function of this type under this name.
    let is_recording =
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(address) };
    is_recording() != 0
}

/// Bytes of `name` that fit, without a part of a character.
fn length_of(name: &str) -> usize {
    let mut length = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_nothing_happens() {
        if std::env::var_os("RMTRACE_SPOOL").is_none() {
            assert!(!mark("nobody hears it"));
            assert!(!mark("again"));
            assert!(!is_recording());
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        let name = "\u{e4}".repeat(40);
        assert_eq!(length_of(&name), 62);
        assert_eq!(length_of("short"), 5);
    }
}
