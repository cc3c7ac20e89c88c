//! Numbers for people: thousands separated, one unit for all numbers of a column.

/// A whole number with its thousands separated: `1,284,002`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at != 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number in tenths with its thousands separated: `1,284.0`.
fn tenths(tenths: u128) -> String {
    let whole = u64::try_from(tenths / 10).unwrap_or(u64::MAX);
    format!("{}.{}", count(whole), tenths % 10)
}

/// The unit of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// How much of the smallest unit it is.
    size: u64,
    /// Its name.
    name: &'static str,
}

const BYTES: [Unit; 5] = [
    Unit { size: 1, name: "B" },
    Unit {
        size: 1 << 10,
        name: "KiB",
    },
    Unit {
        size: 1 << 20,
        name: "MiB",
    },
    Unit {
        size: 1 << 30,
        name: "GiB",
    },
    Unit {
        size: 1 << 40,
        name: "TiB",
    },
];

const TIMES: [Unit; 4] = [
    Unit {
        size: 1,
        name: "ns",
    },
    Unit {
        size: 1_000,
        name: "us",
    },
    Unit {
        size: 1_000_000,
        name: "ms",
    },
    Unit {
        size: 1_000_000_000,
        name: "s",
    },
];

impl Unit {
    fn fitting(units: &[Unit], number: u64) -> Unit {
        let fitting = units.iter().rev().find(|unit| unit.size <= number);
        *fitting.unwrap_or(&units[0])
    }

    /// The unit for a single number of bytes: it is at least one of it.
    pub fn bytes(bytes: u64) -> Unit {
        Unit::fitting(&BYTES, bytes)
    }

    /// The unit for a column whose greatest number of bytes is this: it is at least ten of it, so
    /// that smaller ones keep digits.
    pub fn column_of_bytes(most: u64) -> Unit {
        Unit::fitting(&BYTES, most / 10)
    }

    /// The unit of time in which `ns` is at least one.
    pub fn time(ns: u64) -> Unit {
        Unit::fitting(&TIMES, ns)
    }

    /// The unit for a column of times: at least one microsecond, and that of the shortest but 0.
    pub fn time_column(ns: impl Iterator<Item = u64>) -> Unit {
        let shortest = ns.filter(|ns| *ns != 0).min();
        Unit::time(shortest.unwrap_or(0).max(1_000))
    }

    /// The number in this unit, with its name.
    pub fn show(self, number: u64) -> String {
        format!("{} {}", self.bare(number), self.name)
    }

    /// The number in this unit, rounded to a tenth, without its name.
    pub fn bare(self, number: u64) -> String {
        if self.size == 1 {
            return count(number);
        }
        let size = u128::from(self.size);
        tenths((u128::from(number) * 10 + size / 2) / size)
    }

    /// Its name, alone at the head of a column.
    pub fn name(self) -> &'static str {
        match self.name {
            "B" => "bytes",
            name => name,
        }
    }
}

/// Bytes in the unit that fits them.
pub fn bytes(number: u64) -> String {
    Unit::bytes(number).show(number)
}

/// A time in the unit that fits it; seconds with two digits.
pub fn time(ns: u64) -> String {
    let unit = Unit::time(ns);
    if unit.name == "s" {
        let hundredths = (u128::from(ns) + 5_000_000) / 10_000_000;
        let whole = u64::try_from(hundredths / 100).unwrap_or(u64::MAX);
        return format!("{}.{:02} s", count(whole), hundredths % 100);
    }
    unit.show(ns)
}

/// A share as a percentage: `57.3 %`; 0 of 0 is a dash.
pub fn share(part: u64, of: u64) -> String {
    match (u128::from(part) * 1000 + u128::from(of / 2)).checked_div(of.into()) {
        Some(permille) => format!("{} %", tenths(permille)),
        None => "-".to_string(),
    }
}

/// Millionths as a percentage.
pub fn ppm(ppm: u64) -> String {
    share(ppm, 1_000_000)
}

/// A number and its noun: `1 process`, `2 processes`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_284_002), "1,284,002");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(bytes(1023), "1,023 B");
        assert_eq!(bytes(51_066_675), "48.7 MiB");
        assert_eq!(time(2_414_000_000), "2.41 s");
        assert_eq!(time(1_049), "1.0 us");
        assert_eq!(time(1_050), "1.1 us");
        assert_eq!(Unit::bytes(1 << 30).show(1 << 20), "0.0 GiB");
        assert_eq!(Unit::column_of_bytes(1 << 30).show(1 << 30), "1,024.0 MiB");
        assert_eq!(share(57, 100), "57.0 %");
        assert_eq!(share(1, 0), "-");
        assert_eq!(counted(1, "thread", "threads"), "1 thread");
    }
}
