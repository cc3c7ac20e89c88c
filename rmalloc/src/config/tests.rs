//! Tests of the configuration: files, variables, refusals, and the document.

use super::keys::Field;
use super::*;
use std::ffi::OsString;

const DOCUMENT: &str = include_str!("../../../docs/rmalloc-config.md");
/// What `rmtrace advise` wrote; a test of the workspace holds it to what it writes now.
const ADVISED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/advised.toml");

/// The configuration in a file with this text, or the error with `F` for the file's path.
fn read(text: &str) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_string_lossy().into_owned();
    Config::from_file(file.path()).map_err(|error| error.to_string().replace(&path, "F"))
}

fn refused(text: &str) -> String {
    read(text).expect_err(text)
}

/// As a file writes it and what it is then: the least, or the greatest where that is the default.
fn another(key: &Key) -> (String, Option<u64>) {
    let default = key.number(&Config::new());
    match key.unit {
        Unit::Sizes => ("[16, 48, 1024]".into(), None),
        Unit::Word(words) => {
            // Of ways one is another build's (`a_way_that_is_not_built_is_refused`).
            let place = match (key.name, cfg!(feature = "beside")) {
                ("table.way", false) => words.len() - 2,
                _ => words.len() - 1,
            };
            (format!("\"{}\"", words[place]), Some(place as u64))
        }
        Unit::Share => ("0.03".into(), Some(30_000)),
        _ => {
            let number = if default == Some(key.low) {
                key.high
            } else {
                key.low
            };
            (number.to_string(), Some(number))
        }
    }
}

#[test]
fn the_defaults_have_no_fault() {
    assert_eq!(Config::default().check(), Ok(()));
    assert_eq!(Config::new().geometry(), Geometry::DEFAULT);
    let classes = Config::new().size_classes().unwrap();
    assert!(classes.iter().eq(crate::class::DEFAULT_CLASSES.iter()));
    assert_eq!(read("").unwrap(), Config::new());
    assert_eq!(read("schema = 1").unwrap(), Config::new());
}

/// Every number that is not the default changes the field that the name says, and no other.
// Of the way of an ordinary build.
#[test]
#[cfg(not(feature = "beside"))]
fn every_setting_has_its_own_field() {
    for key in &KEYS {
        let mut config = Config::new();
        match (key.field)(&mut config) {
            Field::U64(field) => *field += 1,
            Field::U32(field) => *field += 1,
            Field::Way(field) => *field = TableWay::Beside,
            Field::Mode(field) => *field = Mode::Background,
            Field::Sizes(field) => *field = SizeList::new(&[16]).unwrap(),
        }
        let (section, name) = key.name.split_once('.').unwrap();
        let changed: Vec<_> = fields(&Config::new())
            .into_iter()
            .zip(fields(&config))
            .filter(|(before, after)| before != after)
            .map(|(_, (section, field, _))| (section, field.trim_end_matches("_ppm").to_string()))
            .collect();
        assert_eq!(changed, [(section.to_string(), name.to_string())]);
    }
    // And each field has a name.
    assert_eq!(fields(&Config::new()).len(), KEYS.len());
}

/// Section, name and value of each field, from the text that `Debug` gives.
fn fields(config: &Config) -> Vec<(String, String, String)> {
    let text = format!("{config:#?}");
    let (mut section, mut found) = (String::new(), Vec::<(String, String, String)>::new());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match (indent, line.trim().split_once(": ")) {
            (4, Some((name, _))) => section = name.to_string(),
            (8, Some((name, value))) => found.push((section.clone(), name.into(), value.into())),
            // An element of a list.
            (12, None) => found.last_mut().unwrap().2 += line,
            _ => {}
        }
    }
    found
}

/// Settings whose other values need more lines, and what those lines set them to.
const TOGETHER: [(&str, &str, u64); 6] = [
    ("entry.address_bits", "[entry]\naddress_bits = 41", 41),
    (
        "handle.index_bits",
        "[table]\nentries = 512\n[handle]\nindex_bits = 16",
        16,
    ),
    (
        "handle.generation_bits",
        "[handle]\nindex_bits = 30\ngeneration_bits = 34\ncheck_bits = 0",
        34,
    ),
    ("region.bytes", "[region]\nbytes = 8192", 8192),
    (
        "region.larger_bytes",
        "[region]\nlarger_bytes = 131072",
        131_072,
    ),
    ("table.first_entries", "[table]\nfirst_entries = 1024", 1024),
];

#[test]
fn every_setting_is_read_from_a_file() {
    for key in &KEYS {
        let (section, name) = key.name.split_once('.').unwrap();
        let (text, number) = match TOGETHER.iter().find(|(together, ..)| *together == key.name) {
            Some((_, text, number)) => (text.to_string(), Some(*number)),
            None => {
                let (value, number) = another(key);
                (format!("[{section}]\n{name} = {value}"), number)
            }
        };
        let config = read(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(key.number(&config), number, "{text}");
        if key.unit == Unit::Sizes {
            assert_eq!(config.classes.sizes.as_slice(), [16, 48, 1024]);
            let more = if cfg!(feature = "beside") { 8 } else { 0 };
            assert_eq!(config.size_classes().unwrap().largest(), 1024 + more);
        }
        // Nothing else but what the text names is changed.
        for other in &KEYS {
            let name = other.name.split_once('.').unwrap().1;
            if !text.contains(&format!("{name} = ")) {
                assert_eq!(
                    other.number(&config),
                    other.number(&Config::new()),
                    "{text}: {}",
                    other.name
                );
            }
        }
    }
}

/// `rmtrace advise` writes for the table.
#[test]
#[cfg(not(feature = "beside"))]
fn what_advise_writes_is_read() {
    let config = Config::from_file(ADVISED).unwrap();
    let written: toml::Table = std::fs::read_to_string(ADVISED).unwrap().parse().unwrap();
    let mut keys = 0;
    for (section, settings) in written.iter().filter(|(name, _)| *name != "schema") {
        for (name, value) in settings.as_table().unwrap() {
            let name = format!("{section}.{name}");
            let key = KEYS.iter().find(|key| key.name == name).expect(&name);
            let number = match value.as_str() {
                Some(word) => TableWay::WORDS.iter().position(|&way| way == word).unwrap() as u64,
                None => value.as_integer().unwrap() as u64,
            };
            assert_eq!(key.number(&config), Some(number), "{name}");
            keys += 1;
        }
    }
    // All that it ever writes (docs/handle-table.md, 6), but `schema`.
    assert_eq!(keys, 15);
}

#[test]
fn a_way_that_is_not_built_is_refused() {
    let (other, expected) = if cfg!(feature = "beside") {
        (
            "segmented",
            "F:2: table.way: \"segmented\" needs a library built without the feature `beside`; this one has \"beside\" \
             alone",
        )
    } else {
        (
            "beside",
            "F:2: table.way: \"beside\" needs a library built with the feature `beside`: cargo build -p rmalloc-c \
             --release --features beside",
        )
    };
    assert_eq!(refused(&format!("[table]\nway = \"{other}\"")), expected);
    let own = TableWay::WORDS[Config::new().table.way as usize];
    assert_eq!(
        read(&format!("[table]\nway = \"{own}\"")).unwrap(),
        Config::new()
    );
}

#[test]
fn refusals_name_file_line_setting_and_what_is_allowed() {
    for (text, expected) in [
        (
            "schema = 2",
            "F:1: schema: 2 is not understood: this version of rmalloc reads 1",
        ),
        (
            "schema = \"1\"",
            "F:1: schema: \"1\" is not understood: this version of rmalloc reads 1",
        ),
        (
            "schema = 1\n\n[heaps]\nlimit_bytes = 1",
            "F:3: `heaps` is not known; allowed are schema, heap, blocks, classes, region, table, entry, \
             handle, cache, compaction",
        ),
        (
            "# limits\n[heap]\n\nlimit_byte = 1",
            "F:4: heap.limit_byte: this setting is not known; [heap] has reserve_bytes, limit_bytes",
        ),
        (
            "table.ways = 1",
            "F:1: table.ways: this setting is not known; [table] has way, entries, segment_entries, first_entries, step_entries",
        ),
        (
            "heap = 3",
            "F:1: heap: it is a section, with settings of its own",
        ),
        (
            "[[heap]]\nlimit_bytes = 3",
            "F:1: heap: it is a section, with settings of its own",
        ),
        (
            "[heap]\nlimit_bytes = 0",
            "F:2: heap.limit_bytes: 0 is not allowed: from 1 to 9223372036854775807 is",
        ),
        (
            "[heap]\nlimit_bytes = -1",
            "F:2: heap.limit_bytes: -1 is not allowed: it must be a whole number from 1 to 9223372036854775807",
        ),
        (
            "[heap]\nlimit_bytes = \"64M\"",
            "F:2: heap.limit_bytes: \"64M\" is not allowed: it must be a whole number from 1 to 9223372036854775807",
        ),
        (
            "[heap]\nreserve_bytes = 1048577",
            "F:2: heap.reserve_bytes: 1048577 is not allowed: it must be a multiple of 1048576",
        ),
        (
            "[table]\nway = \"region\"",
            "F:2: table.way: \"region\" is not allowed: it must be one of \"segmented\", \"reserved\", \"beside\"",
        ),
        (
            "[compaction]\nmode = true",
            "F:2: compaction.mode: true is not allowed: it must be one of \"off\", \"inline\", \"background\"",
        ),
        (
            "[table]\nentries = 1.5",
            "F:2: table.entries: 1.5 is not allowed: it must be a whole number from 512 to 4294967296, a multiple of 512",
        ),
        (
            "[table]\nentries = 700",
            "F:2: table.entries: 700 is not allowed: it must be a multiple of 512",
        ),
        (
            "[table]\nsegment_entries = 1024",
            "F:2: table.segment_entries: 1024 is not allowed: 512 is the only value",
        ),
        (
            "[table]\nentries = 1024\nfirst_entries = 2048",
            "F:3: table.first_entries: 2048 is not allowed: it must be at most table.entries, 1024",
        ),
        (
            "[region]\nbytes = 12288",
            "F:2: region.bytes: 12288 is not allowed: it must be a power of two",
        ),
        (
            "[region]\nbytes = 524288",
            "F:2: region.larger_bytes: 262144 is not allowed: it must be a multiple of region.bytes, 524288",
        ),
        (
            "[region]\nbytes = 8192\nlarger_bytes = 20480",
            "F:3: region.larger_bytes: 20480 is not allowed: it must be a multiple of region.bytes, 8192",
        ),
        (
            "[classes]\nsizes = [\n  16,\n  40,\n]",
            "F:2: classes.sizes: size class 40 is not a positive multiple of 16",
        ),
        (
            "[classes]\nsizes = [32, 16]",
            "F:2: classes.sizes: size class 16 follows 32; sizes must ascend",
        ),
        ("[classes]\nsizes = []", "F:2: classes.sizes: no size class"),
        (
            "[classes]\nsizes = [\"16\"]",
            "F:2: classes.sizes: [\"16\"] is not allowed: it must be a list of ascending whole numbers, multiples of 16, at most 192 of them",
        ),
        (
            "[classes]\nsizes = [16, 8192]\n[region]\nbytes = 8192\nlarger_bytes = 8192",
            "F:2: classes.sizes: size class 8192 is above the largest, 1024",
        ),
        (
            "[entry]\naddress_bits = 44\ngeneration_bits = 16\nlock_bits = 6",
            "F:3: entry.generation_bits: the section has 69 bits in all, there are 64",
        ),
        (
            "[entry]\nlock_bits = 16",
            "F:2: entry.generation_bits: the section has 68 bits in all, there are 64",
        ),
        (
            "[handle]\nindex_bits = 20",
            "F:2: handle.index_bits: 20 bits can't number table.entries, 67108864",
        ),
        (
            "[handle]\ngeneration_bits = 30",
            "F:2: handle.check_bits: the section has 78 bits in all, there are 64",
        ),
        (
            "[compaction]\ntrigger = 0.1\nstop = 0.1",
            "F:3: compaction.stop: 0.1 is not allowed: it must be less than compaction.trigger, 0.1",
        ),
        (
            "[compaction]\ntrigger = 0.01",
            "F:2: compaction.stop: 0.02 is not allowed: it must be less than compaction.trigger, 0.01",
        ),
        (
            "[compaction]\ntrigger = 0",
            "F:2: compaction.trigger: 0 is not allowed: from 0.000001 to 1 is",
        ),
        (
            "[compaction]\ncpu_share = 1.5",
            "F:2: compaction.cpu_share: 1.5 is not allowed: it must be a number from 0.000001 to 1",
        ),
        (
            "[compaction]\ncpu_share = nan",
            "F:2: compaction.cpu_share: nan is not allowed: it must be a number from 0.000001 to 1",
        ),
        (
            "[compaction]\ncpu_share = \"5 %\"",
            "F:2: compaction.cpu_share: \"5 %\" is not allowed: it must be a number from 0.000001 to 1",
        ),
        // Two mistakes: the first in the file.
        (
            "[table]\nentriez = 512\n[heap]\nlimit_bytes = 0",
            "F:2: table.entriez: this setting is not known; [table] has way, entries, segment_entries, first_entries, step_entries",
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
    // What the parser of TOML says is its own; the line is ours.
    for (text, line) in [
        ("[heap]\nlimit_bytes = 1\nlimit_bytes = 2", "F:3: "),
        ("[heap\nlimit_bytes = 1", "F:1: "),
        ("[heap]\nlimit_bytes =", "F:2: "),
        ("\n\n\"", "F:3: "),
    ] {
        assert!(refused(text).starts_with(line), "{}", refused(text));
    }
    // A long value is cut, not repeated.
    let long = refused(&format!("[table]\nway = \"{}\"", "\u{e4}".repeat(10_000)));
    assert!(
        long.len() < 400 && long.contains("...") && long.contains("table.way"),
        "{long}"
    );
}

#[test]
fn numbers_are_read_as_toml_writes_them() {
    let config = read("heap = { limit_bytes = 0x4000_0000 }\ncompaction.trigger = 5e-1\n").unwrap();
    assert_eq!(config.heap.limit_bytes, 1 << 30);
    assert_eq!(config.compaction.trigger_ppm, 500_000);
    assert_eq!(
        read("compaction.trigger = 1")
            .unwrap()
            .compaction
            .trigger_ppm,
        MILLION
    );
    // 0.000249 is no binary fraction, and times a million a little less than 249: rounded, not cut off.
    assert_eq!(
        read("compaction.cpu_share = 0.000249")
            .unwrap()
            .compaction
            .cpu_share_ppm,
        249
    );
    // As many bits as the default table needs, and the greatest number of entries.
    assert_eq!(
        read("handle.index_bits = 26").unwrap().handle.index_bits,
        26
    );
    assert_eq!(
        read("table.entries = 4294967296").unwrap().table.entries,
        1 << 32
    );
    let crlf = refused("[heap]\r\nlimit_bytes = 1\r\nlimits = 1\r\n");
    assert!(crlf.starts_with("F:3: heap.limits"), "{crlf}");
}

/// The configuration that these variables give, or the error.
fn environment(set: &[(&str, &str)]) -> Result<Config, String> {
    let variable = |name: &str| {
        let found = set.iter().find(|(set, _)| *set == name);
        found.map(|(_, value)| OsString::from(value))
    };
    Config::from_variables(variable).map_err(|error| error.to_string())
}

// Of the way of an ordinary build.
#[test]
#[cfg(not(feature = "beside"))]
fn variables_set_what_they_name() {
    assert_eq!(environment(&[]).unwrap(), Config::new());
    let empty = [
        ("RMALLOC_CONFIG", ""),
        ("RMALLOC_LIMIT", ""),
        ("RMALLOC_COMPACTION", ""),
    ];
    assert_eq!(environment(&empty).unwrap(), Config::new());
    for (text, bytes) in [
        ("1", 1),
        ("4096", 4096),
        ("64k", 64 << 10),
        ("64M", 64 << 20),
        ("3GiB", 3 << 30),
        ("1T", 1 << 40),
    ] {
        let mut expected = Config::new();
        expected.heap.limit_bytes = bytes;
        assert_eq!(
            environment(&[("RMALLOC_LIMIT", text)]).unwrap(),
            expected,
            "{text}"
        );
    }
    let mut expected = Config::new();
    expected.table.entries = 1024;
    assert_eq!(
        environment(&[("RMALLOC_TABLE_ENTRIES", "1000")]).unwrap(),
        expected
    );
    for (mode, word) in Mode::ALL.into_iter().zip(["off", "inline", "background"]) {
        let mut expected = Config::new();
        expected.compaction.mode = mode;
        assert_eq!(
            environment(&[("RMALLOC_COMPACTION", word)]).unwrap(),
            expected
        );
    }
    // They win over the file.
    let config = environment(&[("RMALLOC_CONFIG", ADVISED), ("RMALLOC_LIMIT", "5M")]).unwrap();
    let mut expected = Config::from_file(ADVISED).unwrap();
    assert_ne!(expected.heap.limit_bytes, 5 << 20);
    expected.heap.limit_bytes = 5 << 20;
    assert_eq!(config, expected);
}

// Of the way of an ordinary build.
#[test]
#[cfg(not(feature = "beside"))]
fn wrong_variables_are_named() {
    let limit = "it must be a whole number from 1 to 9223372036854775807";
    for (name, value, expected) in [
        ("RMALLOC_LIMIT", "much", format!("RMALLOC_LIMIT: `much` is not allowed: {limit}")),
        ("RMALLOC_LIMIT", "1P", format!("RMALLOC_LIMIT: `1P` is not allowed: {limit}")),
        ("RMALLOC_LIMIT", "-1", format!("RMALLOC_LIMIT: `-1` is not allowed: {limit}")),
        ("RMALLOC_LIMIT", "99999999T", format!("RMALLOC_LIMIT: `99999999T` is not allowed: {limit}")),
        (
            "RMALLOC_LIMIT",
            "0",
            "RMALLOC_LIMIT: heap.limit_bytes: 0 is not allowed: from 1 to 9223372036854775807 is".into(),
        ),
        (
            "RMALLOC_COMPACTION",
            "on",
            "RMALLOC_COMPACTION: `on` is not allowed: it must be one of \"off\", \"inline\", \"background\"".into(),
        ),
        (
            "RMALLOC_TABLE_ENTRIES",
            "0",
            "RMALLOC_TABLE_ENTRIES: table.entries: 0 is not allowed: from 512 to 4294967296 is".into(),
        ),
    ] {
        assert_eq!(environment(&[(name, value)]).unwrap_err(), expected);
    }
    // Fewer bits in the file than the variable needs.
    let many = [
        ("RMALLOC_CONFIG", ADVISED),
        ("RMALLOC_TABLE_ENTRIES", "4294967296"),
    ];
    let told = environment(&many).unwrap_err();
    assert!(
        told.starts_with("RMALLOC_TABLE_ENTRIES: handle.index_bits"),
        "{told}"
    );
    let told = environment(&[("RMALLOC_CONFIG", "/no/such/file.toml")]).unwrap_err();
    assert!(told.starts_with("/no/such/file.toml: "), "{told}");
}

#[test]
fn the_warning_is_one_line() {
    let error = Config::from_file("/no/such/file.toml").unwrap_err();
    let line = error.warning();
    assert!(line.starts_with("rmalloc: /no/such/file.toml: "), "{line}");
    assert!(line.ends_with("; the defaults are used\n"), "{line}");
    assert_eq!(line.matches('\n').count(), 1);
    assert!(std::error::Error::source(&error).is_some());
}

/// A number with the separators of the document; great powers of two as such.
fn shown(key: &Key, number: u64) -> String {
    if key.unit == Unit::Share {
        return Amount::share(number as u32).to_string();
    }
    if number == NO_LIMIT {
        return "2^63 - 1".into();
    }
    if number.is_power_of_two() && number > 1 << 20 {
        return format!("2^{}", number.ilog2());
    }
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The row of a setting in the document, up to its meaning.
fn row(key: &Key) -> String {
    let default = key.number(&Config::new());
    let (unit, range, default) = match key.unit {
        Unit::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            (
                "word",
                words.join(", "),
                words[default.unwrap() as usize].clone(),
            )
        }
        Unit::Sizes => (
            "list of bytes",
            "ascending, multiples of 16".into(),
            "section 3".into(),
        ),
        unit => {
            let unit = match unit {
                Unit::Bytes => "bytes",
                Unit::Bits => "bits",
                Unit::Entries => "entries",
                Unit::Nanoseconds => "ns",
                _ => "share",
            };
            let mut range = match key.low == key.high {
                true => shown(key, key.low),
                false => format!("{} .. {}", shown(key, key.low), shown(key, key.high)),
            };
            if key.multiple > 1 && key.low < key.high {
                range += &format!(", a multiple of {}", shown(key, key.multiple));
            }
            (unit, range, shown(key, default.unwrap()))
        }
    };
    format!("| `{}` | {unit} | {range} | {default} | ", key.name)
}

// Of the way of an ordinary build.
#[test]
#[cfg(not(feature = "beside"))]
fn the_document_tells_every_setting() {
    let rows: Vec<&str> = DOCUMENT
        .lines()
        .filter(|line| {
            line.starts_with("| `") && line.contains('.') && line.matches('|').count() == 6
        })
        .collect();
    let expected: Vec<String> = KEYS.iter().map(row).collect();
    for (row, expected) in rows.iter().zip(&expected) {
        assert!(row.starts_with(expected.as_str()), "{row}\n{expected}");
    }
    assert_eq!(
        rows.len(),
        expected.len(),
        "missing: {:#?}",
        &expected[rows.len().min(expected.len())..]
    );
    for name in [
        CONFIG_VARIABLE,
        LIMIT_VARIABLE,
        ENTRIES_VARIABLE,
        MODE_VARIABLE,
    ] {
        assert!(DOCUMENT.contains(&format!("| `{name}` |")), "{name}");
    }
}

/// The document's whole file says what the defaults are.
// Of the way of an ordinary build.
#[test]
#[cfg(not(feature = "beside"))]
fn the_example_file_of_the_document_is_the_defaults() {
    let begin = DOCUMENT.find("```toml\n").unwrap() + 8;
    let text = &DOCUMENT[begin..][..DOCUMENT[begin..].find("```").unwrap()];
    assert_eq!(read(text).unwrap(), Config::new());
    for key in KEYS.iter().filter(|key| key.unit != Unit::Sizes) {
        let (_, name) = key.name.split_once('.').unwrap();
        assert!(text.contains(&format!("\n{name} = ")), "{}", key.name);
    }
}

/// An unchecked struct is refused as a file is.
#[test]
fn a_struct_changed_by_hand_is_checked() {
    let mut config = Config::new();
    config.compaction.cpu_share_ppm = MILLION + 1;
    let fault = config.check().unwrap_err();
    assert_eq!(
        fault.to_string(),
        "compaction.cpu_share: 1.000001 is not allowed: from 0.000001 to 1 is"
    );
    for key in KEYS
        .iter()
        .filter(|key| !matches!(key.unit, Unit::Word(_) | Unit::Sizes))
    {
        for number in [key.low.checked_sub(1), key.high.checked_add(1)]
            .into_iter()
            .flatten()
        {
            let mut config = Config::new();
            assert!(
                key.set(&mut config, number).is_err(),
                "{} = {number}",
                key.name
            );
            assert_eq!(config, Config::new(), "{}", key.name);
        }
    }
}
