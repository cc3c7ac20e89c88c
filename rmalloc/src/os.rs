//! Linux: every system call of the crate.

use crate::platform::{PAGE, Platform};
use core::ptr::null_mut;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

/// membarrier(2): MEMBARRIER_CMD_PRIVATE_EXPEDITED and the command that registers for it.
const BARRIER: libc::c_int = 1 << 3;
const REGISTER: libc::c_int = 1 << 4;

/// The platform of heaps that grow; asks the kernel once whether it has the barrier.
pub(crate) fn platform() -> Platform {
    Platform {
        commit,
        release,
        clock_ns,
        barrier,
        wait,
        wake,
        pause: yield_now,
        has_barrier: register_barrier(),
    }
}

/// The platform of heaps over memory of the caller's: nothing is asked of the system but time and waiting.
pub(crate) fn platform_given() -> Platform {
    Platform {
        commit: |_, _| true,
        release: |_, _| {},
        ..platform()
    }
}

/// 0 not asked yet, 1 the kernel has it, 2 not, 3 not to be used (tests).
static HAS_BARRIER: AtomicU32 = AtomicU32::new(0);

/// Registers the process for the barrier; to be called again in a forked child. False: this kernel has none.
pub(crate) fn register_barrier() -> bool {
    if HAS_BARRIER.load(Relaxed) == 3 {
        return false;
    }
    // SAFETY: touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, REGISTER, 0, 0) } == 0;
    // Heaps made with the barrier can't do without it: once there, it stays.
    if HAS_BARRIER.load(Relaxed) != 1 {
        HAS_BARRIER.store(if done { 1 } else { 2 }, Relaxed);
    }
    done
}

/// As if the kernel had no barrier: heaps made from now on pass one of their own in each lock. Before the first heap.
#[cfg(any(test, feature = "check"))]
pub(crate) fn forbid_barrier() {
    HAS_BARRIER.store(3, Relaxed);
}

fn barrier() {
    if HAS_BARRIER.load(Relaxed) == 1 {
        // SAFETY: touches no memory. It can't fail for a process that is registered.
        unsafe { libc::syscall(libc::SYS_membarrier, BARRIER, 0, 0) };
    }
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

unsafe fn commit(at: *mut u8, bytes: usize) -> bool {
    // SAFETY: the caller's pages, reserved by us.
    unsafe { libc::mprotect(at.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) == 0 }
}

unsafe fn release(at: *mut u8, bytes: usize) {
    // SAFETY: the caller's pages hold nothing of use. A failure leaves them resident: no harm but to space.
    unsafe { libc::madvise(at.cast(), bytes, libc::MADV_DONTNEED) };
}

/// CLOCK_MONOTONIC.
pub(crate) fn clock_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn wait(word: &AtomicU32, value: u32) {
    // SAFETY: waits on a word that lives.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            value,
            null_mut::<libc::timespec>(),
        )
    };
}

fn wake(word: &AtomicU32) {
    // SAFETY: as above.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        )
    };
}

/// Reserves a range of addresses that nothing can be stored to yet. `None`: refused.
pub(crate) fn reserve(bytes: usize) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return None;
    }
    // Huge pages would make memory resident that no block has. An old kernel may not know the advice.
    // SAFETY: our own mapping.
    unsafe { libc::madvise(at, bytes, libc::MADV_NOHUGEPAGE) };
    Some(at.cast())
}

/// Ends a reservation.
///
/// # Safety
/// It came from [`reserve`], and nothing of it is in use.
pub(crate) unsafe fn unreserve(at: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(at.cast(), bytes) };
}

/// Some pages of zeros, for tables of ours.
pub(crate) fn map(bytes: usize) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    let at = unsafe {
        libc::mmap(
            null_mut(),
            bytes.next_multiple_of(PAGE),
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    (at != libc::MAP_FAILED).then_some(at.cast())
}

/// Bytes of address space that the process may have (RLIMIT_AS); `None`: any number.
pub(crate) fn address_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes one rlimit.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Lets other threads run.
pub(crate) fn yield_now() {
    // SAFETY: touches no memory.
    unsafe { libc::sched_yield() };
}

/// Runs `f` with every signal blocked in the calling thread; a thread that it starts has them blocked for good.
pub(crate) fn without_signals<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: both sets are written before they are read; the mask is put back.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        let mut before: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = f();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, null_mut());
        result
    }
}

/// Has these functions called when the process forks: before, then in the parent, then in the child.
pub(crate) fn at_fork(
    before: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) {
    // SAFETY: the functions live as long as the program.
    unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
}

/// Writes a line to standard error, without allocating.
#[cfg(feature = "checked")]
pub(crate) fn complain(text: core::fmt::Arguments) {
    struct Line([u8; 256], usize);
    impl core::fmt::Write for Line {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            let room = self.0.len() - 1 - self.1;
            let count = text.len().min(room);
            self.0[self.1..self.1 + count].copy_from_slice(&text.as_bytes()[..count]);
            self.1 += count;
            Ok(())
        }
    }
    let mut line = Line([0; 256], 0);
    let _ = core::fmt::Write::write_fmt(&mut line, text);
    line.0[line.1] = b'\n';
    // SAFETY: the bytes are ours.
    unsafe { libc::write(2, line.0.as_ptr().cast(), line.1 + 1) };
}
