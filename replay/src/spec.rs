//! What a user may name as an allocator, and what to install where it is missing.

use crate::task::Which;

/// An allocator as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// `jemalloc`, or the path of a library.
    pub name: String,
    /// Which one it is.
    pub which: Which,
    /// Debian's package of it, or empty.
    pub package: &'static str,
    /// Whether the user asked for it; otherwise it may be missing.
    pub wanted: bool,
}

/// The names, what they are, and their packages.
const NAMED: [(&str, &str, &str); 3] = [
    ("jemalloc", "libjemalloc.so.2", "libjemalloc2"),
    ("mimalloc", "libmimalloc.so.2", "libmimalloc2.0"),
    (
        "tcmalloc",
        "libtcmalloc_minimal.so.4",
        "libtcmalloc-minimal4",
    ),
];

/// All allocators that have a name.
pub fn known() -> Vec<Spec> {
    let named = |(name, file, package): (&str, &str, &'static str)| Spec {
        name: name.to_string(),
        which: library(file),
        package,
        wanted: false,
    };
    let own = |name: &str, which| Spec {
        name: name.to_string(),
        which,
        package: "",
        wanted: false,
    };
    let mut all = vec![own("system", Which::System)];
    all.extend(NAMED.into_iter().map(named));
    all.push(own("rmalloc", Which::Rmalloc));
    all.push(own("null", Which::Null));
    all
}

fn library(name: &str) -> Which {
    Which::Library {
        name: name.to_string(),
        preloaded: false,
    }
}

/// The allocator that a word names: one of [`known`], or a library by its path or file name.
///
/// # Errors
/// What may be named.
pub fn parse(word: &str) -> Result<Spec, String> {
    if let Some(spec) = known().into_iter().find(|spec| spec.name == word) {
        return Ok(Spec {
            wanted: true,
            ..spec
        });
    }
    if word.contains('/') || word.contains(".so") {
        return Ok(Spec {
            name: word.to_string(),
            which: library(word),
            package: "",
            wanted: true,
        });
    }
    let names: Vec<String> = known().into_iter().map(|spec| spec.name).collect();
    Err(format!(
        "`{word}` is none of {}, and no shared library",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!(parse("system").unwrap().which, Which::System);
        assert_eq!(parse("mimalloc").unwrap().package, "libmimalloc2.0");
        assert_eq!(parse("./libx.so").unwrap().which, library("./libx.so"));
        assert_eq!(parse("libx.so.3").unwrap().name, "libx.so.3");
        assert!(parse("jmalloc").unwrap_err().contains("jemalloc"));
    }
}
