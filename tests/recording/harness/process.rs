//! A started program: in a process group of its own, with a time limit, its output in files.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Sleeps until `condition` holds; whether it does within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// A running program and its group. Dropped while it runs, it is killed with its group.
pub struct Started {
    child: Child,
    status: Option<ExitStatus>,
    end: Instant,
    what: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Started {
    /// Starts `command`; its output goes to files beside `stem`.
    pub fn new(
        mut command: Command,
        limits: &[(libc::__rlimit_resource_t, u64)],
        stem: &Path,
        limit: Duration,
    ) -> Started {
        let (stdout, stderr) = (stem.with_extension("out"), stem.with_extension("err"));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("the directory can be written"))
            .stderr(File::create(&stderr).expect("the directory can be written"))
            .process_group(0);
        let limits = limits.to_vec();
        let set_limits = move || {
            for (resource, value) in [(libc::RLIMIT_CORE, 0)].iter().chain(&limits) {
                let limit = libc::rlimit {
                    rlim_cur: *value,
                    rlim_max: *value,
                };
                // SAFETY: `limit` outlives the call.
                if unsafe { libc::setrlimit(*resource, &limit) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: setrlimit may be called between fork and exec.
        unsafe { command.pre_exec(set_limits) };
        let what = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
        Started {
            child,
            status: None,
            end: Instant::now() + limit,
            what,
            stdout,
            stderr,
        }
    }

    /// Process id of the program, and number of its group.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal to the program, or with `group` to all of its group.
    pub fn signal(&self, signal: i32, group: bool) {
        let target = if group { -self.pid() } else { self.pid() };
        // SAFETY: the child has not been waited for, or the group has members: the number is ours.
        unsafe { libc::kill(target, signal) };
    }

    /// Waits for the program to end, without its group.
    pub fn wait_program(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting for a child works") {
                self.status = Some(status);
                return status;
            }
            assert!(Instant::now() < self.end, "out of time: {}", self.what);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether a process of the group is left.
    pub fn group_lives(&self) -> bool {
        // SAFETY: signal 0 does nothing.
        unsafe { libc::kill(-self.pid(), 0) == 0 }
    }

    /// Waits for the program and everything of its group; status, stdout, stderr.
    pub fn finish(mut self) -> (ExitStatus, Vec<u8>, Vec<u8>) {
        let status = self.wait_program();
        while self.group_lives() {
            assert!(Instant::now() < self.end, "left running by {}", self.what);
            std::thread::sleep(Duration::from_millis(5));
        }
        let read = |path: &Path| std::fs::read(path).expect("its output was kept");
        (status, read(&self.stdout), read(&self.stderr))
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.status.is_none() || self.group_lives() {
            self.signal(libc::SIGKILL, true);
        }
        if self.status.is_none() {
            let _ = self.child.wait();
        }
        let status = self.status.unwrap_or(ExitStatus::from_raw(0));
        if std::thread::panicking() {
            eprintln!("{}: {status}\n{}", self.what, self.stderr());
        }
    }
}

/// Longest that most tests wait for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a file that a program makes.
pub fn appears(path: &Path) {
    assert!(
        wait_until(PATIENCE, || path.exists()),
        "{} never came",
        path.display()
    );
}

/// Makes a file that a program waits for.
pub fn touch(path: &Path) {
    std::fs::write(path, "").expect("the directory can be written");
}
