//! The advice as a whole, worked out by hand for small processes.

use super::*;
use crate::fact::sample::streams;
use crate::handles::{Handles, SegmentReport};
use proptest::prelude::*;

/// A process with this peak, whose other figures follow simply from it.
pub(crate) fn subject(trace: &str, peak: u64) -> Subject {
    Subject {
        trace: trace.to_string(),
        program: "demo".to_string(),
        process: 3,
        title: "process 3 (demo)".to_string(),
        handles: HandlesReport {
            duration_ns: 10_000_000_000,
            births: 10 * peak,
            entries_peak: peak,
            entries_mean_milli: 500 * peak,
            entries_at_end: peak / 4,
            entries_half_of_time: peak / 2,
            live_bytes_at_peak: 100 * peak,
            live_bytes_rounded_at_peak: 112 * peak,
            in_place_bytes_at_peak: 8 * peak,
            live_bytes_mean: 50 * peak,
            in_place_bytes_mean: 4 * peak,
            in_place_bytes_at_end: 2 * peak,
            segments: vec![SegmentReport {
                entries: 512,
                held_peak: 10,
                held_mean_milli: 7_500,
                held_at_end: 5,
                stranded_most: 4,
                stranded_most_at_ns: 1,
                stranded_mean_milli: 1_500,
                stranded_at_end: 2,
            }],
            overflow: vec![
                Over {
                    entries: peak / 2,
                    time_ns: 5_000_000_000,
                    births: 6 * peak,
                },
                Over {
                    entries: peak,
                    ..Over::default()
                },
            ],
            ..HandlesReport::default()
        },
        ..Subject::default()
    }
}

#[test]
fn the_ways_by_hand() {
    let subjects = [
        subject("a", 4_000),
        subject("b", 5_120),
        subject("c", 4_500),
    ];
    let advice = Advice::new(&subjects, Wanted::default()).unwrap();
    assert_eq!(advice.reference, 1);
    assert_eq!(advice.entries.entries, 5_120);
    assert_eq!(advice.entries.risk_ppm, Some(250_000));
    let [beside, reserved, segmented] = &advice.ways[..] else {
        panic!("three ways")
    };
    assert_eq!(
        (beside.bytes_at_peak, beside.bytes_mean),
        (8 * 5_120, 4 * 5_120)
    );
    assert_eq!(
        (beside.share_at_peak_ppm, beside.share_mean_ppm),
        (80_000, 80_000)
    );
    assert_eq!((beside.fixed_at_peak, beside.fixed_at_end), (5_120, 1_280));
    assert_eq!(beside.fixed_pages_most, None);
    assert_eq!(
        (beside.bytes_at_end, segmented.bytes_at_end),
        (2 * 5_120, 5 * 4_104)
    );
    assert_eq!(
        (reserved.bytes_at_peak, reserved.bytes_mean),
        (8 * 5_120, 8 * 5_120)
    );
    assert_eq!(
        (reserved.stranded_mean, reserved.stranded_at_end),
        (2_560, 3_840)
    );
    assert_eq!(segmented.bytes_at_peak, 10 * 4_104);
    assert_eq!(segmented.bytes_mean, 30_780);
    assert_eq!(segmented.stranded_mean, 768);
    assert_eq!(segmented.stranded_most, 2_048);
    assert_eq!(advice.way(), WayKind::Segmented);
    // Half of the time needs 2,560 entries; 2,560 more in 16 steps are one segment each.
    assert_eq!(advice.growth.first_entries, 2_560);
    assert_eq!(advice.growth.step_entries, 512);
    assert_eq!(advice.growth.steps, 5);
}

#[test]
fn each_trace_tests_the_advice_of_the_others() {
    let subjects = [
        subject("a", 4_000),
        subject("b", 10_000),
        subject("c", 4_500),
    ];
    let advice = Advice::new(&subjects, Wanted::default()).unwrap();
    let tests = &advice.entries.left_out;
    assert_eq!(tests[0].entries, 10_240);
    assert_eq!((tests[0].entries_over, tests[0].time_over_ns), (0, 0));
    // 4,500 in whole segments; the curve knows 5,000 next, which is above, so all time may be over.
    assert_eq!(tests[1].trace, "b");
    assert_eq!(tests[1].entries, 4_608);
    assert_eq!(tests[1].entries_over, 10_000 - 4_608);
    assert_eq!(tests[1].time_over_ppm, 1_000_000);
    assert_eq!(tests[1].births_over, 100_000);
    assert_eq!(
        (advice.entries.peak_median, advice.entries.peak_mad),
        (4_500, 500)
    );
}

#[test]
fn other_programs_are_noticed() {
    let mut subjects = [subject("a", 4_000), subject("b", 5_000)];
    subjects[1].program = "other".to_string();
    let wanted = Wanted {
        risk_ppm: Some(400_000),
        ..Wanted::default()
    };
    let advice = Advice::new(&subjects, wanted).unwrap();
    assert!(!advice.same_program);
    assert_eq!(advice.entries.method, Method::Margin);
    assert_eq!(advice.entries.risk_ppm, None);
    assert!(advice.entries.statement.contains("different programs"));
    assert!(crate::text::advice::render(&advice).contains("different programs"));
    assert!(Advice::new(&[], wanted).is_none());
}

/// Names that could end a comment, a line or a string do not.
#[test]
fn names_stay_in_their_comments() {
    let mut nasty = subject("x*/\n#error\n[table]\\", 100);
    nasty.title = "\u{7}\r\n*/ int".to_string();
    let advice = Advice::new(&[nasty], Wanted::default()).unwrap();
    let toml = toml(&advice);
    let sections: Vec<&str> = toml.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(sections, ["[table]", "[entry]", "[handle]"]);
    for line in header(&advice).lines().filter(|line| !line.is_empty()) {
        let comment = line
            .strip_prefix("/* ")
            .and_then(|line| line.strip_suffix(" */"));
        match comment {
            Some(comment) => assert!(
                !comment.contains("*/") && !comment.ends_with('\\'),
                "{line}"
            ),
            None => assert!(
                line.starts_with("#define RMALLOC_")
                    || line == "#ifndef RMALLOC_CONFIG_H"
                    || line == "#endif",
                "{line}"
            ),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nothing is lost or divided by zero from any process to any page: N more would not fit, and what
    /// is written has each setting once.
    #[test]
    fn any_process_gets_advice(streams in proptest::collection::vec(streams(80), 1..4), memory: u64, risk_ppm in proptest::option::of(1u64..500_000)) {
        let subjects: Vec<Subject> = streams.iter().map(|stream| {
            let mut handles = Handles::new(0);
            stream.tell(&mut handles);
            Subject { handles: handles.report(stream.end_ns), ..subject("t", 0) }
        }).collect();
        let wanted = Wanted { memory: Some(memory), risk_ppm };
        let advice = Advice::new(&subjects, wanted).unwrap();
        let highest = subjects.iter().map(|of| of.handles.entries_peak).max().unwrap();
        prop_assert!(advice.entries.entries.is_multiple_of(512));
        prop_assert!(risk_ppm.is_some() || advice.entries.entries >= highest);
        let handles = &subjects[advice.reference].handles;
        for point in &advice.memory {
            let sum = |per_block: u64| u128::from(handles.live_bytes_rounded_at_peak) + u128::from(handles.entries_peak * per_block);
            for (n, taken) in [
                (point.beside, u128::from(handles.live_bytes_rounded_at_peak + handles.in_place_bytes_at_peak)),
                (point.reserved, sum(8)),
            ] {
                let room = u128::from(point.bytes) * u128::from(handles.entries_peak);
                prop_assert!(u128::from(n) * taken <= room || taken == 0);
                prop_assert!(u128::from(n + 1) * taken > room || taken == 0);
            }
            prop_assert!(point.segmented <= point.reserved);
        }
        let text = crate::text::advice::render(&advice);
        prop_assert!(text.contains("How many entries?"));
        let toml = toml(&advice);
        for setting in settings(&advice) {
            let line = |line: &&str| line.strip_prefix(setting.key).is_some_and(|rest| rest.starts_with(" = "));
            let same_key = settings(&advice).iter().filter(|other| other.key == setting.key).count();
            prop_assert_eq!(toml.lines().filter(line).count(), same_key);
        }
        serde_json::to_string(&advice).unwrap();
        for stream in &subjects {
            crate::text::advice::section(&stream.handles);
        }
    }
}
