//! Frames that go round: they are megabytes, and fresh memory costs more than filling it.

use crate::frame::{EncodedFrame, LooseFrame};
use std::sync::Mutex;

/// Frames of each sort that are kept.
const KEPT: usize = 6;
/// Bytes above which a frame is not kept: not many are so large.
const BYTES_MAX: usize = 16 << 20;

/// A store of empty frames, shared by those who fill, compress and write them.
#[derive(Default)]
pub struct Buffers {
    loose: Mutex<Vec<LooseFrame>>,
    encoded: Mutex<Vec<EncodedFrame>>,
}

fn take<T: Default>(kept: &Mutex<Vec<T>>) -> T {
    let kept = kept.lock().ok().and_then(|mut kept| kept.pop());
    kept.unwrap_or_default()
}

fn give<T>(kept: &Mutex<Vec<T>>, item: T) {
    if let Ok(mut kept) = kept.lock()
        && kept.len() < KEPT
    {
        kept.push(item);
    }
}

impl Buffers {
    /// A frame to be filled.
    pub fn loose(&self) -> LooseFrame {
        take(&self.loose)
    }

    /// An empty frame to be compressed into.
    pub fn encoded(&self) -> EncodedFrame {
        take(&self.encoded)
    }

    /// Takes back a frame that was compressed.
    pub fn give_loose(&self, frame: LooseFrame) {
        if frame.held_bytes() <= BYTES_MAX {
            give(&self.loose, frame);
        }
    }

    /// Takes back a frame that was written.
    pub fn give_encoded(&self, mut frame: EncodedFrame) {
        frame.bytes.clear();
        frame.entries.clear();
        if frame.bytes.capacity() <= BYTES_MAX {
            give(&self.encoded, frame);
        }
    }
}
