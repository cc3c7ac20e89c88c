//! Bins of time that all processes share: bin n of width 2^s begins at n x 2^s nanoseconds of the
//! run, whenever the process began. So bins of a process are always parts of bins of the run, and
//! adding them up is exact. Widths double when a process has lived for too many bins.

use crate::series::SHIFT_MIN;

/// The bins of a process, or of the run, up to now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Where the current bin ends.
    pub end_ns: u64,
    /// Where the current bin begins.
    pub begin_ns: u64,
    /// Begin of the process.
    pub start_ns: u64,
    /// Binary logarithm of the width.
    pub shift: u32,
    /// Most bins, from that of `start_ns` on.
    bins_max: u64,
}

impl Grid {
    /// Bins from that of `start_ns` on.
    pub fn new(start_ns: u64, bins_max: usize) -> Grid {
        let mut grid = Grid {
            end_ns: 0,
            begin_ns: 0,
            start_ns,
            shift: SHIFT_MIN,
            bins_max: bins_max.max(1) as u64,
        };
        grid.advance(start_ns);
        grid
    }

    /// Number of the bin that holds a moment.
    #[inline]
    pub fn bin(&self, at_ns: u64) -> u64 {
        at_ns >> self.shift
    }

    /// Number of the first bin.
    #[inline]
    pub fn first(&self) -> u64 {
        self.bin(self.start_ns)
    }

    /// Number of the current bin.
    pub fn current(&self) -> u64 {
        self.bin(self.begin_ns)
    }

    /// Makes the bin of `now_ns` the current one; widths double until it is one of the most.
    pub fn advance(&mut self, now_ns: u64) {
        self.shift = self.shift_for(self.start_ns, now_ns, self.bins_max);
        self.begin_ns = self.bin(now_ns) << self.shift;
        self.end_ns = self.begin_ns.saturating_add(1 << self.shift);
    }

    /// The smallest width from that of the grid on, with which `bins_max` bins hold both moments.
    pub fn shift_for(&self, from_ns: u64, to_ns: u64, bins_max: u64) -> u32 {
        let fits = |shift: &u32| (to_ns >> shift).saturating_sub(from_ns >> shift) < bins_max;
        (self.shift..64).find(fits).unwrap_or(63)
    }
}
