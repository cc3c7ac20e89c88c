//! What browsers log of their sandboxes: nothing may be there with a recording that is not there
//! without one.

use std::collections::BTreeSet;

/// Lines of a log that tell of something that a sandbox did not allow, without what differs from run
/// to run.
pub type Violations = BTreeSet<String>;

/// Of Firefox under `MOZ_SANDBOX_LOGGING=1`: refused system calls, and files that the broker did not
/// open.
pub fn of_firefox(log: &str) -> Violations {
    let told = |line: &str| {
        let (_, text) = line.split_once("Sandbox: ")?;
        let tells = [
            "violation",
            "Failed errno",
            "denied",
            "rejected",
            "unexpected",
        ];
        tells.iter().any(|word| text.contains(word)).then(|| {
            // Arguments of a system call are addresses.
            let text = text.split(", args").next().unwrap_or(text);
            normal(text, |word| {
                word == "syscall" || word == "errno" || word == "flags"
            })
        })
    };
    log.lines().filter_map(told).collect()
}

/// Of Chromium under `--enable-logging=stderr`.
pub fn of_chromium(log: &str) -> Violations {
    let told = |line: &str| {
        // [pid:tid:date/time:LEVEL:file:line] text
        let text = match line.starts_with('[') {
            true => line.splitn(4, ':').nth(3).unwrap_or(line),
            false => line,
        };
        let low = text.to_ascii_lowercase();
        let tells = [
            "sandbox", "seccomp", "sigsys", "signal", "crash", "fatal", "zygote",
        ];
        tells.iter().any(|word| low.contains(word)).then(|| {
            let words = text.split(' ').filter(|word| !word.starts_with("arg"));
            let text: Vec<&str> = words.collect();
            normal(&text.join(" "), |word| word == "signal")
        })
    };
    log.lines().filter_map(told).collect()
}

/// Numbers become `N`, but for the one after a word that `keeps` it.
fn normal(text: &str, keeps: impl Fn(&str) -> bool) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut before = "";
    for word in text.split(' ') {
        let kept = keeps(before) || word.starts_with("nr=");
        out.push(match kept {
            true => word.to_owned(),
            false => without_numbers(word),
        });
        before = word.trim_end_matches(|c: char| !c.is_alphanumeric());
    }
    out.join(" ")
}

fn without_numbers(word: &str) -> String {
    let mut out = String::new();
    for letter in word.chars() {
        match letter {
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            other => out.push(other),
        }
    }
    out
}

/// What `recorded` has and `plain` has not. Browsers are not the same from run to run:
/// what is left counts if it is there again in two more recorded runs, and not in as many plain ones.
pub fn only_recorded(
    plain: &Violations,
    recorded: &Violations,
    mut plain_again: impl FnMut() -> Violations,
    mut recorded_again: impl FnMut() -> Violations,
) -> Violations {
    let mut more: Violations = recorded.difference(plain).cloned().collect();
    for _ in 0..2 {
        if more.is_empty() {
            break;
        }
        eprintln!("only in the recorded run so far: {more:#?}");
        let (plain, recorded) = (plain_again(), recorded_again());
        more.retain(|line| recorded.contains(line) && !plain.contains(line));
    }
    more
}

#[test]
fn violations_are_found_and_made_alike() {
    let log = "[77] Sandbox: policy for /lib: 1 -> 3\n\
        [77] Sandbox: seccomp sandbox violation: pid 81, tid 82, syscall 157, args 1 140 0 0 0 0.\n\
        [77] Sandbox: seccomp sandbox violation: pid 91, tid 92, syscall 157, args 2 7 0 0 0 0.\n\
        [77] Sandbox: Failed errno -13 op open flags 00 path /proc/17052/status\n";
    let found: Vec<String> = of_firefox(log).into_iter().collect();
    let expected = [
        "Failed errno -13 op open flags 00 path /proc/N/status",
        "seccomp sandbox violation: pid N, tid N, syscall 157",
    ];
    assert_eq!(found, expected);
    let log = "[1:2:1123/125027.1:ERROR:dbus/bus.cc:405] Failed to connect\n\
        [1:2:1123/125027.2:WARNING:sandbox/linux.cc:405] InitializeSandbox() called\n\
        ../../sandbox/linux/seccomp-bpf-helpers/x.cc:**CRASHING**:seccomp-bpf failure in syscall nr=0x9d arg1=0x4 arg2=0\n\
        Received signal 31 SYS_SECCOMP 00000000009d\n";
    let found: Vec<String> = of_chromium(log).into_iter().collect();
    let expected = [
        "../../sandbox/linux/seccomp-bpf-helpers/x.cc:**CRASHING**:seccomp-bpf failure in syscall nr=0x9d",
        "Received signal 31 SYS_SECCOMP Nd",
        "WARNING:sandbox/linux.cc:N] InitializeSandbox() called",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_comes_back_counts_and_what_does_not_is_noise() {
    let set = |words: &[&str]| -> Violations { words.iter().map(|w| (*w).to_owned()).collect() };
    let (none, a, b) = (set(&[]), set(&["a"]), set(&["b"]));
    let both = set(&["a", "b"]);
    let same = only_recorded(&a, &a, || unreachable!(), || unreachable!());
    assert_eq!(same, none);
    let noise = only_recorded(&none, &b, || none.clone(), || a.clone());
    assert_eq!(noise, none);
    let plain_too = only_recorded(&none, &b, || b.clone(), || b.clone());
    assert_eq!(plain_too, none);
    let real = only_recorded(&none, &both, || a.clone(), || both.clone());
    assert_eq!(real, b);
}
