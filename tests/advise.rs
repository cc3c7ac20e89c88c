//! `rmtrace advise` on shipped traces: what it writes is read by others as it says.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/by_hand.rmt");

fn advise(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .arg("advise")
        .args(arguments)
        .output()
        .expect("rmtrace starts")
}

fn number(value: &Value, pointer: &str) -> u64 {
    let number = value.pointer(pointer).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{pointer} is no number"))
}

/// Where in the JSON advice each setting has its figure.
const NUMBERS: [(&str, &str, &str); 13] = [
    ("heap", "limit_bytes", "/memory_bytes"),
    ("table", "entries", "/entries/entries"),
    ("table", "first_entries", "/growth/first_entries"),
    ("table", "step_entries", "/growth/step_entries"),
    ("entry", "address_bits", "/split/address_bits"),
    ("entry", "lock_bits", "/split/lock_bits"),
    ("entry", "flag_bits", "/split/flag_bits"),
    ("entry", "generation_bits", "/split/entry_generation_bits"),
    ("handle", "index_bits", "/split/index_bits"),
    ("handle", "generation_bits", "/split/generation_bits"),
    ("handle", "check_bits", "/split/check_bits"),
    // Written the same whatever the trace: pages of 4 KiB, entries of 8 bytes.
    ("table", "segment_entries", ""),
    ("entry", "bytes", ""),
];

#[test]
fn the_settings_are_read_by_a_toml_parser_and_a_c_compiler() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = |name: &str| temp.path().join(name).to_string_lossy().into_owned();
    // The same run three times over, under names that would break a comment.
    let traces = ["a b.rmt", "end*of\ncomment.rmt", "c\\"].map(|name| {
        fs::copy(TRACE, path(name)).expect("a copy");
        path(name)
    });
    let (toml_path, header_path) = (path("rmalloc.toml"), path("rmalloc_config.h"));
    let output = advise(&[
        &traces[0],
        &traces[1],
        &traces[2],
        "--json",
        "--memory",
        "64M",
        "-o",
        &toml_path,
        "--header",
        &header_path,
    ]);
    assert!(output.status.success(), "{output:?}");
    let advice: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(advice["schema"], 1);
    // Four blocks live at once: the highest of three peaks.
    assert_eq!(advice["entries"]["entries_exact"], 4);
    assert_eq!(advice["entries"]["method"], "order_statistic");
    assert_eq!(advice["entries"]["risk_ppm"], 250_000);
    assert_eq!(advice["same_program"], true);

    let written = fs::read_to_string(&toml_path).expect("rmalloc.toml");
    let settings: toml::Table = written.parse().expect("TOML");
    let header = fs::read_to_string(&header_path).expect("a header");
    let mut program = String::from(
        "#include <stdio.h>\n#include \"rmalloc_config.h\"\n#include \"rmalloc_config.h\"\nint main(void) {\n",
    );
    let mut expected = Vec::new();
    let mut known = vec![
        (String::new(), "schema".to_string()),
        ("table".to_string(), "way".to_string()),
    ];
    assert_eq!(settings["schema"].as_integer(), Some(1));
    program.push_str("printf(\"%d\\n\", RMALLOC_CONFIG_SCHEMA);\n");
    expected.push(1);
    for (table, key, pointer) in NUMBERS {
        let value = settings[table][key].as_integer().expect("a number") as u64;
        if !pointer.is_empty() {
            assert_eq!(value, number(&advice, pointer), "{table}.{key}");
        }
        let name = format!("RMALLOC_{table}_{key}").to_ascii_uppercase();
        program.push_str(&format!(
            "printf(\"%llu\\n\", (unsigned long long){name});\n"
        ));
        expected.push(value);
        known.push((table.to_string(), key.to_string()));
    }
    let way = settings["table"]["way"].as_str().expect("a word");
    program.push_str(&format!(
        "#ifndef RMALLOC_TABLE_WAY_{}\n#error no way\n#endif\n",
        way.to_ascii_uppercase()
    ));
    program.push_str("return 0; }\n");
    // Everything that is written is known here; a size threshold may be there or not.
    for (table, value) in &settings {
        match value.as_table() {
            None => assert!(known.contains(&(String::new(), table.clone())), "{table}"),
            Some(keys) => {
                for key in keys.keys() {
                    let is_known = known.contains(&(table.clone(), key.clone()));
                    assert!(
                        is_known || (table == "blocks" && key == "handle_from_bytes"),
                        "{table}.{key}"
                    );
                }
            }
        }
    }
    assert_eq!(printed(temp.path(), &program), expected, "{header}");
}

/// Numbers that a C program prints.
fn printed(directory: &Path, program: &str) -> Vec<u64> {
    fs::write(directory.join("main.c"), program).expect("a source");
    let binary = directory.join("main");
    let compiled = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&binary)
        .arg(directory.join("main.c"))
        .output()
        .expect("a C compiler");
    assert!(compiled.status.success(), "{compiled:?}");
    let output = Command::new(binary).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| line.parse().expect("a number"))
        .collect()
}

#[test]
fn one_trace_gives_no_probability() {
    let output = advise(&[TRACE, "--risk", "1%"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("from one trace no probability can be given"),
        "{text}"
    );
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("--risk has no effect"), "{told}");
}

#[test]
fn failures_are_told() {
    for (arguments, what) in [
        (&["/no/such/trace.rmt"][..], "/no/such/trace.rmt"),
        (&[TRACE, TRACE], "given twice"),
        (&[TRACE, "--process", "nobody"], "nobody"),
        (&[TRACE, "--risk", "0.9"], "at most 0.5"),
        (
            &[TRACE, "-o", "/no/such/directory/rmalloc.toml"],
            "/no/such/directory/rmalloc.toml",
        ),
        (&[], "TRACE"),
    ] {
        let output = advise(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(what), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_trace_cut_short_is_read_and_told() {
    let temp = tempfile::tempdir().expect("a directory");
    let whole = fs::read(TRACE).expect("the trace");
    let cut = temp.path().join("cut.rmt");
    fs::write(&cut, &whole[..whole.len() - 40]).expect("a file");
    let output = advise(&[&cut.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("damaged"));
    assert!(!output.stdout.is_empty());
}
