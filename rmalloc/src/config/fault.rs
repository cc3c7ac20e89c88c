//! What is wrong with a configuration, in words that say what would be right.
//!
//! Owned here: the reasons and their text. Left to others: where the setting was written
//! (`config/file.rs` adds file and line).

use crate::class::ClassError;
use core::fmt;

/// A setting that may not be what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting: `section.key`.
    pub key: &'static str,
    /// What it breaks.
    pub rule: Rule,
}

/// What a setting has to be, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// From `low` to `high`.
    Range {
        /// What it is.
        found: Amount,
        /// The least.
        low: Amount,
        /// The greatest.
        high: Amount,
    },
    /// A multiple of a number.
    Multiple {
        /// What it is.
        found: u64,
        /// The number.
        of: u64,
    },
    /// A multiple of another setting, at least once.
    MultipleOf {
        /// What it is.
        found: u64,
        /// The other setting.
        other: &'static str,
        /// What that one is.
        of: u64,
    },
    /// A power of two.
    PowerOfTwo {
        /// What it is.
        found: u64,
    },
    /// Not above another setting.
    AtMost {
        /// What it is.
        found: Amount,
        /// The other setting.
        other: &'static str,
        /// What that one is.
        limit: Amount,
    },
    /// Below another setting.
    LessThan {
        /// What it is.
        found: Amount,
        /// The other setting.
        other: &'static str,
        /// What that one is.
        limit: Amount,
    },
    /// Not so large that the section's bits do not fit.
    Bits {
        /// Bits of the section.
        bits: u32,
        /// Bits there are.
        most: u32,
    },
    /// Enough bits for so many numbers.
    TooFewBits {
        /// What it is.
        found: u32,
        /// The setting with the numbers.
        other: &'static str,
        /// What that one is.
        numbers: u64,
    },
    /// A way to hold handles that this library is built for: the feature `beside` decides.
    NotBuilt {
        /// What it is.
        found: &'static str,
    },
    /// Size classes.
    Classes(ClassError),
}

/// A number as it is written in a file: whole, or a share of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// The number; of a share in millionths.
    pub value: u64,
    /// Whether it is a share.
    pub is_share: bool,
}

impl Amount {
    /// A whole number.
    pub const fn count(value: u64) -> Amount {
        Amount {
            value,
            is_share: false,
        }
    }

    /// A share, in millionths.
    pub const fn share(ppm: u32) -> Amount {
        Amount {
            value: ppm as u64,
            is_share: true,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_share {
            return write!(f, "{}", self.value);
        }
        write!(f, "{}", self.value / 1_000_000)?;
        let (mut digits, mut rest) = (6, self.value % 1_000_000);
        if rest == 0 {
            return Ok(());
        }
        while rest.is_multiple_of(10) {
            (digits, rest) = (digits - 1, rest / 10);
        }
        write!(f, ".{rest:0digits$}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Rule::Range { found, low, high } if low == high => {
                write!(f, "{found} is not allowed: {low} is the only value")
            }
            Rule::Range { found, low, high } => {
                write!(f, "{found} is not allowed: from {low} to {high} is")
            }
            Rule::Multiple { found, of } => {
                write!(f, "{found} is not allowed: it must be a multiple of {of}")
            }
            Rule::MultipleOf { found, other, of } => {
                write!(
                    f,
                    "{found} is not allowed: it must be a multiple of {other}, {of}"
                )
            }
            Rule::PowerOfTwo { found } => {
                write!(f, "{found} is not allowed: it must be a power of two")
            }
            Rule::AtMost {
                found,
                other,
                limit,
            } => write!(
                f,
                "{found} is not allowed: it must be at most {other}, {limit}"
            ),
            Rule::LessThan {
                found,
                other,
                limit,
            } => write!(
                f,
                "{found} is not allowed: it must be less than {other}, {limit}"
            ),
            Rule::Bits { bits, most } => {
                write!(f, "the section has {bits} bits in all, there are {most}")
            }
            Rule::TooFewBits {
                found,
                other,
                numbers,
            } => write!(f, "{found} bits can't number {other}, {numbers}"),
            Rule::NotBuilt { found } if cfg!(feature = "beside") => write!(
                f,
                "\"{found}\" needs a library built without the feature `beside`; this one has \"beside\" alone"
            ),
            Rule::NotBuilt { found } => write!(
                f,
                "\"{found}\" needs a library built with the feature `beside`: \
                 cargo build -p rmalloc-c --release --features beside"
            ),
            Rule::Classes(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.rule)
    }
}

impl core::error::Error for Fault {}
