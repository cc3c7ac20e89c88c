//! Programs of which nothing can be recorded: whoever records them is told, and their exit status is
//! what it was.

use crate::harness::{Lab, rmtrace, wait_until};
use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `rmtrace record` with `options`: exit code, stderr, and the trace.
fn record(lab: &Lab, options: &[&str], command: &[&Path]) -> (Option<i32>, String, PathBuf) {
    let trace = lab.path("trace.rmt");
    let mut arguments: Vec<&OsStr> = vec!["record".as_ref(), "-o".as_ref(), trace.as_ref()];
    arguments.extend(options.iter().map(|option| -> &OsStr { option.as_ref() }));
    arguments.push("--".as_ref());
    arguments.extend(command.iter().map(|word| word.as_os_str()));
    let (status, _, stderr) = lab.rmtrace(&arguments);
    (status.code(), stderr, trace)
}

/// What the commands that read a trace print of it.
fn shown(lab: &Lab, trace: &Path) -> [String; 2] {
    ["info", "analyze"].map(|command| {
        let (status, stdout, stderr) = lab.rmtrace(&[command.as_ref(), trace.as_ref()]);
        assert!(status.success(), "{command}: {stderr}");
        stdout
    })
}

/// Nothing of `program` is recorded, and everything says so.
fn is_told(lab: &Lab, command: &[&Path], program: &Path, reason: &str) {
    let (code, stderr, trace) = record(lab, &[], command);
    assert_eq!(code, Some(3), "{stderr}");
    let name = program.display().to_string();
    assert!(
        stderr.contains("WARNING") && stderr.contains(&name),
        "{stderr}"
    );
    assert!(stderr.contains(reason), "{reason}: {stderr}");
    for shown in shown(lab, &trace) {
        // First of all where there is nothing else to show.
        let is_empty = shown.contains(": 0 events, ");
        let lines = shown.lines().take(if is_empty { 12 } else { usize::MAX });
        let is_line = |line: &str| line.contains(&name) && line.contains(reason);
        assert!(lines.into_iter().any(is_line), "{reason}: {shown}");
    }
}

#[test]
fn static_programs() {
    for flags in [&["-static"][..], &["-static-pie"], &["-static", "-g"]] {
        let lab = Lab::new();
        let program = lab.compile(&["waits.c"], "waits", flags);
        is_told(&lab, &[&program], &program, "linked statically");
        let (_, stderr, _) = record(&lab, &[], &[&program]);
        assert!(stderr.contains("the trace is empty"), "{stderr}");
        // An empty trace is never silent.
        let (code, stderr, _) = record(&lab, &["--quiet"], &[&program]);
        assert_eq!(code, Some(3));
        assert!(stderr.contains("linked statically"), "{stderr}");
        // The reason, without the path.
        let (_, _, trace) = record(&lab, &["--anonymous"], &[&program]);
        for shown in shown(&lab, &trace) {
            assert!(shown.contains("linked statically"), "{shown}");
            let path = program.display().to_string();
            assert!(!shown.contains(&path), "{shown}");
        }
    }
}

/// What can be recorded is not warned of.
#[test]
fn dynamic_programs() {
    for flags in [&[][..], &["-no-pie", "-fno-pie"], &["-s"]] {
        let lab = Lab::new();
        let program = lab.compile(&["waits.c"], "waits", flags);
        let (code, stderr, trace) = record(&lab, &[], &[&program]);
        assert_eq!(code, Some(3));
        assert!(!stderr.contains("WARNING"), "{stderr}");
        assert!(!shown(&lab, &trace).concat().contains("can't be recorded"));
        // The dynamic linker as a command has none itself.
        let linker = Path::new("/lib64/ld-linux-x86-64.so.2");
        let (code, stderr, _) = record(&lab, &[], &[linker, &program]);
        assert_eq!(code, Some(3));
        assert!(!stderr.contains("WARNING"), "{stderr}");
    }
}

#[test]
fn scripts_of_a_static_interpreter() {
    let lab = Lab::new();
    let program = lab.compile(&["waits.c"], "waits", &["-static"]);
    let script = lab.path("script");
    let there = lab.path("script");
    let text = format!("#!{}\n", program.display());
    std::fs::write(&script, text).expect("the directory can be written");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).expect("it is ours");
    // The interpreter's argument is the script, which is there.
    is_told(&lab, &[&script], &program, "linked statically");
    let env = [
        Path::new("/usr/bin/env"),
        Path::new("A=b"),
        &program,
        &there,
    ];
    is_told(&lab, &env, &program, "linked statically");
}

#[test]
fn programs_of_another_user() {
    let lab = Lab::new();
    let program = lab.compile(&["waits.c"], "waits", &[]);
    // User 65534 has the program; whoever may give it to him is root.
    if chown(&program, Some(65534), None).is_err() {
        eprintln!("skipped: only root can give a file to another user");
        return;
    }
    let mode = PermissionsExt::from_mode(0o4755);
    std::fs::set_permissions(&program, mode).expect("root may");
    is_told(&lab, &[&program], &program, "set-user-id");
}

/// A program that the command starts.
#[test]
fn static_descendants() {
    let lab = Lab::new();
    let program = lab.compile(&["waits.c"], "waits", &["-static"]);
    let (trace, there) = (lab.path("trace.rmt"), lab.path("there"));
    let script = format!("{} {}; exit 7", program.display(), there.display());
    let run = lab.run(rmtrace()).args(["record", "-o"]).arg(&trace);
    let run = run.args(["--", "/bin/sh", "-c"]).arg(script);
    let mut started = run.start_plain();
    let name = program.display().to_string();
    let is_named = || {
        let stderr = started.stderr();
        stderr.contains(&name) && stderr.contains("linked statically")
    };
    assert!(
        wait_until(Duration::from_secs(120), is_named),
        "{}",
        started.stderr()
    );
    std::fs::write(&there, "").expect("the directory can be written");
    assert_eq!(started.wait_program().code(), Some(7));
    let stderr = started.stderr();
    assert!(
        stderr.contains("1 program could not be recorded"),
        "{stderr}"
    );
    let shown = shown(&lab, &trace);
    assert!(shown.iter().all(|text| text.contains(&name)), "{shown:?}");
    // The shell itself is in it.
    assert!(!stderr.contains("the trace is empty"), "{stderr}");
}
