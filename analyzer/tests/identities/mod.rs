//! What must hold between the figures of a report, whatever was recorded: sums of details are first
//! figures, and the run's sums are those of its processes.

use rmtrace_analyzer::Report;
use rmtrace_analyzer::details::Details;
use rmtrace_analyzer::report::Figures;
use rmtrace_analyzer::temporary::Part;
use rmtrace_analyzer::thread_matrix::FreedBlocks;

/// What is known of a report beside it.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// No two live blocks of a process overlap.
    pub is_apart: bool,
    /// Only some of the blocks were told of.
    pub is_filtered: bool,
}

fn sum(values: &[u64]) -> u64 {
    values.iter().sum()
}

/// Asserts all of it. Processes without details are looked at as far as they go.
pub fn hold(report: &Report, about: About) {
    let run = &report.figures;
    assert!(run.checks.all(), "{:?}", run.checks);
    figures(run, "the run");
    let details = run.details.as_ref().expect("details of the run");
    of_one(run, details, about, "the run");
    for process in &report.processes {
        let who = format!("process {}", process.number);
        assert!(process.figures.checks.all(), "{who}");
        figures(&process.figures, &who);
        if let Some(details) = &process.figures.details {
            of_one(&process.figures, details, about, &who);
            let forked = process.started_by == "fork";
            of_heap(&process.figures, details, about, forked, &who);
        }
    }
    of_run(report, details);
    if let [process] = &report.processes[..] {
        let same_time = process.duration_ns == report.duration_ns
            && process.start_ns + process.duration_ns == process.end_ns;
        if let Some(own) = &process.figures.details {
            one_process(details, own, same_time && process.start_ns == 0);
        }
    }
}

/// First figures.
fn figures(of: &Figures, who: &str) {
    let sizes = &of.size_histogram;
    let sum_of = |each: fn(&rmtrace_analyzer::histogram::SizeBin) -> u64| -> u64 {
        sizes.iter().map(each).sum()
    };
    assert_eq!(sum_of(|bin| bin.blocks), of.blocks.allocated, "{who}");
    let shares = &of.lifetime.shares;
    assert_eq!(shares.blocks, of.blocks.allocated, "{who}");
    let own_freed = of.frees.total - of.frees.inherited;
    assert_eq!(shares.below_1s + shares.from_1s, own_freed, "{who}");
    assert_eq!(shares.to_end, of.blocks.never_freed, "{who}");
    assert_eq!(
        own_freed + shares.to_end + shares.displaced,
        shares.blocks,
        "{who}"
    );
    assert_eq!(of.frees.total, of.blocks.freed, "{who}");
    let by_size = of.lifetime_by_size.iter().map(|row| row.freed);
    assert_eq!(by_size.sum::<u64>(), own_freed, "{who}");
    for lifetimes in [&of.lifetime.ns, &of.lifetime.events, &of.lifetime.bytes] {
        let counted = lifetimes.histogram.iter().map(|bin| bin.blocks);
        assert_eq!(counted.sum::<u64>(), own_freed, "{who}");
        let order = [lifetimes.p50, lifetimes.p90, lifetimes.p99, lifetimes.max];
        assert!(order.is_sorted(), "{who}: {order:?}");
    }
    let greatest = |curve: &[u64]| curve.iter().max().copied().unwrap_or(0);
    assert_eq!(greatest(&of.live.live_blocks), of.peak.live_blocks, "{who}");
    assert_eq!(greatest(&of.live.live_bytes), of.peak.live_bytes, "{who}");
    assert!(of.mean.live_blocks <= of.peak.live_blocks, "{who}");
    assert!(of.mean.live_bytes <= of.peak.live_bytes, "{who}");
    assert!(of.macro_lifetime.max_ppm <= 1_000_000, "{who}");
    assert!(of.macro_lifetime.mean_ppm <= 1_000_000, "{who}");
}

fn freed(all: &[FreedBlocks]) -> (u64, u64, u64) {
    let blocks = all.iter().map(|of| of.blocks).sum();
    let bytes = all.iter().map(|of| of.bytes).sum();
    (
        blocks,
        bytes,
        all.iter().map(|of| of.max_ns).max().unwrap_or(0),
    )
}

/// Details of a process or of the run against its first figures.
fn of_one(of: &Figures, details: &Details, about: About, who: &str) {
    let own_freed = of.frees.total - of.frees.inherited;
    let own_displaced = of.lifetime.shares.displaced;
    let allocated = of.blocks.allocated;
    let first_sizes: u64 = of.size_histogram.iter().map(|bin| bin.bytes).sum();
    // Resizes of inherited blocks are in some first figures, and in no details.
    let heirs = of.blocks.inherited != 0;
    let equal_or_less = |less: u64, all: u64, what: &str| match heirs {
        true => assert!(less <= all, "{who}: {what}"),
        false => assert_eq!(less, all, "{who}: {what}"),
    };

    let rates = &details.rates;
    assert_eq!(sum(&rates.allocations), allocated, "{who}");
    assert_eq!(sum(&rates.frees), own_freed + own_displaced, "{who}");
    equal_or_less(sum(&rates.reallocs), of.realloc.resized, "rates.reallocs");
    equal_or_less(
        sum(&rates.bytes_allocated),
        of.bytes.requested,
        "rates.bytes_allocated",
    );
    let gone = of.bytes.freed + of.bytes.displaced + of.bytes.shrunk;
    equal_or_less(sum(&rates.bytes_freed), gone, "rates.bytes_freed");
    assert!(
        sum(&rates.blocks_released) <= of.blocks.never_freed,
        "{who}"
    );
    let held = of.bytes.never_freed - sum(&rates.bytes_released);
    let before = sum(&rates.bytes_allocated) - sum(&rates.bytes_freed) - sum(&rates.bytes_released);
    assert_eq!(before, held, "{who}");

    for phases in [&details.phases.phases, &details.between_marks.phases] {
        let Some((first, last)) = phases.first().zip(phases.last()) else {
            continue;
        };
        let total = |each: &dyn Fn(&rmtrace_analyzer::phases::Phase) -> u64| -> u64 {
            phases.iter().map(each).sum()
        };
        assert_eq!(total(&|phase| phase.tally.allocations), allocated, "{who}");
        assert_eq!(
            total(&|phase| phase.tally.frees),
            sum(&rates.frees),
            "{who}"
        );
        assert_eq!(
            total(&|phase| phase.tally.bytes_allocated),
            sum(&rates.bytes_allocated),
            "{who}"
        );
        assert_eq!(
            total(&|phase| phase.tally.bytes_freed),
            sum(&rates.bytes_freed),
            "{who}"
        );
        assert_eq!(
            total(&|phase| phase.kept.blocks),
            of.blocks.never_freed,
            "{who}"
        );
        assert_eq!(
            total(&|phase| phase.kept.bytes),
            of.bytes.never_freed,
            "{who}"
        );
        for (at, phase) in phases.iter().enumerate() {
            let ended: u64 = phase.ended.iter().map(|amount| amount.blocks).sum();
            assert_eq!(
                ended + phase.kept.blocks,
                phase.tally.allocations,
                "{who}: phase {at}"
            );
            let own = phase.ended.first().map_or(0, |amount| amount.blocks);
            assert_eq!(
                own + phase.outlived.blocks,
                phase.tally.allocations,
                "{who}: phase {at}"
            );
            // What ended in it was born in it or before.
            let ended_here: u64 = (0..=at)
                .filter_map(|born| phases[born].ended.get(at - born))
                .map(|amount| amount.blocks)
                .sum();
            assert_eq!(ended_here, phase.tally.frees, "{who}: phase {at}");
        }
        for two in phases.windows(2) {
            assert_eq!(two[0].to_ns, two[1].from_ns, "{who}");
        }
        assert!(first.from_ns <= last.to_ns, "{who}");
    }

    let survival = &details.survival;
    assert_eq!(
        (survival.freed, survival.freed + survival.censored),
        (own_freed, allocated),
        "{who}"
    );
    let rows = &survival.by_size;
    assert_eq!(
        rows.iter().map(|row| row.freed).sum::<u64>(),
        survival.freed,
        "{who}"
    );
    assert_eq!(
        rows.iter().map(|row| row.censored).sum::<u64>(),
        survival.censored,
        "{who}"
    );
    for curve in [&survival.ns, &survival.bytes] {
        for shares in [&curve.blocks_ppm, &curve.bytes_ppm, &curve.at_risk_blocks] {
            assert!(shares.is_sorted_by(|a, b| a >= b), "{who}: {shares:?}");
        }
        assert!(
            curve
                .blocks_ppm
                .iter()
                .chain(&curve.bytes_ppm)
                .all(|ppm| *ppm <= 1_000_000),
            "{who}"
        );
    }

    let fates = &details.temporary.fates;
    assert_eq!(fates.blocks, allocated, "{who}");
    let last = fates.within.last().expect("numbers of allocations").part;
    let parts = [last, fates.later, fates.kept, fates.displaced];
    assert_eq!(
        parts.iter().map(|part| part.blocks).sum::<u64>(),
        fates.blocks,
        "{who}"
    );
    assert_eq!(
        parts.iter().map(|part| part.bytes).sum::<u64>(),
        fates.bytes,
        "{who}"
    );
    let kept = (fates.kept.blocks, fates.kept.bytes);
    assert_eq!(kept, (of.blocks.never_freed, of.bytes.never_freed), "{who}");
    assert_eq!(fates.displaced.blocks, own_displaced, "{who}");
    assert!(
        fates
            .within
            .is_sorted_by(|a, b| a.part.blocks <= b.part.blocks),
        "{who}"
    );
    let rows = &details.temporary.by_size;
    for (n, within) in fates.within.iter().enumerate() {
        let of_rows: u64 = rows.iter().map(|row| row.within_blocks[n]).sum();
        assert_eq!(of_rows, within.part.blocks, "{who}");
        let of_rows: u64 = rows.iter().map(|row| row.within_bytes[n]).sum();
        assert_eq!(of_rows, within.part.bytes, "{who}");
    }
    for row in rows {
        let bins = of.size_histogram.iter();
        let in_row = bins.filter(|bin| (row.low..row.high).contains(&bin.low));
        assert_eq!(
            in_row.map(|bin| bin.blocks).sum::<u64>(),
            row.blocks,
            "{who}: {}",
            row.low
        );
        let ends = row.later_blocks + row.kept_blocks + row.displaced_blocks;
        assert_eq!(
            ends + row.within_blocks.last().unwrap(),
            row.blocks,
            "{who}: {}",
            row.low
        );
    }

    let threads = &details.lifetime_by_thread;
    let lives = || {
        threads
            .listed
            .iter()
            .map(|of| &of.lives)
            .chain([&threads.rest])
    };
    assert_eq!(lives().map(|of| of.blocks).sum::<u64>(), allocated, "{who}");
    assert_eq!(
        lives().map(|of| of.bytes).sum::<u64>(),
        fates.bytes,
        "{who}"
    );
    assert_eq!(lives().map(|of| of.freed).sum::<u64>(), own_freed, "{who}");
    assert_eq!(
        lives().map(|of| of.kept).sum::<u64>(),
        of.blocks.never_freed,
        "{who}"
    );
    assert_eq!(
        lives().map(|of| of.kept_bytes).sum::<u64>(),
        of.bytes.never_freed,
        "{who}"
    );
    assert_eq!(
        lives().map(|of| of.displaced).sum::<u64>(),
        own_displaced,
        "{who}"
    );
    assert_eq!(
        lives().map(|of| of.max_ns).max(),
        Some(of.lifetime.ns.max),
        "{who}"
    );

    let matrix = &details.thread_matrix;
    assert_eq!(matrix.same.blocks + matrix.other.blocks, own_freed, "{who}");
    assert_eq!(matrix.other.blocks, of.frees.cross_thread, "{who}");
    assert_eq!(
        matrix.same.max_ns.max(matrix.other.max_ns),
        of.lifetime.ns.max,
        "{who}"
    );
    let mut pairs: Vec<FreedBlocks> = matrix.listed.iter().map(|pair| pair.freed).collect();
    pairs.push(matrix.rest);
    assert_eq!(freed(&pairs), freed(&[matrix.other]), "{who}");
    if let Some(picture) = &matrix.picture {
        let shown: u64 = picture.blocks.iter().flatten().sum();
        match picture.is_whole {
            true => assert_eq!(shown, own_freed, "{who}"),
            false => assert!(shown <= own_freed, "{who}"),
        }
    }

    let growth = &details.growth;
    let resized = growth.by_size.iter().map(|row| row.resized).sum();
    equal_or_less(resized, of.realloc.resized, "growth.by_size");
    assert_eq!(resized, sum(&rates.reallocs), "{who}");
    equal_or_less(
        growth.by_size.iter().map(|row| row.in_place).sum(),
        of.realloc.in_place,
        "in_place",
    );
    let copied = growth.by_size.iter().map(|row| row.bytes_copied).sum();
    equal_or_less(copied, of.realloc.bytes_copied_max, "bytes_copied");
    let added: u64 = growth.added.iter().map(|bin| bin.resizes).sum();
    equal_or_less(added, of.realloc.grown, "growth.added");
    let factors: u64 = growth.factors.iter().map(|bin| bin.resizes).sum();
    assert_eq!(factors + growth.from_zero, added, "{who}");
    let grown = growth.totals.iter().map(|bin| bin.blocks).sum();
    equal_or_less(grown, of.realloc.blocks_grown, "growth.totals");

    let odd = &details.odd_requests;
    assert_eq!(odd.blocks, allocated, "{who}");
    let zeros = &odd.zeros;
    let born = zeros.malloc + zeros.calloc + zeros.realloc + zeros.memalign;
    let of_zero = of.size_histogram.iter().find(|bin| bin.low == 0);
    assert_eq!(born, of_zero.map_or(0, |bin| bin.blocks), "{who}");
    equal_or_less(zeros.freed, of.frees.by_realloc, "zeros.freed");
    let failed: u64 = odd.failed.iter().map(|bin| bin.calls).sum();
    assert_eq!(failed, of.events.failed, "{who}");
    let highest = of.size_histogram.last().map_or(0, |bin| bin.low);
    assert!(odd.largest_bytes >= highest, "{who}");

    let exact = &details.exact_sizes;
    let listed: u64 = exact.most.iter().map(|size| size.blocks).sum();
    let listed_bytes: u64 = exact.most.iter().map(|size| size.bytes).sum();
    if exact.sizes as usize == exact.most.len() {
        assert_eq!((listed, listed_bytes), (allocated, first_sizes), "{who}");
    } else {
        assert!(listed <= allocated && listed_bytes <= first_sizes, "{who}");
    }
    let classes = &details.size_classes;
    assert_eq!(classes.requested_births, first_sizes, "{who}");
    for system in &classes.systems {
        assert!(
            system.at_peak.usable_bytes >= classes.requested_at_peak,
            "{who}"
        );
        assert!(
            system.births.usable_bytes >= classes.requested_births,
            "{who}"
        );
        assert!(
            system.over_time.usable_bytes >= classes.requested_over_time,
            "{who}"
        );
    }
    for best in [
        &details.best_classes.over_time,
        &details.best_classes.at_peak,
    ] {
        assert!(best.requested_bytes <= best.usable_bytes_least, "{who}");
        // More classes never take more.
        for set in &best.best {
            assert!(set.usable_bytes >= best.usable_bytes_least, "{who}");
            assert_eq!(set.classes as usize, set.sizes.len(), "{who}");
        }
        let sets = &best.best;
        assert!(
            sets.is_sorted_by(|a, b| a.classes > b.classes || a.usable_bytes >= b.usable_bytes),
            "{who}"
        );
    }

    let bounds = &details.heap.bounds;
    let order = [
        bounds.live_peak.bytes,
        bounds.rounded_peak.bytes,
        bounds.compacted_peak.bytes,
    ];
    assert!(order.is_sorted(), "{who}: {order:?}");
    assert!(
        bounds.compacted_peak.bytes <= bounds.compacted_pages_bytes,
        "{who}"
    );
    assert!(
        bounds.best_known_bytes <= bounds.recorded_peak.bytes,
        "{who}"
    );
    let mut means = vec![&bounds.mean];
    means.extend(details.all_heaps.as_ref().map(|all| &all.bounds));
    for mean in means {
        let order = [mean.live_bytes, mean.rounded_bytes, mean.compacted_bytes];
        assert!(order.is_sorted(), "{who}: {order:?}");
        if about.is_apart {
            assert!(mean.live_bytes <= mean.recorded_bytes, "{who}: {mean:?}");
        }
    }
    if about.is_apart {
        assert!(
            bounds.live_peak.bytes <= bounds.recorded_peak.bytes,
            "{who}"
        );
        assert!(bounds.live_peak.bytes <= bounds.best_known_bytes, "{who}");
    }
    assert!(!about.is_filtered || of.blocks.inherited == 0, "{who}");
}

/// Pages, bounds and age of a process.
fn of_heap(of: &Figures, details: &Details, about: About, forked: bool, who: &str) {
    let (pages, bounds) = (&details.heap.pages, &details.heap.bounds);
    assert_eq!(
        pages.over_time.end.live_bytes, of.bytes.never_freed,
        "{who}"
    );
    assert_eq!(
        pages.over_time.mean.live_bytes, bounds.mean.live_bytes,
        "{who}"
    );
    let at_peak = &pages.at_live_bytes_peak;
    assert_eq!(
        sum(&pages.occupancy_at_live_bytes_peak),
        at_peak.pages,
        "{who}"
    );
    let at_end = pages.over_time.occupancy.iter().map(|row| row.pages_end);
    assert_eq!(at_end.sum::<u64>(), pages.over_time.end.pages, "{who}");
    assert!(at_peak.pages <= pages.peak.holding.pages, "{who}");
    assert!(
        pages.over_time.mean.pages <= pages.peak.holding.pages,
        "{who}"
    );
    assert_eq!(
        pages.curve.pages.iter().max(),
        Some(&pages.peak.holding.pages),
        "{who}"
    );
    if about.is_apart {
        for holding in [
            at_peak,
            &pages.peak.holding,
            &pages.over_time.mean,
            &pages.over_time.end,
        ] {
            assert!(
                holding.live_bytes <= holding.held_bytes,
                "{who}: {holding:?}"
            );
        }
    }
    if let Some(age) = &details.heap.age {
        for bins in [&age.by_ns, &age.by_bytes] {
            let all = (
                bins.iter().map(|bin| bin.blocks).sum(),
                bins.iter().map(|bin| bin.bytes).sum(),
            );
            assert_eq!(all, (age.blocks, age.bytes), "{who}");
        }
        assert_eq!(age.bytes, details.size_classes.requested_at_peak, "{who}");
        assert_eq!(age.bytes, at_peak.live_bytes, "{who}");
    }
    // A forked process can have had blocks at its peak that turned out not to be inherited.
    if !forked {
        assert_eq!(at_peak.live_bytes, of.peak.live_bytes, "{who}");
        assert_eq!(bounds.live_peak.bytes, of.peak.live_bytes, "{who}");
        assert_eq!(bounds.mean.live_bytes, of.mean.live_bytes, "{who}");
        if of.peak.live_bytes != 0 {
            assert_eq!(bounds.live_peak.at_ns, of.peak.live_bytes_at_ns, "{who}");
            let age = details.heap.age.as_ref().expect("something lived");
            assert_eq!(age.at_ns, of.peak.live_bytes_at_ns, "{who}");
        }
    }
}

/// The run's details, where they are sums, against those of its processes.
fn of_run(report: &Report, run: &Details) {
    let all: Option<Vec<&Details>> = report
        .processes
        .iter()
        .map(|process| process.figures.details.as_deref())
        .collect();
    // Only the busiest processes of a large run have details.
    let Some(all) = all.filter(|all| !all.is_empty()) else {
        return;
    };
    let total = |each: &dyn Fn(&Details) -> u64| -> u64 { all.iter().map(|of| each(of)).sum() };
    let sums: [&dyn Fn(&Details) -> u64; 24] = [
        &|of| sum(&of.rates.allocations),
        &|of| sum(&of.rates.frees),
        &|of| sum(&of.rates.reallocs),
        &|of| sum(&of.rates.bytes_allocated),
        &|of| sum(&of.rates.bytes_freed),
        &|of| of.survival.freed,
        &|of| of.survival.censored,
        &|of| of.temporary.fates.bytes,
        &|of| of.temporary.fates.later.bytes,
        &|of| of.temporary.fates.displaced.bytes,
        &|of| of.lifetime_by_thread.threads,
        &|of| of.thread_matrix.same.bytes,
        &|of| of.thread_matrix.other.bytes,
        &|of| of.thread_matrix.pairs,
        &|of| of.growth.by_size.iter().map(|row| row.within_class).sum(),
        &|of| of.growth.bytes_copied_growing,
        &|of| of.growth.final_bytes,
        &|of| of.odd_requests.powers_of_two,
        &|of| of.odd_requests.whole_pages.bytes,
        &|of| of.odd_requests.grown_huge,
        &|of| of.odd_requests.zeros.resized,
        &|of| of.odd_requests.huge.iter().map(|bin| bin.bytes).sum(),
        &|of| {
            of.odd_requests
                .aligned
                .iter()
                .map(|bin| bin.padding_bytes)
                .sum()
        },
        &|of| of.odd_requests.failed.iter().map(|bin| bin.calls).sum(),
    ];
    for (n, each) in sums.iter().enumerate() {
        assert_eq!(each(run), total(*each), "sum {n} of the run");
    }
    for n in 0..run.temporary.fates.within.len() {
        let within = |of: &Details| -> Part { of.temporary.fates.within[n].part };
        assert_eq!(
            within(run).blocks,
            total(&|of| within(of).blocks),
            "within {n}"
        );
        assert_eq!(
            within(run).bytes,
            total(&|of| within(of).bytes),
            "within {n}"
        );
    }
    // Released is what processes held that ended before the end.
    let last_ns = report.processes.iter().map(|process| process.end_ns).max();
    let ended = || {
        report
            .processes
            .iter()
            .filter(|process| Some(process.end_ns) < last_ns)
    };
    let blocks: u64 = ended()
        .map(|process| process.figures.blocks.never_freed)
        .sum();
    let bytes: u64 = ended()
        .map(|process| process.figures.bytes.never_freed)
        .sum();
    assert!(sum(&run.rates.blocks_released) >= blocks);
    assert!(sum(&run.rates.bytes_released) >= bytes);
    let heaps = &run.all_heaps.as_ref().expect("all heaps").pages;
    assert_eq!(
        heaps.end.pages,
        total(&|of| of.heap.pages.over_time.end.pages)
    );
    assert_eq!(
        heaps.end.live_bytes,
        total(&|of| of.heap.pages.over_time.end.live_bytes)
    );
    // The run's heap is that of the process with most live bytes of its own.
    let most = all.iter().map(|of| of.heap.bounds.live_peak.bytes).max();
    assert_eq!(Some(run.heap.bounds.live_peak.bytes), most);
    let whose = report
        .processes
        .iter()
        .position(|process| process.number == run.heap.process);
    assert_eq!(run.heap, all[whose.expect("a process of the run")].heap);
}

/// The details of a run of one process are its details, where both have them.
fn one_process(run: &Details, own: &Details, same_time: bool) {
    assert_eq!(run.survival, own.survival);
    assert_eq!(run.temporary, own.temporary);
    assert_eq!(run.lifetime_by_thread, own.lifetime_by_thread);
    assert_eq!(run.growth, own.growth);
    assert_eq!(run.odd_requests, own.odd_requests);
    assert_eq!(run.heap, own.heap);
    let mut matrix = own.thread_matrix.clone();
    matrix.picture = None;
    assert_eq!(run.thread_matrix, matrix);
    if same_time {
        assert_eq!(run.exact_sizes, own.exact_sizes);
        assert_eq!(run.size_classes, own.size_classes);
        assert_eq!(run.best_classes, own.best_classes);
        assert_eq!(run.phases, own.phases);
        assert_eq!(run.between_marks, own.between_marks);
        let all = run.all_heaps.as_ref().expect("all heaps");
        assert_eq!(all.pages, own.heap.pages.over_time);
        assert_eq!(all.bounds, own.heap.bounds.mean);
    }
}
