//! Changes to inputs, from a seeded generator: the same seed and number give the same input again.

/// SplitMix64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// A generator for one input.
    pub fn new(seed: u64, number: u64) -> Random {
        let mut random = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        random.next_u64();
        random
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }
}

impl Random {
    /// From 1 to half of `1 << bits`, small numbers more often.
    fn skewed(&mut self, bits: usize) -> usize {
        let bits = self.below(bits);
        1 + self.below(1 << bits)
    }
}

/// Numbers at which things go wrong.
fn interesting(random: &mut Random, near: u64) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        3 => (1 << random.below(64)) - 1,
        4 => near.wrapping_add(1),
        5 => near.wrapping_sub(1),
        6 => near.wrapping_add(random.below(65_536) as u64),
        _ => random.next_u64(),
    }
}

/// Longest input made.
pub const BYTES_MAX: usize = 256 << 10;

/// A changed `input`; `other` is one to take from.
pub fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    // Mostly few changes, sometimes many.
    let changes = random.skewed(5);
    for _ in 0..changes {
        let at = random.below(bytes.len().max(1));
        let length = random.skewed(11);
        let end = (at + length).min(bytes.len());
        if bytes.is_empty() {
            bytes.extend_from_slice(&other[..other.len().min(1 + length)]);
            continue;
        }
        match random.below(16) {
            0..3 => bytes[at] ^= 1 << random.below(8),
            3 | 4 => bytes[at] = interesting(random, u64::from(bytes[at])) as u8,
            5..9 => {
                // A whole number, at its natural place more often than not.
                let size = 2 << random.below(3);
                let at = if random.below(4) == 0 {
                    at
                } else {
                    at - at % size
                };
                if let Some(field) = bytes.get_mut(at..at + size) {
                    let mut word = [0; 8];
                    word[..size].copy_from_slice(field);
                    let word = interesting(random, u64::from_le_bytes(word)).to_le_bytes();
                    field.copy_from_slice(&word[..size]);
                }
            }
            9 => {
                let value = interesting(random, 1) as u8;
                bytes[at..end].fill(value);
            }
            10 => {
                let from = random.below(bytes.len());
                let until = (from + length).min(bytes.len());
                let piece = bytes[from..until].to_vec();
                let end = (at + piece.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            11 => {
                let from = random.below(other.len().max(1));
                let piece = other.get(from..).unwrap_or_default();
                let piece = &piece[..piece.len().min(length)];
                let end = (at + piece.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            12 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            13 => {
                let from = random.below(other.len().max(1));
                let piece = other.get(from..).unwrap_or_default().iter().take(length);
                let piece: Vec<u8> = piece.copied().collect();
                bytes.splice(at..at, piece);
            }
            14 => {
                bytes.drain(at..end);
            }
            _ => bytes.truncate(at),
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_numbers_give_the_same_input() {
        let make = |n| mutate(&mut Random::new(7, n), &[1; 100], &[2; 50]);
        for n in 0..1000 {
            assert_eq!(make(n), make(n));
        }
        assert!((1..100).filter(|n| make(*n) != make(0)).count() > 90);
    }

    #[test]
    fn anything_can_be_changed() {
        for n in 0..20_000 {
            let mut random = Random::new(3, n);
            let length = random.below(40);
            let other = random.below(40);
            mutate(&mut random, &vec![5; length], &vec![9; other]);
        }
    }
}
