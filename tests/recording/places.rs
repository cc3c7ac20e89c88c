//! Places: full disks, small memory file systems, directories that can't be written or vanish, who may
//! read what is made, and files that somebody spoils.

use crate::counted::ROUND;
use crate::harness::{Counts, How, Lab, Outcome, Run, Seen, interposer, rmtrace, runs_in, verify};
use rmtrace_format::spool::Drop;
use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether file systems can be mounted in a namespace of one's own.
fn can_mount() -> bool {
    let script = "mount -t tmpfs -o size=64k none /mnt";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .output();
    let can = output.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: no file system can be mounted here");
    }
    can
}

/// A script in a mount namespace of its own, with `$LAB`, `$RMTRACE` and `$LIB`.
fn script<'a>(lab: &'a Lab, text: &str) -> Run<'a> {
    lab.run("unshare")
        .args(["-m", "sh", "-e", "-c", text])
        .env("LAB", lab.path(""))
        .env("RMTRACE", rmtrace())
        .env("LIB", interposer())
}

fn verified(path: &Path) -> Seen {
    verify(path);
    Seen::read(path)
}

/// The trace's disk is full: the program goes on, the user is told, and packing to a place with room
/// gives every call.
#[test]
fn the_disk_of_the_trace_is_full() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    lab.program("counted.c");
    std::fs::create_dir(lab.path("small")).expect("a directory can be made");
    let text = r#"
        mount -t tmpfs -o size=128k none "$LAB/small"
        "$RMTRACE" record -o "$LAB/small/t.rmt" -- "$LAB/counted" one 60000
        "$RMTRACE" pack --remove "$LAB/small/t.rmt.rmspool" -o "$LAB/packed.rmt" || exit 9
        "#;
    let outcome = script(&lab, text).plain().ok();
    for words in ["No space left", "is cut short", "rmtrace pack"] {
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
    }
    let seen = verified(&lab.path("packed.rmt")).clean();
    assert!(seen.all().total() >= 60_000 * 30);
}

/// The disk that full chunks go to is full: what the pool can't hold is counted.
#[test]
fn the_disk_of_the_chunks_is_full() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    lab.program("counted.c");
    std::fs::create_dir(lab.path("small")).expect("a directory can be made");
    let text = r#"
        mount -t tmpfs -o size=1M none "$LAB/small"
        RMTRACE_DIR="$LAB/small" RMTRACE_POOL=1M LD_PRELOAD="$LIB" "$LAB/counted" one 20000
        "$RMTRACE" pack --remove "$LAB"/small/*.rmspool -o "$LAB/packed.rmt" || exit 9
        "#;
    script(&lab, text).plain().ok();
    let seen = verified(&lab.path("packed.rmt"));
    assert!(seen.all().total() + seen.dropped() >= 20_000 * 30);
    assert!(seen.all().total() > 60_000, "{:?}", seen.all());
    let dropped = seen.processes[0].dropped;
    assert_eq!(
        dropped[Drop::DiskLimit as usize],
        seen.dropped(),
        "{dropped:?}"
    );
    assert_ne!(seen.dropped(), 0);
}

/// No room in /dev/shm from the start: the pool is on disk, and the trace says so.
#[test]
fn a_small_dev_shm() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    lab.program("counted.c");
    let text = r#"
        mount -t tmpfs -o size=1M none /dev/shm
        mkdir "$LAB/bare"
        RMTRACE_DIR="$LAB/bare" LD_PRELOAD="$LIB" "$LAB/counted" threads 2000
        "$RMTRACE" pack "$LAB"/bare/*.rmspool -o "$LAB/bare.rmt"
        "$RMTRACE" record -o "$LAB/record.rmt" -- "$LAB/counted" threads 2000
        "#;
    let outcome = script(&lab, text).plain().ok();
    assert!(
        outcome.stderr.contains("pool was on disk"),
        "{}",
        outcome.stderr
    );
    for name in ["bare.rmt", "record.rmt"] {
        let seen = verified(&lab.path(name)).clean();
        let workers = seen.threads.iter().filter(|(place, _)| place.1 != 0);
        for (_, thread) in workers {
            assert_eq!(thread.calls, Counts::of(ROUND, 2000));
        }
        let (_, text, _) = lab.rmtrace(&["info".as_ref(), lab.path(name).as_ref()]);
        assert!(text.contains("memory file system"), "{text}");
    }
}

/// /dev/shm fills up during the run: spools of programs that start later go to the run directory, and
/// what a thread finds no page for is counted.
#[test]
fn dev_shm_fills_up() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    lab.program("counted.c");
    for (name, start) in [
        ("bare", r#"RMTRACE_DIR="$LAB/bare" LD_PRELOAD="$LIB""#),
        ("record", r#""$RMTRACE" record -q -o "$LAB/record.rmt" --"#),
    ] {
        let text = format!(
            r#"
            mount -t tmpfs -o size=20M none /dev/shm
            mkdir "$LAB/{name}"
            {start} sh -c 'dd if=/dev/zero of=/dev/shm/fill bs=64k 2>"$LAB/dd"; "$LAB/counted" one 500'
            if [ {name} = bare ]; then
                "$RMTRACE" pack "$LAB"/bare/*.rmspool -o "$LAB/bare.rmt"
            fi
            "#
        );
        script(&lab, &text).plain().ok();
        let seen = verified(&lab.path(&format!("{name}.rmt")));
        let number = seen.with_argument("one").number;
        let [others @ .., no_space] = seen.processes[number as usize].dropped;
        assert_eq!(others, [0; 6], "{name}");
        let rounds = Counts::of(ROUND, 500);
        if no_space == 0 {
            for (entry, calls) in &rounds.0 {
                assert!(seen.of(number).get(*entry) >= *calls, "{name} {entry:?}");
            }
        } else {
            // The collector gave back pages of `dd` when the program's spool was being made.
            assert_eq!(name, "record");
            assert!(seen.of(number).total() + no_space >= rounds.total());
        }
    }
}

/// A directory that can't be written: bare, another one is used and named; `record` does not start.
#[test]
fn a_read_only_directory() {
    if !can_mount() {
        return;
    }
    let lab = Lab::new();
    lab.program("counted.c");
    std::fs::create_dir(lab.path("fixed")).expect("a directory can be made");
    std::fs::create_dir(lab.path("runtime")).expect("a directory can be made");
    let text = r#"
        mount -t tmpfs -o ro none "$LAB/fixed"
        XDG_RUNTIME_DIR="$LAB/runtime" RMTRACE_DIR="$LAB/fixed" LD_PRELOAD="$LIB" "$LAB/counted" one 100
        "$RMTRACE" record -o "$LAB/fixed/t.rmt" -- "$LAB/counted" one 100 || echo "status $?"
        "#;
    let outcome = script(&lab, text).plain().ok();
    assert!(
        outcome.stderr.contains("can't write to"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.text(), "status 125\n", "{}", outcome.stderr);
    let runs = runs_in(&lab.path("runtime"));
    assert_eq!(runs.len(), 1, "{runs:?}");
    let seen = verified(&runs[0]).clean();
    assert!(seen.all().total() >= 3000);
}

/// The run directory and its pool are removed under the program: it does not notice, and what it
/// starts then begins a run of its own.
#[test]
fn a_run_that_is_removed_under_the_program() {
    for how in How::BOTH {
        let lab = Lab::new();
        let script =
            r#"rm -rf "$(readlink "$RMTRACE_SPOOL/pool")" "$RMTRACE_SPOOL" && "$0" forkexec 100"#;
        let run = lab.run("/bin/sh").args(["-c", script]);
        let run = run.arg(lab.program("counted.c"));
        let (started, beside) = match how {
            How::Bare => run.start_bare(),
            How::Record => run.start_record(),
        };
        let (status, _, stderr) = started.finish();
        assert!(
            status.success(),
            "{how:?}: {}",
            String::from_utf8_lossy(&stderr)
        );
        let results = match how {
            How::Bare => beside.as_path(),
            How::Record => beside.parent().expect("a directory"),
        };
        let runs = runs_in(results);
        assert_eq!(runs.len(), 1, "{how:?} {runs:?}");
        let seen = verified(&runs[0]).clean();
        let child = seen.with_argument("the-child").number;
        assert!(seen.of(child).total() >= 3000, "{how:?}");
        if how == How::Record {
            verified(&beside);
        }
    }
}

/// A limit of the size of files that holds for the recorder too: its trace ends there, the program goes
/// on.
#[test]
fn a_limit_of_the_size_of_files_for_both() {
    let lab = Lab::new();
    let run = lab.run(lab.program("quiet.c")).args(["many", "100000"]);
    let run = run.limit(libc::RLIMIT_FSIZE, 36 << 20);
    let recorded = run.record().ok();
    assert_eq!(recorded.outcome.text(), "done\n");
    recorded.read().clean();
    // Less than a spool needs: said, and the program runs.
    let run = lab.run(lab.path("quiet")).args(["many", "1000"]);
    let (started, _) = run.limit(libc::RLIMIT_FSIZE, 16384).start_record();
    let (status, stdout, stderr) = started.finish();
    assert!(status.success(), "{status}");
    assert_eq!(stdout, b"done\n");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert!(stderr.contains("no room for a spool"), "{stderr}");
}

/// Everything below `path` that is not for its owner alone.
fn open_to_others(path: &Path, found: &mut Vec<(PathBuf, u32)>) {
    let metadata = std::fs::symlink_metadata(path).expect("it is there");
    let mode = metadata.permissions().mode() & 0o7777;
    let right = if metadata.is_dir() { 0o700 } else { 0o600 };
    if !metadata.is_symlink() && mode != right {
        found.push((path.to_owned(), mode));
    }
    let target = std::fs::read_link(path).unwrap_or(path.to_owned());
    let is_pool = path.ends_with("pool") && target.is_dir();
    if metadata.is_dir() || is_pool {
        for entry in std::fs::read_dir(target).expect("it is there").flatten() {
            // The link to the library, where its path has spaces.
            if entry.file_name() != "librmtrace.so" {
                open_to_others(&entry.path(), found);
            }
        }
    }
}

/// Whatever the umask: what is made is for its owner alone, while it is made too.
#[test]
fn nobody_else_can_read_what_is_made() {
    let lab = Lab::new();
    lab.program("counted.c");
    let text = r#"
        umask 0
        mkdir -m 700 "$LAB/bare" "$LAB/made"
        RMTRACE_DIR="$LAB/bare" RMTRACE_POOL=1M LD_PRELOAD="$LIB" "$LAB/counted" threads 3000
        "$RMTRACE" pack -q "$LAB"/bare/*.rmspool -o "$LAB/made/packed.rmt"
        touch "$LAB/made/there.rmt"
        for name in new there; do
            "$RMTRACE" record -q -o "$LAB/made/$name.rmt" -- sh -c \
                'cp -a "$RMTRACE_SPOOL/." "$1"; cp -a "$(readlink "$RMTRACE_SPOOL/pool")" "$1/memory"; true' \
                sh "$LAB/made/copy-$name"
        done
        "#;
    let run = lab.run("sh").args(["-e", "-c", text]);
    let run = run.env("LAB", lab.path("")).env("RMTRACE", rmtrace());
    // Spools of short processes may go while they are copied.
    run.env("LIB", interposer()).plain().ok();
    for name in ["new", "there"] {
        let copy = lab.path("made").join(format!("copy-{name}"));
        assert!(copy.join("memory/control").is_file(), "{name}");
    }
    let mut found = Vec::new();
    for run in runs_in(&lab.path("bare")) {
        assert!(run.join("chunks").metadata().is_ok_and(|m| m.len() > 0));
        open_to_others(&run, &mut found);
    }
    open_to_others(&lab.path("made"), &mut found);
    assert_eq!(found, []);
}

fn record_to(output: &Path) -> Outcome {
    let arguments: [&OsStr; 5] = [
        "record".as_ref(),
        "-o".as_ref(),
        output.as_ref(),
        "--".as_ref(),
        "/bin/true".as_ref(),
    ];
    let output = Command::new(rmtrace())
        .args(arguments)
        .env("RMTRACE_LIB", interposer())
        .output()
        .expect("rmtrace runs");
    Outcome {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Links that somebody planted where a trace or a file of a run will be are not followed.
#[test]
fn planted_links_are_not_followed() {
    let lab = Lab::new();
    let program = lab.program("counted.c");
    let victim = lab.path("victim");
    std::fs::write(&victim, "precious").expect("the directory can be written");
    let untouched = || {
        let content = std::fs::read(&victim).expect("it is there");
        assert_eq!(content, b"precious");
        assert!(!lab.path("nothing").exists());
    };
    // The output, to a file and to nothing.
    for target in [&victim, &lab.path("nothing")] {
        let output = lab.path("t.rmt");
        symlink(target, &output).expect("a link can be made");
        let outcome = record_to(&output);
        assert_eq!(outcome.code(), 125, "{outcome:?}");
        assert!(outcome.stderr.contains("symbolic link"), "{outcome:?}");
        assert!(!lab.path("t.rmt.rmspool").exists());
        untouched();
        std::fs::remove_file(&output).expect("the link is there");
        // The run directory.
        let run = lab.path("t.rmt.rmspool");
        symlink(target, &run).expect("a link can be made");
        assert_eq!(record_to(&output).code(), 125);
        assert!(!output.exists());
        untouched();
        std::fs::remove_file(&run).expect("the link is there");
    }
    // A file of a run that processes are about to append to, or to share.
    for name in ["chunks", "pool/control"] {
        let started = lab.run("/bin/true").bare().ok();
        let planted = started.trace.join(name);
        std::fs::remove_file(&planted).expect("the file is there");
        symlink(&victim, &planted).expect("a link can be made");
        let run = lab.run(&program).args(["threads", "2000"]);
        let (second, _) = run.env("RMTRACE_SPOOL", &started.trace).start_bare();
        let (status, ..) = second.finish();
        assert!(status.success(), "{name}");
        untouched();
        let (status, ..) = lab.rmtrace(&["info".as_ref(), started.trace.as_ref()]);
        assert_ne!(status.code(), None, "{name}");
    }
}

/// A program that spoils the files of its own recording: the recorder goes on, ends with the program's
/// status, and neither it nor any reader crashes.
#[test]
fn a_program_that_spoils_its_recording() {
    let lab = Lab::new();
    let program = lab.program("hostile.c");
    for mode in ["truncate", "half", "grow", "lists", "all"] {
        for control in [false, true] {
            if control && !matches!(mode, "truncate" | "all") {
                continue; // The control file is one page.
            }
            let run = lab.run(&program).arg(mode).within(30);
            let run = if control { run.arg("control") } else { run };
            let (started, trace) = run.start_record();
            let (status, _, stderr) = started.finish();
            let stderr = String::from_utf8_lossy(&stderr).into_owned();
            assert_eq!(status.code(), Some(7), "{mode} {control}: {stderr}");
            for command in ["info", "verify", "analyze"] {
                let (status, _, stderr) = lab.rmtrace(&[command.as_ref(), trace.as_ref()]);
                let code = status.code();
                assert!(
                    matches!(code, Some(0..=2)),
                    "{mode} {command}: {status} {stderr}"
                );
            }
            // In place, without a collector.
            let (started, results) = run_bare(&lab, &program, mode);
            let (status, ..) = started.finish();
            assert_eq!(status.code(), Some(7), "{mode}");
            for run in runs_in(&results) {
                let (status, _, stderr) = lab.rmtrace(&["verify".as_ref(), run.as_ref()]);
                let code = status.code();
                assert!(matches!(code, Some(0..=2)), "{mode}: {status} {stderr}");
            }
        }
    }
}

fn run_bare(lab: &Lab, program: &Path, mode: &str) -> (crate::harness::Started, PathBuf) {
    lab.run(program).arg(mode).within(30).start_bare()
}
