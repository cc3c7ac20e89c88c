//! Programs that bring a runtime: a compiler that makes code while they run, threads of its own, a heap
//! that does not come from the allocator.

use crate::harness::{How, Lab, Recorded, Run, Seen, installed};
use crate::programs::nearly_all_known;
use std::path::{Path, PathBuf};

fn written(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.path(name);
    std::fs::write(&path, text).expect("it can be written");
    path
}

fn same(run: &Run<'_>, how: How) -> (Recorded, Seen) {
    let plain = run.plain().ok();
    let recorded = run.recorded(how).ok();
    assert_eq!(recorded.outcome.text(), plain.text(), "{how:?}");
    assert_eq!(recorded.outcome.stderr, plain.stderr, "{how:?}");
    let seen = nearly_all_known(&recorded);
    (recorded, seen)
}

const JAVASCRIPT: &str = r"
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const { execFileSync, fork } = require('node:child_process');
function work(n) {
  const all = [];
  for (let i = 0; i < n; i++) all.push({ i, text: 'x' + i, list: new Array(i % 50).fill(i) });
  return all;
}
if (!isMainThread) {
  parentPort.postMessage(work(20000).length);
} else if (process.argv[2] === 'child') {
  process.send(work(30000).length);
  process.disconnect();
} else {
  const held = work(600000);
  const answers = [];
  const answered = (answer) => {
    answers.push(answer);
    if (answers.length < 3) return;
    console.log(answers.sort());
    setTimeout(() => console.log(held.length), Number(process.argv[2]));
  };
  for (let i = 0; i < 2; i++) new Worker(__filename).on('message', answered);
  fork(__filename, ['child']).on('message', answered);
  console.log(execFileSync('echo', ['hi']).toString().trim(), Buffer.alloc(1 << 20).length);
}
";

/// A worker is a thread, a child a process of its own; the objects of the script are on V8's heap.
#[test]
fn node() {
    let Some(program) = installed(&["node", "nodejs"], "Node (package nodejs)") else {
        return;
    };
    let lab = Lab::new();
    let script = written(&lab, "work.js", JAVASCRIPT);
    let run = |hold_ms: u32| {
        let run = lab.run(&program).arg(&script);
        run.arg(hold_ms.to_string())
    };
    let parts = |seen: &Seen| {
        let has_child = |p: &&rmtrace_file::Process| p.arguments.iter().any(|a| a == "child");
        let child = seen.processes.iter().find(has_child);
        let child = child.expect("the child that was forked");
        assert_eq!(child.name, seen.processes[0].name);
        assert!(seen.of(0).total() > 10_000, "{:?}", seen.of(0));
        assert!(seen.of(child.number).total() > 10_000);
        assert!(seen.processes[0].threads.len() >= 3);
        assert!(seen.processes.iter().any(|p| p.name == "echo"));
    };
    parts(&same(&run(0), How::Bare).1);
    for hold_ms in [500, 2_000, 8_000, 30_000] {
        let (recorded, seen) = same(&run(hold_ms), How::Record);
        parts(&seen);
        let process = recorded.analyze()["processes"][0].take();
        // A sample has seen the heap: how soon the collector looks is not certain.
        if process["resident"]["anonymous_bytes_peak"].as_u64() > Some(120 << 20) {
            let invisible = &process["invisible"];
            assert_eq!(invisible["warned"], true, "{invisible}");
            return;
        }
    }
    panic!("no sample has seen the heap");
}

const JAVA: &str = r#"
import java.util.*;

public class Work {
  public static void main(String[] arguments) throws Exception {
    List<Thread> threads = new ArrayList<>();
    long[] sums = new long[4];
    for (int n = 0; n < 4; n++) {
      final int number = n;
      Thread thread = new Thread(() -> {
        List<String> list = new ArrayList<>();
        for (int i = 0; i < 50000; i++) list.add("s" + i * 7919L % 20011);
        Collections.sort(list);
        sums[number] = list.hashCode();
      });
      thread.start();
      threads.add(thread);
    }
    for (Thread thread : threads) thread.join();
    Process child = new ProcessBuilder("echo", "child").start();
    System.out.println(new String(child.getInputStream().readAllBytes()).trim() + Arrays.toString(sums));
  }
}
"#;

/// Continuous integration does without: a JDK is 300 MB, and Node has shown the same.
fn jdk() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path);
    let has = |directory: &Path| {
        ["java", "javac"]
            .iter()
            .all(|p| directory.join(p).is_file())
    };
    let found = directories.find(|directory| has(directory));
    if found.is_none() {
        eprintln!("skipped: no JDK is installed (package openjdk-17-jdk-headless)");
    }
    Some(found?.join("java"))
}

#[test]
fn java() {
    let Some(program) = jdk() else {
        return;
    };
    let lab = Lab::new();
    let source = written(&lab, "Work.java", JAVA);
    for how in How::BOTH {
        let (_, seen) = same(&lab.run(&program).arg(&source), how);
        assert!(seen.of(0).total() > 20_000, "{:?}", seen.of(0));
        assert!(seen.processes[0].threads.len() >= 5);
        assert!(seen.processes.iter().any(|p| p.name == "echo"));
    }
}
