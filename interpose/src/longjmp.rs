//! The longjmp family: what leaves frames behind. The guard of hooked calls among them is taken back,
//! then the original goes on with all registers as they were.

use crate::{elf, start, sys, thread};
use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

macro_rules! longjmps {
    ($($name:ident $n:literal;)*) => {$(
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                "push rdi",
                "push rsi",
                "push rax",
                "mov rsi, rdi",
                concat!("mov edi, ", $n),
                "call {}",
                "mov r11, rax",
                "pop rax",
                "pop rsi",
                "pop rdi",
                "jmp r11",
                sym begin
            )
        }
    )*};
}

longjmps! {
    longjmp 0;
    _longjmp 1;
    siglongjmp 2;
    __longjmp_chk 3;
}

/// Names of the functions.
pub const NAMES: [&[u8]; 4] = [b"longjmp", b"_longjmp", b"siglongjmp", b"__longjmp_chk"];
static REAL: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

/// Sets the original of function `n` of [`NAMES`].
pub fn set_real(n: usize, address: usize) {
    if let Some(real) = REAL.get(n) {
        real.store(address, Relaxed);
    }
}

/// The stack pointer that a `jmp_buf` leads to: word 6 of it, which glibc mangles (rotated left by 17
/// after an exclusive or with the guard at fs:0x30).
fn jump_stack_pointer(target: *const usize) -> usize {
    // SAFETY: the program's own jmp_buf, which longjmp is about to read.
    let stored = unsafe { target.wrapping_add(6).read() };
    if elf::initial_stack().is_null() {
        return stored;
    }
    let guard: usize;
    // SAFETY: glibc keeps its pointer guard there.
    unsafe {
        asm!("mov {}, fs:[0x30]", out(reg) guard, options(nostack, readonly, preserves_flags));
    }
    stored.rotate_right(17) ^ guard
}

extern "C" fn begin(n: usize, target: *const usize) -> usize {
    thread::abandon_below(jump_stack_pointer(target));
    let address = REAL.get(n).map_or(0, |real| real.load(Relaxed));
    if address == 0 {
        start::start_once();
    }
    match REAL.get(n).map_or(0, |real| real.load(Relaxed)) {
        0 => sys::abort(),
        address => address,
    }
}
