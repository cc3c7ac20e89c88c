//! Every system call of the library, raw: no libc, errno stays as it was.
//!
//! Precondition of all of them: x86-64 Linux. A result of -4095..=-1 is a negated error number.

use core::arch::asm;

pub const O_RDONLY: i32 = 0;
pub const O_WRONLY: i32 = 1;
pub const O_RDWR: i32 = 2;
pub const O_CREAT: i32 = 0o100;
pub const O_EXCL: i32 = 0o200;
pub const O_APPEND: i32 = 0o2000;
pub const O_DIRECTORY: i32 = 0o200_000;
pub const O_NOFOLLOW: i32 = 0o400_000;
pub const O_CLOEXEC: i32 = 0o2_000_000;

pub const PROT_READ: i32 = 1;
pub const PROT_WRITE: i32 = 2;
pub const PROT_EXEC: i32 = 4;
pub const MAP_SHARED: i32 = 1;
pub const MAP_PRIVATE: i32 = 2;
pub const MAP_FIXED: i32 = 0x10;
pub const MAP_ANONYMOUS: i32 = 0x20;
pub const MAP_NORESERVE: i32 = 0x4000;
pub const MAP_FIXED_NOREPLACE: i32 = 0x10_0000;
pub const MADV_WIPEONFORK: i32 = 18;

pub const EINTR: isize = 4;

pub const TMPFS_MAGIC: u64 = 0x0102_1994;
pub const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// One raw system call.
///
/// # Safety
/// The arguments are what the kernel expects of call `number`; pointers are valid for what it
/// reads and writes.
#[inline]
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the kernel clobbers rcx and r11 only; the rest is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

macro_rules! call {
    (@six $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr $(, $rest:expr)*) => {
        [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize]
    };
    ($number:literal $(, $arg:expr)*) => {{
        let args = call!(@six $($arg,)* 0, 0, 0, 0, 0, 0);
        // SAFETY: the wrapper's own arguments are typed; its contract covers pointers.
        unsafe { syscall($number, args) }
    }};
}

/// A path for the kernel: bytes that end in NUL.
pub type Path<'a> = &'a core::ffi::CStr;

pub fn write(fd: i32, bytes: *const u8, length: usize) -> isize {
    call!(1, fd, bytes, length)
}

pub fn pwrite(fd: i32, bytes: *const u8, length: usize) -> isize {
    call!(18, fd, bytes, length, 0)
}

pub fn read(fd: i32, bytes: &mut [u8]) -> isize {
    call!(0, fd, bytes.as_mut_ptr(), bytes.len())
}

pub fn open(path: Path, flags: i32, mode: u32) -> isize {
    call!(257, -100isize, path.as_ptr(), flags, mode)
}

pub fn close(fd: i32) -> isize {
    call!(3, fd)
}

pub fn mkdir(path: Path, mode: u32) -> isize {
    call!(83, path.as_ptr(), mode)
}

pub fn symlink(target: Path, link: Path) -> isize {
    call!(88, target.as_ptr(), link.as_ptr())
}

pub fn rmdir(path: Path) -> isize {
    call!(84, path.as_ptr())
}

pub fn unlink(path: Path) -> isize {
    call!(87, path.as_ptr())
}

pub fn getcwd(buffer: &mut [u8]) -> isize {
    call!(79, buffer.as_mut_ptr(), buffer.len())
}

pub fn readlink(path: Path, buffer: &mut [u8]) -> isize {
    call!(89, path.as_ptr(), buffer.as_mut_ptr(), buffer.len())
}

pub fn ftruncate(fd: i32, length: u64) -> isize {
    call!(77, fd, length)
}

/// # Safety
/// With `MAP_FIXED` the range is the caller's to replace.
pub unsafe fn mmap(at: usize, length: usize, protection: i32, flags: i32, fd: i32) -> isize {
    call!(9, at, length, protection, flags, fd as isize, 0)
}

/// # Safety
/// Nobody needs the range with its old protection.
pub unsafe fn mprotect(at: usize, length: usize, protection: i32) -> isize {
    call!(10, at, length, protection)
}

pub fn munmap(at: usize, length: usize) -> isize {
    call!(11, at, length)
}

pub fn madvise(at: usize, length: usize, advice: i32) -> isize {
    call!(28, at, length, advice)
}

/// `fcntl(fd, F_DUPFD_CLOEXEC, lowest)`.
pub fn dup_from(fd: i32, lowest: i32) -> isize {
    call!(72, fd, 1030, lowest)
}

pub fn getpid() -> u32 {
    call!(39) as u32
}

pub fn getppid() -> u32 {
    call!(110) as u32
}

pub fn gettid() -> u32 {
    call!(186) as u32
}

/// Fills `bytes` with random bytes; whether it could.
pub fn random(bytes: &mut [u8]) -> bool {
    call!(318, bytes.as_mut_ptr(), bytes.len(), 0) == bytes.len() as isize
}

/// What `fstat` says that we compare.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    pub device: u64,
    pub inode: u64,
    pub links: u64,
    pub bytes: u64,
}

fn stat_of(result: isize, buffer: &[u64; 18]) -> Option<Stat> {
    let [device, inode, links, _, _, _, bytes, ..] = *buffer;
    (result == 0).then_some(Stat {
        device,
        inode,
        links,
        bytes,
    })
}

pub fn fstat(fd: i32) -> Option<Stat> {
    let mut buffer = [0u64; 18];
    stat_of(call!(5, fd, buffer.as_mut_ptr()), &buffer)
}

pub fn stat(path: Path) -> Option<Stat> {
    let mut buffer = [0u64; 18];
    stat_of(call!(4, path.as_ptr(), buffer.as_mut_ptr()), &buffer)
}

/// What is known of a file system.
#[derive(Clone, Copy, Default)]
pub struct FileSystem {
    /// Whether it lives in memory.
    pub in_memory: bool,
    /// Bytes that we may still take.
    pub free_bytes: u64,
}

/// The file system under `fd`.
pub fn file_system(fd: i32) -> FileSystem {
    let mut buffer = [0u64; 15];
    let result = call!(138, fd, buffer.as_mut_ptr());
    let [kind, block_bytes, blocks, _, blocks_free, ..] = buffer;
    match result {
        0 => FileSystem {
            in_memory: kind == TMPFS_MAGIC || kind == RAMFS_MAGIC,
            // One without a limit has no blocks.
            free_bytes: match blocks {
                0 => u64::MAX,
                _ => block_bytes.saturating_mul(blocks_free),
            },
        },
        _ => FileSystem::default(),
    }
}

/// Soft and hard limit of `resource`.
pub fn limit(resource: i32) -> (u64, u64) {
    let mut pair = [u64::MAX; 2];
    call!(302, 0, resource, 0, pair.as_mut_ptr());
    let [soft, hard] = pair;
    (soft, hard)
}

pub const RLIMIT_FSIZE: i32 = 1;
pub const RLIMIT_NOFILE: i32 = 7;

/// Whether the thread runs on its alternate signal stack.
pub fn on_signal_stack() -> bool {
    let mut stack = [0u64; 3];
    let result = call!(131, 0, stack.as_mut_ptr());
    let [_, flags, _] = stack;
    result == 0 && flags as u32 & 1 != 0
}

/// Sleeps for `ns` (below one second); a signal may end it early.
pub fn sleep(ns: u64) {
    let time = [0u64, ns];
    call!(35, time.as_ptr(), 0);
}

pub fn clock_gettime(clock: i32, time: &mut [i64; 2]) -> isize {
    call!(228, clock, time.as_mut_ptr())
}

/// Makes the pages of a fresh shared mapping present without risking SIGBUS: the kernel stores the
/// signal mask to the first bytes of each page and answers EFAULT where no page can be had. Every
/// sandbox allows this call. Returns whether all are present.
///
/// # Safety
/// `at..at + length` is mapped and the first 8 bytes of its pages hold nothing of value.
pub unsafe fn make_present(at: usize, length: usize) -> bool {
    let mut page = at & !4095;
    while page < at.wrapping_add(length) {
        if call!(14, 0, 0, page, 8) < 0 {
            return false;
        }
        page = page.wrapping_add(4096);
    }
    true
}

/// As [`make_present`], for the page of one word.
///
/// # Safety
/// `at` is mapped, and its 8 bytes hold nothing of value.
pub unsafe fn make_word_present(at: usize) -> bool {
    call!(14, 0, 0, at, 8) == 0
}

/// Whether the word at `at`, in a mapping whose memory may be missing, can be read: the kernel reads
/// it as a set of signals to block, and answers EFAULT where a load would raise SIGBUS.
///
/// # Safety
/// All signals are blocked.
pub unsafe fn is_readable(at: usize) -> bool {
    const BLOCK: i32 = 0;
    call!(14, BLOCK, at, 0, 8) == 0
}

/// Signals that the thread itself raises: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS. The kernel
/// ends a process that raises one while it is blocked, where a sandbox would have handled it.
const OWN_SIGNALS: u64 = 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 30;

/// Blocks the signals that others send; the mask to restore.
pub fn block_signals() -> u64 {
    const SETMASK: i32 = 2;
    let (all, mut before) = (!OWN_SIGNALS, 0u64);
    call!(14, SETMASK, &raw const all, &raw mut before, 8);
    before
}

/// Sets the signal mask.
pub fn restore_signals(mask: u64) {
    const SETMASK: i32 = 2;
    call!(14, SETMASK, &raw const mask, 0, 8);
}

/// Says something on standard error.
pub fn say(parts: &[&[u8]]) {
    let mut line = [0u8; 512];
    let mut length = 0usize;
    for part in parts.iter().chain([&b"\n".as_slice()]) {
        for byte in part.iter() {
            if let Some(slot) = line.get_mut(length) {
                *slot = *byte;
                length = length.wrapping_add(1);
            }
        }
    }
    write(2, line.as_ptr(), length);
}

/// Ends the process at once: the one answer to a broken invariant of ours.
pub fn abort() -> ! {
    // SAFETY: `ud2` raises SIGILL and does not return.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}
