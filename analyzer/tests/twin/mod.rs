//! The slow, obvious twin of the analyzer: it keeps every block that ever was and every moment's live
//! blocks in vectors, and works each figure out from its definition when it is asked.

mod figures;

pub use figures::{count, sum};

use figures::*;
use rmtrace_analyzer::counts::Events;
use rmtrace_analyzer::cross_thread::Frees;
use rmtrace_analyzer::handle_table::HandleTable;
use rmtrace_analyzer::histogram::SizeBin;
use rmtrace_analyzer::invisible::Invisible;
use rmtrace_analyzer::lifetime::{
    LifetimeBin, LifetimeBySize, LifetimeReport, Lifetimes, MacroLifetime, Shares,
};
use rmtrace_analyzer::live::{Mean, Peak};
use rmtrace_analyzer::log_linear::LogLinear;
use rmtrace_analyzer::realloc::{ChainBin, Reallocs};
use rmtrace_analyzer::report::{Blocks, Bytes, Checks, Figures};
use rmtrace_analyzer::resident::Resident;
use rmtrace_analyzer::series::Curve;
use rmtrace_file::model::{Process, Sample};
use rmtrace_format::{Event, Kind, Step};

/// What is delivered to a consumer.
#[derive(Clone, Debug)]
pub enum Delivery {
    Started(Box<Process>, u64),
    Fork(u32, u32, u64),
    Inherit(u32, Event),
    Event(Event),
    Ended(u32, u64),
    Sample(Sample, u64),
    /// Recording was stopped.
    Stop(u64),
}

/// Old address, new address, old bytes, new bytes.
type Resize = (u64, u64, u64, u64);

/// How a block ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Freed {
        thread: u32,
        ns: u64,
        events: u64,
        bytes: u64,
    },
    Displaced,
    /// As displaced, after a pause.
    Lost,
    /// It was not inherited after all: the parent had freed it before the fork.
    Never,
}

#[derive(Clone, Debug)]
struct Block {
    /// Where it is; `None` within a realloc.
    address: Option<u64>,
    inherited: bool,
    first_bytes: u64,
    bytes: u64,
    thread: u32,
    born_ns: u64,
    born_events: u64,
    born_bytes: u64,
    growths: u64,
    resized: bool,
    end: Option<End>,
}

/// The live blocks at a moment.
#[derive(Clone, Debug, Default)]
struct Moment {
    ns: u64,
    /// Sizes of all blocks, and of those that were not inherited.
    heap: Vec<u64>,
    own: Vec<u64>,
}

#[derive(Debug, Default)]
pub struct TwinProcess {
    started_ns: u64,
    ended_ns: Option<u64>,
    /// Deliveries before its end.
    ended_at: usize,
    blocks: Vec<Block>,
    calls: Vec<Event>,
    /// Bytes that each allocation and each resize added.
    requested: Vec<u64>,
    shrunk: Vec<u64>,
    unknown_frees: u64,
    /// Frees of unknown addresses after a pause.
    before_start: u64,
    /// Whether the run has been paused.
    was_paused: bool,
    /// Thread, old address, and the block's place in `blocks`.
    aside: Vec<(u32, u64, Option<usize>)>,
    resizes: Vec<Resize>,
    to_zero: u64,
    from_null: u64,
    by_realloc: u64,
    moments: Vec<Moment>,
    samples: Vec<(u64, Sample)>,
    /// Of each sample, how many moments were before it.
    sampled_at: Vec<usize>,
}

impl TwinProcess {
    fn clock_events(&self) -> u64 {
        self.calls.len() as u64
    }

    fn clock_bytes(&self) -> u64 {
        self.requested.iter().sum()
    }

    pub fn at(&self, address: u64) -> Option<usize> {
        self.blocks
            .iter()
            .position(|block| block.end.is_none() && block.address == Some(address))
    }

    /// Addresses at which blocks live.
    pub fn addresses(&self) -> Vec<u64> {
        let live = self.blocks.iter().filter(|block| block.end.is_none());
        live.filter_map(|block| block.address).collect()
    }

    fn displace(&mut self, address: u64) {
        if let Some(at) = self.at(address) {
            self.blocks[at].end = Some(match self.was_paused {
                true => End::Lost,
                false => End::Displaced,
            });
        }
    }

    fn begin(&mut self, event: &Event) {
        self.displace(event.address);
        self.requested.push(event.requested_bytes);
        self.blocks.push(Block {
            address: Some(event.address),
            inherited: false,
            first_bytes: event.requested_bytes,
            bytes: event.requested_bytes,
            thread: event.thread,
            born_ns: event.time_ns,
            born_events: self.clock_events(),
            born_bytes: self.clock_bytes(),
            growths: 0,
            resized: false,
            end: None,
        });
    }

    fn free(&mut self, at: usize, event: &Event) {
        self.blocks[at].end = Some(End::Freed {
            thread: event.thread,
            ns: event.time_ns,
            events: self.clock_events(),
            bytes: self.clock_bytes(),
        });
    }

    fn unknown_free(&mut self) {
        match self.was_paused {
            true => self.before_start += 1,
            false => self.unknown_frees += 1,
        }
    }

    fn event(&mut self, event: &Event) {
        if event.step != Step::ReallocBegin {
            self.calls.push(*event);
        }
        match event.step {
            Step::Alloc if event.address == 0 => {}
            Step::Alloc => self.begin(event),
            Step::Free => match self.at(event.address) {
                Some(at) => self.free(at, event),
                None => self.unknown_free(),
            },
            Step::ReallocBegin => {
                if event.old_address == 0 {
                    return;
                }
                let left = self.aside.iter().position(|aside| aside.0 == event.thread);
                if let Some((_, address, block)) = left.map(|at| self.aside.remove(at)) {
                    self.restore(address, block);
                }
                let block = self.at(event.old_address);
                if let Some(at) = block {
                    self.blocks[at].address = None;
                }
                self.aside.push((event.thread, event.old_address, block));
            }
            Step::ReallocEnd => self.realloc_end(event),
        }
    }

    fn restore(&mut self, address: u64, block: Option<usize>) {
        if let Some(at) = block {
            self.displace(address);
            self.blocks[at].address = Some(address);
        }
    }

    fn realloc_end(&mut self, event: &Event) {
        if event.old_address == 0 {
            if event.address != 0 {
                self.from_null += 1;
                self.begin(event);
            }
            return;
        }
        let mine = |aside: &(u32, u64, Option<usize>)| {
            aside.0 == event.thread && aside.1 == event.old_address
        };
        let block = match self.aside.iter().position(mine) {
            Some(at) => self.aside.remove(at).2,
            None => self.at(event.old_address),
        };
        let freed = event.flags & Event::FREED != 0;
        if event.address == 0 && !freed {
            self.restore(event.old_address, block);
            return;
        }
        if event.address == 0 {
            self.to_zero += 1;
        }
        match block {
            None => {
                self.unknown_free();
                if event.address != 0 {
                    self.begin(event);
                }
            }
            Some(at) if event.address == 0 => {
                self.by_realloc += 1;
                self.blocks[at].address = None;
                self.free(at, event);
            }
            Some(at) => {
                self.blocks[at].address = None;
                self.displace(event.address);
                let (from, to) = (self.blocks[at].bytes, event.requested_bytes);
                self.resizes
                    .push((event.old_address, event.address, from, to));
                self.requested.push(to.saturating_sub(from));
                self.shrunk.push(from.saturating_sub(to));
                let block = &mut self.blocks[at];
                block.address = Some(event.address);
                block.bytes = to;
                block.resized = true;
                block.growths += u64::from(to > from && !block.inherited);
            }
        }
    }

    fn inherit(&mut self, event: &Event) {
        let (gone, come) = match event.step {
            Step::ReallocBegin => return,
            Step::Alloc => (0, event.address),
            Step::Free => (event.address, 0),
            Step::ReallocEnd if event.address == 0 && event.flags & Event::FREED == 0 => return,
            Step::ReallocEnd => (event.old_address, event.address),
        };
        // What the child allocated or resized is newer than what the parent had there.
        let newer = |block: &Block| !block.inherited || block.resized;
        let is_own = |process: &Self, address| {
            process
                .at(address)
                .is_some_and(|at| newer(&process.blocks[at]))
        };
        for address in [gone, come] {
            if let Some(at) = self.at(address).filter(|at| !newer(&self.blocks[*at])) {
                self.blocks[at].end = Some(End::Never);
            }
        }
        if come != 0 && !is_own(self, come) {
            self.inherit_block(Some(come), event.requested_bytes);
        }
    }

    fn inherit_block(&mut self, address: Option<u64>, bytes: u64) {
        self.blocks.push(Block {
            address,
            inherited: true,
            first_bytes: bytes,
            bytes,
            thread: u32::MAX,
            born_ns: 0,
            born_events: 0,
            born_bytes: 0,
            growths: 0,
            resized: false,
            end: None,
        });
    }

    fn moment(&mut self, ns: u64) {
        let live = self.blocks.iter().filter(|block| block.end.is_none());
        let own = live.clone().filter(|block| !block.inherited);
        let moment = Moment {
            ns,
            heap: live.map(|block| block.bytes).collect(),
            own: own.map(|block| block.bytes).collect(),
        };
        self.moments.push(moment);
    }

    fn end_ns(&self, run_end_ns: u64) -> u64 {
        self.ended_ns.unwrap_or(run_end_ns)
    }

    fn own_blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| !block.inherited)
    }
}

#[derive(Debug, Default)]
pub struct Twin {
    pub processes: Vec<TwinProcess>,
    /// After each delivery: when, and the own live sizes of each process.
    moments: Vec<(u64, Vec<Vec<u64>>)>,
    /// Sums of the latest samples: when, anonymous, resident, virtual, and whether it is a sample.
    resident: Vec<(u64, [u64; 3], bool)>,
    latest: Vec<[u64; 3]>,
    end_ns: u64,
    /// Whether the run has been paused.
    was_paused: bool,
    /// Place in `moments` of the latest thing that a process did.
    latest_act: usize,
}

fn pages(sample: &Sample) -> [u64; 3] {
    let resident = sample.anonymous_bytes + sample.file_bytes + sample.shared_bytes;
    [sample.anonymous_bytes, resident, sample.virtual_bytes]
}

impl Twin {
    pub fn deliver(&mut self, delivery: &Delivery) {
        let ns = match delivery {
            Delivery::Started(process, ns) => {
                assert_eq!(process.number as usize, self.processes.len());
                self.processes.push(TwinProcess {
                    started_ns: *ns,
                    was_paused: self.was_paused,
                    ..TwinProcess::default()
                });
                self.latest.push([0; 3]);
                self.processes[process.number as usize].moment(*ns);
                *ns
            }
            Delivery::Fork(child, parent, ns) => {
                let parent = &self.processes[*parent as usize];
                let live: Vec<(Option<u64>, u64)> = parent
                    .blocks
                    .iter()
                    .enumerate()
                    .filter(|(_, block)| block.end.is_none())
                    .filter_map(|(at, block)| {
                        if block.address.is_some() {
                            return Some((block.address, block.bytes));
                        }
                        // Within a realloc: where it was, if that is free; of several there, the one
                        // whose thread has the highest number.
                        let aside = parent.aside.iter().find(|aside| aside.2 == Some(at))?;
                        let rival = |other: &&(u32, u64, Option<usize>)| {
                            other.1 == aside.1 && other.0 > aside.0 && other.2.is_some()
                        };
                        let taken = parent.at(aside.1).is_some()
                            || parent.aside.iter().any(|other| rival(&other));
                        (!taken).then_some((Some(aside.1), block.bytes))
                    })
                    .collect();
                let child = &mut self.processes[*child as usize];
                for (address, bytes) in live {
                    child.inherit_block(address, bytes);
                }
                child.moment(*ns);
                *ns
            }
            Delivery::Inherit(child, event) => {
                let child = &mut self.processes[*child as usize];
                child.inherit(event);
                child.moment(self.end_ns);
                self.end_ns
            }
            Delivery::Event(event) => {
                let process = &mut self.processes[event.process as usize];
                process.event(event);
                process.moment(event.time_ns);
                event.time_ns
            }
            Delivery::Ended(number, ns) => {
                self.processes[*number as usize].ended_ns = Some(*ns);
                self.processes[*number as usize].ended_at = self.moments.len();
                self.latest[*number as usize] = [0; 3];
                self.resident_moment(*ns, false);
                *ns
            }
            Delivery::Sample(sample, ns) => {
                self.latest[sample.process as usize] = pages(sample);
                let process = &mut self.processes[sample.process as usize];
                process.samples.push((*ns, *sample));
                process.sampled_at.push(process.moments.len());
                self.resident_moment(*ns, true);
                return;
            }
            Delivery::Stop(_) => {
                self.was_paused = true;
                self.processes
                    .iter_mut()
                    .for_each(|process| process.was_paused = true);
                return;
            }
        };
        self.end_ns = self.end_ns.max(ns);
        if !matches!(delivery, Delivery::Ended(..)) {
            self.latest_act = self.moments.len();
        }
        let own = |process: &TwinProcess| {
            process
                .moments
                .last()
                .map_or(Vec::new(), |moment| moment.own.clone())
        };
        self.moments
            .push((ns, self.processes.iter().map(own).collect()));
    }

    fn resident_moment(&mut self, ns: u64, is_sample: bool) {
        let mut sums = [0; 3];
        for latest in &self.latest {
            sums.iter_mut()
                .zip(latest)
                .for_each(|(sum, one)| *sum += one);
        }
        self.resident.push((ns, sums, is_sample));
    }

    /// Whether the process gave back within the run what it held: it ended, and something happened
    /// later, or another process ended later or not at all.
    fn is_released(&self, process: &TwinProcess) -> bool {
        let Some(ended_ns) = process.ended_ns else {
            return false;
        };
        let outlived = self
            .processes
            .iter()
            .any(|other| other.ended_ns.is_none_or(|ns| ns > ended_ns));
        outlived || self.latest_act > process.ended_at
    }

    /// After each delivery: when, and the sizes of the live blocks of each process that it did not
    /// inherit nor give back.
    fn live_moments(&self) -> Vec<(u64, Vec<Vec<u64>>)> {
        let mut moments = self.moments.clone();
        for (at, (_, own)) in moments.iter_mut().enumerate() {
            for (process, sizes) in self.processes.iter().zip(own) {
                if self.is_released(process) && process.ended_at <= at {
                    sizes.clear();
                }
            }
        }
        moments
    }

    /// Own live blocks, or bytes, of each process at the run's first greatest sum; when that was.
    pub fn run_peak(&self, of: fn(&[u64]) -> u64) -> (u64, Vec<u64>) {
        let mut peak = (0, vec![0; self.processes.len()]);
        for (ns, own) in &self.live_moments() {
            let mut each: Vec<u64> = own.iter().map(|sizes| of(sizes)).collect();
            each.resize(self.processes.len(), 0);
            if each.iter().sum::<u64>() > peak.1.iter().sum() {
                peak = (*ns, each);
            }
        }
        peak
    }

    pub fn duration_ns(&self) -> u64 {
        self.end_ns
    }

    /// The figures of a process.
    pub fn process(&self, number: usize) -> Figures {
        let process = &self.processes[number];
        let (start, end) = (process.started_ns, process.end_ns(self.end_ns));
        let heap: Vec<(u64, u64, u64)> = process
            .moments
            .iter()
            .map(|moment| (moment.ns, count(&moment.heap), sum(&moment.heap)))
            .collect();
        let own: Vec<(u64, u64)> = process
            .moments
            .iter()
            .map(|moment| (moment.ns, count(&moment.own)))
            .collect();
        let mut figures = figures_of(&[process], start, end, integral(&own, end));
        let (blocks_ns, blocks) = first_greatest(start, heap.iter().map(|at| (at.0, at.1)));
        let (bytes_ns, bytes) = first_greatest(start, heap.iter().map(|at| (at.0, at.2)));
        let empty = Vec::new();
        let sizes = process
            .moments
            .iter()
            .find(|moment| count(&moment.heap) == blocks);
        let sizes = sizes.map_or(&empty, |moment| &moment.heap);
        figures.peak = peak(
            (blocks_ns, blocks),
            (bytes_ns, bytes),
            sum(sizes),
            number as u32,
            number as u32,
        );
        figures.bytes.peak_live = bytes;
        figures.mean = mean(&heap, start, end);
        figures.live = curve(&heap, start, end, 128);
        figures.handle_table = handle_table(number as u32, sizes);
        let live = process
            .moments
            .last()
            .map_or((0, 0), |moment| (count(&moment.heap), sum(&moment.heap)));
        if self.is_released(process) {
            (figures.blocks.released, figures.bytes.released) = live;
        } else {
            (figures.blocks.live_at_end, figures.bytes.live_at_end) = live;
        }
        let samples: Vec<_> = process
            .samples
            .iter()
            .map(|(ns, sample)| (*ns, pages(sample), true))
            .collect();
        figures.resident = resident(&samples, start, end, 128);
        figures
    }

    /// What the blocks of a process can't account for.
    pub fn invisible(&self, number: usize) -> Option<Invisible> {
        let process = &self.processes[number];
        let all: Vec<_> = process
            .samples
            .iter()
            .map(|(_, s)| s.anonymous_bytes)
            .collect();
        let (false, Some(most)) = (self.was_paused, all.iter().max()) else {
            return None;
        };
        let at = all.iter().position(|bytes| bytes == most)?;
        let until = process.sampled_at.get(at + 1).copied();
        let before = &process.moments[..until.unwrap_or(process.moments.len())];
        let greatest = |of: fn(&[u64]) -> u64| before.iter().map(|m| of(&m.heap)).max();
        let (blocks, bytes) = (greatest(count).unwrap_or(0), greatest(sum).unwrap_or(0));
        let base = all[0].min(16 * 1024 * 1024);
        let recorded = bytes + bytes / 4 + blocks * 32;
        let grown = most - base;
        let invisible = grown.saturating_sub(recorded);
        Some(Invisible {
            at_ns: process.samples[at].0,
            anonymous_bytes: *most,
            base_bytes: base,
            live_bytes_peak: bytes,
            live_blocks_peak: blocks,
            recorded_bytes: recorded,
            invisible_bytes: invisible,
            invisible_ppm: (invisible * 1_000_000).checked_div(grown).unwrap_or(0),
            warned: invisible * 2 > grown && invisible >= 32 * 1024 * 1024,
        })
    }

    /// The figures of the run.
    pub fn run(&self) -> Figures {
        let all: Vec<&TwinProcess> = self.processes.iter().collect();
        let own_integral = |process: &&TwinProcess| {
            let own: Vec<_> = process
                .moments
                .iter()
                .map(|moment| (moment.ns, count(&moment.own)))
                .collect();
            integral(&own, process.end_ns(self.end_ns))
        };
        let mut figures = figures_of(&all, 0, self.end_ns, all.iter().map(own_integral).sum());
        let moments = self.live_moments();
        let live: Vec<(u64, u64, u64)> = moments
            .iter()
            .map(|(ns, own)| {
                (
                    *ns,
                    own.iter().map(|of| count(of)).sum(),
                    own.iter().map(|of| sum(of)).sum(),
                )
            })
            .collect();
        let (blocks_ns, blocks) = first_greatest(0, live.iter().map(|at| (at.0, at.1)));
        let (bytes_ns, bytes) = first_greatest(0, live.iter().map(|at| (at.0, at.2)));
        let at_peak = moments
            .iter()
            .find(|(_, own)| own.iter().map(|of| count(of)).sum::<u64>() == blocks);
        let bytes_at = at_peak.map_or(0, |(_, own)| own.iter().map(|of| sum(of)).sum());
        let most = |each: Vec<u64>| {
            let most = each.iter().max();
            each.iter().position(|of| Some(of) == most).unwrap_or(0) as u32
        };
        figures.peak = peak(
            (blocks_ns, blocks),
            (bytes_ns, bytes),
            bytes_at,
            most(self.run_peak(count).1),
            most(self.run_peak(sum).1),
        );
        figures.bytes.peak_live = bytes;
        figures.mean = mean(&live, 0, self.end_ns);
        figures.live = curve(&live, 0, self.end_ns, 512);
        for process in &self.processes {
            let own = process
                .moments
                .last()
                .map_or((0, 0), |moment| (count(&moment.own), sum(&moment.own)));
            if self.is_released(process) {
                figures.blocks.released += own.0;
                figures.bytes.released += own.1;
            } else {
                figures.blocks.live_at_end += own.0;
                figures.bytes.live_at_end += own.1;
            }
        }
        let tables: Vec<HandleTable> = (0..all.len())
            .map(|number| self.process(number).handle_table)
            .collect();
        let highest = most(tables.iter().map(|table| table.entries_peak).collect());
        figures.handle_table = tables
            .get(highest as usize)
            .cloned()
            .unwrap_or_else(|| handle_table(0, &[]));
        // What no process ever sampled has no sum.
        let sampled = self
            .resident
            .iter()
            .skip_while(|(_, _, is_sample)| !is_sample)
            .copied();
        figures.resident = resident(&sampled.collect::<Vec<_>>(), 0, self.end_ns, 512);
        figures
    }
}
