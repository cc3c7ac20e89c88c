//! The spool: shared memory of one program image (the processes from one exec and the forks of it).
//!
//! Layout: header page, slab directory, process slots, slabs. A slab is 64 KiB: one large chunk or
//! 16 small ones. Chunks are numbered by their 4 KiB page behind the first slab.
//! All of the mapping may be sparse; a page is made present before it is stored to (format.md).

use crate::chunk::{LARGE_BYTES, SMALL_BYTES};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// First eight bytes of a spool.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RMSPOOL\x01");
/// Version of the layout and of the records in it.
pub const VERSION: u32 = 1;
/// Bytes of the header page.
pub const HEADER_BYTES: usize = 4096;
/// Unit of the layout.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a slab.
pub const SLAB_BYTES: usize = LARGE_BYTES;
/// Small chunks in a slab.
pub const SMALL_PER_SLAB: usize = LARGE_BYTES / SMALL_BYTES;
/// Offset of the slab directory: a byte a slab, `SLAB_...`. It begins in the header page, so that a
/// spool of up to 96 MiB has no other page for it.
pub const DIRECTORY_OFFSET: usize = 2560;
/// Slabs that the directory can hold; limits the spool to 4 GiB of chunks.
pub const SLABS_MAX: usize = 65536;
/// Offset of the process slots.
pub const PROCESSES_OFFSET: usize = HEADER_BYTES + SLABS_MAX;
/// Bytes of a process slot.
pub const PROCESS_BYTES: usize = 1024;
/// Process slots of a spool; processes beyond them share the last.
pub const PROCESSES_MAX: usize = 32768;
/// Offset of the first slab.
pub const SLABS_OFFSET: usize = PROCESSES_OFFSET + PROCESSES_MAX * PROCESS_BYTES;

/// Directory: not claimed.
pub const SLAB_UNUSED: u8 = 0;
/// Directory: one large chunk.
pub const SLAB_LARGE: u8 = 1;
/// Directory: small chunks.
pub const SLAB_SMALL: u8 = 2;

/// Why a call was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Drop {
    /// No chunk was to be had: pool exhausted and nothing could be handed over.
    PoolFull = 0,
    /// The disk limit (`RMTRACE_LIMIT`, RLIMIT_FSIZE) or a full disk.
    DiskLimit = 1,
    /// A signal interrupted our own code and its handler called an allocation function.
    Nested = 2,
    /// An address that does not fit in 48 bits.
    WideAddress = 3,
    /// More threads than slots.
    ThreadSlots = 4,
    /// Called before the library could start.
    Early = 5,
    /// The memory file system is full.
    NoSpace = 6,
}

impl Drop {
    /// Number of reasons; arrays have room for eight.
    pub const COUNT: usize = 7;
    /// All reasons in order.
    pub const ALL: [Drop; Drop::COUNT] = [
        Drop::PoolFull,
        Drop::DiskLimit,
        Drop::Nested,
        Drop::WideAddress,
        Drop::ThreadSlots,
        Drop::Early,
        Drop::NoSpace,
    ];

    /// The name in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Drop::PoolFull => "pool_full",
            Drop::DiskLimit => "disk_limit",
            Drop::Nested => "nested",
            Drop::WideAddress => "wide_address",
            Drop::ThreadSlots => "thread_slots",
            Drop::Early => "early",
            Drop::NoSpace => "no_space",
        }
    }
}

/// Header flag: stamps are CLOCK_MONOTONIC nanoseconds, not TSC.
pub const FLAG_MONOTONIC: u32 = 1;
/// Header flag: records carry callers.
pub const FLAG_CALLERS: u32 = 2;
/// Header flag: records carry usable sizes.
pub const FLAG_USABLE: u32 = 4;
/// Header flag: another library is `initfirst`, or threads existed at the start.
pub const FLAG_LATE: u32 = 8;
/// Header flag: the constructor is done, every field is valid.
pub const FLAG_READY: u32 = 16;
/// Header flag: the pool is not on a memory file system.
pub const FLAG_ON_DISK: u32 = 32;
/// Header flag: nothing could be hooked.
pub const FLAG_NO_HOOKS: u32 = 64;
/// Header flag: the program neither takes an allocation function from a library nor exports one, and no
/// symbol names one in it.
pub const FLAG_NO_ALLOCATOR: u32 = 128;

/// Offset and length in the header page of the program's path.
pub const PROGRAM_OFFSET: usize = 512;
/// Bytes of the program's path (NUL-padded).
pub const PROGRAM_BYTES: usize = 512;
/// Offset in the header page of the command line (NUL-separated, cut if longer).
pub const ARGUMENTS_OFFSET: usize = 1024;
/// Bytes of the command line.
pub const ARGUMENTS_BYTES: usize = 1024;

/// The first half page of a spool's header (the rest: program, arguments, then [`Shared`]).
#[repr(C)]
pub struct SpoolHeader {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// `FLAG_...`.
    pub flags: AtomicU32,
    /// Random identity of this spool.
    pub id: [AtomicU64; 2],
    /// Bytes of the file.
    pub spool_bytes: AtomicU64,
    /// Slabs in the file.
    pub slabs: AtomicU32,
    /// Process id of the first process, as it sees itself.
    pub pid: AtomicU32,
    /// Its parent's id.
    pub ppid: AtomicU32,
    /// `argc`.
    pub arguments: AtomicU32,
    /// Taken when the library started.
    pub started: [AtomicU64; 3],
    /// CLOCK_REALTIME at the start in nanoseconds since 1970.
    pub realtime_ns: AtomicU64,
    /// Frequency of the TSC as measured at the start, in Hz; 0 if not yet known.
    pub tsc_hz: AtomicU64,
    /// Measured cost of recording one call, in picoseconds; 0 where not measured.
    pub cost_ps: AtomicU64,
    /// Entries (bit = entry number) seen through symbol interposition.
    pub interposed: AtomicU64,
    /// Entries seen through a patched function.
    pub detoured: AtomicU64,
    /// Entries whose function could not be patched.
    pub refused: AtomicU64,
    /// Where the spool is mapped in the program.
    pub mapped_at: AtomicU64,
}

const _: () = assert!(size_of::<SpoolHeader>() <= PROGRAM_OFFSET);
const _: () = assert!(core::mem::offset_of!(SpoolHeader, mapped_at) == 128);

/// Offset in the header page of [`Shared`].
pub const SHARED_OFFSET: usize = 2048;

/// A value on a cache line of its own.
#[repr(C, align(64))]
pub struct Line<T>(pub T);

/// What processes and the collector change together.
///
/// List heads are `tag << 32 | (chunk number + 1)`, the tag rises with every change. Lists are
/// linked through [`crate::chunk::ChunkHeader::next`].
#[repr(C)]
pub struct Shared {
    /// Processes so far; the next one's number.
    pub processes: Line<AtomicU32>,
    /// Slabs claimed so far.
    pub slabs_claimed: Line<AtomicU32>,
    /// Number of the next small chunk in the slab that is being split; a multiple of 16: none left.
    pub small_next: Line<AtomicU64>,
    /// Free small chunks.
    pub free_small: Line<AtomicU64>,
    /// Free large chunks.
    pub free_large: Line<AtomicU64>,
    /// Chunks that wait for the collector.
    pub full: Line<AtomicU64>,
    /// Calls dropped by processes without a slot, by [`Drop`].
    pub dropped: Line<[AtomicU64; 8]>,
}

const _: () = assert!(SHARED_OFFSET + size_of::<Shared>() <= DIRECTORY_OFFSET);

/// First eight bytes of a run's control file.
pub const CONTROL_MAGIC: u64 = u64::from_le_bytes(*b"RMCTRL\x01\0");
/// Bytes of the control file.
pub const CONTROL_BYTES: usize = PAGE_BYTES;
/// Name of the control file in the pool directory.
pub const CONTROL_NAME: &str = "control";
/// Name in the run directory of the link to the pool directory (or of the directory itself).
pub const POOL_NAME: &str = "pool";
/// Name in the run directory of the file that full chunks are appended to.
pub const CHUNKS_NAME: &str = "chunks";
/// Name in the pool directory of the socket that the collector answers at.
pub const SOCKET_NAME: &str = "ctl";
/// Ending of a spool's name in the pool directory.
pub const SPOOL_SUFFIX: &str = ".spool";

/// The control file: what all processes of a run share. Written by who starts the run (the first
/// process in the bare mode, else the collector), mapped by every traced image.
#[repr(C)]
pub struct Control {
    /// [`CONTROL_MAGIC`], stored last.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// [`FLAG_CALLERS`], [`FLAG_USABLE`] asked for.
    pub flags: AtomicU32,
    /// Bytes of chunks that a spool may hold.
    pub pool_bytes: AtomicU64,
    /// Bytes that the `chunks` file may reach.
    pub limit_bytes: AtomicU64,
    /// Longest that a thread waits for the collector at one call, in nanoseconds; 0: drop at once.
    pub wait_ns: AtomicU64,
    /// CLOCK_MONOTONIC of the collector's last sign of life, in nanoseconds; 0: there never was one.
    /// It counts as alive for [`COLLECTOR_ALIVE_NS`].
    pub collector_ns: Line<AtomicU64>,
    /// Not 0: no call is recorded, in none of the run's processes. The collector alone stores here.
    pub paused: Line<AtomicU32>,
}

const _: () = assert!(size_of::<Control>() <= CONTROL_BYTES);

/// Offset in the control file of a robust lock (`pthread_mutex_t`) that the collector holds while it
/// lives; the kernel sets [`OWNER_DIED`] in its first word when the collector dies.
pub const COLLECTOR_LOCK_OFFSET: usize = 1024;
/// See [`COLLECTOR_LOCK_OFFSET`].
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Offset in the control file of a u32 that the collector makes 1 when it will neither read nor give
/// back any chunk again.
pub const COLLECTOR_GONE_OFFSET: usize = 1088;

/// How long after its last sign of life the collector counts as alive.
pub const COLLECTOR_ALIVE_NS: u64 = 1_000_000_000;
/// Default of [`Control::pool_bytes`].
pub const POOL_BYTES_DEFAULT: u64 = 64 << 20;
/// Default of [`Control::limit_bytes`].
pub const LIMIT_BYTES_DEFAULT: u64 = 16 << 30;
/// Default of [`Control::wait_ns`].
pub const WAIT_NS_DEFAULT: u64 = 100_000_000;

/// How a process came to write into this spool.
pub const STARTED_EXEC: u32 = 1;
/// By fork of another process of the spool.
pub const STARTED_FORK: u32 = 2;

/// Bytes of a process' title at the end of its slot.
pub const TITLE_BYTES: usize = 640;

/// What a process says of itself. 1,024 bytes.
#[repr(C)]
pub struct ProcessSlot {
    /// 0 unused, 1 being filled, 2 valid.
    pub state: AtomicU32,
    /// Number of the process in the spool.
    pub number: AtomicU32,
    /// Its process id as it sees itself.
    pub pid: AtomicU32,
    /// Its parent's id as it sees it.
    pub ppid: AtomicU32,
    /// `STARTED_...`.
    pub started_by: AtomicU32,
    /// Number in the spool of the process that forked it; its own number after exec.
    pub parent: AtomicU32,
    /// Thread of the parent that forked.
    pub parent_thread: AtomicU32,
    /// Threads so far.
    pub threads: AtomicU32,
    /// Taken at the first recorded call.
    pub started: [AtomicU64; 3],
    /// Taken when the process was seen to end (exit handlers ran); 0 otherwise.
    pub ended: [AtomicU64; 3],
    /// Calls dropped, by [`Drop`].
    pub dropped: [AtomicU64; 8],
    /// Times a thread waited for the collector, and nanoseconds waited in all.
    pub waits: [AtomicU64; 2],
    /// Chunks and bytes appended by this process.
    pub appended: [AtomicU64; 2],
    /// Fork chunks written.
    pub fork_chunks: AtomicU32,
    /// Threads started in the parent before the fork.
    pub parent_threads: AtomicU32,
    /// Zero.
    pub reserved: [u64; 25],
    /// The process' title (what it shows as its command line), NUL-padded, cut if longer.
    pub title: [AtomicU64; TITLE_BYTES / 8],
}

const _: () = assert!(size_of::<ProcessSlot>() == PROCESS_BYTES);
