//! Vectors of calls that go round: windows are megabytes, and fresh memory costs more than decoding.

use crate::model::{Call, Window};
use std::sync::Mutex;

/// Vectors that are kept; the largest are those of busy threads.
const KEPT: usize = 16;
/// Calls from which on a vector is worth keeping.
const CALLS_MIN: usize = 4096;

/// A store of empty vectors, shared by those who make windows and those who encode them.
#[derive(Debug, Default)]
pub struct Buffers {
    kept: Mutex<Vec<Vec<Call>>>,
}

impl Buffers {
    /// A vector for about `calls` calls: a kept one if they are many.
    pub fn take(&self, calls: u64) -> Vec<Call> {
        if calls < CALLS_MIN as u64 {
            return Vec::new();
        }
        let kept = self.kept.lock().ok().and_then(|mut kept| kept.pop());
        kept.unwrap_or_default()
    }

    /// Takes the vectors of a window that was encoded.
    pub fn give(&self, window: Window) {
        let Ok(mut kept) = self.kept.lock() else {
            return;
        };
        for segment in window.segments {
            let mut calls = segment.calls;
            if kept.len() < KEPT && calls.capacity() >= CALLS_MIN {
                calls.clear();
                kept.push(calls);
            }
        }
    }
}
