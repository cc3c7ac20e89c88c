//! What a recorded program may call itself (`include/rmtrace.h`): marks in its own trace.

use crate::thread::{self, Guard};
use crate::{process, rundir};
use core::ffi::{c_char, c_int};
use rmtrace_format::record::Name;

/// Sets a mark; also while recording is paused. 1 if it is in the trace, 0 if not: no memory for it, or
/// called by a signal handler within an allocation function.
///
/// # Safety
/// `name` is NULL or a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn rmtrace_mark(name: *const c_char) -> c_int {
    if !process::is_started() {
        return 0;
    }
    let name = match name.is_null() {
        true => Name::NONE,
        // SAFETY: the caller's promise; no more is read than is used.
        false => Name::new(unsafe { bytes(name) }),
    };
    let Guard::Record(thread) = thread::enter_always() else {
        return 0;
    };
    let done = thread.mark_named(&name);
    thread.leave();
    c_int::from(done)
}

/// Whether calls are being recorded now.
#[unsafe(no_mangle)]
extern "C" fn rmtrace_is_recording() -> c_int {
    c_int::from(process::is_started() && rundir::paused() == 0)
}

/// The bytes of a string.
///
/// # Safety
/// `at` is the start of a string, which stays while the iterator is used.
unsafe fn bytes(at: *const c_char) -> impl Iterator<Item = u8> {
    let mut at = at as *const u8;
    core::iter::from_fn(move || {
        // SAFETY: the string goes on until its NUL, behind which nothing is read.
        let byte = unsafe { at.read() };
        (byte != 0).then(|| {
            at = at.wrapping_add(1);
            byte
        })
    })
}
