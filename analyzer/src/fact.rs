//! What the ledger says of each call: which block began, changed or ended, how old it was in every
//! clock. Measures take facts and know nothing of address tables, reallocs in two halves or forks.

#[cfg(test)]
pub(crate) mod sample;

use rmtrace_format::Entry;

/// What happened to a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum What {
    /// It was allocated.
    #[default]
    Born,
    /// It was freed, by a free or by a realloc that returned NULL ([`Fact::is_realloc`]).
    Freed,
    /// A realloc gave it another size, and maybe another address.
    Resized,
    /// It ended unseen: its address was given out again.
    Displaced,
    /// Its process ended and it had not been freed. Nothing changes for what is live.
    Kept,
    /// A call that changed no block: an allocation or realloc that failed, a free of an unknown
    /// address. Only `time_ns`, `process`, `thread`, `entry`, `bytes` (requested) and the clocks tell
    /// something.
    Nothing,
}

/// One thing that happened to one block, with all that is known of the block then.
///
/// A block's `life_...` is its age now in four clocks: nanoseconds, calls of its process, bytes that
/// its process allocated, and allocations (births of blocks) of its process. Each is 0 at birth; a
/// block freed by the next call has lived 1 call, 0 bytes and 0 allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Fact {
    /// When, in nanoseconds since the run's first record.
    pub time_ns: u64,
    /// Where the block is now; of a block that ended, where it was.
    pub address: u64,
    /// Of a resize, where it was before; else 0.
    pub old_address: u64,
    /// Its requested bytes now; of a block that ended, the last ones.
    pub bytes: u64,
    /// Of a resize its requested bytes before, else 0.
    pub old_bytes: u64,
    /// Age in nanoseconds.
    pub life_ns: u64,
    /// Age in calls of the process.
    pub life_events: u64,
    /// Age in bytes that the process allocated.
    pub life_bytes: u64,
    /// Age in allocations of the process: blocks born after it.
    pub life_allocations: u64,
    /// The process' clock of calls after this one.
    pub clock_events: u64,
    /// The process' clock of bytes after this call.
    pub clock_bytes: u64,
    /// Blocks born in the process so far, this one included.
    pub clock_allocations: u64,
    /// Process.
    pub process: u32,
    /// Thread that made the call; of kept and displaced blocks the one that allocated the block.
    pub thread: u32,
    /// Thread that allocated the block.
    pub born_thread: u32,
    /// Times the block was resized to more bytes, this one included.
    pub growths: u32,
    /// Entry of the block in a handle table that gives out the entry freed last, else the next new
    /// one. Inherited blocks have none: [`Fact::NO_HANDLE`].
    pub handle: u32,
    /// What happened.
    pub what: What,
    /// The function called; of kept and displaced blocks the one that allocated the block.
    pub entry: Entry,
    /// Binary logarithm of the alignment that the call asked for; 0 where none was.
    pub align_log2: u8,
    /// The block's size class ([`crate::histogram::size_class`]) at its first size.
    pub class: u8,
    /// `CALL`, `INHERITED`, `UNKNOWN`, `PAUSED`.
    pub flags: u8,
}

const _: () = assert!(size_of::<Fact>() <= 128);

impl Fact {
    /// The fact is the one at which its call is counted: a call has one, kept and displaced blocks
    /// have none.
    pub const CALL: u8 = 1;
    /// The block was inherited at a fork: nothing is known of its birth, its `life_...` are 0.
    pub const INHERITED: u8 = 2;
    /// The call named an address at which no block was known.
    pub const UNKNOWN: u8 = 4;
    /// Recording has been paused before in the run.
    pub const PAUSED: u8 = 8;
    /// The handle of inherited blocks.
    pub const NO_HANDLE: u32 = u32::MAX;

    /// Whether a call is counted here.
    #[inline]
    pub const fn is_call(&self) -> bool {
        self.flags & Fact::CALL != 0
    }

    /// Whether the block was inherited.
    #[inline]
    pub const fn is_inherited(&self) -> bool {
        self.flags & Fact::INHERITED != 0
    }

    /// Whether a call of the realloc family did it.
    #[inline]
    pub const fn is_realloc(&self) -> bool {
        matches!(self.entry.kind(), rmtrace_format::Kind::Realloc)
    }

    /// Whether a block of the process itself begins, or an own or inherited one ends or changes: that
    /// is, all but [`What::Kept`] and [`What::Nothing`].
    #[inline]
    pub const fn changes_live(&self) -> bool {
        !matches!(self.what, What::Kept | What::Nothing)
    }

    /// When the block was born.
    #[inline]
    pub const fn born_ns(&self) -> u64 {
        self.time_ns.saturating_sub(self.life_ns)
    }
}

/// How many times live blocks and live bytes of a process have risen to a new peak, before the fact
/// that is told with it. A number that differs from the one seen last means: there was a peak since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// New peaks of live blocks.
    pub blocks: u64,
    /// New peaks of live bytes.
    pub bytes: u64,
}

/// What takes the facts of one process, in time order.
pub trait Measure {
    /// A fact. `peaks` counts those of the process before this fact.
    fn fact(&mut self, fact: &Fact, peaks: Peaks);
}

/// A number and what it was at the latest peak. Whoever changes it says first how many peaks there
/// were ([`Peaks`]); nothing has to be copied when a peak comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtPeak {
    now: u64,
    at_peak: u64,
    peaks: u64,
}

impl AtPeak {
    /// Adds (modulo 2^64), after `peaks` peaks.
    #[inline]
    pub fn add(&mut self, peaks: u64, more: u64) {
        if self.peaks != peaks {
            self.at_peak = self.now;
            self.peaks = peaks;
        }
        self.now = self.now.wrapping_add(more);
    }

    /// Subtracts (modulo 2^64), after `peaks` peaks.
    #[inline]
    pub fn sub(&mut self, peaks: u64, less: u64) {
        self.add(peaks, less.wrapping_neg());
    }

    /// What it is now.
    #[inline]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What it was right after the latest of `peaks` peaks.
    pub fn at_peak(&self, peaks: u64) -> u64 {
        if self.peaks == peaks {
            self.at_peak
        } else {
            self.now
        }
    }
}
