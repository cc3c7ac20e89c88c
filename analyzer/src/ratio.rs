//! Shares in whole numbers.

/// `part` of `of` in millionths, rounded down; 0 of nothing.
pub(crate) fn ppm(part: u128, of: u128) -> u64 {
    let ppm = part.saturating_mul(1_000_000).checked_div(of).unwrap_or(0);
    u64::try_from(ppm).unwrap_or(u64::MAX)
}
