//! The sizes of the default classes.
//!
//! Up to 1 KiB every multiple of 16. Above it sizes at most a 16th apart, with all powers of two and
//! whole pages among them, chosen from recorded programs by
//!
//! ```text
//! cargo run --release --example rmalloc_classes -- traces/{python,sqlite,gcc,firefox-content}.rmt
//! ```
//!
//! A test of the workspace holds the list to what this prints; docs/rmalloc-config.md has the figures.

/// Classes that are multiples of 16 up to 1 KiB.
const SMALL: usize = 64;

/// Sizes above 1 KiB, in bytes.
const ABOVE: [u32; 72] = [
    1072, 1136, 1200, 1280, 1360, 1440, 1520, 1616, 1712, 1808, 1920, 2048, 2176, 2320, 2464, 2608,
    2768, 2944, 3120, 3264, 3440, 3632, 3840, 4096, 4368, 4656, 4960, 5120, 5456, 5584, 5952, 6144,
    6544, 6816, 7264, 7680, 8192, 8464, 8896, 9360, 9920, 10480, 11040, 11728, 12288, 13104, 13792,
    14560, 15168, 15872, 16384, 17200, 17840, 18432, 19216, 19840, 20480, 21504, 22336, 23072,
    23824, 24576, 25392, 26208, 26848, 27760, 28672, 29696, 30208, 31232, 32256, 32768,
];

/// All default sizes, in bytes, ascending.
pub const DEFAULT_SIZES: [u32; SMALL + ABOVE.len()] = {
    let mut sizes = [0; SMALL + ABOVE.len()];
    let mut i = 0;
    while i < sizes.len() {
        sizes[i] = if i < SMALL {
            16 * (i as u32 + 1)
        } else {
            ABOVE[i - SMALL]
        };
        i += 1;
    }
    sizes
};
