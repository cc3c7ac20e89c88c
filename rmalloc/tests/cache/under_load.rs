//! The load generator against the server: both agree on what is live, and every value that is read is one that was stored.

use crate::example::drive;
use crate::example::options::Command;
use crate::harness::{Reply, Server, bulk, ok, request};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Phases by name, with their numbers.
fn drive(server: &Server, words: &str) -> HashMap<String, HashMap<String, f64>> {
    let line = format!(
        "--drive --port {} --pid {} {words}",
        server.port(),
        server.pid()
    );
    let Ok(Command::Drive(options)) = Command::parse(line.split_whitespace().map(String::from))
    else {
        panic!("{line}");
    };
    let mut out = Vec::new();
    drive::run(&options, &mut out).expect("the server answers rightly");
    let text = String::from_utf8(out).expect("text");
    let numbers = |line: &str| -> (String, HashMap<String, f64>) {
        let inner = line
            .strip_prefix('{')
            .and_then(|line| line.strip_suffix('}'))
            .expect("an object");
        let pairs: Vec<(&str, &str)> = inner
            .split(", ")
            .map(|pair| pair.split_once(": ").expect("a pair"))
            .collect();
        let name = pairs[0].1.trim_matches('"').to_string();
        let rest = pairs[1..].iter();
        (
            name,
            rest.map(|(name, value)| {
                (
                    name.trim_matches('"').to_string(),
                    value.parse().expect("a number"),
                )
            })
            .collect(),
        )
    };
    text.lines().map(numbers).collect()
}

#[test]
fn the_load_and_the_server_count_the_same() {
    for allocator in ["malloc", "rmalloc"] {
        let server = Server::start(allocator, &["--limit", "2M"]);
        let phases = drive(&server, "--limit 2M --mix 5000 --rest-ms 0 --connections 3");
        let mut client = server.client();
        let of = |phase: &str, name: &str| phases[phase][name];
        assert_eq!(of("mix", "requests"), 5000.0);
        assert!(of("fill", "set_bytes") >= 1.3 * f64::from(2 << 20));
        for phase in ["drift 1", "drift 2", "drift 3"] {
            assert!(of(phase, "set_bytes") >= 1.5 * f64::from(2 << 20));
            assert!(of(phase, "hits") > 0.0 && of(phase, "hits") < of(phase, "gets"));
        }
        // Full but for less than the largest value, before and after the mix.
        let live = of("rest", "live_bytes");
        assert!(
            live <= f64::from(2 << 20) && live > f64::from((2 << 20) - 4096 - 16),
            "{live}"
        );
        let stored: f64 = phases
            .values()
            .filter_map(|numbers| numbers.get("sets"))
            .sum();
        assert_eq!(client.info("stored_values") as f64, stored);
        let found: f64 = phases
            .values()
            .filter_map(|numbers| numbers.get("hits"))
            .sum();
        assert_eq!(client.info("keyspace_hits") as f64, found);
        let Reply::Integer(keys) = client.ask(&["DBSIZE"]) else {
            panic!("a number");
        };
        assert!(client.info("index_bytes") >= 36 * keys as u64);
    }
}

/// At rest rmalloc moves blocks together: of many blocks one in ten is left, in pages that are full of holes, and less than half of the
/// memory is. Nothing here depends on how long that takes.
#[test]
fn at_rest_blocks_move_together() {
    const KEYS: usize = 80_000;
    let server = Server::start("rmalloc", &["--limit", "64M"]);
    let mut client = server.client();
    let key = |n: usize| format!("key:{n}").into_bytes();
    let value = |n: usize| vec![n as u8; 150 + n % 100];
    let mut batch = |requests: &mut dyn Iterator<Item = Vec<u8>>,
                     wanted: &dyn Fn(usize) -> Reply| {
        let requests: Vec<Vec<u8>> = requests.collect();
        for (n, some) in requests.chunks(1000).enumerate() {
            client.send(&some.concat());
            for m in 0..some.len() {
                assert_eq!(client.reply(), wanted(n * 1000 + m));
            }
        }
        client.info("resident_bytes")
    };
    let full = batch(
        &mut (0..KEYS).map(|n| request(&[b"SET", &key(n), &value(n)])),
        &|_| ok(),
    );
    let gone = (0..KEYS).filter(|n| n % 10 != 7);
    batch(&mut gone.map(|n| request(&[b"DEL", &key(n)])), &|_| {
        Reply::Integer(1)
    });
    let began = Instant::now();
    // Regions in which nothing is left are given back without a move, and may be half of it.
    let waits = || {
        let mut client = server.client();
        client.info("resident_bytes") > full / 2 || client.info("moved_blocks") == 0
    };
    while waits() {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "nothing was given back"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let left = (0..KEYS).filter(|n| n % 10 == 7);
    batch(&mut left.map(|n| request(&[b"GET", &key(n)])), &|m| {
        bulk(value(m * 10 + 7))
    });
}
