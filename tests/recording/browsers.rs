//! The browsers: they bring their own allocators, start their processes in ways of their own, and put
//! them into sandboxes.

use crate::harness::{How, Lab, Outcome, Run, Seen, installed};
use crate::programs::nearly_all_known;
use rmtrace_file::Process;
use std::path::{Path, PathBuf};

const SECONDS: u64 = 120;

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/page/index.html");
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'~' | b'-' => {
            (byte as char).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    let path: String = page.to_string_lossy().bytes().map(escape).collect();
    format!("file://{path}")
}

fn firefox<'a>(lab: &'a Lab, program: &Path, name: &str) -> (Run<'a>, PathBuf) {
    let profile = lab.path(&format!("{name}-profile"));
    let home = lab.path(&format!("{name}-home"));
    let screenshot = lab.path(&format!("{name}.png"));
    for directory in [&profile, &home] {
        std::fs::create_dir(directory).expect("a directory can be made");
    }
    let preferences = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/profile/user.js");
    std::fs::copy(preferences, profile.join("user.js")).expect("it can be copied");
    let run = lab
        .run(program)
        .args(["--headless", "--no-remote", "--profile"])
        .arg(profile);
    let run = run
        .args(["--window-size=1280,2000", "--screenshot"])
        .arg(&screenshot)
        .arg(page());
    let run = run.env("HOME", home).env("MOZ_CRASHREPORTER_DISABLE", "1");
    (run.within(SECONDS), screenshot)
}

fn figures(seen: &Seen) {
    for process in &seen.processes {
        let number = process.number;
        eprintln!(
            "{number:3} {:20} {:12} {:9} calls, {} unknown frees, {} live duplicates",
            process.name,
            process.role,
            seen.of(number).total(),
            seen.unknown_frees.get(&number).unwrap_or(&0),
            seen.live_duplicates.get(&number).unwrap_or(&0),
        );
    }
}

fn has_role(seen: &Seen, role: &str, calls_min: u64) {
    let mut processes = seen.processes.iter().filter(|process| process.role == role);
    assert!(
        processes.any(|process| seen.of(process.number).total() >= calls_min),
        "no {role} with {calls_min} calls"
    );
}

fn picture(outcome: &Outcome, path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_default();
    assert!(bytes.starts_with(b"\x89PNG"), "no screenshot: {outcome:?}");
    bytes
}

#[test]
fn firefox_loads_a_page() {
    let Some(program) = installed(&["firefox-esr", "firefox"], "Firefox") else {
        return;
    };
    let lab = Lab::new();
    let [first, second] = ["first", "second"].map(|name| {
        let (run, screenshot) = firefox(&lab, &program, name);
        let outcome = run.plain().ok();
        picture(&outcome, &screenshot)
    });
    assert!(first == second, "two screenshots without recording differ");
    for (how, name) in [(How::Bare, "bare"), (How::Record, "record")] {
        let (run, screenshot) = firefox(&lab, &program, name);
        let recorded = run.recorded(how).ok();
        assert!(
            picture(&recorded.outcome, &screenshot) == first,
            "{how:?}: the screenshot differs"
        );
        let seen = nearly_all_known(&recorded);
        eprintln!("Firefox, {how:?}:");
        figures(&seen);
        has_role(&seen, "main", 500_000);
        has_role(&seen, "tab", 500_000);
    }
}

#[test]
fn chromium_loads_a_page() {
    let Some(program) = installed(&["chromium", "chromium-browser"], "Chromium") else {
        return;
    };
    for how in How::BOTH {
        let lab = Lab::new();
        let (home, profile) = (lab.path("home"), lab.path("profile"));
        std::fs::create_dir(&home).expect("a directory can be made");
        let screenshot = lab.path("page.png");
        let mut run = lab
            .run(&program)
            .args(["--headless", "--no-sandbox", "--disable-gpu"]);
        run = run.args([
            "--no-first-run",
            "--log-level=3",
            "--disable-background-networking",
        ]);
        run = run.args([
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
        ]);
        run = run.arg(format!("--user-data-dir={}", profile.display()));
        run = run.arg("--window-size=1280,2000");
        run = run
            .arg(format!("--screenshot={}", screenshot.display()))
            .arg(page());
        let recorded = run.env("HOME", &home).within(SECONDS).recorded(how).ok();
        picture(&recorded.outcome, &screenshot);
        let seen = nearly_all_known(&recorded);
        eprintln!("Chromium, {how:?}:");
        figures(&seen);
        // Children of a zygote write their options anew, as one string.
        let typed = |process: &Process, kind: &str| {
            let option = format!("--type={kind}");
            process
                .arguments
                .iter()
                .any(|argument| argument.contains(&option))
        };
        let chromium: Vec<&Process> = seen
            .processes
            .iter()
            .filter(|process| process.name == "chromium")
            .collect();
        for (kind, calls_min) in [
            ("zygote", 1000),
            ("gpu-process", 10_000),
            ("utility", 10_000),
            ("renderer", 500_000),
        ] {
            let mut of_kind = chromium.iter().filter(|process| typed(process, kind));
            assert!(
                of_kind.any(|process| seen.of(process.number).total() >= calls_min),
                "{how:?}: no {kind} with {calls_min} calls"
            );
        }
        // The browser itself is the one without a type.
        let mut browser = chromium.iter().filter(|process| !typed(process, ""));
        assert!(
            browser.any(|process| seen.of(process.number).total() >= 500_000),
            "{how:?}: no browser"
        );
    }
}
