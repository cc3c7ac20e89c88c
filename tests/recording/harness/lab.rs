//! A test's own directory: programs are compiled into it, run in it, recorded into it; it goes with
//! the test, and the memory that its runs used with it.

use super::{How, Seen, Started, interposer, rmtrace};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// What no program under test inherits from whoever runs the tests.
const VARIABLES: [&str; 10] = [
    "LD_PRELOAD",
    "RMTRACE_SPOOL",
    "RMTRACE_DIR",
    "RMTRACE_POOL",
    "RMTRACE_LIMIT",
    "RMTRACE_ON_FULL",
    "RMTRACE_CALLERS",
    "RMTRACE_USABLE",
    "GLIBC_TUNABLES",
    "XDG_RUNTIME_DIR",
];

/// A directory for one test.
pub struct Lab {
    directory: tempfile::TempDir,
    runs: AtomicU32,
    user: Option<Ordinary>,
}

/// An ordinary user, with copies of the command and the library that they can read wherever this was
/// built.
struct Ordinary {
    /// Number of the user and of the group; nobody has to have it.
    id: u32,
    command: PathBuf,
    interposer: PathBuf,
}

impl Lab {
    /// A new one.
    pub fn new() -> Lab {
        Lab {
            directory: tempfile::Builder::new()
                .prefix("rmtrace-test-")
                .tempdir()
                .expect("the temporary directory can be written"),
            runs: AtomicU32::new(0),
            user: None,
        }
    }

    /// A new one for programs that an ordinary user runs: browsers leave their sandbox off for root.
    /// Where the tests are run by an ordinary user, it is that one.
    pub fn of_ordinary_user() -> Lab {
        let mut lab = Lab::new();
        // SAFETY: it reads a number.
        if unsafe { libc::geteuid() } != 0 {
            return lab;
        }
        let id = 1234;
        let copy = |from: &Path, name: &str| {
            let to = lab.path(name);
            std::fs::copy(from, &to).expect("it can be copied");
            to
        };
        let user = Ordinary {
            id,
            command: copy(rmtrace(), "rmtrace"),
            interposer: copy(interposer(), "librmtrace.so"),
        };
        lab.user = Some(user);
        lab.give(lab.directory.path());
        lab
    }

    /// Gives a file, or a directory with all that is in it, to the user of the lab.
    pub fn give(&self, path: &Path) {
        let Some(Ordinary { id, .. }) = self.user else {
            return;
        };
        std::os::unix::fs::lchown(path, Some(id), Some(id)).expect("root can give files away");
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path).expect("it can be read").flatten() {
                self.give(&entry.path());
            }
        }
    }

    /// A new directory in it, for the user of the lab.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).expect("a directory can be made");
        self.give(&path);
        path
    }

    /// The run directory that a killed collector left beside `trace`, packed; the new trace verifies.
    pub fn packed(&self, trace: &Path) -> PathBuf {
        let left = trace.with_extension("rmt.rmspool");
        assert!(left.is_dir(), "{} is kept", left.display());
        let out = self.path("packed.rmt");
        let arguments: [&OsStr; 4] = ["pack".as_ref(), left.as_ref(), "-o".as_ref(), out.as_ref()];
        let (status, stdout, stderr) = self.rmtrace(&arguments);
        assert!(status.success(), "{stdout}{stderr}");
        verify(&out);
        out
    }

    fn rmtrace_of_user(&self) -> &Path {
        match &self.user {
            Some(user) => &user.command,
            None => rmtrace(),
        }
    }

    fn interposer_of_user(&self) -> &Path {
        match &self.user {
            Some(user) => &user.interposer,
            None => interposer(),
        }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Compiles programs of `tests/programs` into `name`.
    pub fn compile(&self, sources: &[&str], name: &str, flags: &[&str]) -> PathBuf {
        let cxx = sources.iter().any(|source| source.ends_with(".cpp"));
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
        let out = self.path(name);
        let mut command = Command::new(if cxx { "c++" } else { "cc" });
        command
            .current_dir(&programs)
            .args([
                "-D_GNU_SOURCE",
                "-O1",
                "-g0",
                "-fno-builtin",
                "-pthread",
                "-w",
            ])
            .args(sources)
            .args(flags)
            .arg("-o")
            .arg(&out);
        let output = command.output().expect("a C and C++ compiler is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}:\n{errors}");
        out
    }

    /// Compiles one C file of `tests/programs` into an object.
    pub fn object(&self, source: &str, flags: &[&str]) -> String {
        let name = format!("{source}.o");
        let path = self.compile(&[source], &name, &[&["-c"], flags].concat());
        path.to_string_lossy().into_owned()
    }

    /// Compiles one program.
    pub fn program(&self, source: &str) -> PathBuf {
        let name = source.split('.').next().unwrap_or(source);
        self.compile(&[source], name, &[])
    }

    /// A run of `program`.
    pub fn run(&self, program: impl AsRef<OsStr>) -> Run<'_> {
        Run {
            lab: self,
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            options: Vec::new(),
            variables: Vec::new(),
            limits: Vec::new(),
            directory: None,
            seconds: 60,
        }
    }

    /// `rmtrace` with arguments, its output as text.
    pub fn rmtrace(&self, arguments: &[&OsStr]) -> (ExitStatus, String, String) {
        let output = Command::new(rmtrace())
            .args(arguments)
            .env("NO_COLOR", "1")
            .env("RMTRACE_LIB", interposer())
            .output()
            .expect("rmtrace runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status, text(&output.stdout), text(&output.stderr))
    }

    fn runs_of(&self, number: u32) -> PathBuf {
        self.path(&format!("run-{number}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove_pools(self.directory.path());
    }
}

/// Removes the memory of runs below `directory`: their links name it.
fn remove_pools(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            remove_pools(&entry.path());
        } else if kind.is_symlink() && entry.file_name() == "pool" {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            if target.to_string_lossy().contains("/rmtrace-") {
                let _ = std::fs::remove_dir_all(target);
            }
        }
    }
}

/// How a program is to be run.
#[derive(Clone)]
pub struct Run<'a> {
    lab: &'a Lab,
    program: OsString,
    arguments: Vec<OsString>,
    options: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    limits: Vec<(libc::__rlimit_resource_t, u64)>,
    directory: Option<PathBuf>,
    seconds: u64,
}

impl Run<'_> {
    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<T: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = T>) -> Self {
        arguments.into_iter().fold(self, |run, next| run.arg(next))
    }

    /// An option of `rmtrace record`.
    pub fn option(mut self, option: impl AsRef<OsStr>) -> Self {
        self.options.push(option.as_ref().to_owned());
        self
    }

    /// Options of `rmtrace record`, where that is what runs.
    pub fn option_for(self, how: How, options: &[&str]) -> Self {
        match how {
            How::Bare => self,
            How::Record => options.iter().fold(self, |run, next| run.option(next)),
        }
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// A resource limit, soft and hard.
    pub fn limit(mut self, resource: libc::__rlimit_resource_t, value: u64) -> Self {
        self.limits.push((resource, value));
        self
    }

    /// Its current directory; else a fresh one.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Seconds that it may take; 60 unless told.
    pub fn within(mut self, seconds: u64) -> Self {
        self.seconds = seconds;
        self
    }

    fn prepare(&self) -> (PathBuf, PathBuf) {
        let number = self.lab.runs.fetch_add(1, Relaxed);
        let results = self.lab.runs_of(number);
        let work = results.join("cwd");
        std::fs::create_dir_all(&work).expect("the directory can be written");
        self.lab.give(&results);
        (results, self.directory.clone().unwrap_or(work))
    }

    fn start_command(&self, mut command: Command, results: &Path, work: &Path) -> Started {
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.current_dir(work).env("NO_COLOR", "1");
        command.env("RMTRACE_LIB", self.lab.interposer_of_user());
        command.env("RMTRACE_DIR", results);
        if let Some(user) = &self.lab.user {
            // This leaves all other groups, too.
            command.uid(user.id).gid(user.id);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // What hangs hangs for ever; a machine with other work takes its time.
        let limit = Duration::from_secs(4 * self.seconds);
        Started::new(command, &self.limits, &results.join("program"), limit)
    }

    /// Starts it without recording.
    pub fn start_plain(&self) -> Started {
        let (results, work) = self.prepare();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        self.start_command(command, &results, &work)
    }

    /// Starts it with the library preloaded; where it records to.
    pub fn start_bare(&self) -> (Started, PathBuf) {
        let (results, work) = self.prepare();
        // The dynamic linker preloads into the program alone, not into whatever starts it.
        let mut command = Command::new("/usr/bin/env");
        let mut preload = OsString::from("LD_PRELOAD=");
        preload.push(self.lab.interposer_of_user());
        command
            .arg(preload)
            .arg(&self.program)
            .args(&self.arguments);
        (self.start_command(command, &results, &work), results)
    }

    /// Starts it under `rmtrace record`; the trace's path.
    pub fn start_record(&self) -> (Started, PathBuf) {
        let (results, work) = self.prepare();
        let trace = results.join("trace.rmt");
        let mut command = Command::new(self.lab.rmtrace_of_user());
        command
            .args(["record", "--quiet", "-o"])
            .arg(&trace)
            .args(&self.options)
            .arg("--")
            .arg(&self.program)
            .args(&self.arguments);
        (self.start_command(command, &results, &work), trace)
    }

    /// Runs it without recording.
    pub fn plain(&self) -> Outcome {
        Outcome::of(self.start_plain())
    }

    /// Runs it with the library preloaded. `trace` of the answer is its run directory.
    pub fn bare(&self) -> Recorded {
        let (started, results) = self.start_bare();
        let outcome = Outcome::of(started);
        let runs = runs_in(&results);
        let [trace] = runs.as_slice() else {
            panic!(
                "one run directory, not {runs:?}; stderr:\n{}",
                outcome.stderr
            );
        };
        Recorded {
            outcome,
            trace: trace.clone(),
        }
    }

    /// Runs it under `rmtrace record`.
    pub fn record(&self) -> Recorded {
        let (started, trace) = self.start_record();
        let recorded = Recorded::of(started, trace);
        let stderr = &recorded.outcome.stderr;
        assert!(recorded.trace.is_file(), "no trace; stderr:\n{stderr}");
        recorded
    }

    /// Runs it one way or the other.
    pub fn recorded(&self, how: How) -> Recorded {
        match how {
            How::Bare => self.bare(),
            How::Record => self.record(),
        }
    }
}

/// Run directories in a directory.
pub fn runs_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new("rmspool")))
        .collect()
}

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    fn of(started: Started) -> Outcome {
        let (status, stdout, stderr) = started.finish();
        Outcome {
            status,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Its output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Checks that it ended well.
    pub fn ok(self) -> Outcome {
        assert!(self.status.success(), "{self:?}");
        self
    }

    /// Its exit code, or the signal plus 1000.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal().map(|signal| 1000 + signal);
        self.status.code().or(signal).unwrap_or(-1)
    }
}

/// A program that was run and recorded.
#[derive(Debug)]
pub struct Recorded {
    pub outcome: Outcome,
    pub trace: PathBuf,
}

/// What `rmtrace verify` says of a trace, which passes.
pub fn verify(trace: &Path) -> String {
    let output = Command::new(rmtrace()).arg("verify").arg(trace).output();
    let output = output.expect("rmtrace runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{}: verify: {stdout}{stderr}",
        trace.display()
    );
    stdout
}

impl Recorded {
    /// The recording of a program that was started, when it has ended.
    pub fn of(started: Started, trace: PathBuf) -> Recorded {
        let outcome = Outcome::of(started);
        Recorded { outcome, trace }
    }

    /// Checks that it ended well.
    pub fn ok(self) -> Recorded {
        assert!(self.outcome.status.success(), "{:?}", self.outcome);
        self
    }

    /// Reads the trace, after `rmtrace verify` had nothing to say against it.
    pub fn read(&self) -> Seen {
        self.verify();
        Seen::read(&self.trace)
    }

    /// `rmtrace verify` passes.
    pub fn verify(&self) {
        verify(&self.trace);
    }

    /// `rmtrace analyze --json`.
    pub fn analyze(&self) -> Value {
        self.json("analyze")
    }

    /// `rmtrace info --json`.
    pub fn info(&self) -> Value {
        self.json("info")
    }

    fn json(&self, command: &str) -> Value {
        let (status, stdout, stderr) = self.command(command, &["--json"]);
        assert!(status.success(), "{command}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{command} --json: {e}: {stdout}"))
    }

    fn command(&self, command: &str, options: &[&str]) -> (ExitStatus, String, String) {
        let mut arguments: Vec<&OsStr> = vec![command.as_ref(), self.trace.as_ref()];
        arguments.extend(options.iter().map(|option| -> &OsStr { option.as_ref() }));
        let output = Command::new(rmtrace())
            .args(arguments)
            .output()
            .expect("rmtrace runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status, text(&output.stdout), text(&output.stderr))
    }
}
