//! Which settings are searched, and over which values: one table. A setting that it leaves as it is has the reason there.

use crate::bench::Candidate;
use crate::error::TuneError;
use rmalloc::config::{Config, KEYS, Key, SizeList, TableWay, Unit};
use std::fmt::Write;

/// How the values of a setting are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From `low` to `high`, each so many times the one before; the default is added where it falls between.
    Factor {
        /// The least value, of a share in millionths.
        low: u64,
        /// The greatest.
        high: u64,
        /// One over the other.
        factor: u64,
    },
    /// The words that the setting may be.
    Words,
    /// Lists of size classes, made from the traces.
    Lists,
    /// It stays at its default, for this reason.
    Fixed(&'static str),
}

/// A setting of `rmalloc.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// Its values.
    pub scale: Scale,
}

const fn of(name: &'static str, scale: Scale) -> Parameter {
    Parameter { name, scale }
}

const fn by(factor: u64, low: u64, high: u64) -> Scale {
    Scale::Factor { low, high, factor }
}

const SAFETY: Scale = Scale::Fixed("what it finds of misuse, not what it costs, is chosen by it");

/// All settings, in the order of the document.
#[rustfmt::skip]
pub static PARAMETERS: [Parameter; 27] = [
    of("heap.reserve_bytes", Scale::Fixed("addresses only: they take no memory")),
    of("heap.limit_bytes", Scale::Fixed("the program's choice")),
    of("blocks.handle_from_bytes", by(4, 64, 4_096)),
    of("classes.sizes", Scale::Lists),
    of("region.bytes", by(2, 16 << 10, 256 << 10)),
    of("region.larger_bytes", by(2, 64 << 10, 1 << 20)),
    of("table.way", Scale::Words),
    of("table.entries", by(8, 1 << 20, 1 << 29)),
    of("table.segment_entries", Scale::Fixed("a page: there is no other")),
    of("table.first_entries", by(8, 512, 1 << 18)),
    of("table.step_entries", by(8, 512, 1 << 18)),
    of("entry.bytes", Scale::Fixed("there is no other")),
    of("entry.address_bits", SAFETY),
    of("entry.lock_bits", SAFETY),
    of("entry.flag_bits", SAFETY),
    of("entry.generation_bits", SAFETY),
    of("handle.index_bits", SAFETY),
    of("handle.generation_bits", SAFETY),
    of("handle.check_bits", SAFETY),
    of("cache.entries", by(4, 4, 4_096)),
    of("compaction.mode", Scale::Words),
    of("compaction.trigger", by(2, 5_000, 640_000)),
    of("compaction.stop", by(2, 2_500, 320_000)),
    of("compaction.floor_bytes", by(4, 4 << 10, 16 << 20)),
    of("compaction.budget_ns", by(2, 25_000, 3_200_000)),
    of("compaction.cpu_share", by(2, 12_500, 800_000)),
    of("compaction.slack", by(2, 1_250, 320_000)),
];

/// Size classes with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassList {
    /// How it was made, in a word.
    pub name: String,
    /// Ascending multiples of 16.
    pub sizes: Vec<u32>,
}

/// A setting with the values that are tried.
#[derive(Clone)]
pub struct Axis {
    /// Its name.
    pub name: &'static str,
    key: &'static Key,
    /// Ascending; of a share in millionths, of a word its place among the words, of a list its place among the lists,
    /// from 1 on; 0 is the default list.
    pub values: Vec<u64>,
    /// Place of the default.
    pub default: usize,
}

/// Places in all axes.
pub type Point = Vec<usize>;

/// Everything that is searched.
#[derive(Clone)]
pub struct Space {
    /// The settings.
    pub axes: Vec<Axis>,
    lists: Vec<(ClassList, SizeList)>,
}

/// The key of a name.
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Space {
    /// Of all searched settings but those to `keep`. `lists` are the size classes to try, `beside` whether a library with handles
    /// beside the blocks is there.
    ///
    /// # Errors
    /// A name to keep that is no setting; classes that can't be.
    pub fn new(lists: Vec<ClassList>, beside: bool, keep: &[String]) -> Result<Space, TuneError> {
        for name in keep {
            if key(name).is_none() {
                let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                let text = format!("`{name}` is no setting; there are {}", names.join(", "));
                return Err(TuneError::Option(text));
            }
        }
        let checked = lists.into_iter().map(|list| {
            let sizes = SizeList::new(&list.sizes).map_err(|error| {
                TuneError::Option(format!("the size classes {}: {error}", list.name))
            })?;
            Ok((list, sizes))
        });
        let lists = checked.collect::<Result<Vec<_>, TuneError>>()?;
        let defaults = Config::new();
        let kept = |name: &str| keep.iter().any(|kept| kept == name);
        let mut axes = Vec::new();
        for parameter in PARAMETERS.iter().filter(|parameter| !kept(parameter.name)) {
            let Some(key) = key(parameter.name) else {
                continue;
            };
            let default = key.number(&defaults).unwrap_or(0);
            let mut values = match (parameter.scale, key.unit) {
                (Scale::Factor { low, high, factor }, _) => grid(low, high, factor),
                (Scale::Words, Unit::Word(words)) => (0..words.len() as u64).collect(),
                (Scale::Lists, _) => (0..=lists.len() as u64).collect(),
                _ => continue,
            };
            if parameter.name == "table.way" && !beside {
                values.retain(|way| *way != TableWay::Beside as u64);
            }
            values.push(default);
            values.sort_unstable();
            values.dedup();
            if values.len() > 1 {
                axes.push(Axis {
                    name: parameter.name,
                    key,
                    default: values
                        .iter()
                        .position(|value| *value == default)
                        .unwrap_or(0),
                    values,
                });
            }
        }
        Ok(Space { axes, lists })
    }

    /// The defaults.
    pub fn defaults(&self) -> Point {
        self.axes.iter().map(|axis| axis.default).collect()
    }

    /// The settings at a place, if they agree. `compaction.stop` is half of the trigger at most.
    pub fn candidate(&self, point: &Point) -> Option<Candidate> {
        let mut config = Config::new();
        for (axis, at) in self.axes.iter().zip(point) {
            let value = *axis.values.get(*at)?;
            match axis.key.unit {
                Unit::Sizes if value == 0 => {}
                Unit::Sizes => {
                    let (_, sizes) = self.lists.get(value as usize - 1)?;
                    axis.key.set_sizes(&mut config, *sizes);
                }
                _ => axis.key.set(&mut config, value).ok()?,
            }
        }
        let compaction = &mut config.compaction;
        compaction.stop_ppm = compaction.stop_ppm.min(compaction.trigger_ppm / 2);
        let table = &mut config.table;
        table.first_entries = table.first_entries.min(table.entries);
        self.named(config)
    }

    /// A configuration from elsewhere, if it may be.
    pub fn named(&self, config: Config) -> Option<Candidate> {
        config.check().ok()?;
        Some(Candidate {
            name: self.name(&config),
            config,
        })
    }

    /// Of a configuration from elsewhere only what is searched, with the defaults for the rest.
    pub fn searched(&self, config: &Config) -> Config {
        let mut searched = Config::new();
        for axis in &self.axes {
            match axis.key.number(config) {
                Some(number) => drop(axis.key.set(&mut searched, number)),
                None => axis.key.set_sizes(&mut searched, config.classes.sizes),
            }
        }
        searched
    }

    /// The place nearest to a configuration, as far as it has one on each axis.
    pub fn point(&self, config: &Config) -> Point {
        let nearest = |axis: &Axis| match axis.key.unit {
            Unit::Sizes => {
                let found = self
                    .lists
                    .iter()
                    .position(|(_, sizes)| *sizes == config.classes.sizes);
                let value = found.map_or(0, |at| at as u64 + 1);
                axis.values
                    .iter()
                    .position(|other| *other == value)
                    .unwrap_or(axis.default)
            }
            _ => {
                let wanted = axis.key.number(config).unwrap_or(0);
                let distance = |at: &usize| axis.values[*at].abs_diff(wanted);
                (0..axis.values.len())
                    .min_by_key(distance)
                    .unwrap_or(axis.default)
            }
        };
        self.axes.iter().map(nearest).collect()
    }

    /// A value as it stands in the file; a list by its name.
    pub fn value(&self, key: &Key, config: &Config) -> String {
        match key.unit {
            Unit::Sizes => {
                let sizes = config.classes.sizes;
                let found = self.lists.iter().find(|(_, other)| *other == sizes);
                match found {
                    Some((list, _)) => list.name.clone(),
                    None if sizes.as_slice().is_empty() => "shipped".to_string(),
                    None => format!("{} sizes", sizes.as_slice().len()),
                }
            }
            _ => number_text(key, config),
        }
    }

    /// What a configuration has other than the defaults, in one line; `defaults` for these. Size classes have their checksum in it.
    pub fn name(&self, config: &Config) -> String {
        let defaults = Config::new();
        let mut name = String::new();
        for key in changed(config, &defaults) {
            let gap = if name.is_empty() { "" } else { " " };
            let _ = write!(name, "{gap}{}={}", key.name, self.value(key, config));
            if key.unit == Unit::Sizes {
                let sizes = config.classes.sizes;
                let bytes = sizes.as_slice().iter().flat_map(|size| size.to_le_bytes());
                let bytes: Vec<u8> = bytes.collect();
                let _ = write!(name, "#{:08x}", crc32fast::hash(&bytes));
            }
        }
        match name.is_empty() {
            true => "defaults".to_string(),
            false => name,
        }
    }
}

/// The settings in which two configurations differ.
pub fn changed(one: &Config, other: &Config) -> Vec<&'static Key> {
    let differs = |key: &&Key| match key.unit {
        Unit::Sizes => one.classes.sizes != other.classes.sizes,
        _ => key.number(one) != key.number(other),
    };
    KEYS.iter().filter(differs).collect()
}

/// A number or word as it stands in the file, a word without quotes.
pub fn number_text(key: &Key, config: &Config) -> String {
    let number = key.number(config).unwrap_or(0);
    match key.unit {
        Unit::Share => format!("{}", number as f64 / 1e6),
        Unit::Word(words) => words.get(number as usize).unwrap_or(&"").to_string(),
        _ => number.to_string(),
    }
}

fn grid(low: u64, high: u64, factor: u64) -> Vec<u64> {
    let next = |value: &u64| {
        value
            .checked_mul(factor.max(2))
            .filter(|next| *next <= high)
    };
    std::iter::successors(Some(low), next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let list = ClassList {
            name: "two".to_string(),
            sizes: vec![32, 32 << 10],
        };
        Space::new(vec![list], false, &[]).unwrap()
    }

    #[test]
    fn the_table_has_every_setting_once_in_order() {
        let of_table: Vec<&str> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
        let of_config: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(of_table, of_config);
    }

    #[test]
    fn every_value_alone_may_be() {
        let space = space();
        let mut tried = 0;
        for (at, axis) in space.axes.iter().enumerate() {
            for place in 0..axis.values.len() {
                let mut point = space.defaults();
                point[at] = place;
                let candidate = space.candidate(&point);
                let value = axis.values[place];
                // A span of 256 KiB has no region of 64 KiB.
                let fits = axis.name != "region.bytes" || value <= 256 << 10;
                let larger = axis.name == "region.larger_bytes" && value < 256 << 10;
                assert!(
                    candidate.is_some() || !fits || larger,
                    "{}={value}",
                    axis.name
                );
                tried += 1;
            }
        }
        assert!(tried > 60);
    }

    #[test]
    fn the_stop_stays_below_the_trigger_and_names_tell_what_is_there() {
        let space = space();
        let place = |name| {
            space
                .axes
                .iter()
                .position(|axis| axis.name == name)
                .unwrap()
        };
        let mut point = space.defaults();
        assert_eq!(space.candidate(&point).unwrap().name, "defaults");
        point[place("compaction.trigger")] = 0;
        point[place("classes.sizes")] = 1;
        let candidate = space.candidate(&point).unwrap();
        let bytes: Vec<u8> = [32u32, 32 << 10]
            .iter()
            .flat_map(|size| size.to_le_bytes())
            .collect();
        let sum = crc32fast::hash(&bytes);
        assert_eq!(
            candidate.name,
            format!("classes.sizes=two#{sum:08x} compaction.trigger=0.005 compaction.stop=0.0025")
        );
        let back = space.point(&candidate.config);
        assert_eq!(space.candidate(&back).unwrap(), candidate);
    }

    #[test]
    fn kept_settings_are_no_axes_and_unknown_ones_are_told() {
        let keep = ["compaction.mode".to_string()];
        let space = Space::new(Vec::new(), true, &keep).unwrap();
        let has = |name| space.axes.iter().any(|axis| axis.name == name);
        assert!(!has("compaction.mode") && !has("classes.sizes") && has("table.way"));
        let error = Space::new(Vec::new(), false, &["cache.entry".to_string()]);
        let error = error.err().expect("it is no setting");
        assert!(error.to_string().contains("cache.entries"), "{error}");
    }
}
