//! What a process does in its program: told from its command line, its name, and its relatives.
//!
//! Firefox and Chromium start their processes with options that name their kind; those that are forked
//! from a fork server or a zygote write the options into their title. The main process of a browser
//! has no such option: it is the one that the others come from.

use crate::model::{Process, StartedBy};
use std::collections::{HashMap, HashSet};

/// The process that was recorded, and the main process of Firefox.
pub const MAIN: &str = "main";
/// The main process of Chromium and of programs that embed it.
pub const BROWSER: &str = "browser";
/// The recorded command where it only starts a browser.
pub const LAUNCHER: &str = "launcher";

/// Roles of Firefox' child processes by the last word of their command line.
const FIREFOX_KINDS: [(&str, &str); 9] = [
    ("tab", "tab"),
    ("socket", "socket"),
    ("rdd", "rdd"),
    ("gpu", "gpu"),
    ("utility", "utility"),
    ("forkserver", "forkserver"),
    ("gmplugin", "gmp"),
    ("vr", "vr"),
    ("ipdlunittest", "contentproc"),
];
/// A child process of Firefox of a kind that is not known here.
const FIREFOX_OTHER: &str = "contentproc";

/// A utility process of Firefox that is not the general one: this and its number.
const FIREFOX_UTILITY: &str = "utility-";

/// What a content process of Firefox is for, by the name of its main thread, which the kernel cuts
/// after 15 bytes.
const FIREFOX_CONTENT: [(&str, &str); 8] = [
    ("Web Content", "web"),
    ("Isolated Web Co", "web-isolated"),
    ("WebCOOP+COEP Co", "web-isolated"),
    ("Isolated Servic", "service-worker"),
    ("file:// Content", "file"),
    ("WebExtensions", "extension"),
    ("Privileged Cont", "privileged"),
    ("Privileged Mozi", "privileged-mozilla"),
];

/// Process types of Chromium that are their role.
const CHROMIUM_TYPES: [&str; 8] = [
    "renderer",
    "gpu-process",
    "utility",
    "zygote",
    "broker",
    "ppapi",
    "ppapi-broker",
    "crashpad-handler",
];

/// A zygote outside of the sandbox: the GPU process and unsandboxed utilities come from it.
const ZYGOTE_UNSANDBOXED: &str = "zygote-unsandboxed";
/// A thread that of Chromium's sandboxed processes renderers alone have.
const COMPOSITOR: &str = "Compositor";
/// A renderer of extensions.
const EXTENSION_RENDERER: &str = "extension-renderer";

/// Crash handlers by the name of their program.
const CRASH_HANDLERS: [(&str, &str); 4] = [
    ("crashhelper", "crash-helper"),
    ("crashreporter", "crash-reporter"),
    ("chrome_crashpad_handler", CRASHPAD),
    ("crashpad_handler", CRASHPAD),
];
const CRASHPAD: &str = "crashpad-handler";

/// The role of a process of the program `name` with this command line; empty for one that tells
/// nothing.
pub fn role(name: &str, arguments: &[String]) -> String {
    if let Some((_, role)) = CRASH_HANDLERS.iter().find(|(known, _)| *known == name) {
        return (*role).to_owned();
    }
    // A title is one string with spaces; a command line has its words apart.
    let words: Vec<&str> = match arguments {
        [title] => title.split_whitespace().collect(),
        words => words.iter().map(String::as_str).collect(),
    };
    match words.get(1) {
        Some(&"-contentproc") => firefox(&words),
        _ => chromium(&words),
    }
}

/// `-contentproc ARGS... NUMBER? KIND`, the kind last; older versions put it before a number. Utility
/// processes have a number for what they may do: 0 is general, the others differ with the version.
fn firefox(words: &[&str]) -> String {
    let kind = words
        .iter()
        .rev()
        .find_map(|word| FIREFOX_KINDS.iter().find(|(kind, _)| kind == word));
    let role = kind.map_or(FIREFOX_OTHER, |(_, role)| role);
    let mut after = words.iter().skip_while(|word| **word != "-sandboxingKind");
    match after.nth(1) {
        Some(number) if role == "utility" && *number != "0" => {
            format!("{FIREFOX_UTILITY}{}", clean(number))
        }
        _ => role.to_owned(),
    }
}

fn chromium(words: &[&str]) -> String {
    let value = |option: &str| words.iter().find_map(|word| word.strip_prefix(option));
    let has = |option: &str| words.contains(&option);
    let Some(kind) = value("--type=").filter(|kind| CHROMIUM_TYPES.contains(kind)) else {
        return String::new();
    };
    match kind {
        "utility" => value("--utility-sub-type=").map_or_else(|| kind.to_owned(), service),
        "zygote" if has("--no-zygote-sandbox") => ZYGOTE_UNSANDBOXED.to_owned(),
        "renderer" if has("--extension-process") => EXTENSION_RENDERER.to_owned(),
        _ => kind.to_owned(),
    }
}

/// `network.mojom.NetworkService` is `network`; where the first part names no service, as in
/// `chrome.mojom.UtilWin`, the last one does.
fn service(name: &str) -> String {
    let mut parts = name.split('.');
    let first = parts.next().unwrap_or(name);
    let named = match first {
        "chrome" | "content" | "media" => parts.next_back().unwrap_or(first),
        _ => first,
    };
    clean(named)
}

/// At most 32 characters of those that names are made of: the text comes from the traced program.
fn clean(word: &str) -> String {
    word.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(32)
        .collect()
}

/// What the names of its threads add to the role of a process: which kind of content a process of
/// Firefox has; and that a child of a zygote is a renderer, where it does not show so in its title
/// (QtWebEngine).
pub fn refined<'a>(
    role: &str,
    main_thread: Option<&str>,
    mut threads: impl Iterator<Item = &'a str>,
) -> Option<&'static str> {
    match role {
        "tab" => {
            let mut known = FIREFOX_CONTENT.iter();
            let content = known.find(|(name, _)| Some(*name) == main_thread);
            content.map(|(_, content)| *content)
        }
        "zygote" => threads.any(|name| name == COMPOSITOR).then_some("renderer"),
        _ => None,
    }
}

/// The main process of the browser that a process with this role belongs to; `None` for other
/// programs.
fn main_of(role: &str) -> Option<&'static str> {
    let firefox = FIREFOX_KINDS.iter().chain(&FIREFOX_CONTENT);
    match role {
        "" | MAIN | BROWSER | LAUNCHER => None,
        role if CRASH_HANDLERS.iter().any(|(_, known)| *known == role) => None,
        FIREFOX_OTHER => Some(MAIN),
        role if role.starts_with(FIREFOX_UTILITY) => Some(MAIN),
        role if firefox.into_iter().any(|(_, known)| *known == role) => Some(MAIN),
        _ => Some(BROWSER),
    }
}

/// Names the main processes of browsers, which tell nothing themselves: those that processes with
/// a role descend from. A command above them is their launcher.
pub fn name_main_processes(processes: &mut [Process]) {
    let places: HashMap<u32, usize> = processes
        .iter()
        .enumerate()
        .map(|(place, process)| (process.number, place))
        .collect();
    let parent = |process: &Process| {
        let place = places.get(&process.parent?).copied()?;
        // Parents come first, so no walk can go in circles.
        let parent = processes.get(place)?;
        (parent.number < process.number).then_some(parent)
    };
    let mut found: HashMap<u32, &'static str> = HashMap::new();
    let mut above: HashSet<u32> = HashSet::new();
    for process in processes.iter() {
        let Some(main) = main_of(&process.role) else {
            continue;
        };
        let mut at = parent(process);
        // Over others with a role, and over forks of the main process that have not become anything.
        while let Some(process) = at
            && (main_of(&process.role).is_some() || process.started_by == StartedBy::Fork)
        {
            at = parent(process);
        }
        let Some(browser) = at else { continue };
        if found.insert(browser.number, main).is_some() {
            continue;
        }
        let mut at = parent(browser);
        while let Some(process) = at {
            above.insert(process.number);
            at = parent(process);
        }
    }
    for process in processes {
        if let Some(main) = found.get(&process.number) {
            process.role = (*main).to_owned();
        } else if process.role == MAIN && above.contains(&process.number) {
            process.role = LAUNCHER.to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|s| (*s).to_owned()).collect();
        role("program", &arguments)
    }

    #[test]
    fn firefox_kinds() {
        let firefox = "/usr/lib/firefox-esr/firefox-esr";
        assert_eq!(
            of(&[firefox, "-contentproc", "-childID", "1", "{x}", "2", "tab"]),
            "tab"
        );
        assert_eq!(
            of(&["firefox -contentproc -parentBuildID 2 5 true socket"]),
            "socket"
        );
        assert_eq!(of(&["firefox -contentproc 3 gmplugin"]), "gmp");
        let utility = |number: &str| {
            let kind = [
                "firefox",
                "-contentproc",
                "-sandboxingKind",
                number,
                "7",
                "utility",
            ];
            of(&kind)
        };
        assert_eq!(utility("0"), "utility");
        assert_eq!(utility("2"), "utility-2");
        assert_eq!(main_of("utility-2"), Some(MAIN));
        assert_eq!(of(&["firefox -contentproc -sandboxingKind"]), "contentproc");
        assert_eq!(
            of(&["firefox", "-contentproc", "-something"]),
            "contentproc"
        );
        assert_eq!(of(&["firefox", "--headless", "tab"]), "");
    }

    #[test]
    fn names_of_threads_tell_more() {
        let content = |role: &str, name: &str| refined(role, Some(name), [name].into_iter());
        assert_eq!(content("tab", "Isolated Web Co"), Some("web-isolated"));
        assert_eq!(content("tab", "WebExtensions"), Some("extension"));
        assert_eq!(content("tab", "MainThread"), None);
        assert_eq!(content("socket", "Web Content"), None);
        let of_threads =
            |role: &str, names: [&'static str; 2]| refined(role, None, names.into_iter());
        assert_eq!(of_threads("zygote", ["x", "Compositor"]), Some("renderer"));
        assert_eq!(of_threads("zygote", ["x", "y"]), None);
        assert_eq!(of_threads("gpu-process", ["x", "Compositor"]), None);
    }

    #[test]
    fn chromium_types() {
        assert_eq!(of(&["chromium", "--type=zygote", "--no-sandbox"]), "zygote");
        assert_eq!(
            of(&["chromium", "--type=zygote", "--no-zygote-sandbox"]),
            "zygote-unsandboxed"
        );
        assert_eq!(of(&["chromium --type=renderer --lang=en"]), "renderer");
        assert_eq!(
            of(&["c --type=renderer --extension-process --lang=en"]),
            "extension-renderer"
        );
        for (service, role) in [
            ("network.mojom.NetworkService", "network"),
            ("audio.mojom.AudioService", "audio"),
            ("chrome.mojom.ProfileImport", "ProfileImport"),
            ("\u{1b}[31mx", "31mx"),
        ] {
            let sub_type = format!("--utility-sub-type={service}");
            assert_eq!(of(&["c", "--type=utility", &sub_type]), role);
        }
        assert_eq!(of(&["c", "--type=utility"]), "utility");
    }

    #[test]
    fn options_of_other_programs_are_no_roles() {
        assert_eq!(of(&["mount", "--type=ext4"]), "");
        assert_eq!(of(&["sh", "-c", "chromium --type=renderer"]), "");
        assert_eq!(of(&["pgrep", "-f", "--", "-contentproc"]), "");
        assert_eq!(of(&[]), "");
    }

    #[test]
    fn crash_handlers_are_told_by_their_program() {
        let arguments = ["x".to_owned(), "--type=renderer".to_owned()];
        assert_eq!(
            role("chrome_crashpad_handler", &arguments),
            "crashpad-handler"
        );
        assert_eq!(role("crashhelper", &[]), "crash-helper");
    }

    fn roles(family: &[(Option<u32>, StartedBy, &str)]) -> Vec<String> {
        let process = |(number, (parent, started_by, role)): (usize, &(_, _, &str))| Process {
            number: number as u32,
            parent: *parent,
            started_by: *started_by,
            role: (*role).to_owned(),
            ..Process::default()
        };
        let mut processes: Vec<Process> = family.iter().enumerate().map(process).collect();
        name_main_processes(&mut processes);
        processes.into_iter().map(|process| process.role).collect()
    }

    #[test]
    fn main_processes_are_those_that_the_others_come_from() {
        use StartedBy::{Exec, Fork, Root, Spawn};
        // timeout, Firefox, crash helper, fork server, content, and a shell beside them.
        let firefox = [
            (None, Root, "main"),
            (Some(0), Spawn, ""),
            (Some(1), Spawn, "crash-helper"),
            (Some(1), Spawn, "forkserver"),
            (Some(3), Fork, "web"),
            (Some(0), Spawn, ""),
        ];
        let named = ["launcher", "main", "crash-helper", "forkserver", "web", ""];
        assert_eq!(roles(&firefox), named);
        // A script that became Chromium, a fork of it, zygotes, a renderer in a namespace of its own.
        let chromium = [
            (None, Root, "main"),
            (Some(0), Exec, "main"),
            (Some(1), Fork, ""),
            (Some(2), Exec, "zygote-unsandboxed"),
            (None, Root, "zygote"),
            (Some(4), Fork, "renderer"),
            (Some(1), Spawn, "network"),
        ];
        let named = [
            "launcher",
            "browser",
            "",
            "zygote-unsandboxed",
            "zygote",
            "renderer",
            "network",
        ];
        assert_eq!(roles(&chromium), named);
        // A Firefox that starts a Chromium, and programs without a browser.
        let both = [
            (None, Root, "main"),
            (Some(0), Spawn, "socket"),
            (Some(0), Spawn, ""),
            (Some(2), Spawn, "gpu-process"),
        ];
        assert_eq!(roles(&both), ["main", "socket", "browser", "gpu-process"]);
        let others = [(None, Root, "main"), (Some(0), Fork, "")];
        assert_eq!(roles(&others), ["main", ""]);
    }

    #[test]
    fn parents_that_can_not_be_end_the_walk() {
        use StartedBy::Spawn;
        let circle = [(Some(1), Spawn, "tab"), (Some(0), Spawn, "tab")];
        assert_eq!(roles(&circle), ["tab", "tab"]);
        assert_eq!(roles(&[(Some(7), Spawn, "renderer")]), ["renderer"]);
    }
}
