//! Encoders and the writer: frames are compressed on threads of their own and reach the file in the
//! order in which they were sent.
//!
//! Items go to the encoders in turn and their results are taken in turn, over bounded channels. The
//! writer then says up to which item everything is in the file; only then are chunks given back.

use super::Status;
use super::output::Output;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use rmtrace_file::frame::{FramePacker, LooseFrame};
use rmtrace_file::gather::buffers::Buffers;
use rmtrace_file::{EncodedFrame, Mark, Process, RunInfo, Sample, WriteError};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread::JoinHandle;
use std::time::Duration;

/// What goes through the pipeline.
pub enum Item {
    /// Calls.
    Window(Box<LooseFrame>),
    /// What is known of a process.
    Process(Box<Process>),
    /// Resident samples.
    Samples(Vec<Sample>),
    /// Marks.
    Marks(Vec<Mark>),
    /// The final word on every process. Marks may follow, then the end.
    LastWords(Vec<Process>),
    /// The end: the final word on the run.
    End(Box<RunInfo>),
}

enum Encoded {
    Frame(EncodedFrame),
    Other(Item),
}

/// Windows that an encoder may have waiting, besides the one it works on.
const WAITING_WINDOWS: usize = 1;
/// Frames that wait for the writer, for each encoder.
const WAITING_FRAMES: usize = 2;

/// The sending side of the pipeline.
pub struct Pipeline {
    lanes: Vec<Sender<Item>>,
    sent: u64,
    status: Arc<Status>,
    writer: JoinHandle<Result<u64, WriteError>>,
    encoders: Vec<JoinHandle<()>>,
}

fn encode(items: Receiver<Item>, out: Sender<Encoded>, buffers: &Buffers) {
    let mut packer = FramePacker::default();
    for item in items {
        let encoded = match item {
            Item::Window(window) => {
                let mut frame = buffers.encoded();
                packer.pack(&window, &mut frame);
                buffers.give_loose(*window);
                Encoded::Frame(frame)
            }
            other => Encoded::Other(other),
        };
        if out.send(encoded).is_err() {
            return; // The writer failed.
        }
    }
}

/// Writes what comes until the end, or until writing fails: then the rest is thrown away, as it is
/// still in the spools.
fn write(
    mut output: Output,
    lanes: Vec<Receiver<Encoded>>,
    status: Arc<Status>,
    buffers: &Buffers,
) -> Result<u64, WriteError> {
    output.tell(&status);
    let mut turn = lanes.iter().cycle();
    let mut done: u64 = 0;
    loop {
        let next = turn.next().and_then(|lane| lane.recv().ok());
        let result = match next {
            Some(Encoded::Frame(frame)) => {
                let result = output.frame(&frame);
                if result.is_ok() {
                    status.calls.fetch_add(frame.calls(), Relaxed);
                }
                buffers.give_encoded(frame);
                result
            }
            Some(Encoded::Other(Item::Process(process))) => output.process(&process),
            Some(Encoded::Other(Item::Samples(samples))) => output.samples(&samples),
            Some(Encoded::Other(Item::Marks(marks))) => output.marks(&marks),
            Some(Encoded::Other(Item::LastWords(processes))) => output.last_words(&processes),
            Some(Encoded::Other(Item::End(info))) => return output.finish(*info),
            Some(Encoded::Other(Item::Window(_))) => Ok(()),
            // The drain went away without an end.
            None => Err(WriteError::Write {
                offset: output.bytes(),
                source: std::io::Error::other("the recording stopped"),
            }),
        };
        if let Err(error) = result {
            status.failed.store(true, Release);
            return Err(error);
        }
        done += 1;
        output.tell(&status);
        status.items_written.store(done, Release);
    }
}

impl Pipeline {
    /// Starts the threads. They take and give frames of `buffers`.
    pub fn start(
        output: Output,
        encoders: usize,
        status: Arc<Status>,
        buffers: &Arc<Buffers>,
    ) -> Pipeline {
        let mut lanes = Vec::new();
        let mut results = Vec::new();
        let mut threads = Vec::new();
        for _ in 0..encoders.max(1) {
            let (to_encoder, items) = bounded(WAITING_WINDOWS);
            let (to_writer, encoded) = bounded(WAITING_FRAMES);
            let buffers = buffers.clone();
            threads.push(std::thread::spawn(move || {
                encode(items, to_writer, &buffers);
            }));
            lanes.push(to_encoder);
            results.push(encoded);
        }
        let writer = {
            let (status, buffers) = (status.clone(), buffers.clone());
            std::thread::spawn(move || write(output, results, status, &buffers))
        };
        Pipeline {
            lanes,
            sent: 0,
            status,
            writer,
            encoders: threads,
        }
    }

    /// Items sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Items that are in the file.
    pub fn written(&self) -> u64 {
        self.status.items_written.load(Acquire)
    }

    /// Waits until all that was sent is in the file; false if writing failed.
    pub fn settle(&self) -> bool {
        while self.written() < self.sent {
            if self.status.failed.load(Acquire) {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        true
    }

    /// Sends an item; waits while the encoders are behind. Nothing happens once writing failed.
    pub fn send(&mut self, item: Item) {
        let lane = &self.lanes[(self.sent % self.lanes.len() as u64) as usize];
        let mut item = item;
        loop {
            if self.status.failed.load(Acquire) {
                return;
            }
            match lane.send_timeout(item, Duration::from_millis(100)) {
                Ok(()) => break,
                Err(SendTimeoutError::Timeout(back)) => item = back,
                Err(SendTimeoutError::Disconnected(_)) => return,
            }
        }
        self.sent += 1;
    }

    /// Waits until everything is written; the last item must have been [`Item::End`].
    /// Returns the bytes of the trace.
    pub fn join(self) -> Result<u64, WriteError> {
        let Pipeline {
            lanes,
            writer,
            encoders,
            ..
        } = self;
        drop(lanes);
        let result = writer.join();
        for encoder in encoders {
            let _ = encoder.join();
        }
        // Panics abort the process: there is no other failure.
        result.unwrap_or_else(|_| {
            Err(WriteError::Write {
                offset: 0,
                source: std::io::Error::other("the writer ended"),
            })
        })
    }
}
