//! The allocators that have a name: what each is, which file it is, where that is looked for, what brings it, and which
//! environment variables it reads. `scripts/allocators` builds the ones of [`Source::Built`]; a test compares both lists.

use crate::cache;
use std::path::{Path, PathBuf};

/// Environment variable that names the first directory to look in for `NAME.so`.
pub const DIRECTORY: &str = "RMTRACE_ALLOCATORS";

/// Where an allocator comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is part of this process: the C library, rmalloc, `null`.
    Own,
    /// A library that the dynamic linker knows by this name, in this package of Debian's.
    Package {
        /// Name of the library.
        soname: &'static str,
        /// Name of the package.
        package: &'static str,
    },
    /// A file under one of these paths, of which the highest version is taken, in this package of Debian's. A `*` stands
    /// for any part of one name.
    File {
        /// Patterns of absolute paths.
        patterns: &'static [&'static str],
        /// Name of the package.
        package: &'static str,
    },
    /// Built from the sources in this crate.
    Built {
        /// Name of the crate.
        of: &'static str,
    },
}

/// An allocator that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The name.
    pub name: &'static str,
    /// Where it comes from.
    pub source: Source,
    /// Environment variables that it reads; a `*` at the end stands for anything.
    pub variables: &'static [&'static str],
    /// What it is, in a few words.
    pub about: &'static str,
}

/// What glibc reads (mallopt(3), and the tunables `glibc.malloc.*`).
const GLIBC: &[&str] = &[
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_*",
    "MALLOC_CHECK_",
    "MALLOC_MMAP_*",
    "MALLOC_PERTURB_",
    "MALLOC_TOP_PAD_",
    "MALLOC_TRIM_THRESHOLD_",
];
const MIMALLOC: &[&str] = &["MIMALLOC_*", "mimalloc_*"];
const JEMALLOC: &[&str] = &["MALLOC_CONF*"];

/// All of them, in the order in which they are replayed.
pub const KNOWN: &[Known] = &[
    Known {
        name: "system",
        source: Source::Own,
        variables: GLIBC,
        about: "the C library's",
    },
    Known {
        name: "jemalloc",
        source: Source::Package {
            soname: "libjemalloc.so.2",
            package: "libjemalloc2",
        },
        variables: JEMALLOC,
        about: "jemalloc as the distribution has it",
    },
    Known {
        name: "jemalloc-current",
        source: Source::Built {
            of: "tikv-jemalloc-sys",
        },
        variables: JEMALLOC,
        about: "jemalloc, current",
    },
    Known {
        name: "mimalloc",
        source: Source::Package {
            soname: "libmimalloc.so.2",
            package: "libmimalloc2.0",
        },
        variables: MIMALLOC,
        about: "mimalloc as the distribution has it",
    },
    Known {
        name: "mimalloc2",
        source: Source::Built {
            of: "libmimalloc-sys",
        },
        variables: MIMALLOC,
        about: "mimalloc 2, current",
    },
    Known {
        name: "mimalloc3",
        source: Source::Built {
            of: "libmimalloc-sys",
        },
        variables: MIMALLOC,
        about: "mimalloc 3, current",
    },
    Known {
        name: "tcmalloc",
        source: Source::Package {
            soname: "libtcmalloc_minimal.so.4",
            package: "libtcmalloc-minimal4",
        },
        variables: &["TCMALLOC_*"],
        about: "tcmalloc of gperftools",
    },
    Known {
        name: "snmalloc",
        source: Source::Built { of: "snmalloc-sys" },
        variables: &[],
        about: "snmalloc, current",
    },
    Known {
        name: "rpmalloc",
        source: Source::Built { of: "rpmalloc-sys" },
        variables: &[],
        about: "rpmalloc",
    },
    Known {
        name: "scudo",
        source: Source::File {
            patterns: &[
                "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-x86_64.so",
                "/usr/lib/llvm-*/lib/clang/*/lib/x86_64-*-linux-gnu/libclang_rt.scudo_standalone.so",
            ],
            package: "libclang-rt-14-dev",
        },
        variables: &["SCUDO_OPTIONS"],
        about: "scudo of LLVM, with its checks",
    },
    Known {
        name: "hardened_malloc",
        source: Source::Built {
            of: "hardened-malloc-sys",
        },
        variables: &[],
        about: "hardened_malloc, light configuration",
    },
    Known {
        name: "mozjemalloc",
        source: Source::File {
            patterns: &[
                "/usr/lib/firefox-esr/firefox-esr",
                "/usr/lib/firefox/firefox",
            ],
            package: "firefox-esr",
        },
        variables: &["MALLOC_OPTIONS"],
        about: "Firefox's own, out of its executable",
    },
    Known {
        name: "rmalloc",
        source: Source::Own,
        variables: &["RMALLOC_*"],
        about: "through handles",
    },
    Known {
        name: "null",
        source: Source::Own,
        variables: &[],
        about: "never frees: the replayer's own cost",
    },
];

impl Known {
    /// The one of that name.
    pub fn of(name: &str) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// The file to open: what is found, or where it would be.
    pub fn file(&self) -> Option<String> {
        self.file_in(&directories())
    }

    fn file_in(&self, directories: &[PathBuf]) -> Option<String> {
        if self.source == Source::Own {
            return None;
        }
        let built = directories
            .iter()
            .map(|directory| directory.join(format!("{}.so", self.name)));
        let built: Vec<PathBuf> = built.collect();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        if let Some(path) = built.iter().find(|path| path.exists()) {
            return Some(text(path));
        }
        Some(match self.source {
            Source::Package { soname, .. } => soname.to_string(),
            Source::File { patterns, .. } => {
                let mut found: Vec<PathBuf> = patterns.iter().flat_map(|at| matching(at)).collect();
                found.sort_by_key(|path| numbers(path));
                found
                    .last()
                    .map_or_else(|| patterns[0].to_string(), |path| text(path))
            }
            Source::Own | Source::Built { .. } => built
                .first()
                .map_or_else(|| format!("{}.so", self.name), |path| text(path)),
        })
    }

    /// What to do to have it, for a sentence; empty if it is always there.
    pub fn remedy(&self) -> String {
        match self.source {
            Source::Own => String::new(),
            Source::Package { package, .. } | Source::File { package, .. } => {
                format!("Debian has it in the package {package}: `apt-get install {package}`")
            }
            Source::Built { .. } => format!("`scripts/allocators {}` builds it", self.name),
        }
    }

    /// Where it comes from, for a table.
    pub fn origin(&self) -> String {
        match self.source {
            Source::Own if self.name == "system" => "the C library".to_string(),
            Source::Own => "rmtrace".to_string(),
            Source::Package { package, .. } | Source::File { package, .. } => {
                format!("package {package}")
            }
            Source::Built { of } => format!("crate {of}"),
        }
    }
}

/// Whether a variable is one of these, where a `*` at the end of one stands for anything.
pub fn reads(variables: &[&str], name: &str) -> bool {
    variables
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
}

/// Directories that built libraries are looked for in: that of [`DIRECTORY`], then the user's cache.
pub fn directories() -> Vec<PathBuf> {
    let set = std::env::var_os(DIRECTORY).filter(|set| !set.is_empty());
    let caches =
        cache::directory().and_then(|programs| Some(programs.parent()?.join("allocators")));
    set.map(PathBuf::from).into_iter().chain(caches).collect()
}

/// The files that a pattern stands for.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = match part.split_once('*') {
            None => found.into_iter().map(|path| path.join(part)).collect(),
            Some((start, end)) => found
                .iter()
                .filter_map(|path| std::fs::read_dir(path).ok())
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    name.len() >= start.len() + end.len()
                        && name.starts_with(start)
                        && name.ends_with(end)
                })
                .collect(),
        };
    }
    found.retain(|path| path.exists());
    found
}

/// The numbers in a path: 9 comes before 14.
fn numbers(path: &Path) -> Vec<u64> {
    let text = path.to_string_lossy();
    let digits = text.split(|letter: char| !letter.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_libraries_are_looked_for_in_order_and_come_before_packages() {
        let place = tempfile::tempdir().unwrap();
        let both = [place.path().join("a"), place.path().join("b")];
        both.iter()
            .for_each(|path| std::fs::create_dir(path).unwrap());
        let file = |name: &str| PathBuf::from(Known::of(name).unwrap().file_in(&both).unwrap());
        // Nothing is there: where it would be.
        assert_eq!(file("rpmalloc"), both[0].join("rpmalloc.so"));
        assert_eq!(file("jemalloc"), Path::new("libjemalloc.so.2"));
        std::fs::write(both[1].join("rpmalloc.so"), "").unwrap();
        assert_eq!(file("rpmalloc"), both[1].join("rpmalloc.so"));
        std::fs::write(both[0].join("rpmalloc.so"), "").unwrap();
        assert_eq!(file("rpmalloc"), both[0].join("rpmalloc.so"));
        std::fs::write(both[0].join("jemalloc.so"), "").unwrap();
        assert_eq!(file("jemalloc"), both[0].join("jemalloc.so"));
        assert_eq!(Known::of("system").unwrap().file_in(&both), None);
    }

    #[test]
    fn patterns_find_files_and_the_highest_version_is_last() {
        let place = tempfile::tempdir().unwrap();
        for version in ["9", "14", "x"] {
            let directory = place.path().join(format!("llvm-{version}/lib"));
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("s.so"), "").unwrap();
        }
        std::fs::create_dir(place.path().join("llvm-15")).unwrap();
        let root = place.path().to_string_lossy().into_owned();
        let mut found = matching(&format!("{root}/llvm-*/lib/s.so"));
        found.sort_by_key(|path| numbers(path.strip_prefix(&root).unwrap()));
        assert_eq!(found.len(), 3);
        assert_eq!(found[2], place.path().join("llvm-14/lib/s.so"));
        assert!(matching("/no/such/*/directory").is_empty());
    }

    #[test]
    fn variables_are_told_by_their_beginning() {
        assert!(reads(MIMALLOC, "MIMALLOC_PURGE_DELAY"));
        assert!(reads(GLIBC, "MALLOC_ARENA_MAX"));
        assert!(!reads(GLIBC, "MALLOC_CONF"));
        assert!(!reads(&[], "MALLOC_CONF"));
    }
}
