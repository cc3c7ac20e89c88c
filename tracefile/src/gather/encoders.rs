//! Encoding on several threads with the order kept: windows go to the encoders in turn and their
//! frames are taken in turn.

use super::buffers::Buffers;
use crate::frame::{EncodedFrame, WindowEncoder};
use crate::model::Window;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

struct Encoder {
    windows: SyncSender<Window>,
    frames: Receiver<EncodedFrame>,
}

/// Encoder threads of a scope.
pub struct Encoders {
    encoders: Vec<Encoder>,
    sent: usize,
    taken: usize,
}

fn work(windows: Receiver<Window>, frames: Sender<EncodedFrame>, buffers: &Buffers) {
    let mut encoder = WindowEncoder::new();
    for window in windows {
        let frame = encoder.encode(&window);
        buffers.give(window);
        if frames.send(frame).is_err() {
            return;
        }
    }
}

impl Encoders {
    /// Starts `count` of them; they give the vectors back to `buffers`.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        count: usize,
        buffers: &'env Buffers,
    ) -> Encoders {
        let encoders = (0..count.max(1))
            .map(|_| {
                let (windows, from_caller) = sync_channel(1);
                let (to_caller, frames) = channel();
                scope.spawn(move || work(from_caller, to_caller, buffers));
                Encoder { windows, frames }
            })
            .collect();
        Encoders {
            encoders,
            sent: 0,
            taken: 0,
        }
    }

    /// Hands a window over; waits while its encoder has two.
    pub fn send(&mut self, window: Window) {
        let encoder = &self.encoders[self.sent % self.encoders.len()];
        // An encoder that is gone has panicked, and panics abort.
        let _ = encoder.windows.send(window);
        self.sent += 1;
    }

    /// The next frame if it is ready; with `wait` set it is waited for. `None` if there is none.
    pub fn take(&mut self, wait: bool) -> Option<EncodedFrame> {
        if self.taken == self.sent {
            return None;
        }
        let encoder = &self.encoders[self.taken % self.encoders.len()];
        let frame = match wait {
            true => encoder.frames.recv().ok(),
            false => encoder.frames.try_recv().ok(),
        };
        self.taken += usize::from(frame.is_some());
        frame
    }
}
