//! mimalloc 2.0.9. Sources: `src/page-queue.c` (bins of blocks to 128 KiB: 8 bytes, multiples of 16 to 128,
//! then four in each power of two), `src/segment.c` (a larger block has a span of its own in slices of
//! 64 KiB; spans above 512 KiB are multiples of that), `src/os.c` (sizes are first rounded up for the
//! operating system: from 8 MiB on to multiples of 1 MiB, from 32 MiB on of 4 MiB). Debian's build has
//! neither padding nor guard pages. The whole span counts, as `malloc_usable_size` tells it.

use super::{quarters, up};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Greatest block that shares its span.
const SHARED_MAX: u64 = 128 * KIB;

pub fn usable(bytes: u64) -> u64 {
    match bytes {
        0..=SHARED_MAX => quarters(bytes),
        _ if bytes <= 512 * KIB => up(bytes, 64 * KIB),
        _ if bytes <= 8 * MIB => up(bytes, 512 * KIB),
        _ if bytes <= 32 * MIB => up(bytes, MIB),
        _ => up(bytes, 4 * MIB),
    }
}
