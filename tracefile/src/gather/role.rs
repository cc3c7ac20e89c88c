//! What a process does in its program, told from its command line.

/// The role of a process with this command line: what Firefox calls the kind of a content process,
/// what Chromium calls the type; empty for a program that tells nothing.
pub fn role(arguments: &[String]) -> String {
    // A forked child may show its title as one string with spaces.
    let words: Vec<&str> = arguments
        .iter()
        .flat_map(|argument| argument.split_whitespace())
        .collect();
    if let Some(kind) = words.iter().find_map(|word| word.strip_prefix("--type=")) {
        let sub_type = words
            .iter()
            .find_map(|word| word.strip_prefix("--utility-sub-type="));
        return match (kind, sub_type) {
            ("utility", Some(service)) => chromium_service(service),
            (kind, _) => clean(kind),
        };
    }
    // Firefox: `-contentproc ARGS... NUMBER? KIND`, the kind last; older ones put it after a number.
    if words.contains(&"-contentproc") {
        const KINDS: [&str; 9] = [
            "tab",
            "socket",
            "rdd",
            "gpu",
            "utility",
            "forkserver",
            "gmplugin",
            "vr",
            "extension",
        ];
        return words
            .iter()
            .rev()
            .find_map(|word| KINDS.iter().find(|kind| *kind == word))
            .map_or_else(|| "contentproc".to_owned(), |kind| (*kind).to_owned());
    }
    String::new()
}

/// `network.mojom.NetworkService` is `network`.
fn chromium_service(service: &str) -> String {
    clean(service.split('.').next().unwrap_or(service))
}

/// At most 32 characters of those that names are made of: the text comes from the traced program.
fn clean(word: &str) -> String {
    word.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|s| (*s).to_owned()).collect();
        role(&arguments)
    }

    #[test]
    fn firefox_kinds() {
        assert_eq!(
            of(&[
                "/usr/lib/firefox-esr/firefox-esr",
                "-contentproc",
                "-childID",
                "1",
                "{x}",
                "2",
                "tab"
            ]),
            "tab"
        );
        assert_eq!(
            of(&["firefox -contentproc -parentBuildID 2 5 true socket"]),
            "socket"
        );
        assert_eq!(
            of(&["firefox", "-contentproc", "-something"]),
            "contentproc"
        );
        assert_eq!(of(&["firefox", "--headless", "tab"]), "");
    }

    #[test]
    fn chromium_types() {
        assert_eq!(of(&["chromium", "--type=zygote", "--no-sandbox"]), "zygote");
        assert_eq!(of(&["chromium --type=renderer --lang=en"]), "renderer");
        assert_eq!(
            of(&[
                "c",
                "--type=utility",
                "--utility-sub-type=network.mojom.NetworkService"
            ]),
            "network"
        );
        assert_eq!(of(&["c", "--type=\u{1b}[31mx"]), "31mx");
    }
}
