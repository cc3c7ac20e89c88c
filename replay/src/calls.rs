//! Counts the system calls of a worker between two marks: a tracer (ptrace) stops it at each. Exact, and far too slow to
//! be timed, so it is a round of its own.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Output, Stdio};

/// First argument of the marks: `getppid` takes none and changes nothing.
const MARK: u64 = 0x726d_7472_6163_6501;
/// PTRACE_GET_SYSCALL_INFO, and what it says at an entry (Linux 5.3, include/uapi/linux/ptrace.h).
const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const ENTRY: u64 = 1;
/// Words of `struct ptrace_syscall_info` at an entry: kind, instruction, stack, number, six arguments.
const INFO_WORDS: usize = 11;

/// Calls that are told by name.
const NAMED: [(libc::c_long, &str); 8] = [
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_mremap, "mremap"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_brk, "brk"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_membarrier, "membarrier"),
];

/// Marks where counting begins, or ends.
pub fn mark(begins: bool) {
    // SAFETY: `getppid` takes no arguments and always succeeds.
    unsafe { libc::syscall(libc::SYS_getppid, MARK, u64::from(begins)) };
}

/// Runs a command to its end; how often it called what between the marks, by name, and `others`.
///
/// # Errors
/// When the command can't be started, or tracing is refused.
pub fn trace(command: &mut Command) -> io::Result<(Output, BTreeMap<&'static str, u64>)> {
    command.stderr(Stdio::null());
    let traced = || match request(libc::PTRACE_TRACEME, 0, 0, 0) {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: between fork and exec a single system call is made.
    let child = unsafe { command.pre_exec(traced) }.spawn()?;
    let mut tracer = Tracer {
        process: child.id() as libc::pid_t,
        counts: NAMED.iter().map(|(_, name)| (*name, 0)).collect(),
        counts_now: false,
        threads: Vec::new(),
        error: None,
    };
    tracer.counts.insert("others", 0);
    let status = tracer.follow()?;
    match tracer.error {
        Some(error) => Err(error),
        None => Ok((
            Output {
                status,
                stdout: Vec::new(),
                stderr: Vec::new(),
            },
            tracer.counts,
        )),
    }
}

struct Tracer {
    process: libc::pid_t,
    counts: BTreeMap<&'static str, u64>,
    counts_now: bool,
    /// Threads that have been seen.
    threads: Vec<libc::pid_t>,
    error: Option<io::Error>,
}

impl Tracer {
    fn follow(&mut self) -> io::Result<ExitStatus> {
        loop {
            let mut status = 0;
            // Of this thread's children alone: others are not ours to wait for.
            let options = libc::__WALL | libc::__WNOTHREAD;
            // SAFETY: the status is written to a local variable.
            let thread = unsafe { libc::waitpid(-1, &mut status, options) };
            if thread < 0 {
                return Err(io::Error::last_os_error());
            }
            if !libc::WIFSTOPPED(status) {
                if thread == self.process {
                    return Ok(ExitStatus::from_raw(status));
                }
                continue;
            }
            let signal = self.stopped(thread, libc::WSTOPSIG(status), status >> 16);
            // Fails for a thread that was killed meanwhile: its end is told next.
            request(libc::PTRACE_SYSCALL, thread, 0, signal as usize);
        }
    }

    /// What is to be done at a stop; the signal that the thread is to get.
    fn stopped(&mut self, thread: libc::pid_t, signal: i32, event: i32) -> i32 {
        let is_new = !self.threads.contains(&thread);
        if is_new {
            self.threads.push(thread);
            if thread == self.process {
                let options = libc::PTRACE_O_TRACESYSGOOD
                    | libc::PTRACE_O_TRACECLONE
                    | libc::PTRACE_O_EXITKILL;
                request(libc::PTRACE_SETOPTIONS, thread, 0, options as usize);
            }
            // The stop after its exec, or the one that a new thread begins with.
            return 0;
        }
        if signal == libc::SIGTRAP | 0x80 {
            self.called(thread);
            return 0;
        }
        match event {
            0 => signal,
            _ => 0,
        }
    }

    fn called(&mut self, thread: libc::pid_t) {
        let mut info = [0u64; INFO_WORDS];
        let bytes = size_of_val(&info);
        if request(GET_SYSCALL_INFO, thread, bytes, info.as_mut_ptr() as usize) < 0 {
            self.error.get_or_insert(io::Error::last_os_error());
            return;
        }
        let [kind, _, _, number, first, second, ..] = info;
        if kind & 0xff != ENTRY {
            return;
        }
        if number == libc::SYS_getppid as u64 && first == MARK {
            self.counts_now = second == 1;
        } else if self.counts_now {
            let named = NAMED.iter().find(|(named, _)| *named as u64 == number);
            *self
                .counts
                .entry(named.map_or("others", |(_, name)| name))
                .or_default() += 1;
        }
    }
}

fn request(what: libc::c_uint, thread: libc::pid_t, address: usize, data: usize) -> i64 {
    // SAFETY: the requests made here change a child of ours alone; the one that writes gets an array and its length.
    unsafe { libc::ptrace(what, thread, address, data) }
}
