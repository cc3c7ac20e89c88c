//! The browsers: they bring their own allocators, start their processes in ways of their own, and put
//! them into sandboxes. They run as an ordinary user, with their sandboxes on.

use crate::display::Display;
use crate::harness::{How, Lab, Outcome, Recorded, Run, Seen, installed};
use crate::programs::nearly_all_known;
use crate::sandbox::{Violations, of_chromium, of_firefox, only_recorded};
use std::path::{Path, PathBuf};

const SECONDS: u64 = 120;

/// Content processes of Firefox by what they show; `tab` where the name of their main thread is not
/// known.
const CONTENT: [&str; 3] = ["tab", "file", "web"];

/// A copy of a directory that the user of the lab can read.
fn copied(lab: &Lab, from: &str, name: &str) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir(to).expect("a directory can be made");
        for entry in std::fs::read_dir(from).expect("it can be read").flatten() {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            match from.is_dir() {
                true => copy(&from, &to),
                false => drop(std::fs::copy(&from, &to).expect("it can be copied")),
            }
        }
    }
    let to = lab.path(name);
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(from), &to);
    lab.give(&to);
    to
}

fn url(path: &Path) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'~' | b'-' => {
            (byte as char).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    let path: String = path.to_string_lossy().bytes().map(escape).collect();
    format!("file://{path}")
}

/// The demanding page of the demo.
fn page(lab: &Lab) -> String {
    let directory = lab.path("page");
    if !directory.exists() {
        copied(lab, "demo/page", "page");
    }
    url(&directory.join("index.html"))
}

/// `run` with a profile and a home of its own, which takes `name`.
fn firefox<'a>(lab: &'a Lab, run: Run<'a>, name: &str) -> Run<'a> {
    let profile = copied(lab, "demo/profile", &format!("{name}-profile"));
    let home = lab.directory(&format!("{name}-home"));
    run.args(["--no-remote", "--profile"])
        .arg(profile)
        .env("HOME", home)
        .env("MOZ_CRASHREPORTER_DISABLE", "1")
        .env("MOZ_SANDBOX_LOGGING", "1")
        .within(SECONDS)
}

fn firefox_headless<'a>(lab: &'a Lab, program: &Path, name: &str) -> (Run<'a>, PathBuf) {
    let screenshot = lab.path(&format!("{name}.png"));
    let run = firefox(lab, lab.run(program), name)
        .args(["--headless", "--window-size=1280,2000", "--screenshot"])
        .arg(&screenshot);
    (run.arg(page(lab)), screenshot)
}

/// Sandboxes were on: some processes said so.
fn firefox_sandboxed(outcome: &Outcome) -> Violations {
    let on = outcome.stderr.matches("Sandbox: using seccomp").count();
    assert!(on >= 2, "only {on} sandboxes: {}", outcome.stderr);
    of_firefox(&outcome.stderr)
}

fn figures(seen: &Seen) {
    for process in &seen.processes {
        let number = process.number;
        eprintln!(
            "{number:3} {:24} {:18} {:9} calls, {} unknown frees, {} live duplicates",
            process.name,
            process.role,
            seen.of(number).total(),
            seen.unknown_frees.get(&number).unwrap_or(&0),
            seen.live_duplicates.get(&number).unwrap_or(&0),
        );
    }
}

/// One of the roles is there, in a process with that many calls.
fn has_role(seen: &Seen, roles: &[&str], calls_min: u64) {
    let mut processes = seen.processes.iter();
    let fits = |role: &str, number| roles.contains(&role) && seen.of(number).total() >= calls_min;
    assert!(
        processes.any(|process| fits(&process.role, process.number)),
        "no process with one of the roles {roles:?} and {calls_min} calls"
    );
}

/// What everybody has who asks `rmtrace` for the roles.
fn roles_are_told(recorded: &Recorded, seen: &Seen) {
    let (info, analyzed) = (recorded.info(), recorded.analyze());
    for (at, process) in seen.processes.iter().enumerate() {
        assert_eq!(info["processes"][at]["role"], process.role);
        assert_eq!(analyzed["processes"][at]["role"], process.role);
    }
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
    let lab = Lab::of_ordinary_user();
    let mut runs = 0;
    let mut plain = || {
        runs += 1;
        let (run, screenshot) = firefox_headless(&lab, &program, &format!("plain-{runs}"));
        let outcome = run.plain().ok();
        (picture(&outcome, &screenshot), firefox_sandboxed(&outcome))
    };
    let ((first, known), (second, more)) = (plain(), plain());
    assert!(first == second, "two screenshots without recording differ");
    let known = known.union(&more).cloned().collect();
    let mut plain_again = || plain().1;
    for how in How::BOTH {
        let mut runs = 0;
        let mut recorded = || {
            runs += 1;
            let name = format!("{how:?}-{runs}");
            let (run, screenshot) = firefox_headless(&lab, &program, &name);
            let recorded = run.recorded(how).ok();
            assert!(
                picture(&recorded.outcome, &screenshot) == first,
                "{how:?}: the screenshot differs"
            );
            recorded
        };
        let once = recorded();
        let found = firefox_sandboxed(&once.outcome);
        let mut again = || firefox_sandboxed(&recorded().outcome);
        let more = only_recorded(&known, &found, &mut plain_again, &mut again);
        assert!(more.is_empty(), "{how:?}: {more:#?}");
        let seen = nearly_all_known(&once);
        eprintln!("Firefox, {how:?}:");
        figures(&seen);
        roles_are_told(&once, &seen);
        has_role(&seen, &["main"], 500_000);
        has_role(&seen, &["forkserver"], 100);
        has_role(&seen, &["socket"], 1000);
        has_role(&seen, &CONTENT, 500_000);
    }
}

/// A page with a sound, for the processes that decode it; the window closes when it is ready, and with
/// the last window the browser ends.
fn page_with_sound(lab: &Lab) -> String {
    let samples: Vec<u8> = (0..8000u32).map(|n| (n * n / 64 % 251) as u8).collect();
    let mut wav = Vec::new();
    let length = samples.len() as u32;
    wav.extend(b"RIFF");
    wav.extend((36 + length).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend([8000u32, 8000].map(u32::to_le_bytes).concat());
    wav.extend(b"\x01\0\x08\0data");
    wav.extend(length.to_le_bytes());
    wav.extend(samples);
    std::fs::write(lab.path("sound.wav"), wav).expect("it can be written");
    let html = "<!doctype html><title>sound</title><p>A sound.\
        <audio preload=auto src=sound.wav></audio>\
        <script>onload = () => requestAnimationFrame(() => requestAnimationFrame(() => close()))</script>\n";
    let path = lab.path("sound.html");
    std::fs::write(&path, html).expect("it can be written");
    url(&path)
}

/// In a real window, started by a shell.
#[test]
fn firefox_in_a_window() {
    let programs = (
        installed(&["firefox-esr", "firefox"], "Firefox"),
        installed(&["Xvfb"], "Xvfb (package xvfb)"),
    );
    let (Some(program), Some(server)) = programs else {
        return;
    };
    let lab = Lab::of_ordinary_user();
    let display = Display::start(&lab, &server);
    let page = page_with_sound(&lab);
    let mut runs = 0;
    let mut run = || {
        runs += 1;
        let name = format!("window-{runs}");
        let shell = lab.run("/bin/sh").args(["-c", "\"$@\"; exit $?", "sh"]);
        let run = firefox(&lab, shell.arg(&program), &name).env("DISPLAY", &display.name);
        let preferences = lab.path(&format!("{name}-profile/user.js"));
        let mut text = std::fs::read_to_string(&preferences).expect("it is there");
        text.push_str("user_pref(\"dom.allow_scripts_to_close_windows\", true);\n");
        std::fs::write(&preferences, text).expect("it can be written");
        run.arg(&page)
    };
    let known = firefox_sandboxed(&run().plain().ok());
    let recorded = run().record().ok();
    let found = firefox_sandboxed(&recorded.outcome);
    let run = std::cell::RefCell::new(run);
    let more = only_recorded(
        &known,
        &found,
        || firefox_sandboxed(&run.borrow_mut()().plain().ok()),
        || firefox_sandboxed(&run.borrow_mut()().record().ok().outcome),
    );
    assert!(more.is_empty(), "{more:#?}");
    let seen = nearly_all_known(&recorded);
    eprintln!("Firefox in a window:");
    figures(&seen);
    has_role(&seen, &["launcher"], 1);
    has_role(&seen, &["main"], 500_000);
    has_role(&seen, &["forkserver"], 100);
    has_role(&seen, &["socket"], 1000);
    has_role(&seen, &["rdd"], 1000);
    has_role(&seen, &["utility"], 1000);
    has_role(&seen, &CONTENT, 10_000);
}

fn chromium<'a>(lab: &'a Lab, program: &Path, name: &str, sandbox: bool) -> (Run<'a>, PathBuf) {
    let (home, profile) = (
        lab.directory(&format!("{name}-home")),
        lab.directory(&format!("{name}-profile")),
    );
    let screenshot = lab.path(&format!("{name}.png"));
    let mut run = lab.run(program).args(["--headless", "--disable-gpu"]);
    if !sandbox {
        run = run.arg("--no-sandbox");
    }
    run = run.args([
        "--no-first-run",
        "--enable-logging=stderr",
        "--v=0",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    ]);
    run = run.arg(format!("--user-data-dir={}", profile.display()));
    run = run.arg("--window-size=1280,2000");
    run = run.arg(format!("--screenshot={}", screenshot.display()));
    (
        run.arg(page(lab)).env("HOME", home).within(SECONDS),
        screenshot,
    )
}

#[test]
fn chromium_loads_a_page() {
    let Some(program) = installed(&["chromium", "chromium-browser"], "Chromium") else {
        return;
    };
    let lab = Lab::of_ordinary_user();
    let mut plain = chromium(&lab, &program, "plain", true).0.plain();
    // Containers may have no namespaces for users.
    let sandbox = plain.status.success() || !plain.stderr.contains("No usable sandbox");
    if !sandbox {
        eprintln!("skipped: the sandbox of Chromium: this machine gives it no namespaces");
        plain = chromium(&lab, &program, "plain-open", false).0.plain();
    }
    let plain = plain.ok();
    assert!(plain.stderr.contains("] "), "no log: {plain:?}");
    let known = of_chromium(&plain.stderr);
    for how in How::BOTH {
        let mut runs = 0;
        let mut run = |kind: &str| {
            runs += 1;
            chromium(&lab, &program, &format!("{kind}-{how:?}-{runs}"), sandbox)
        };
        let (first, screenshot) = run("recorded");
        let recorded = first.recorded(how).ok();
        picture(&recorded.outcome, &screenshot);
        let found = of_chromium(&recorded.outcome.stderr);
        let run = std::cell::RefCell::new(run);
        let more = only_recorded(
            &known,
            &found,
            || of_chromium(&run.borrow_mut()("plain").0.plain().ok().stderr),
            || {
                of_chromium(
                    &run.borrow_mut()("again")
                        .0
                        .recorded(how)
                        .ok()
                        .outcome
                        .stderr,
                )
            },
        );
        assert!(more.is_empty(), "{more:#?}");
        let seen = nearly_all_known(&recorded);
        eprintln!("Chromium, {how:?}:");
        figures(&seen);
        roles_are_told(&recorded, &seen);
        has_role(&seen, &["browser"], 500_000);
        has_role(&seen, &["zygote"], 1000);
        has_role(&seen, &["gpu-process"], 10_000);
        has_role(&seen, &["network"], 10_000);
        has_role(&seen, &["storage"], 1000);
        has_role(&seen, &["renderer"], 500_000);
        if sandbox {
            has_role(&seen, &["zygote-unsandboxed"], 1000);
            // The others live in a process namespace of their own.
            let mut zygotes = seen.processes.iter().filter(|p| p.role == "zygote");
            assert!(zygotes.any(|p| p.pid_inside == 1), "{how:?}: no sandbox");
        }
    }
}
