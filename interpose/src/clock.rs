//! Stamps: the TSC where it is to be trusted, else CLOCK_MONOTONIC; and the triples that tie them.

use crate::{elf, sys};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use rmtrace_format::chunk::Triple;

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_BOOTTIME: i32 = 7;

type ClockGettime = unsafe extern "C" fn(i32, *mut [i64; 2]) -> i32;

/// The vDSO's `clock_gettime`, 0 where there is none.
static VDSO_CLOCK: AtomicUsize = AtomicUsize::new(0);
/// Whether stamps are CLOCK_MONOTONIC nanoseconds.
static MONOTONIC: AtomicBool = AtomicBool::new(false);

/// Chooses the clock. `vdso` is the address of the vDSO's ELF header, or 0.
pub fn start(vdso: usize) {
    // SAFETY: the kernel says that the vDSO is there.
    let clock = unsafe { elf::vdso_symbol(vdso, b"__vdso_clock_gettime") };
    VDSO_CLOCK.store(clock, Relaxed);
    let mut name = [0u8; 8];
    let path = c"/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let fd = sys::open(path, sys::O_RDONLY | sys::O_CLOEXEC, 0);
    if fd >= 0 {
        sys::read(fd as i32, &mut name);
        sys::close(fd as i32);
    }
    let leaves = __cpuid(0x8000_0000).eax;
    let invariant = leaves >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0;
    MONOTONIC.store(!(name.starts_with(b"tsc") && invariant), Relaxed);
}

/// Whether stamps are CLOCK_MONOTONIC nanoseconds.
pub fn is_monotonic() -> bool {
    MONOTONIC.load(Relaxed)
}

#[inline(never)]
fn now_ns(clock: i32) -> u64 {
    let mut time = [0i64; 2];
    let vdso = VDSO_CLOCK.load(Relaxed);
    if vdso != 0 {
        // SAFETY: `start` found this address under the function's name in the vDSO.
        let call = unsafe { core::mem::transmute::<usize, ClockGettime>(vdso) };
        // SAFETY: `time` is writable.
        unsafe { call(clock, &mut time) };
    } else {
        sys::clock_gettime(clock, &mut time);
    }
    let [seconds, nanoseconds] = time;
    (seconds as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(nanoseconds as u64)
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    now_ns(CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    now_ns(CLOCK_REALTIME)
}

/// A stamp for what comes next: everything after it in program order is seen later by others.
#[inline(always)]
pub fn stamp_before() -> u64 {
    if MONOTONIC.load(Relaxed) {
        return monotonic_ns();
    }
    ticks()
}

/// A stamp for what has happened: see [`ticks_after`].
pub fn stamp_after(alone: bool) -> u64 {
    if MONOTONIC.load(Relaxed) {
        return monotonic_ns();
    }
    ticks_after(alone)
}

/// The time-stamp counter, whether it is to be trusted or not: the hot path's stamp of what comes next.
/// Where it is not, all records take the cold path, which reads the other clock.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: x86-64 has `rdtsc`.
    unsafe { _rdtsc() }
}

/// As [`ticks`], of what has happened: the counter is read after the loads before it. `alone` (no other
/// thread records in this process) saves the fence, as nobody's order depends on it.
#[inline(always)]
pub fn ticks_after(alone: bool) -> u64 {
    if !alone {
        // SAFETY: a fence changes nothing but order.
        unsafe { asm!("lfence", options(nostack, preserves_flags)) };
    }
    ticks()
}

/// One moment on three clocks. The TSC is read before and after the clock, up to a few times until
/// the two are close, and the middle is taken.
pub fn triple() -> Triple {
    let mut best = Triple::default();
    let mut best_width = u64::MAX;
    for _ in 0..4 {
        let before = stamp_before();
        let monotonic_ns = monotonic_ns();
        let after = stamp_after(false);
        let width = after.wrapping_sub(before);
        if width < best_width {
            best_width = width;
            let tsc = if is_monotonic() {
                monotonic_ns
            } else {
                before.wrapping_add(width / 2)
            };
            best = Triple {
                tsc,
                monotonic_ns,
                boottime_ns: 0,
            };
        }
        if width < 400 {
            break;
        }
    }
    // CLOCK_BOOTTIME without the vDSO would be a system call that sandboxes may refuse.
    best.boottime_ns = if VDSO_CLOCK.load(Relaxed) != 0 {
        now_ns(CLOCK_BOOTTIME)
    } else {
        best.monotonic_ns
    };
    best
}
