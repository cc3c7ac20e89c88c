//! A bar on the terminal for work that takes longer than a moment.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Shorter work shows no progress.
const QUIET: Duration = Duration::from_secs(1);
/// Events between two looks at the clock.
const LOOK_EVENTS: u64 = 1 << 18;

/// Progress through the events of a trace; on stderr, and only if that is a terminal.
pub struct Progress {
    began: Instant,
    looked_at: u64,
    total: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` events are to come, about.
    pub fn new(total: u64) -> Progress {
        Progress {
            began: Instant::now(),
            looked_at: 0,
            total,
            bar: None,
        }
    }

    /// So many are done.
    pub fn show(&mut self, events: u64) {
        if events - self.looked_at < LOOK_EVENTS {
            return;
        }
        self.looked_at = events;
        match &self.bar {
            Some(bar) => bar.set_position(events.min(self.total)),
            None if self.began.elapsed() > QUIET && io::stderr().is_terminal() => {
                let bar =
                    ProgressBar::with_draw_target(Some(self.total), ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template(
                    "{wide_bar} {human_pos}/{human_len} events, {eta} left",
                );
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                self.bar = Some(bar);
            }
            None => {}
        }
    }

    /// The work is done, or given up.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
