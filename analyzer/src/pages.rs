//! Address-space view of a process: pages of 4 KiB that hold a part of a live block, against live
//! bytes; how full those pages are; and which blocks keep nearly empty ones. Inherited blocks are
//! left out: their pages are the parent's until somebody writes to them.
//!
//! A block covers its first and its last page partly and those between wholly. Only the first and the
//! last are looked up (`pages/table.rs`); those between are counted. That is exact as long as no two live
//! blocks overlap, which no allocator does; where a trace shows it (a realloc whose old place is
//! given out before it returns; damage), a page may count twice.

mod census;
mod report;
mod span;
mod table;

pub use census::{Sparse, SparseRow};
pub use report::{
    Holding, HoldingAt, Occupancy, PagesCurve, PagesReport, PagesSums, SparseAt, Sums,
};
pub use table::PAGE_BYTES;

pub(crate) use report::{lost_ppm, mean};
pub(crate) use span::Span;
pub(crate) use table::Table;

use crate::fact::{AtPeak, Fact, Measure, Peaks, What};
use crate::series::{Series, Value};
use census::Census;

/// Steps of occupancy: eighths of a page.
pub const LEVELS: usize = 8;
/// A page that holds so many live bytes or fewer is nearly empty.
pub const SPARSE_BYTES: u32 = (PAGE_BYTES / LEVELS as u64) as u32;
/// Live blocks are not looked at before so many bytes of pages are not live.
const WALK_FROM_BYTES: u64 = 1 << 20;

/// Step of occupancy of a page with so many live bytes.
#[inline]
fn level(bytes: u32) -> usize {
    // Above 4,096 only where blocks overlap.
    (bytes.saturating_sub(1) / SPARSE_BYTES) as usize % LEVELS
}

/// Live bytes `[low, high)` of a page of a step of occupancy.
pub(crate) fn level_bounds(level: usize) -> (u64, u64) {
    let eighth = u64::from(SPARSE_BYTES);
    let low = match level {
        0 => 0,
        _ => level as u64 * eighth + 1,
    };
    (low, (level as u64 + 1) * eighth + 1)
}

/// A live block, as [`Pages::walk`] wants them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveBlock {
    /// Where it is.
    pub address: u64,
    /// Its requested bytes.
    pub bytes: u64,
    /// When it was born, in nanoseconds since the run's first record.
    pub born_ns: u64,
}

/// Pages held and the live bytes of the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Both {
    pages: u64,
    live: u64,
}

impl Value for Both {
    fn greatest(self, other: Both) -> Both {
        if other.pages > self.pages {
            other
        } else {
            self
        }
    }
}

/// Pages of one step of occupancy.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    pages: AtPeak,
    since_ns: u64,
    integral: u128,
}

impl Level {
    #[inline(never)]
    fn add(&mut self, now_ns: u64, peaks: u64, more: u64) {
        self.integral = self.integral_at(now_ns);
        self.since_ns = now_ns;
        self.pages.add(peaks, more);
    }

    #[inline]
    fn integral_at(&self, now_ns: u64) -> u128 {
        let passed = now_ns.saturating_sub(self.since_ns);
        let more = u128::from(passed) * u128::from(self.pages.now());
        self.integral.wrapping_add(more)
    }
}

#[derive(Clone, Debug)]
struct Walked {
    at_ns: u64,
    both: Both,
    census: Census,
}

/// The measure.
///
/// A birth or an end costs one lookup in the table (two if the block reaches into another page), of
/// one cache line each. Over the facts of a Firefox process (resizes are an end and a birth, kept
/// blocks are looked up) it is 155 instructions a fact by callgrind; no division, and steps of
/// occupancy are touched only when a page changes its step. A measure that has seen nothing is some
/// 800 bytes.
#[derive(Clone, Debug)]
pub struct Pages {
    table: Table,
    levels: [Level; LEVELS],
    held: AtPeak,
    live: AtPeak,
    live_blocks: u64,
    live_integral: u128,
    held_integral: u128,
    held_since_ns: u64,
    start_ns: u64,
    last_ns: u64,
    most: (u64, Both),
    gap: (u64, Both),
    gap_most: u64,
    series: Series<Both>,
    /// The next walk is due when so many bytes of pages are not live, from this call on.
    walk_bytes: u64,
    walk_event: u64,
    events: u64,
    walked: Option<Box<Walked>>,
    end: Option<Box<Census>>,
}

const _: () = assert!(size_of::<Pages>() <= 832);

impl Pages {
    /// A process that starts now, with nothing of its own; its curve has so many bins at most.
    pub fn new(start_ns: u64, bins_max: usize) -> Pages {
        let level = Level {
            since_ns: start_ns,
            ..Level::default()
        };
        Pages {
            table: Table::default(),
            levels: [level; LEVELS],
            held: AtPeak::default(),
            live: AtPeak::default(),
            live_blocks: 0,
            live_integral: 0,
            held_integral: 0,
            held_since_ns: start_ns,
            start_ns,
            last_ns: start_ns,
            most: (start_ns, Both::default()),
            gap: (start_ns, Both::default()),
            gap_most: 0,
            series: Series::new(start_ns, bins_max),
            walk_bytes: WALK_FROM_BYTES,
            walk_event: 0,
            events: 0,
            walked: None,
            end: None,
        }
    }

    #[inline]
    fn both(&self) -> Both {
        Both {
            pages: self.held.now(),
            live: self.live.now(),
        }
    }

    /// Bytes of pages held that are not live.
    #[inline]
    fn gap(&self) -> u64 {
        let held = self.held.now().wrapping_mul(PAGE_BYTES);
        held.saturating_sub(self.live.now())
    }

    /// Time passes: what is now has held until then.
    #[inline]
    fn pass(&mut self, now_ns: u64) {
        self.series.hold(now_ns, self.both());
        let passed = now_ns.saturating_sub(self.last_ns);
        let more = u128::from(passed) * u128::from(self.live.now());
        self.live_integral = self.live_integral.wrapping_add(more);
        self.last_ns = now_ns;
    }

    #[inline(never)]
    fn hold(&mut self, now_ns: u64, peaks: u64, more: u64) {
        let passed = now_ns.saturating_sub(self.held_since_ns);
        let area = u128::from(passed) * u128::from(self.held.now());
        self.held_integral = self.held_integral.wrapping_add(area);
        self.held_since_ns = now_ns;
        self.held.add(peaks, more);
    }

    #[inline(always)]
    fn begin_in(&mut self, page: u64, bytes: u32, now_ns: u64, peaks: u64) {
        let (before, after) = self.table.add(page, bytes);
        let (from, to) = (level(before.bytes()), level(after.bytes()));
        if before.is_empty() {
            self.hold(now_ns, peaks, 1);
        } else if from == to {
            return;
        } else {
            self.levels[from].add(now_ns, peaks, u64::MAX);
        }
        self.levels[to].add(now_ns, peaks, 1);
    }

    #[inline(always)]
    fn end_in(&mut self, page: u64, bytes: u32, now_ns: u64, peaks: u64) {
        let (before, after) = self.table.sub(page, bytes);
        let (from, to) = (level(before.bytes()), level(after.bytes()));
        if after.is_empty() {
            if before.is_empty() {
                return;
            }
            self.hold(now_ns, peaks, u64::MAX);
        } else if from == to {
            return;
        } else {
            self.levels[to].add(now_ns, peaks, 1);
        }
        self.levels[from].add(now_ns, peaks, u64::MAX);
    }

    #[inline(always)]
    fn begin(&mut self, address: u64, bytes: u64, now_ns: u64, peaks: u64) {
        let span = Span::new(address, bytes);
        self.live.add(peaks, bytes);
        self.begin_in(span.first, span.first_bytes, now_ns, peaks);
        if span.first != span.last {
            self.begin_further(&span, now_ns, peaks);
        }
    }

    #[inline(always)]
    fn end(&mut self, address: u64, bytes: u64, now_ns: u64, peaks: u64) {
        let span = Span::new(address, bytes);
        self.live.sub(peaks, bytes);
        self.end_in(span.first, span.first_bytes, now_ns, peaks);
        if span.first != span.last {
            self.end_further(&span, now_ns, peaks);
        }
    }

    #[inline(never)]
    fn begin_further(&mut self, span: &Span, now_ns: u64, peaks: u64) {
        self.begin_in(span.last, span.last_bytes, now_ns, peaks);
        self.full(span.between, now_ns, peaks);
    }

    #[inline(never)]
    fn end_further(&mut self, span: &Span, now_ns: u64, peaks: u64) {
        self.end_in(span.last, span.last_bytes, now_ns, peaks);
        self.full(span.between.wrapping_neg(), now_ns, peaks);
    }

    /// So many more pages are covered wholly by one block.
    fn full(&mut self, more: u64, now_ns: u64, peaks: u64) {
        if more != 0 {
            self.hold(now_ns, peaks, more);
            self.levels[LEVELS - 1].add(now_ns, peaks, more);
        }
    }

    /// What is now is the state after a call: it may be a peak.
    #[inline]
    fn look(&mut self, now_ns: u64) {
        let both = self.both();
        if both.pages > self.series.current().pages {
            self.raise(now_ns, both);
        }
        let gap = self.gap();
        if gap > self.gap_most {
            self.gap_most = gap;
            self.gap = (now_ns, both);
        }
    }

    /// More pages are held than before in the current bin.
    #[inline(never)]
    fn raise(&mut self, now_ns: u64, both: Both) {
        self.series.raise(both);
        if both.pages > self.most.1.pages {
            self.most = (now_ns, both);
        }
    }

    #[inline(never)]
    fn resized(&mut self, fact: &Fact, peaks: u64) {
        self.pass(fact.time_ns);
        self.end(fact.old_address, fact.old_bytes, fact.time_ns, peaks);
        self.begin(fact.address, fact.bytes, fact.time_ns, peaks);
    }

    #[cold]
    fn kept(&mut self, fact: &Fact) {
        let span = Span::new(fact.address, fact.bytes);
        let census = self.end.get_or_insert_default();
        census.look(&self.table, &span, fact.bytes, fact.life_ns);
    }

    /// Starts to fetch what a later fact about a block at `address` needs.
    #[inline(always)]
    pub(crate) fn fetch(&self, address: u64) {
        self.table.fetch(address >> table::PAGE_SHIFT);
    }

    /// Whether [`Pages::walk`] is to be called before the next fact: the bytes of pages that are not
    /// live are a quarter more than at the last walk (1 MiB at first), and at least half as many
    /// calls have been made since as blocks live. So walks look at two blocks a call at most, and
    /// the last one saw at least four fifths of the greatest gap unless calls were too few.
    #[inline]
    pub fn wants_walk(&self) -> bool {
        self.gap_most >= self.walk_bytes
            && self.gap() >= self.walk_bytes
            && self.events >= self.walk_event
    }

    /// Looks at all live blocks of the process' own, after the latest fact.
    pub fn walk(&mut self, now_ns: u64, blocks: &mut dyn Iterator<Item = LiveBlock>) {
        let mut census = Census::default();
        for block in blocks {
            let span = Span::new(block.address, block.bytes);
            let age_ns = now_ns.saturating_sub(block.born_ns);
            census.look(&self.table, &span, block.bytes, age_ns);
        }
        let gap = self.gap();
        self.walk_bytes = gap.saturating_add(gap / 4).max(WALK_FROM_BYTES);
        self.walk_event = self.events.saturating_add(self.live_blocks / 2);
        self.walked = Some(Box::new(Walked {
            at_ns: now_ns,
            both: self.both(),
            census,
        }));
    }

    /// What can be summed over processes, when this one has ended.
    pub fn sums(&self, end_ns: u64) -> Sums {
        let passed = u128::from(end_ns.saturating_sub(self.last_ns));
        let held_passed = u128::from(end_ns.saturating_sub(self.held_since_ns));
        let live = self.live_integral;
        let held = self.held_integral;
        Sums {
            pages_integral: held.wrapping_add(held_passed * u128::from(self.held.now())),
            live_integral: live.wrapping_add(passed * u128::from(self.live.now())),
            level_integrals: self.levels.map(|level| level.integral_at(end_ns)),
            pages_end: self.held.now(),
            live_end: self.live.now(),
            levels_end: self.levels.map(|level| level.pages.now()),
            census: self.end.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// The report of the process, when it has ended and its kept blocks have been told. `peaks`
    /// counts its peaks in the end.
    pub fn report(&self, peaks: Peaks, end_ns: u64) -> PagesReport {
        let holding = |both: Both| Holding::new(both.pages, both.live);
        let at = |(at_ns, both): (u64, Both)| HoldingAt {
            at_ns,
            holding: holding(both),
        };
        let levels = self.levels.iter();
        let (start_ns, step_ns, bins) = self.series.clone().bins(end_ns, self.both());
        let (pages, live_bytes) = bins.iter().map(|both| (both.pages, both.live)).unzip();
        PagesReport {
            page_bytes: PAGE_BYTES,
            peak: at(self.most),
            at_live_bytes_peak: Holding::new(
                self.held.at_peak(peaks.bytes),
                self.live.at_peak(peaks.bytes),
            ),
            occupancy_at_live_bytes_peak: levels
                .map(|level| level.pages.at_peak(peaks.bytes))
                .collect(),
            gap: at(self.gap),
            over_time: (self.sums(end_ns)).report(end_ns.saturating_sub(self.start_ns)),
            sparse_at_gap: self.walked.as_deref().map(|walked| SparseAt {
                at_ns: walked.at_ns,
                holding: holding(walked.both),
                sparse: walked.census.report(),
            }),
            curve: PagesCurve {
                start_ns,
                step_ns,
                pages,
                live_bytes,
            },
        }
    }
}

impl Measure for Pages {
    #[inline]
    fn fact(&mut self, fact: &Fact, peaks: Peaks) {
        if fact.is_inherited() {
            return;
        }
        let (now_ns, peaks) = (fact.time_ns, peaks.bytes);
        match fact.what {
            What::Born => {
                self.pass(now_ns);
                self.begin(fact.address, fact.bytes, now_ns, peaks);
                self.live_blocks = self.live_blocks.wrapping_add(1);
            }
            What::Freed | What::Displaced => {
                self.pass(now_ns);
                self.end(fact.address, fact.bytes, now_ns, peaks);
                self.live_blocks = self.live_blocks.wrapping_sub(1);
            }
            What::Resized => self.resized(fact, peaks),
            What::Kept => return self.kept(fact),
            What::Nothing => return,
        }
        self.events = fact.clock_events;
        self.look(now_ns);
    }
}

#[cfg(test)]
pub(crate) mod tests;
