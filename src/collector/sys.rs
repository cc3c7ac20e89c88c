//! The system calls of the collector, all of them here: clocks, leases, signals, children.
//!
//! Preconditions: [`catch_signals`] and [`become_subreaper`] change the whole process and are for
//! the command alone; everything else may be called from anywhere.

use rmtrace_format::chunk::Triple;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed};

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable; these clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000) + time.tv_nsec as u64
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// CPU time of this process in nanoseconds.
pub fn cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn tsc() -> u64 {
    // SAFETY: x86-64 has `rdtsc`.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// One moment on three clocks: of several readings the one least disturbed.
pub fn triple() -> Triple {
    let mut best = (u64::MAX, Triple::default());
    for _ in 0..8 {
        let before = tsc();
        let monotonic_ns = monotonic_ns();
        let width = tsc().saturating_sub(before);
        if width < best.0 {
            let triple = Triple {
                tsc: before + width / 2,
                monotonic_ns,
                boottime_ns: 0,
            };
            best = (width, triple);
        }
        if width < 200 {
            break;
        }
    }
    Triple {
        boottime_ns: clock_ns(libc::CLOCK_BOOTTIME),
        ..best.1
    }
}

/// Orphaned descendants become our children, so that their ends are seen.
pub fn become_subreaper() {
    // SAFETY: changes an attribute of this process; failure only means that less is seen.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// What waiting for children without blocking says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// This child ended, with this wait status.
    Ended(u32, i32),
    /// There are children, none of which has ended.
    Running,
    /// There are no children.
    NoChildren,
}

/// Waits for a child without blocking.
pub fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: `status` is writable.
    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
        0 => Reaped::Running,
        pid if pid > 0 => Reaped::Ended(pid as u32, status),
        _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => Reaped::Running,
        _ => Reaped::NoChildren,
    }
}

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
static FORWARD: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(signal: libc::c_int) {
    match signal {
        libc::SIGINT => {
            INTERRUPTS.fetch_add(1, Relaxed);
        }
        libc::SIGTERM | libc::SIGHUP => FORWARD.store(signal, Relaxed),
        _ => {}
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero `sigaction` is a valid value to be overwritten.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks only; `now` is writable.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &mut now) } == 0;
    asked && now.sa_sigaction == libc::SIG_IGN
}

/// Catches the signals that end programs: counted, not acted on. What was ignored at the start stays
/// so, for the recorded program too.
pub fn catch_signals() {
    let signals = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGXFSZ];
    for signal in signals {
        if is_ignored(signal) {
            continue;
        }
        // SAFETY: an all-zero `sigaction` is a valid value; the handler does nothing but atomic
        // stores, and handlers do not outlive an exec.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Interrupts (Ctrl-C) so far.
pub fn interrupts() -> u32 {
    INTERRUPTS.load(Relaxed)
}

/// A signal that is to be forwarded, once.
pub fn signal_to_forward() -> Option<i32> {
    match FORWARD.swap(0, Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}

/// Sends a signal to a process.
pub fn send(pid: u32, signal: i32) {
    // SAFETY: a plain call.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Ends this process by `signal`, as the recorded program ended, without a core file.
pub fn die_by(signal: i32) {
    // SAFETY: restores the default action and raises; an all-zero `sigaction` is SIG_DFL.
    unsafe {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        let action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &action, std::ptr::null_mut());
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signal);
    }
}

/// Ends `accept` on a listening socket.
pub fn shut_down(listener: &std::os::unix::net::UnixListener) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is the listener's, which is open.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Bytes that are free on the file system of `path`.
pub fn free_bytes(path: &std::path::Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero `statvfs` is a valid value to be overwritten; `path` ends with NUL.
    unsafe {
        let mut info: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut info) == 0).then(|| match info.f_blocks {
            0 => u64::MAX, // No limit.
            _ => info.f_bavail.saturating_mul(info.f_frsize),
        })
    }
}

/// Two files change places, at once where the file system can do that.
pub fn exchange(one: &std::path::Path, other: &std::path::Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &std::path::Path| std::ffi::CString::new(path.as_os_str().as_bytes());
    let (from, to) = (name(one)?, name(other)?);
    // SAFETY: both names end with NUL.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    let error = match result {
        0 => return Ok(()),
        _ => io::Error::last_os_error(),
    };
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => {
            let mut between = one.as_os_str().to_owned();
            between.push(".next");
            std::fs::rename(other, &between)?;
            std::fs::rename(one, other)?;
            std::fs::rename(&between, one)
        }
        _ => Err(error),
    }
}

/// The user whose rights count.
pub fn user() -> u32 {
    // SAFETY: a plain call.
    unsafe { libc::geteuid() }
}

/// A traced program can make a file shorter that we have mapped. Then the kernel raises SIGBUS where we
/// touch it: private zeros take the place of what is gone, so that only that program's recording ends.
pub fn survive_truncation() {
    // SAFETY: an all-zero `sigaction` is a valid value; the handler makes system calls only.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

extern "C" fn on_bus(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `info`. The only writable mappings of files in this process
    // are spools and the control file, made of atomics, and none of their pages is executable.
    unsafe {
        let page = (*info).si_addr() as usize & !4095;
        let replaced = (*info).si_code == libc::BUS_ADRERR
            && libc::mmap(
                page as *mut libc::c_void,
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            ) != libc::MAP_FAILED;
        if !replaced {
            let action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Random bytes for names.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is writable and of this length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match got {
        8 => u64::from_le_bytes(bytes),
        _ => realtime_ns() ^ u64::from(std::process::id()) << 32,
    }
}
