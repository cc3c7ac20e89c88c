//! What /proc says about traced processes: which process a slot belongs to, resident memory, names.

use rmtrace_file::gather::image::Slot;
use std::collections::HashMap;

/// Nanoseconds of the unit in which /proc gives start times.
const START_UNIT_NS: u64 = 10_000_000;

/// A process as the kernel knows it: its id and its start time, which together are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outside {
    /// Process id in our namespace.
    pub pid: u32,
    /// Start time in units of 10 ms since boot.
    pub start: u64,
}

/// The part of a status file that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Short name.
    pub name: String,
    /// Parent's process id.
    pub ppid: u32,
    /// Process id in its innermost namespace.
    pub inside: u32,
    /// Resident anonymous bytes.
    pub anonymous_bytes: u64,
    /// Resident bytes of files.
    pub file_bytes: u64,
    /// Resident bytes of shared memory.
    pub shared_bytes: u64,
    /// Virtual bytes.
    pub virtual_bytes: u64,
}

impl Status {
    /// Reads a status file's text.
    pub fn parse(text: &str) -> Status {
        let mut status = Status::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let number = || {
                let digits = value.split_whitespace().next().unwrap_or("");
                digits.parse::<u64>().unwrap_or(0)
            };
            match key {
                "Name" => status.name = value.trim().to_owned(),
                "PPid" => status.ppid = number() as u32,
                "NSpid" => {
                    let last = value.split_whitespace().next_back();
                    status.inside = last.and_then(|n| n.parse().ok()).unwrap_or(0);
                }
                "VmSize" => status.virtual_bytes = number() << 10,
                "RssAnon" => status.anonymous_bytes = number() << 10,
                "RssFile" => status.file_bytes = number() << 10,
                "RssShmem" => status.shared_bytes = number() << 10,
                _ => {}
            }
        }
        status
    }

    /// Of process `pid`.
    pub fn of(pid: u32) -> Option<Status> {
        let text = std::fs::read(format!("/proc/{pid}/status")).ok()?;
        Some(Status::parse(&String::from_utf8_lossy(&text)))
    }
}

/// Start time of a process in units of 10 ms since boot.
pub fn start_of(pid: u32) -> Option<u64> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name in parentheses may hold anything.
    let rest = text.get(text.rfind(')')? + 1..)?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Whether the process still runs (a zombie counts as ended).
pub fn is_running(outside: Outside) -> bool {
    let Ok(text) = std::fs::read(format!("/proc/{}/stat", outside.pid)) else {
        return false;
    };
    let text = String::from_utf8_lossy(&text);
    let Some(rest) = text.rfind(')').and_then(|at| text.get(at + 1..)) else {
        return false;
    };
    let mut fields = rest.split_whitespace();
    let zombie = matches!(fields.next(), Some("Z" | "X"));
    let start = fields.nth(18).and_then(|start| start.parse().ok());
    !zombie && start == Some(outside.start)
}

/// Whether `pid` descends from this process.
fn is_ours(pid: u32) -> bool {
    let own = std::process::id();
    let mut at = pid;
    for _ in 0..64 {
        match Status::of(at) {
            Some(status) if status.ppid == own => return true,
            Some(status) if status.ppid > 1 => at = status.ppid,
            _ => return false,
        }
    }
    false
}

fn fits(pid: u32, slot: &Slot) -> Option<Outside> {
    let status = Status::of(pid)?;
    let start = start_of(pid)?;
    // It made its first recorded call after it was started.
    let not_later = slot.started.boottime_ns / START_UNIT_NS + 1;
    (status.inside == slot.pid && start <= not_later && is_ours(pid))
        .then_some(Outside { pid, start })
}

/// The process that a slot belongs to: ours, of the same id inside its namespace, and not started
/// after the slot was filled. In a namespace of its own that one of those counts that no other slot
/// of the same program image has (`taken`), if there is no other: a wrong one would end too early. Of
/// several that one which shows the slot's title, if the title is not that of the program's start
/// (`launched`), which its relatives show too.
pub fn find(
    slot: &Slot,
    launched: &[String],
    taken: &dyn Fn(Outside) -> bool,
    everywhere: bool,
) -> Option<Outside> {
    if let Some(found) = fits(slot.pid, slot).filter(|found| !taken(*found)) {
        return Some(found);
    }
    if !everywhere {
        return None;
    }
    let mut all: Vec<Outside> = std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| fits(pid, slot))
        .filter(|found| !taken(*found))
        .collect();
    if all.len() > 1 && !slot.title.is_empty() && slot.title != launched {
        all.retain(|found| shows(found.pid, &slot.title));
    }
    match all.as_slice() {
        [found] => Some(*found),
        _ => None,
    }
}

/// Whether the command line of a process begins with `title`, of which a slot keeps the first part.
fn shows(pid: u32, title: &[String]) -> bool {
    command_line(pid).is_some_and(|shown| shown.join("\0").starts_with(&title.join("\0")))
}

/// The earliest start of any process, for each id that processes have inside of their namespaces.
/// Empty where not all of /proc can be seen.
pub fn running() -> HashMap<u32, u64> {
    let mut found: HashMap<u32, u64> = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return found;
    };
    for pid in entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
    {
        // It may have gone since it was listed.
        if let (Some(status), Some(start)) = (Status::of(pid), start_of(pid)) {
            let earliest = found.entry(status.inside).or_insert(start);
            *earliest = start.min(*earliest);
        }
    }
    // With `hidepid` others' processes do not show, among them perhaps those of ours that changed user.
    match found.contains_key(&1) && found.contains_key(&std::process::id()) {
        true => found,
        false => HashMap::new(),
    }
}

/// Whether no process can be that of `slot`, among all that were `running` after it was filled.
pub fn is_gone(slot: &Slot, running: &HashMap<u32, u64>) -> bool {
    let not_later = slot.started.boottime_ns / START_UNIT_NS + 1;
    !running.is_empty()
        && running
            .get(&slot.pid)
            .is_none_or(|start| *start > not_later)
}

/// Command line of a process as it shows it now.
pub fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let end = bytes.iter().rposition(|b| *b != 0)? + 1;
    let words = bytes.get(..end)?.split(|b| *b == 0);
    Some(
        words
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect(),
    )
}

/// Path of the program that a process runs, where that may be read.
pub fn program(pid: u32) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.to_string_lossy().into_owned())
}

/// Name of a process' main thread.
pub fn main_thread_name(pid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Names of a process' threads by their id as the process sees it.
pub fn thread_names(pid: u32) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return names;
    };
    for task in tasks.flatten() {
        if let Ok(text) = std::fs::read(task.path().join("status")) {
            let status = Status::parse(&String::from_utf8_lossy(&text));
            names.insert(status.inside, status.name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file_is_read() {
        let status = Status::parse(
            "Name:\tWeb Content\nPPid:\t12\nNSpid:\t4711\t9\t1\nVmSize:\t  100 kB\n\
             RssAnon:\t 5 kB\nRssFile:\t 6 kB\nRssShmem:\t7 kB\n",
        );
        assert_eq!(status.name, "Web Content");
        assert_eq!((status.ppid, status.inside), (12, 1));
        assert_eq!(status.virtual_bytes, 102_400);
        assert_eq!(
            (
                status.anonymous_bytes,
                status.file_bytes,
                status.shared_bytes
            ),
            (5 << 10, 6 << 10, 7 << 10)
        );
    }

    #[test]
    fn this_process_is_found_in_proc() {
        let own = std::process::id();
        let start = start_of(own).unwrap();
        assert!(is_running(Outside { pid: own, start }));
        assert!(!is_running(Outside {
            pid: own,
            start: start + 1
        }));
        let tid = Status::of(own).unwrap().inside;
        let names = thread_names(own);
        assert_eq!(names.get(&tid), main_thread_name(own).as_ref());
        assert!(!command_line(own).unwrap().is_empty());
    }
}
