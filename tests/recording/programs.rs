//! Programs that everybody has: what they do is the same, and next to nothing is unknown.

use crate::harness::{How, Lab, Recorded, Run, Seen, installed};
use std::path::{Path, PathBuf};

/// Unknown frees and live duplicates together are below 1 in 1,000 calls.
pub fn nearly_all_known(recorded: &Recorded) -> Seen {
    let seen = recorded.read();
    let (strays, total) = (seen.strays(), seen.all().total());
    assert_eq!(seen.dropped(), 0);
    assert!(total > 0);
    let per_process = (&seen.unknown_frees, &seen.live_duplicates);
    assert!(
        strays * 1000 < total,
        "{strays} of {total}: {per_process:?}"
    );
    seen
}

fn same_output(run: &Run<'_>, how: How) -> Recorded {
    let plain = run.plain().ok();
    let recorded = run.recorded(how).ok();
    assert_eq!(recorded.outcome.text(), plain.text(), "{how:?}");
    assert_eq!(recorded.outcome.stderr, plain.stderr, "{how:?}");
    recorded
}

/// The interpreter itself: `python3` may be a script that starts it.
fn python(launcher: &Path) -> PathBuf {
    let lab = Lab::new();
    let program = "import os, sys; print(os.path.realpath(sys.executable))";
    let path = lab.run(launcher).args(["-c", program]).plain().ok().text();
    PathBuf::from(path.trim())
}

#[test]
fn python3() {
    let Some(launcher) = installed(&["python3"], "python3") else {
        return;
    };
    let program = "
import json, hashlib
data = [{'n': i, 'text': 'x' * (i % 50), 'list': list(range(i % 20))} for i in range(3000)]
for _ in range(3):
    data = json.loads(json.dumps(data))
print(hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest())
";
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab.run(python(&launcher)).args(["-c", program]);
        let recorded = same_output(&run.env("PYTHONMALLOC", "malloc"), how);
        let seen = nearly_all_known(&recorded);
        assert!(seen.of(0).total() > 300_000, "{:?}", seen.of(0));
    }
}

#[test]
fn sqlite3() {
    let Some(program) = installed(&["sqlite3"], "sqlite3") else {
        return;
    };
    let statements = "
create table t(a integer primary key, b text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
insert into t select i, 'row ' || (i * 7919 % 20011) from n;
create index i on t(b);
select count(*), sum(length(b)), max(b) from t;
select b from t order by b limit 5;
";
    for how in How::BOTH {
        let lab = Lab::new();
        let recorded = same_output(&lab.run(&program).args([":memory:", statements]), how);
        nearly_all_known(&recorded);
    }
}

/// A tree of processes, each with its name.
#[test]
fn gcc() {
    let Some(program) = installed(&["gcc"], "gcc") else {
        return;
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/own_use.c");
    let allocator = source.with_file_name("own_allocator.c");
    for how in How::BOTH {
        let lab = Lab::new();
        let built = lab.path("built");
        let run = lab
            .run(&program)
            .args(["-O1", "-w", "-D_GNU_SOURCE", "-o"])
            .arg(&built);
        let run = run.arg(&source).arg(&allocator);
        run.plain().ok();
        let expected = std::fs::read(&built).expect("gcc made it");
        std::fs::remove_file(&built).expect("it is there");
        let recorded = same_output(&run, how);
        assert_eq!(
            std::fs::read(&built).expect("gcc made it"),
            expected,
            "{how:?}"
        );
        let seen = nearly_all_known(&recorded);
        for part in ["cc1", "as", "collect2", "ld"] {
            let named = |name: &str| {
                name == part || name.ends_with(&format!("-{part}")) || name.contains("ld.")
            };
            let found = seen.processes.iter().find(|process| {
                named(&process.name) || process.arguments.first().is_some_and(|a| a.ends_with(part))
            });
            let process = found.unwrap_or_else(|| panic!("no {part}: {:#?}", seen.processes));
            assert!(seen.of(process.number).total() > 0, "{part}");
        }
    }
}

#[test]
fn git() {
    let Some(program) = installed(&["git"], "git") else {
        return;
    };
    let script = r#"set -e
git init -q -b main repository
cd repository
for i in 1 2 3 4 5 6 7 8 9; do echo "file $i" > "file-$i"; done
git add .
git commit -q -m 'the first'
echo more >> file-3
git commit -q -a -m 'the second'
git log --stat
git diff HEAD~1
git gc -q
git fsck --strict
git rev-parse HEAD
"#;
    let bin = program
        .parent()
        .expect("a directory")
        .to_string_lossy()
        .into_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    for how in How::BOTH {
        let lab = Lab::new();
        let home = lab.path("home");
        std::fs::create_dir(&home).expect("a directory can be made");
        let mut run = lab.run("/bin/sh").args(["-c", script]);
        run = run.env("HOME", &home).env("GIT_CONFIG_NOSYSTEM", "1");
        run = run.env("PATH", format!("{bin}:{path}")).env("TZ", "UTC");
        for who in ["AUTHOR", "COMMITTER"] {
            run = run
                .env(&format!("GIT_{who}_NAME"), "A B")
                .env(&format!("GIT_{who}_EMAIL"), "a@b.c");
            run = run.env(&format!("GIT_{who}_DATE"), "2024-01-01T00:00:00Z");
        }
        let recorded = same_output(&run, how);
        let seen = nearly_all_known(&recorded);
        let gits = seen
            .processes
            .iter()
            .filter(|process| process.name == "git")
            .count();
        assert!(gits >= 9, "{gits} processes of git");
    }
}
