//! The deterministic part of a search, with a bench that works out figures instead of measuring: the known optimum is found,
//! halving drops what is bad early, a journal goes on to the identical result.

use rmtrace_tune::bench::{Bench, Candidate, Part, Refusal, Sample, Subject};
use rmtrace_tune::config::Mode;
use rmtrace_tune::journal::{Header, Journal};
use rmtrace_tune::score::{Limits, Objective};
use rmtrace_tune::search::Options;
use rmtrace_tune::space::Space;
use rmtrace_tune::tune::{Tuned, Wanted, tune};
use std::cell::RefCell;
use std::fs;
use std::rc::Rc;

/// What was measured: candidate, trace, points, round.
type Log = Rc<RefCell<Vec<(String, usize, u64, u32)>>>;

/// Time is least at a trigger of 0.32 and a cache of 1,024 entries, memory does not change; `off` fails.
struct Synthetic {
    subjects: Vec<Subject>,
    log: Log,
    /// Stops after so many rounds.
    stop_after: usize,
    /// Nothing has an effect.
    flat: bool,
}

impl Synthetic {
    fn new(log: &Log) -> Synthetic {
        let subject = |name: &str, round_ns| Subject {
            name: name.to_string(),
            title: String::new(),
            process: 0,
            checksum: format!("sum of {name}"),
            points: 1_000,
            operations: 1_000,
            round_ns,
        };
        Synthetic {
            subjects: vec![
                subject("long.rmt", 9_000_000_000),
                subject("short.rmt", 5_000_000_000),
            ],
            log: log.clone(),
            stop_after: usize::MAX,
            flat: false,
        }
    }
}

/// A number within 0.1 % of 1 that is the same for the same words.
fn jitter(words: &str) -> f64 {
    let sum = words.bytes().fold(7u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    1.0 + (sum % 1_000) as f64 / 1e6 - 0.0005
}

impl Bench for Synthetic {
    fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    fn measure(
        &mut self,
        candidate: &Candidate,
        part: Part,
        round: u32,
    ) -> Result<Sample, Refusal> {
        if self.log.borrow().len() >= self.stop_after {
            return Err(Refusal::Stopped);
        }
        let row = (candidate.name.clone(), part.subject, part.points, round);
        self.log.borrow_mut().push(row.clone());
        let config = &candidate.config;
        if config.compaction.mode == Mode::Off {
            return Err(Refusal::Failed("it refused 64 bytes".to_string()));
        }
        let far = |value: u64, best: u64| (value as f64 / best as f64).log2().abs();
        let away = far(config.compaction.trigger_ppm.into(), 320_000)
            + far(config.cache.entries.into(), 1_024);
        let cost = if self.flat { 1.0 } else { 1.0 + 0.1 * away };
        let noise = |turn: u32| jitter(&format!("{row:?}{turn}"));
        Ok(Sample {
            resident_over_rounded: 1.1 * noise(9),
            peak_resident_bytes: 1 << 20,
            cpu_ns: (0..3).map(|turn| 1e6 * cost * noise(turn)).collect(),
            reference_cpu_ns: {
                let reference = if self.flat {
                    1.0
                } else {
                    1.0 + 0.1 * (3.0 + 4.0)
                };
                (0..3)
                    .map(|turn| 1e6 * reference * noise(turn + 3))
                    .collect()
            },
            pause_ns: Some(config.compaction.budget_ns),
            ..Sample::default()
        })
    }
}

fn wanted() -> Wanted {
    Wanted {
        search: Options {
            objective: Objective::Both,
            seed: 3,
            ..Options::default()
        },
        searched: 2,
        ..Wanted::default()
    }
}

fn space() -> Space {
    Space::new(Vec::new(), false, &[]).expect("a space")
}

fn run(journal: &mut Journal<Synthetic>, wanted: &Wanted) -> Tuned {
    tune(journal, &space(), wanted, || false, &mut |_| ()).expect("a result")
}

#[test]
fn the_known_optimum_is_found_and_nothing_else_is_changed() {
    let log = Log::default();
    // The default trigger, 0.04, is three doublings from the best one, the default cache, 64, four.
    let tuned = run(&mut Journal::in_memory(Synthetic::new(&log)), &wanted());
    assert_eq!(
        tuned.report.result.name,
        "cache.entries=1024 compaction.trigger=0.32"
    );
    assert_eq!(tuned.report.search.ended, "exhausted");
    let time = tuned.report.result.time.expect("a ratio").value;
    assert!((time - 1.0 / 1.7).abs() < 0.01, "{time}");
    let memory = tuned.report.result.memory.expect("a ratio").value;
    assert!((memory - 1.0).abs() < 0.002, "{memory}");
    // Ablation: without one of them half of the gain is lost; the objective is the root of it.
    let without = |name: &str| {
        let mut settings = tuned.report.settings.iter();
        let setting = settings
            .find(|setting| setting.name == name)
            .expect("a setting");
        assert!(
            setting.comment.starts_with("bought +"),
            "{}",
            setting.comment
        );
        setting.without.expect("a ratio").value
    };
    assert!((without("compaction.trigger") - 1.3f64.sqrt()).abs() < 0.01);
    assert!((without("cache.entries") - 1.4f64.sqrt()).abs() < 0.01);
    let slack = tuned
        .report
        .settings
        .iter()
        .find(|setting| setting.name == "compaction.slack");
    assert!(slack.is_some_and(|slack| slack.comment.contains("no measurable effect")));
    assert_eq!(tuned.report.leave_one_out.len(), 2);
    let failed = tuned
        .report
        .candidates
        .iter()
        .filter(|one| one.dropped.as_deref() == Some("it refused 64 bytes"));
    assert!(failed.count() > 0);
    // What is written is what was found.
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("rmalloc.toml");
    fs::write(&path, &tuned.toml).expect("written");
    let read = rmtrace_tune::config::Config::from_file(&path).expect("a configuration");
    assert_eq!(read, tuned.config);
    assert_eq!(
        (read.cache.entries, read.compaction.trigger_ppm),
        (1_024, 320_000)
    );
}

#[test]
fn halving_keeps_what_is_bad_from_the_long_traces() {
    let log = Log::default();
    run(&mut Journal::in_memory(Synthetic::new(&log)), &wanted());
    let log = log.borrow();
    let on = |points: u64, subject: usize| {
        let mut names: Vec<&str> = log
            .iter()
            .filter(|row| row.1 == subject && row.2 == points && row.3 < 1_000)
            .map(|row| row.0.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let short: Vec<&str> = on(333, 1);
    let long: Vec<&str> = on(1_000, 0);
    assert!(short.len() >= 20, "{short:?}");
    assert!(
        long.len() * 3 < short.len(),
        "{} of {}",
        long.len(),
        short.len()
    );
    // The worst one is seen on the short part, once.
    let worst = "compaction.trigger=0.005 compaction.stop=0.0025";
    assert_eq!(log.iter().filter(|row| row.0 == worst).count(), 1);
}

#[test]
fn defaults_that_can_not_be_beaten_stay_and_the_report_says_so() {
    let bench = Synthetic {
        flat: true,
        ..Synthetic::new(&Log::default())
    };
    let tuned = run(&mut Journal::in_memory(bench), &wanted());
    assert!(tuned.report.result.is_default);
    assert_eq!(tuned.config, rmtrace_tune::config::Config::new());
    assert!(
        tuned.report.result.why.contains("defaults"),
        "{}",
        tuned.report.result.why
    );
    assert!(rmtrace_tune::text::render(&tuned.report).contains("result: the defaults:"));
}

#[test]
fn limits_drop_candidates() {
    let mut wanted = wanted();
    wanted.search.limits = Limits {
        pause_ns: Some(100_000),
        ..Limits::default()
    };
    let tuned = run(
        &mut Journal::in_memory(Synthetic::new(&Log::default())),
        &wanted,
    );
    // The default budget is above it: whatever is chosen has a smaller one.
    assert!(
        tuned.config.compaction.budget_ns <= 100_000,
        "{}",
        tuned.report.result.name
    );
    let mut dropped = tuned
        .report
        .candidates
        .iter()
        .filter_map(|one| one.dropped.as_deref());
    assert!(dropped.any(|why| why.contains("--max-pause")));
}

fn header() -> Header {
    Header::new("0badcafe".to_string(), "pace recorded".to_string())
}

#[test]
fn a_journal_goes_on_to_the_identical_result_and_measures_nothing_twice() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("rmalloc.toml.journal");
    let whole_log = Log::default();
    let whole = run(
        &mut Journal::in_memory(Synthetic::new(&whole_log)),
        &wanted(),
    );
    for stop_after in [1, 40, 150] {
        let log = Log::default();
        let bench = Synthetic {
            stop_after,
            ..Synthetic::new(&log)
        };
        let mut journal = Journal::create(bench, &path, &header()).expect("a journal");
        let cut = run(&mut journal, &wanted());
        assert_eq!(cut.report.search.ended, "time");
        drop(journal);
        // Killed while it wrote a line.
        let mut text = fs::read(&path).expect("a journal");
        text.extend(b"{\"candidate\":\"cac");
        fs::write(&path, text).expect("written");
        let mut journal =
            Journal::resume(Synthetic::new(&log), &path, &header()).expect("a journal");
        assert_eq!(journal.found, stop_after as u64);
        let resumed = run(&mut journal, &wanted());
        assert_eq!(resumed.toml, whole.toml);
        let json = |tuned: &Tuned| {
            let mut value = serde_json::to_value(&tuned.report).expect("JSON");
            value["search"]["rounds"] = 0.into();
            value["search"]["resumed_rounds"] = 0.into();
            value
        };
        assert_eq!(json(&resumed), json(&whole));
        let mut once = log.borrow().clone();
        assert_eq!(once.len(), whole_log.borrow().len());
        once.sort();
        once.dedup();
        assert_eq!(once.len(), whole_log.borrow().len());
    }
}

#[test]
fn journals_of_something_else_are_refused() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("rmalloc.toml.journal");
    let log = Log::default();
    let mut journal = Journal::create(Synthetic::new(&log), &path, &header()).expect("a journal");
    let mut few = wanted();
    few.search.candidates_max = Some(3);
    assert_eq!(run(&mut journal, &few).report.search.ended, "candidates");
    let refused = |bench: Synthetic, header: &Header| {
        let error = Journal::resume(bench, &path, header)
            .err()
            .expect("refused");
        error.to_string()
    };
    let other = Header {
        version: "0.0.9".to_string(),
        ..header()
    };
    let said = refused(Synthetic::new(&log), &other);
    assert!(
        said.contains("rmtrace 0.0.9") && said.contains("without --resume"),
        "{said}"
    );
    let said = refused(
        Synthetic::new(&log),
        &Header::new("1".to_string(), "pace recorded".to_string()),
    );
    assert!(
        said.contains("build 0badcafe") && said.contains("build 1"),
        "{said}"
    );
    let mut changed = Synthetic::new(&log);
    changed.subjects[1].checksum = "another".to_string();
    let said = refused(changed, &header());
    assert!(said.contains("short.rmt with checksum another"), "{said}");
    let text = fs::read_to_string(&path).expect("a journal");
    let second = text.lines().nth(1).expect("a line").to_string();
    fs::write(&path, text.replace(&second, "{}")).expect("written");
    let said = refused(Synthetic::new(&log), &header());
    assert!(said.contains(".journal:2: "), "{said}");
}
