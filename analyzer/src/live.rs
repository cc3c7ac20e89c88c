//! Live blocks and bytes: how many there are now, the peaks and when they were, the mean over time,
//! the curve. One `Gauge` serves a process, another the sum over all processes.

use crate::series::{Curve, Series};
use serde::Serialize;

/// Sums over the live blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Blocks.
    pub blocks: u64,
    /// Requested bytes.
    pub bytes: u64,
    /// Requested bytes, each block's rounded up to 16.
    pub rounded: u64,
    /// What a handle beside each block adds to that after rounding.
    pub in_place: u64,
}

impl Live {
    #[inline]
    pub fn add(&mut self, bytes: u64) {
        self.blocks = self.blocks.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
        self.rounded = self.rounded.wrapping_add(round16(bytes));
        self.in_place = self.in_place.wrapping_add(handle_in_place(bytes));
    }

    #[inline]
    pub fn sub(&mut self, bytes: u64) {
        self.blocks = self.blocks.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(bytes);
        self.rounded = self.rounded.wrapping_sub(round16(bytes));
        self.in_place = self.in_place.wrapping_sub(handle_in_place(bytes));
    }
}

/// Bytes rounded up to 16, modulo 2^64.
#[inline]
pub(crate) fn round16(bytes: u64) -> u64 {
    bytes.wrapping_add(15) & !15
}

/// `round16(bytes + 8) - round16(bytes)`: 0 or 16.
#[inline]
pub(crate) fn handle_in_place(bytes: u64) -> u64 {
    (bytes.wrapping_sub(1) & 8) << 1
}

/// When live blocks and live bytes were greatest. The first moment of equals counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// Most live blocks at once.
    pub live_blocks: u64,
    /// Most live bytes at once.
    pub live_bytes: u64,
    /// When live blocks were most: the same as `live_blocks_at_ns`.
    pub at_ns: u64,
    /// When live blocks were most, in nanoseconds since the run's first record.
    pub live_blocks_at_ns: u64,
    /// When live bytes were most.
    pub live_bytes_at_ns: u64,
    /// Live bytes at the moment of most live blocks.
    pub live_bytes_at_live_blocks: u64,
    /// Number of the process that held most of the live blocks at their peak.
    pub process: u32,
    /// Number of the process that held most of the live bytes at their peak.
    pub live_bytes_process: u32,
}

/// Means over time, rounded down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mean {
    /// Live blocks, weighted with the time that they were live.
    pub live_blocks: u64,
    /// Live bytes, weighted with the time that they were live.
    pub live_bytes: u64,
}

/// Follows live blocks and bytes through time.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    /// Now.
    pub live: Live,
    /// At the peak of live blocks.
    pub most_blocks: Live,
    pub most_blocks_ns: u64,
    pub most_bytes: u64,
    pub most_bytes_ns: u64,
    /// Sums of end times minus sums of begin times, of blocks and of bytes, modulo 2^128. With what
    /// is live at the end counted as ending there, these are the integrals over time.
    integral: (u128, u128),
    series: Series,
}

/// What a new peak was of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NewPeak {
    pub blocks: bool,
    pub bytes: bool,
}

impl Gauge {
    pub fn new(start_ns: u64, bins_max: usize) -> Gauge {
        Gauge {
            live: Live::default(),
            most_blocks: Live::default(),
            most_blocks_ns: start_ns,
            most_bytes: 0,
            most_bytes_ns: start_ns,
            integral: (0, 0),
            series: Series::new(start_ns, bins_max),
        }
    }

    #[inline]
    fn values(&self) -> (u64, u64) {
        (self.live.blocks, self.live.bytes)
    }

    /// A block begins to live.
    #[inline]
    pub fn add(&mut self, now_ns: u64, bytes: u64) -> NewPeak {
        self.series.hold(now_ns, self.values());
        self.live.add(bytes);
        self.integral.0 = self.integral.0.wrapping_sub(u128::from(now_ns));
        self.integral.1 = self
            .integral
            .1
            .wrapping_sub(u128::from(now_ns) * u128::from(bytes));
        self.raised(now_ns)
    }

    /// A block ceases to live.
    #[inline]
    pub fn sub(&mut self, now_ns: u64, bytes: u64) {
        self.series.hold(now_ns, self.values());
        self.live.sub(bytes);
        self.integral.0 = self.integral.0.wrapping_add(u128::from(now_ns));
        self.integral.1 = self
            .integral
            .1
            .wrapping_add(u128::from(now_ns) * u128::from(bytes));
    }

    /// A live block changes its size.
    #[inline]
    pub fn resize(&mut self, now_ns: u64, from_bytes: u64, to_bytes: u64) -> NewPeak {
        self.series.hold(now_ns, self.values());
        self.live.sub(from_bytes);
        self.live.add(to_bytes);
        let grown = to_bytes.wrapping_sub(from_bytes) as i64;
        let area = (i128::from(grown) * i128::from(now_ns)) as u128;
        self.integral.1 = self.integral.1.wrapping_sub(area);
        self.raised(now_ns)
    }

    /// Many blocks begin to live at once.
    pub fn add_all(&mut self, now_ns: u64, more: Live) -> NewPeak {
        self.series.hold(now_ns, self.values());
        self.live.blocks = self.live.blocks.wrapping_add(more.blocks);
        self.live.bytes = self.live.bytes.wrapping_add(more.bytes);
        self.live.rounded = self.live.rounded.wrapping_add(more.rounded);
        self.live.in_place = self.live.in_place.wrapping_add(more.in_place);
        let now = u128::from(now_ns);
        self.integral.0 = self.integral.0.wrapping_sub(now * u128::from(more.blocks));
        self.integral.1 = self.integral.1.wrapping_sub(now * u128::from(more.bytes));
        self.raised(now_ns)
    }

    /// Many blocks cease to live at once.
    pub fn sub_all(&mut self, now_ns: u64, blocks: u64, bytes: u64) {
        self.series.hold(now_ns, self.values());
        self.live.blocks = self.live.blocks.wrapping_sub(blocks);
        self.live.bytes = self.live.bytes.wrapping_sub(bytes);
        let now = u128::from(now_ns);
        self.integral.0 = self.integral.0.wrapping_add(now * u128::from(blocks));
        self.integral.1 = self.integral.1.wrapping_add(now * u128::from(bytes));
    }

    #[inline]
    fn raised(&mut self, now_ns: u64) -> NewPeak {
        self.series.raise(self.values());
        let new = NewPeak {
            blocks: self.live.blocks > self.most_blocks.blocks,
            bytes: self.live.bytes > self.most_bytes,
        };
        if new.blocks {
            self.most_blocks = self.live;
            self.most_blocks_ns = now_ns;
        }
        if new.bytes {
            self.most_bytes = self.live.bytes;
            self.most_bytes_ns = now_ns;
        }
        new
    }

    /// Integrals of live blocks and live bytes over time, up to now.
    pub fn integral(&self, now_ns: u64) -> (u128, u128) {
        let now = u128::from(now_ns);
        (
            self.integral
                .0
                .wrapping_add(now * u128::from(self.live.blocks)),
            self.integral
                .1
                .wrapping_add(now * u128::from(self.live.bytes)),
        )
    }

    /// Means over `start_ns..now_ns`; where that is no time at all, what is live now.
    pub fn mean(&self, start_ns: u64, now_ns: u64) -> Mean {
        let (blocks, bytes) = self.integral(now_ns);
        let passed = u128::from(now_ns.saturating_sub(start_ns));
        match (blocks.checked_div(passed), bytes.checked_div(passed)) {
            (Some(blocks), Some(bytes)) => Mean {
                live_blocks: blocks as u64,
                live_bytes: bytes as u64,
            },
            _ => Mean {
                live_blocks: self.live.blocks,
                live_bytes: self.live.bytes,
            },
        }
    }

    /// The peaks, of process `number` alone.
    pub fn peak(&self, number: u32) -> Peak {
        Peak {
            live_blocks: self.most_blocks.blocks,
            live_bytes: self.most_bytes,
            at_ns: self.most_blocks_ns,
            live_blocks_at_ns: self.most_blocks_ns,
            live_bytes_at_ns: self.most_bytes_ns,
            live_bytes_at_live_blocks: self.most_blocks.bytes,
            process: number,
            live_bytes_process: number,
        }
    }

    /// The curve up to now.
    pub fn curve(&self, now_ns: u64) -> Curve {
        self.series.clone().finish(now_ns, self.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_beside_the_block_costs_what_rounding_says() {
        for bytes in (0..200).chain([1 << 40, (1 << 40) + 1, (1 << 40) + 8, (1 << 40) + 9]) {
            assert_eq!(
                handle_in_place(bytes),
                round16(bytes + 8) - round16(bytes),
                "{bytes}"
            );
        }
    }

    #[test]
    fn peaks_are_the_first_of_equals() {
        let mut gauge = Gauge::new(0, 8);
        gauge.add(10, 100);
        gauge.sub(20, 100);
        gauge.add(30, 100);
        assert_eq!(gauge.peak(0).live_blocks_at_ns, 10);
        assert_eq!(gauge.peak(0).live_bytes_at_ns, 10);
        assert_eq!(gauge.integral(40), (20, 2_000));
    }
}
