//! What the core needs from below: memory that is committed and released, a clock, a way to wait, and the
//! barrier of [`Platform::barrier`]. A heap over memory that the caller gives needs nothing ([`Platform::NONE`]).

/// The functions of an operating system. All may be called by any thread.
#[derive(Clone, Copy)]
pub struct Platform {
    /// Makes reserved pages usable: address and bytes are multiples of 4,096. False: refused.
    pub commit: unsafe fn(*mut u8, usize) -> bool,
    /// Gives the contents of committed pages back; they read as zero when next touched.
    pub release: unsafe fn(*mut u8, usize),
    /// Nanoseconds since some moment, never backwards. A clock that stands still makes every budget endless.
    pub clock_ns: fn() -> u64,
    /// Every other thread of the process passes a full memory barrier between its instructions before this call
    /// and those after it (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED). Cost: 1 to 3 us with several threads.
    pub barrier: fn(),
    /// Sleeps while the word has the value; may wake early (futex(2)).
    pub wait: fn(&core::sync::atomic::AtomicU32, u32),
    /// Wakes one who sleeps on the word.
    pub wake: fn(&core::sync::atomic::AtomicU32),
    /// Lets other threads run (sched_yield(2)).
    pub pause: fn(),
    /// [`Platform::barrier`] works: locks are plain stores. Else each lock passes a full barrier of its own.
    pub has_barrier: bool,
}

impl Platform {
    /// Nothing: for one thread and memory that the caller gives. The clock stands still.
    pub const NONE: Platform = Platform {
        commit: |_, _| true,
        release: |_, _| {},
        clock_ns: || 0,
        barrier: || {},
        wait: |_, _| core::hint::spin_loop(),
        wake: |_| {},
        pause: || {},
        has_barrier: true,
    };
}

/// A page of memory, bytes.
pub const PAGE: usize = 4096;
