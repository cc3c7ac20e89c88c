//! One round of one worker under a configuration of rmalloc: for those who compare configurations, not allocators
//! (`rmtrace tune`).

use crate::error::ReplayError;
use crate::process;
use crate::spec::Spec;
use crate::task::{Lock, Outcome, Pace, Round, Task, Threads, Touched};
use std::ffi::OsString;
use std::path::Path;

/// The variable that a default heap finds its configuration by.
const CONFIG_VARIABLE: &str = "RMALLOC_CONFIG";

/// What is the same in all rounds.
#[derive(Clone, Debug)]
pub struct Single {
    /// rmalloc: the linked one, or a library of it.
    pub spec: Spec,
    /// How blocks are touched.
    pub touched: Touched,
    /// When they are locked.
    pub lock: Lock,
    /// How fast memory rounds go.
    pub pace: Pace,
    /// The command that a worker is, to which its task is added.
    pub worker: Vec<OsString>,
}

/// A program, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The program; with ends of locks where the rule asks for them.
    pub program: &'a Path,
    /// Up to this one of its points; `None`: all of it.
    pub points: Option<u64>,
}

impl Single {
    /// Runs a round with the configuration of a file, which was checked: a heap that can't read it takes the defaults. The
    /// outcome passes through the file `outcome`.
    ///
    /// # Errors
    /// As [`crate::replay::replay`].
    pub fn run(
        &self,
        part: Part<'_>,
        config: &Path,
        round: Round,
        outcome: &Path,
    ) -> Result<Outcome, ReplayError> {
        let task = Task {
            which: self.spec.which.clone(),
            program: part.program.to_owned(),
            locked: None,
            outcome: outcome.to_owned(),
            threads: Threads::One,
            durations: None,
            round,
            pace: self.pace,
            touched: self.touched,
            lock: self.lock,
            points: part.points,
        };
        let mut command = process::command(&self.worker, &self.spec, &task, &[])?;
        command.env(CONFIG_VARIABLE, config);
        process::outcome(command, &self.spec, &task)
    }
}
