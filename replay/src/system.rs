//! What the system knows of this process: clocks, page faults, resident memory. Nothing here allocates: it is
//! asked while another allocator is being measured.

use std::mem::MaybeUninit;

/// Nanoseconds of a clock.
pub fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the clocks used here exist on every Linux; the call fills `time` then.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Time and faults so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Monotonic time.
    pub wall_ns: u64,
    /// CPU time of this thread.
    pub thread_cpu_ns: u64,
    /// CPU time of all threads of the process: an allocator may have some.
    pub cpu_ns: u64,
    /// Page faults that needed no reading from disk.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
}

impl Usage {
    /// Now; the wall clock is read last.
    pub fn before() -> Usage {
        let mut usage = Usage::faults();
        usage.cpu_ns = clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID);
        usage.thread_cpu_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
        usage.wall_ns = clock_ns(libc::CLOCK_MONOTONIC);
        usage
    }

    /// Since `before`; the wall clock is read first.
    pub fn since(before: Usage) -> Usage {
        let wall_ns = clock_ns(libc::CLOCK_MONOTONIC);
        let thread_cpu_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
        let cpu_ns = clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID);
        let faults = Usage::faults();
        Usage {
            wall_ns: wall_ns - before.wall_ns,
            thread_cpu_ns: thread_cpu_ns - before.thread_cpu_ns,
            cpu_ns: cpu_ns - before.cpu_ns,
            minor_faults: faults.minor_faults - before.minor_faults,
            major_faults: faults.major_faults - before.major_faults,
        }
    }

    fn faults() -> Usage {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: RUSAGE_SELF is always known; a zeroed `rusage` is one, filled or not.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        Usage {
            minor_faults: usage.ru_minflt as u64,
            major_faults: usage.ru_majflt as u64,
            ..Usage::default()
        }
    }
}

/// Resident memory of the process that no file stands behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Anonymous and shared memory in bytes.
    pub bytes: u64,
    /// What of it is in huge pages; not known from [`Source::Counters`].
    pub huge_bytes: u64,
}

/// Where resident memory is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `/proc/self/smaps_rollup`: walks the page tables, exact.
    PageTables,
    /// `/proc/self/status`: the kernel's counters, quick; before Linux 6.17 they lag by up to 64 pages a processor.
    Counters,
}

impl Source {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Source::PageTables => "smaps_rollup",
            Source::Counters => "status",
        }
    }
}

/// Reads resident memory.
pub fn resident(source: Source) -> Option<Resident> {
    let mut buffer = [0u8; 4096];
    let path = match source {
        Source::PageTables => c"/proc/self/smaps_rollup",
        Source::Counters => c"/proc/self/status",
    };
    let text = read(path, &mut buffer)?;
    Some(match source {
        Source::PageTables => Resident {
            bytes: field(text, b"Pss_Anon:")? + field(text, b"Pss_Shmem:")?,
            huge_bytes: field(text, b"AnonHugePages:")?,
        },
        Source::Counters => Resident {
            bytes: field(text, b"RssAnon:")? + field(text, b"RssShmem:")?,
            huge_bytes: 0,
        },
    })
}

/// A file of /proc, whole: each `read` gives what fits.
fn read<'a>(path: &std::ffi::CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // SAFETY: the path ends with a zero, the buffer is ours and its length is given; the descriptor is closed.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let got = libc::read(
                file,
                buffer[filled..].as_mut_ptr().cast(),
                buffer.len() - filled,
            );
            if got <= 0 {
                break;
            }
            filled += got as usize;
        }
        libc::close(file);
        buffer.get(..filled)
    }
}

/// The number of a line `NAME   123 kB`, in bytes.
fn field(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find(|line| line.starts_with(name))?;
    let digits = line[name.len()..]
        .iter()
        .filter(|byte| byte.is_ascii_digit());
    Some(digits.fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Region;

    #[test]
    fn both_sources_see_a_megabyte_that_is_touched() {
        for source in [Source::PageTables, Source::Counters] {
            let region = Region::zeroed(16 << 20, true).unwrap();
            let with = resident(source).expect("Linux 5.9 or newer").bytes;
            drop(region);
            let without = resident(source).unwrap().bytes;
            // Other tests of the same process allocate a little meanwhile.
            assert!(
                with.abs_diff(without + (16 << 20)) < 4 << 20,
                "{source:?}: {with} {without}"
            );
        }
    }
}
