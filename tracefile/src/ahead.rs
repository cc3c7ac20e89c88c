//! Frames of events for a merge, in the order in which it opens them: each when it is wanted, or
//! a few of them ahead by a thread of their own.

use crate::error::ReadError;
use crate::frame::Frame;
use crate::reader::{FrameScratch, TraceReader};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, Scope};

/// Frames that wait, opened, for the merge. One of the collector holds a second, or 128 Ki calls, which
/// are a few hundred KiB.
const FRAMES_AHEAD: usize = 4;

/// Where a merge has its frames from.
pub(crate) enum Frames {
    /// Each is opened when it is wanted.
    Here(Box<FrameScratch>),
    /// Another thread opens them in the order that was told.
    Ahead(Receiver<Result<Frame, ReadError>>),
}

impl Default for Frames {
    fn default() -> Self {
        Frames::Here(Box::default())
    }
}

impl Frames {
    /// Begins to open the frames at these positions of [`TraceReader::frames`]. The thread ends behind
    /// the last one, at one that can't be opened, or when nobody wants more.
    pub(crate) fn ahead<'scope>(
        scope: &'scope Scope<'scope, '_>,
        reader: &'scope TraceReader,
        order: Vec<usize>,
    ) -> Frames {
        let (to_merge, opened) = sync_channel(FRAMES_AHEAD);
        let open = move || {
            let mut scratch = FrameScratch::default();
            for entry in order.into_iter().filter_map(|at| reader.frames().get(at)) {
                let frame = reader.frame(entry, &mut scratch);
                let failed = frame.is_err();
                if to_merge.send(frame).is_err() || failed {
                    return;
                }
            }
        };
        let begun = Builder::new()
            .name("frames".to_owned())
            .spawn_scoped(scope, open);
        match begun {
            Ok(_) => Frames::Ahead(opened),
            Err(_) => Frames::default(), // No more threads may be had: the slow way.
        }
    }

    /// The frame at this position, the next in the order.
    pub(crate) fn open(
        &mut self,
        reader: &TraceReader,
        at: usize,
    ) -> Option<Result<Frame, ReadError>> {
        match self {
            Frames::Here(scratch) => Some(reader.frame(reader.frames().get(at)?, scratch)),
            Frames::Ahead(opened) => opened.recv().ok(),
        }
    }
}
