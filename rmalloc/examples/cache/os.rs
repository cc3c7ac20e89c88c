//! What is asked of the system beside sockets: epoll, memory of the index, clocks, and a process' resident bytes
//! and CPU time. What is done with them is decided elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

/// What a connection is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the end.
    Read,
    /// Room to write.
    Write,
}

impl Interest {
    fn mask(self) -> u32 {
        match self {
            Interest::Read => libc::EPOLLIN as u32,
            Interest::Write => libc::EPOLLOUT as u32,
        }
    }
}

/// Many descriptors waited for at once (epoll, level-triggered).
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// A poller of nothing, which tells of at most 64 descriptors at once.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Poller> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Poller {
            // SAFETY: the descriptor was made just now and is nobody else's.
            epoll: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 64],
        })
    }

    fn control(&self, operation: i32, fd: &impl AsRawFd, mask: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: mask,
            u64: token,
        };
        // SAFETY: `event` is read during the call only.
        let done = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                operation,
                fd.as_raw_fd(),
                &mut event,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Begins to wait for a descriptor, told by `token`.
    ///
    /// # Errors
    /// It is waited for already, or memory is short.
    pub fn add(&self, fd: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest.mask(), token)
    }

    /// Changes what a descriptor is waited for.
    ///
    /// # Errors
    /// It is not waited for.
    pub fn modify(&self, fd: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest.mask(), token)
    }

    /// Waits no more for a descriptor. One that is closed needs no call.
    ///
    /// # Errors
    /// It is not waited for.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Puts the tokens of what is ready into `ready`, at most 64, waiting `timeout_ms` for the first (-1: for ever). None after that time and after
    /// a signal.
    ///
    /// # Errors
    /// None that a working poller gives.
    pub fn wait(&mut self, timeout_ms: i32, ready: &mut Vec<u64>) -> io::Result<()> {
        ready.clear();
        let (room, most) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: `room` has space for `most` events.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), room, most, timeout_ms) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        }
        ready.extend(self.events[..count as usize].iter().map(|event| event.u64));
        Ok(())
    }
}

/// Reserves zeroed memory whose pages are taken when they are touched, in small pages.
///
/// # Errors
/// The address space, or what may be committed, is used up.
pub fn reserve(bytes: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the system's choice touches no other memory.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: advice on the mapping made above; refused by systems without huge pages, which is as well.
    unsafe { libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE) };
    Ok(NonNull::new(start.cast()).expect("a mapping is not at address 0"))
}

/// Gives the pages of a part of a reserved region back; it reads as zeros afterwards.
///
/// # Safety
/// - The part lies in one mapping of [`reserve`], and starts and ends at page boundaries.
/// - Nobody holds a reference into it.
pub unsafe fn discard(start: *mut u8, bytes: usize) {
    // SAFETY: the caller's word. On an error (locked pages) the pages just stay.
    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) };
}

/// Ends a region.
///
/// # Safety
/// `start` and `bytes` are those of one call of [`reserve`], and nobody uses the region any more.
pub unsafe fn release(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's word.
    unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
}

/// Bytes of a page.
pub fn page_bytes() -> usize {
    // SAFETY: takes no pointer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is written during the call only.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A process whose resident bytes and CPU time are read again and again.
pub struct Process {
    statm: File,
    stat: File,
    status: String,
    page_bytes: u64,
    tick_ns: u64,
}

impl Process {
    /// The process of a number, or this one.
    ///
    /// # Errors
    /// There is none of this number, or it is another user's.
    pub fn open(pid: Option<u32>) -> io::Result<Process> {
        let place = pid.map_or("/proc/self".to_string(), |pid| format!("/proc/{pid}"));
        // SAFETY: takes no pointer.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
        Ok(Process {
            statm: File::open(format!("{place}/statm"))?,
            stat: File::open(format!("{place}/stat"))?,
            status: format!("{place}/status"),
            page_bytes: page_bytes() as u64,
            tick_ns: 1_000_000_000 / ticks_per_second.max(1),
        })
    }

    /// Bytes of its pages in memory, those of files and shared ones too.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let mut room = [0; 128];
        let text = read_start(&self.statm, &mut room)?;
        let pages = text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
        Ok(pages.unwrap_or(0) * self.page_bytes)
    }

    /// The most resident bytes it ever had (which the system counts loosely, by some pages a thread).
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes_peak(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(&self.status)?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.unwrap_or(0) * 1024)
    }

    /// CPU time of all its threads, in its own code and in the system for it; in ticks of 10 ms.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let mut room = [0; 1024];
        let text = read_start(&self.stat, &mut room)?;
        // The name, in parentheses, may hold anything.
        let after = text.rsplit_once(')').map_or("", |(_, after)| after);
        let ticks = after.split_whitespace().skip(11).take(2);
        Ok(ticks.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>() * self.tick_ns)
    }
}

/// The start of a file of /proc, from its beginning each time.
fn read_start<'a>(file: &File, room: &'a mut [u8]) -> io::Result<&'a str> {
    let count = file.read_at(room, 0)?;
    Ok(std::str::from_utf8(&room[..count]).unwrap_or(""))
}
