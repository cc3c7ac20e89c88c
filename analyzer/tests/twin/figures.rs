//! Each figure from its definition, over vectors of everything.

use super::*;

pub fn count(sizes: &[u64]) -> u64 {
    sizes.len() as u64
}

pub fn sum(sizes: &[u64]) -> u64 {
    sizes.iter().sum()
}

pub(super) fn first_greatest(start: u64, values: impl Iterator<Item = (u64, u64)>) -> (u64, u64) {
    values.fold((start, 0), |best, at| if at.1 > best.1 { at } else { best })
}

pub(super) fn integral(values: &[(u64, u64)], end: u64) -> u128 {
    let next = values.iter().skip(1).map(|at| at.0).chain([end]);
    values
        .iter()
        .zip(next)
        .map(|(at, next)| u128::from(at.1) * u128::from(next - at.0))
        .sum()
}

pub(super) fn mean(values: &[(u64, u64, u64)], start: u64, end: u64) -> Mean {
    let last = values.last().map_or((0, 0), |at| (at.1, at.2));
    if end == start {
        return Mean {
            live_blocks: last.0,
            live_bytes: last.1,
        };
    }
    let of = |pick: fn(&(u64, u64, u64)) -> u64| {
        let values: Vec<_> = values.iter().map(|at| (at.0, pick(at))).collect();
        (integral(&values, end) / u128::from(end - start)) as u64
    };
    Mean {
        live_blocks: of(|at| at.1),
        live_bytes: of(|at| at.2),
    }
}

pub(super) fn peak(
    blocks: (u64, u64),
    bytes: (u64, u64),
    bytes_at_blocks: u64,
    process: u32,
    bytes_process: u32,
) -> Peak {
    Peak {
        live_blocks: blocks.1,
        live_bytes: bytes.1,
        at_ns: blocks.0,
        live_blocks_at_ns: blocks.0,
        live_bytes_at_ns: bytes.0,
        live_bytes_at_live_blocks: bytes_at_blocks,
        process,
        live_bytes_process: bytes_process,
    }
}

/// Greatest values by bin, the bins as small as `bins_max` allows.
pub(super) fn bins(
    values: &[(u64, u64, u64)],
    start: u64,
    end: u64,
    bins_max: u64,
) -> (u64, Vec<(u64, u64)>) {
    let end = values.iter().map(|at| at.0).fold(end, u64::max);
    let mut step = 1024;
    while (end - start) / step >= bins_max {
        step *= 2;
    }
    let bin = |n: u64| {
        let (from, to) = (start + n * step, start + (n + 1) * step);
        let entry = values
            .iter()
            .rfind(|at| at.0 < from)
            .map_or((0, 0), |at| (at.1, at.2));
        let inside = values.iter().filter(|at| from <= at.0 && at.0 < to);
        inside.fold(entry, |most, at| (most.0.max(at.1), most.1.max(at.2)))
    };
    (step, (0..=(end - start) / step).map(bin).collect())
}

pub(super) fn curve(values: &[(u64, u64, u64)], start: u64, end: u64, bins_max: u64) -> Curve {
    let (step_ns, bins) = bins(values, start, end, bins_max);
    let (live_blocks, live_bytes) = bins.into_iter().unzip();
    Curve {
        start_ns: start,
        step_ns,
        live_blocks,
        live_bytes,
    }
}

pub(super) fn resident(
    sums: &[(u64, [u64; 3], bool)],
    start: u64,
    end: u64,
    bins_max: u64,
) -> Option<Resident> {
    if sums.is_empty() {
        return None;
    }
    let values: Vec<_> = sums
        .iter()
        .map(|(ns, sums, _)| (*ns, sums[0], sums[1]))
        .collect();
    let (step_ns, bins) = bins(&values, start, end, bins_max);
    let (anonymous_bytes, resident_bytes) = bins.into_iter().unzip();
    let (anonymous_at, anonymous) = first_greatest(0, values.iter().map(|at| (at.0, at.1)));
    let (resident_at, resident) = first_greatest(0, values.iter().map(|at| (at.0, at.2)));
    Some(Resident {
        samples: sums.iter().filter(|(_, _, is_sample)| *is_sample).count() as u64,
        anonymous_bytes_peak: anonymous,
        anonymous_bytes_peak_at_ns: anonymous_at,
        resident_bytes_peak: resident,
        resident_bytes_peak_at_ns: resident_at,
        virtual_bytes_peak: sums.iter().map(|(_, sums, _)| sums[2]).max().unwrap_or(0),
        start_ns: start,
        step_ns,
        anonymous_bytes,
        resident_bytes,
    })
}

pub(super) fn handle_table(process: u32, sizes: &[u64]) -> HandleTable {
    let blocks = count(sizes);
    let rounded: u64 = sizes.iter().map(|bytes| bytes.next_multiple_of(16)).sum();
    let with_handle: u64 = sizes
        .iter()
        .map(|bytes| (bytes + 8).next_multiple_of(16))
        .sum();
    let recommended = (blocks * 125).div_ceil(100).next_multiple_of(512);
    let ratio = |part: u64, times: u64, of: u64| (part * times).checked_div(of).unwrap_or(0);
    HandleTable {
        process,
        handle_bytes: 8,
        entries_peak: blocks,
        entries_recommended: recommended,
        reasoning: String::new(),
        margin_percent: 25,
        bytes_reserved: recommended * 8,
        bytes_used_at_peak: blocks * 8,
        bytes_segmented: blocks.div_ceil(512) * (4096 + 8),
        bytes_in_place: with_handle - rounded,
        live_bytes_at_peak: sum(sizes),
        live_bytes_rounded_at_peak: rounded,
        m_mean_millibytes: ratio(sum(sizes), 1000, blocks),
        d_in_place_millibytes: ratio(with_handle - rounded, 1000, blocks),
        d_reserved_millibytes: ratio(recommended * 8, 1000, blocks),
        reserved_share_ppm: ratio(recommended * 8, 1_000_000, sum(sizes)),
        in_place_share_ppm: ratio(with_handle - rounded, 1_000_000, sum(sizes)),
        memory: None,
    }
}

/// The figures that are sums over processes.
pub(super) fn figures_of(all: &[&TwinProcess], start: u64, end: u64, integral: u128) -> Figures {
    let calls: Vec<&Event> = all.iter().flat_map(|process| &process.calls).collect();
    let of_kind = |kind: Kind| calls.iter().filter(|event| event.kind() == kind).count() as u64;
    let blocks: Vec<&Block> = all.iter().flat_map(|process| &process.blocks).collect();
    let own: Vec<&Block> = all
        .iter()
        .flat_map(|process| process.own_blocks())
        .collect();
    let freed: Vec<&&Block> = blocks
        .iter()
        .filter(|block| matches!(block.end, Some(End::Freed { .. })))
        .collect();
    let displaced: Vec<&&Block> = blocks
        .iter()
        .filter(|block| matches!(block.end, Some(End::Displaced | End::Lost)))
        .collect();
    let lost = displaced
        .iter()
        .filter(|block| block.end == Some(End::Lost))
        .count() as u64;
    let kept: Vec<&&Block> = own.iter().filter(|block| block.end.is_none()).collect();
    let inherited: Vec<&&Block> = blocks
        .iter()
        .filter(|block| block.inherited && block.end != Some(End::Never))
        .collect();
    let bytes_of = |blocks: &[&&Block]| blocks.iter().map(|block| block.bytes).sum::<u64>();
    let cross = own.iter().filter(
        |block| matches!(block.end, Some(End::Freed { thread, .. }) if thread != block.thread),
    );
    let inherited_freed = freed.iter().filter(|block| block.inherited).count() as u64;
    let unknown = all.iter().map(|process| process.unknown_frees).sum();
    let mut lifetimes: Vec<(u64, u64, u64, u64)> = Vec::new();
    for block in &own {
        if let Some(End::Freed {
            ns, events, bytes, ..
        }) = block.end
        {
            lifetimes.push((
                ns - block.born_ns,
                events - block.born_events,
                bytes - block.born_bytes,
                block.first_bytes,
            ));
        }
    }
    let below = |limit: u64| lifetimes.iter().filter(|of| of.0 < limit).count() as u64;
    let allocated = own.len() as u64;
    let lifetime = LifetimeReport {
        ns: lifetimes_of(lifetimes.iter().map(|of| of.0).collect()),
        events: lifetimes_of(lifetimes.iter().map(|of| of.1).collect()),
        bytes: lifetimes_of(lifetimes.iter().map(|of| of.2).collect()),
        shares: Shares {
            blocks: allocated,
            below_1us: below(1_000),
            below_1ms: below(1_000_000),
            below_1s: below(1_000_000_000),
            from_1s: lifetimes.len() as u64 - below(1_000_000_000),
            to_end: kept.len() as u64,
            displaced: own
                .iter()
                .filter(|block| matches!(block.end, Some(End::Displaced | End::Lost)))
                .count() as u64,
        },
    };
    let ppm = |ns: u128, of: u128| (ns * 1_000_000).checked_div(of).unwrap_or(0) as u64;
    let duration = u128::from(end - start);
    Figures {
        events: Events {
            total: calls.len() as u64,
            malloc: of_kind(Kind::Malloc),
            calloc: of_kind(Kind::Calloc),
            realloc: of_kind(Kind::Realloc),
            memalign: of_kind(Kind::Memalign),
            free: of_kind(Kind::Free),
            failed: calls.iter().filter(|event| event.failed()).count() as u64,
            dropped: 0,
            unknown_frees: unknown,
            live_duplicates: displaced.len() as u64 - lost,
        },
        blocks: Blocks {
            allocated,
            freed: freed.len() as u64,
            never_freed: kept.len() as u64,
            inherited: inherited.len() as u64,
            displaced: displaced.len() as u64,
            lost_in_pause: lost,
            ..Blocks::default()
        },
        bytes: Bytes {
            requested: all.iter().flat_map(|process| &process.requested).sum(),
            freed: bytes_of(&freed),
            shrunk: all.iter().flat_map(|process| &process.shrunk).sum(),
            never_freed: bytes_of(&kept),
            // A resize counts in `requested` and `shrunk`, so here a block has its first size.
            inherited: inherited.iter().map(|block| block.first_bytes).sum(),
            displaced: bytes_of(&displaced),
            ..Bytes::default()
        },
        size_histogram: size_histogram(&own),
        macro_lifetime: MacroLifetime {
            mean_ppm: ppm(integral, duration * u128::from(allocated)),
            p50_ppm: ppm(lifetime.ns.p50.into(), duration),
            p90_ppm: ppm(lifetime.ns.p90.into(), duration),
            p99_ppm: ppm(lifetime.ns.p99.into(), duration),
            max_ppm: ppm(lifetime.ns.max.into(), duration),
        },
        lifetime,
        lifetime_by_size: by_size(&lifetimes, &kept),
        frees: Frees {
            total: freed.len() as u64,
            cross_thread: cross.count() as u64,
            inherited: inherited_freed,
            by_realloc: all.iter().map(|process| process.by_realloc).sum(),
            unknown,
            before_start: all.iter().map(|process| process.before_start).sum(),
        },
        realloc: reallocs(all, &own),
        checks: Checks {
            blocks: true,
            bytes: true,
            events: true,
        },
        ..Figures::default()
    }
}

/// The power of two below, in quarters where those are whole numbers.
pub(super) fn class(bytes: u64) -> (u64, u64) {
    if bytes == 0 {
        return (0, 1);
    }
    let power = (0..64)
        .map(|n| 1u64 << n)
        .rfind(|power| *power <= bytes)
        .unwrap();
    let step = (power / 4).max(1);
    let low = power + (bytes - power) / step * step;
    (low, low + step)
}

pub(super) fn size_histogram(own: &[&Block]) -> Vec<SizeBin> {
    let mut bins: Vec<SizeBin> = Vec::new();
    for block in own {
        let (low, high) = class(block.first_bytes);
        match bins.iter_mut().find(|bin| bin.low == low) {
            Some(bin) => {
                bin.blocks += 1;
                bin.bytes += block.first_bytes;
            }
            None => bins.push(SizeBin {
                low,
                high,
                blocks: 1,
                bytes: block.first_bytes,
            }),
        }
    }
    bins.sort_by_key(|bin| bin.low);
    bins
}

/// The value at rank `ceil(n * percent / 100)` of the sorted values, raised to the end of its bucket.
pub(super) fn percentile<const BITS: u32>(sorted: &[u64], percent: usize) -> u64 {
    let Some(rank) = (sorted.len() * percent).div_ceil(100).checked_sub(1) else {
        return 0;
    };
    let bucket_end = LogLinear::<BITS>::bounds(LogLinear::<BITS>::index(sorted[rank])).1;
    bucket_end.min(sorted[sorted.len() - 1])
}

pub(super) fn lifetimes_of(mut values: Vec<u64>) -> Lifetimes {
    values.sort_unstable();
    let mut histogram: Vec<LifetimeBin> = Vec::new();
    for &value in &values {
        let low = (0..64)
            .map(|n| 1u64 << n)
            .rfind(|power| *power <= value)
            .unwrap_or(0);
        match histogram.last_mut() {
            Some(bin) if bin.low == low => bin.blocks += 1,
            _ => histogram.push(LifetimeBin {
                low,
                high: (low * 2).max(1),
                blocks: 1,
            }),
        }
    }
    Lifetimes {
        p50: percentile::<7>(&values, 50),
        p90: percentile::<7>(&values, 90),
        p99: percentile::<7>(&values, 99),
        max: values.last().copied().unwrap_or(0),
        histogram,
    }
}

pub(super) fn by_size(lifetimes: &[(u64, u64, u64, u64)], kept: &[&&Block]) -> Vec<LifetimeBySize> {
    let rows = std::iter::once((0, 1)).chain((0..63).map(|n| (1u64 << n, 2u64 << n)));
    let row = |(low, high): (u64, u64)| {
        let inside = |bytes: u64| low <= bytes && bytes < high;
        let mut ns: Vec<u64> = lifetimes
            .iter()
            .filter(|of| inside(of.3))
            .map(|of| of.0)
            .collect();
        ns.sort_unstable();
        LifetimeBySize {
            low,
            high,
            freed: ns.len() as u64,
            to_end: kept
                .iter()
                .filter(|block| inside(block.first_bytes))
                .count() as u64,
            p50_ns: percentile::<4>(&ns, 50),
            p90_ns: percentile::<4>(&ns, 90),
            p99_ns: percentile::<4>(&ns, 99),
            max_ns: ns.last().copied().unwrap_or(0),
        }
    };
    rows.map(row)
        .filter(|row| row.freed + row.to_end != 0)
        .collect()
}

pub(super) fn reallocs(all: &[&TwinProcess], own: &[&Block]) -> Reallocs {
    let resizes: Vec<&Resize> = all.iter().flat_map(|process| &process.resizes).collect();
    let number =
        |of: &dyn Fn(&Resize) -> bool| resizes.iter().filter(|resize| of(resize)).count() as u64;
    let growths: Vec<u64> = own
        .iter()
        .map(|block| block.growths)
        .filter(|growths| *growths != 0)
        .collect();
    let chain = |low: u64| ChainBin {
        low,
        high: low * 2,
        blocks: growths
            .iter()
            .filter(|growths| low <= **growths && **growths < low * 2)
            .count() as u64,
    };
    Reallocs {
        resized: resizes.len() as u64,
        in_place: number(&|resize| resize.0 == resize.1),
        moved: number(&|resize| resize.0 != resize.1),
        grown: number(&|resize| resize.3 > resize.2),
        shrunk: number(&|resize| resize.3 < resize.2),
        from_null: all.iter().map(|process| process.from_null).sum(),
        to_zero: all.iter().map(|process| process.to_zero).sum(),
        bytes_copied_max: resizes
            .iter()
            .filter(|of| of.0 != of.1)
            .map(|of| of.2.min(of.3))
            .sum(),
        blocks_grown: growths.len() as u64,
        chain_longest: growths.iter().copied().max().unwrap_or(0),
        chains: (0..32)
            .map(|n| chain(1 << n))
            .filter(|bin| bin.blocks != 0)
            .collect(),
    }
}
