//! Compressing on several threads with the order kept: frames go to the encoders in turn and are taken
//! back in turn.

use super::buffers::Buffers;
use crate::frame::{EncodedFrame, FramePacker, LooseFrame};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

struct Encoder {
    loose: SyncSender<LooseFrame>,
    frames: Receiver<EncodedFrame>,
}

/// Encoder threads of a scope.
pub struct Encoders {
    encoders: Vec<Encoder>,
    sent: usize,
    taken: usize,
}

fn work(
    mut packer: FramePacker,
    loose: Receiver<LooseFrame>,
    frames: Sender<EncodedFrame>,
    buffers: &Buffers,
) {
    for frame in loose {
        let mut encoded = buffers.encoded();
        packer.pack(&frame, &mut encoded);
        buffers.give_loose(frame);
        if frames.send(encoded).is_err() {
            return;
        }
    }
}

impl Encoders {
    /// Starts `count` of them with a packer each; they take and give frames of `buffers`.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        count: usize,
        packer: fn() -> FramePacker,
        buffers: &'env Buffers,
    ) -> Encoders {
        let encoders = (0..count.max(1))
            .map(|_| {
                let (loose, from_caller) = sync_channel(1);
                let (to_caller, frames) = channel();
                scope.spawn(move || work(packer(), from_caller, to_caller, buffers));
                Encoder { loose, frames }
            })
            .collect();
        Encoders {
            encoders,
            sent: 0,
            taken: 0,
        }
    }

    /// Hands a frame over; waits while its encoder has two.
    pub fn send(&mut self, frame: LooseFrame) {
        let encoder = &self.encoders[self.sent % self.encoders.len()];
        // An encoder that is gone has panicked, and panics abort.
        let _ = encoder.loose.send(frame);
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
