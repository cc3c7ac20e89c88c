//! Programs that the recorded command starts, as /proc shows them: those among them that can't be
//! recorded are to be named. A program that ends between two looks is not seen.

use super::program::{self, Obstacle, Unrecordable};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two looks, at least.
const PERIOD_MIN: Duration = Duration::from_millis(20);
/// Looking takes at most this part of the time.
const PERIOD_PER_LOOK: u32 = 50;

/// A process that was seen: whether it descends from us, and the program that it ran.
#[derive(Default)]
struct Known {
    is_ours: bool,
    program: PathBuf,
}

/// The descendants of this process.
pub struct Descendants {
    known: HashMap<u32, Known>,
    programs: HashMap<PathBuf, Option<Obstacle>>,
    found: HashSet<PathBuf>,
    look_at: Instant,
}

impl Descendants {
    /// Nobody is known yet.
    pub fn new() -> Descendants {
        Descendants {
            known: HashMap::new(),
            programs: HashMap::new(),
            found: HashSet::new(),
            look_at: Instant::now(),
        }
    }

    /// Looks, if it is time to. Programs that can't be recorded and were not seen before.
    pub fn look(&mut self) -> Vec<Unrecordable> {
        let now = Instant::now();
        if now < self.look_at {
            return Vec::new();
        }
        let found = self.look_now();
        let took = now.elapsed();
        self.look_at = now + took + PERIOD_MIN.max(took * PERIOD_PER_LOOK);
        found
    }

    fn look_now(&mut self) -> Vec<Unrecordable> {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids: HashSet<u32> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        self.known.retain(|pid, _| pids.contains(pid));
        let own = std::process::id();
        for pid in &pids {
            self.place(*pid, own);
        }
        let mut found = Vec::new();
        for (pid, known) in self.known.iter_mut().filter(|(_, known)| known.is_ours) {
            let Ok(path) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
                continue;
            };
            if path == known.program {
                continue;
            }
            known.program.clone_from(&path);
            // The link leads to the file even where its path does not, in another root or removed.
            let why = *self
                .programs
                .entry(path.clone())
                .or_insert_with(|| program::inspect(Path::new(&format!("/proc/{pid}/exe"))));
            if let Some(why) = why
                && self.found.insert(path.clone())
            {
                found.push(Unrecordable { path, why });
            }
        }
        found
    }

    /// Finds out whether `pid` descends from `own`, with those between.
    fn place(&mut self, pid: u32, own: u32) {
        const GENERATIONS_MAX: usize = 64;
        let mut line = Vec::new();
        let mut at = pid;
        let mut is_ours = false;
        while line.len() < GENERATIONS_MAX {
            if at == own {
                is_ours = true;
                break;
            }
            if let Some(known) = self.known.get(&at) {
                is_ours = known.is_ours;
                break;
            }
            line.push(at);
            match parent_of(at) {
                Some(parent @ 1..) => at = parent,
                _ => break,
            }
        }
        for pid in line {
            let known = Known {
                is_ours,
                ..Known::default()
            };
            self.known.insert(pid, known);
        }
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn children_are_ours_and_parents_are_not() {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn();
        let mut child = child.expect("cat runs");
        let mut descendants = Descendants::new();
        descendants.look_now();
        let is_ours = |pid: u32| {
            descendants
                .known
                .get(&pid)
                .is_some_and(|known| known.is_ours)
        };
        assert!(is_ours(child.id()));
        let parent = parent_of(std::process::id()).expect("it has one");
        assert!(!is_ours(parent));
        drop(child.stdin.take());
        assert!(child.wait().expect("it ends").success());
    }
}
