//! Random streams of facts of one process, as the ledger would tell them, and the histories of their
//! blocks: what the slow twins of measures work from.

use super::{Fact, Peaks, What};
use crate::histogram::size_class;
use proptest::collection::vec;
use proptest::prelude::*;
use rmtrace_format::Entry;

/// The facts of a process, each with the peaks before it; kept blocks come last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub told: Vec<(Fact, Peaks)>,
    /// Peaks after the last fact.
    pub peaks: Peaks,
    /// Places in `told` of the facts that made the latest peak of live blocks and of live bytes.
    pub blocks_peak_at: Option<usize>,
    pub bytes_peak_at: Option<usize>,
    /// End of the process.
    pub end_ns: u64,
}

/// What happened to one block: places in [`Stream::told`], the first a birth unless it was inherited.
pub(crate) type History = Vec<usize>;

impl Stream {
    /// Hands all facts to a measure.
    pub fn tell(&self, measure: &mut impl super::Measure) {
        for (fact, peaks) in &self.told {
            measure.fact(fact, *peaks);
        }
    }

    /// The histories of own blocks, by birth.
    pub fn histories(&self) -> Vec<History> {
        let mut histories: Vec<History> = Vec::new();
        for (at, (fact, _)) in self.told.iter().enumerate() {
            if fact.is_inherited() || fact.what == What::Nothing {
                continue;
            }
            if fact.what == What::Born {
                histories.push(vec![at]);
                continue;
            }
            let before = if fact.what == What::Resized {
                fact.old_address
            } else {
                fact.address
            };
            let block = histories.iter_mut().rev().find(|history| {
                let last = &self.told[history[history.len() - 1]].0;
                matches!(last.what, What::Born | What::Resized) && last.address == before
            });
            block
                .unwrap_or_else(|| panic!("no block for {fact:?}"))
                .push(at);
        }
        histories
    }

    /// Sizes of the own blocks that live right after fact `at`.
    pub fn live_after(&self, at: usize) -> Vec<Fact> {
        let mut live = Vec::new();
        for history in self.histories() {
            let last = history.iter().rfind(|place| **place <= at);
            if let Some(fact) = last.map(|place| self.told[*place].0)
                && matches!(fact.what, What::Born | What::Resized)
            {
                live.push(fact);
            }
        }
        live
    }
}

#[derive(Clone, Copy, Debug)]
struct Live {
    fact: Fact,
    born_ns: u64,
    born_events: u64,
    born_bytes: u64,
    born_allocations: u64,
}

/// Makes a stream of up to `steps` calls by a few threads.
pub(crate) fn streams(steps: usize) -> impl Strategy<Value = Stream> {
    let bytes = prop_oneof![4 => 0u64..80, 3 => 0u64..5_000, 1 => 0u64..1 << 22];
    let pause =
        prop_oneof![2 => Just(0u64), 6 => 0u64..400, 2 => 0u64..100_000, 1 => 0u64..2_000_000_000];
    let dice = (
        0u8..100,
        0u32..4,
        1u64..4_000,
        bytes,
        0usize..5,
        pause,
        any::<u64>(),
    );
    (vec(dice, 0..steps), 0u64..1_000_000).prop_map(|(dice, rest)| {
        let mut maker = Maker::default();
        for one in dice {
            maker.step(one);
        }
        maker.end(rest)
    })
}

#[derive(Default)]
struct Maker {
    stream: Stream,
    live: Vec<Live>,
    free_handles: Vec<u32>,
    handles: u32,
    now_ns: u64,
    events: u64,
    bytes: u64,
    allocations: u64,
    blocks_most: u64,
    bytes_most: u64,
}

impl Maker {
    fn tell(&mut self, mut fact: Fact) {
        fact.time_ns = self.now_ns;
        fact.clock_events = self.events;
        fact.clock_bytes = self.bytes;
        fact.clock_allocations = self.allocations;
        self.stream.told.push((fact, self.stream.peaks));
    }

    fn peaks(&mut self) {
        let at = Some(self.stream.told.len() - 1);
        let bytes = self.live.iter().map(|live| live.fact.bytes).sum();
        if self.live.len() as u64 > self.blocks_most {
            self.blocks_most = self.live.len() as u64;
            self.stream.peaks.blocks += 1;
            self.stream.blocks_peak_at = at;
        }
        if bytes > self.bytes_most {
            self.bytes_most = bytes;
            self.stream.peaks.bytes += 1;
            self.stream.bytes_peak_at = at;
        }
    }

    fn aged(&self, live: &Live) -> Fact {
        Fact {
            life_ns: self.now_ns - live.born_ns,
            life_events: self.events - live.born_events,
            life_bytes: self.bytes - live.born_bytes,
            life_allocations: self.allocations - live.born_allocations,
            align_log2: 0,
            flags: 0,
            old_address: 0,
            old_bytes: 0,
            ..live.fact
        }
    }

    fn displace(&mut self, address: u64) {
        if let Some(at) = self
            .live
            .iter()
            .position(|live| live.fact.address == address)
        {
            let live = self.live.swap_remove(at);
            self.free_handles.push(live.fact.handle);
            let fact = self.aged(&live);
            self.tell(Fact {
                what: What::Displaced,
                thread: fact.born_thread,
                ..fact
            });
        }
    }

    fn step(
        &mut self,
        (what, thread, place, bytes, entry, pause_ns, choice): (u8, u32, u64, u64, usize, u64, u64),
    ) {
        self.now_ns += pause_ns;
        self.events += 1;
        let address = place * 16;
        let any = match self.live.len() {
            0 => None,
            count => Some(choice as usize % count),
        };
        match (what, any) {
            (0..45, _) => {
                let entry = [
                    Entry::Malloc,
                    Entry::Calloc,
                    Entry::New,
                    Entry::AlignedAlloc,
                    Entry::Realloc,
                ][entry];
                self.allocations += 1;
                self.bytes += bytes;
                self.displace(address);
                let handle = self.free_handles.pop().unwrap_or_else(|| {
                    self.handles += 1;
                    self.handles - 1
                });
                let fact = Fact {
                    address,
                    bytes,
                    thread,
                    born_thread: thread,
                    handle,
                    what: What::Born,
                    entry,
                    align_log2: if entry == Entry::AlignedAlloc {
                        3 + (choice % 10) as u8
                    } else {
                        0
                    },
                    class: size_class(bytes),
                    flags: Fact::CALL,
                    ..Fact::default()
                };
                self.tell(fact);
                self.live.push(Live {
                    fact,
                    born_ns: self.now_ns,
                    born_events: self.events,
                    born_bytes: self.bytes,
                    born_allocations: self.allocations,
                });
                self.peaks();
            }
            (45..80, Some(at)) => {
                let live = self.live.swap_remove(at);
                self.free_handles.push(live.fact.handle);
                let fact = self.aged(&live);
                let entry = if what == 45 {
                    Entry::Realloc
                } else {
                    Entry::Free
                };
                self.tell(Fact {
                    what: What::Freed,
                    thread,
                    entry,
                    flags: Fact::CALL,
                    ..fact
                });
            }
            (80..96, Some(at)) => {
                let mut live = self.live.swap_remove(at);
                let moved = choice & 1 << 32 != 0;
                let to = if moved { address } else { live.fact.address };
                if moved {
                    self.displace(to);
                }
                let from = live.fact;
                self.bytes += bytes.saturating_sub(from.bytes);
                live.fact.address = to;
                live.fact.bytes = bytes;
                live.fact.growths += u32::from(bytes > from.bytes);
                let fact = self.aged(&live);
                self.tell(Fact {
                    what: What::Resized,
                    thread,
                    entry: Entry::Realloc,
                    flags: Fact::CALL,
                    old_address: from.address,
                    old_bytes: from.bytes,
                    ..fact
                });
                self.live.push(live);
                self.peaks();
            }
            (96..98, _) => self.tell(Fact {
                what: What::Nothing,
                thread,
                bytes,
                entry: Entry::Malloc,
                flags: Fact::CALL,
                ..Fact::default()
            }),
            _ => self.tell(Fact {
                what: What::Nothing,
                thread,
                address,
                entry: Entry::Free,
                flags: Fact::CALL | Fact::UNKNOWN,
                ..Fact::default()
            }),
        }
    }

    fn end(mut self, rest_ns: u64) -> Stream {
        self.now_ns += rest_ns;
        for live in std::mem::take(&mut self.live) {
            let fact = self.aged(&live);
            self.tell(Fact {
                what: What::Kept,
                thread: fact.born_thread,
                ..fact
            });
        }
        self.stream.end_ns = self.now_ns;
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{AtPeak, Measure};

    #[derive(Default)]
    struct LiveBlocks(AtPeak, AtPeak);

    impl Measure for LiveBlocks {
        fn fact(&mut self, fact: &Fact, peaks: Peaks) {
            match fact.what {
                What::Born => {
                    self.0.add(peaks.blocks, 1);
                    self.1.add(peaks.bytes, fact.bytes);
                }
                What::Resized => self
                    .1
                    .add(peaks.bytes, fact.bytes.wrapping_sub(fact.old_bytes)),
                What::Freed | What::Displaced => {
                    self.0.sub(peaks.blocks, 1);
                    self.1.sub(peaks.bytes, fact.bytes);
                }
                What::Kept | What::Nothing => {}
            }
        }
    }

    proptest! {
        /// A number kept with `AtPeak` is what it was right after the fact that made the peak.
        #[test]
        fn numbers_are_what_they_were_at_the_peak(stream in streams(200)) {
            let mut live = LiveBlocks::default();
            stream.tell(&mut live);
            let blocks = stream.blocks_peak_at.map_or(0, |at| stream.live_after(at).len() as u64);
            let bytes = stream.bytes_peak_at.map_or(0, |at| stream.live_after(at).iter().map(|fact| fact.bytes).sum());
            prop_assert_eq!(live.0.at_peak(stream.peaks.blocks), blocks);
            prop_assert_eq!(live.1.at_peak(stream.peaks.bytes), bytes);
        }
    }
}
