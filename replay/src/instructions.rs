//! Instructions in user space, as the processor counts them: `perf_event_open`. Many virtual machines have no such
//! counter, and a system may refuse it to users (`kernel.perf_event_paranoid` above 2): then there is none.

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;

/// PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS; bits of the flags `inherit`, `exclude_kernel`, `exclude_hv` (Linux,
/// include/uapi/linux/perf_event.h).
const HARDWARE: u32 = 0;
const INSTRUCTIONS: u64 = 1;
const INHERIT: u64 = 1 << 1;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HV: u64 = 1 << 6;

/// The first version of `struct perf_event_attr`: 64 bytes.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

const _: () = assert!(size_of::<Attributes>() == 64);

/// A counter of this thread and of the threads that it starts from now on.
pub struct Instructions(File);

impl Instructions {
    /// A counter that runs, where there is one.
    pub fn open() -> Option<Instructions> {
        let attributes = Attributes {
            kind: HARDWARE,
            size: size_of::<Attributes>() as u32,
            config: INSTRUCTIONS,
            flags: INHERIT | EXCLUDE_KERNEL | EXCLUDE_HV,
            ..Attributes::default()
        };
        let (thread, any_processor, no_group) = (0, -1, -1);
        // PERF_FLAG_FD_CLOEXEC.
        let flags: libc::c_ulong = 1 << 3;
        // SAFETY: the structure is as long as it says and is only read; what comes back is a new descriptor or an error.
        let file = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                thread,
                any_processor,
                no_group,
                flags,
            )
        };
        // SAFETY: the descriptor was just made and is nobody else's.
        (file >= 0).then(|| Instructions(unsafe { File::from_raw_fd(file as i32) }))
    }

    /// Instructions so far.
    pub fn read(&self) -> Option<u64> {
        let mut number = [0; 8];
        (&self.0).read_exact(&mut number).ok()?;
        Some(u64::from_ne_bytes(number))
    }
}
