//! One client: what it sent and was not carried out yet, what it is owed and was not sent yet. Reading and writing never
//! wait. Who is served when is left to `server.rs`.

use super::cache::Cache;
use super::commands::{self, After, Words};
use super::info::Server;
use super::os::Interest;
use super::resp::{self, Parsed, Replies};
use super::store::Store;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

/// Bytes read at once.
pub const READ_BYTES: usize = 64 << 10;
/// Replies are sent on when they are as long as this, and no request is carried out while they wait.
const REPLY_BYTES: usize = 256 << 10;
/// Buffers longer than this are given back when they are empty.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// What connections share, as only one is served at a time.
pub struct Shared {
    /// What was read just now.
    pub read: Vec<u8>,
    /// Words of the request at hand.
    pub words: Vec<Range<usize>>,
    /// Replies of the batch at hand.
    pub replies: Replies,
    /// Longest word of a request.
    pub word_bytes_max: usize,
}

impl Shared {
    /// Empty buffers.
    pub fn new(word_bytes_max: usize) -> Shared {
        Shared {
            read: vec![0; READ_BYTES],
            words: Vec::new(),
            replies: Replies::default(),
            word_bytes_max,
        }
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is waited for.
    Wait(Interest),
    /// It has ended.
    Ended,
    /// The server ends.
    Shutdown,
}

/// A client.
pub struct Connection {
    stream: TcpStream,
    /// Bytes that are not a whole request yet, or whose turn has not come.
    input: Vec<u8>,
    /// Bytes that `input` must have before looking at it again is worthwhile.
    input_wanted: usize,
    /// Replies from `sent` on that the client has not taken yet.
    output: Vec<u8>,
    sent: usize,
    /// It ends when `output` is sent.
    closing: bool,
    /// What the poller was told.
    pub interest: Interest,
}

/// How the requests of a buffer ended.
enum Drained {
    /// None is whole any more.
    Input,
    /// The replies are long enough to be sent first.
    Replies,
    /// The connection, or the server, is to end.
    End(After),
}

impl Connection {
    /// A client that was accepted.
    ///
    /// # Errors
    /// It is gone already.
    pub fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            input: Vec::new(),
            input_wanted: 0,
            output: Vec::new(),
            sent: 0,
            closing: false,
            interest: Interest::Read,
        })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Serves it once: sends what waits, reads once, carries out what is whole, sends the replies.
    pub fn serve<S: Store>(
        &mut self,
        shared: &mut Shared,
        cache: &mut Cache<S>,
        server: &mut Server,
    ) -> Next {
        match self.try_serve(shared, cache, server) {
            Ok(next) => next,
            // A client that went away, in whatever way, is no error of the server.
            Err(_) => Next::Ended,
        }
    }

    fn try_serve<S: Store>(
        &mut self,
        shared: &mut Shared,
        cache: &mut Cache<S>,
        server: &mut Server,
    ) -> io::Result<Next> {
        if !self.send_rest()? {
            return Ok(Next::Wait(Interest::Write));
        }
        if self.closing {
            return Ok(Next::Ended);
        }
        // What was left because of long replies comes before anything new.
        if self.input.len() >= self.input_wanted.max(1)
            && let Some(next) = self.carry_out_input(shared, cache, server)?
        {
            return Ok(next);
        }
        let mut read = std::mem::take(&mut shared.read);
        let count = self.stream.read(&mut read);
        let next = match count {
            Ok(0) => Ok(Next::Ended),
            Ok(count) => self.take(&read[..count], shared, cache, server),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(Next::Wait(Interest::Read))
            }
            Err(error) => Err(error),
        };
        shared.read = read;
        next
    }

    /// Takes what was read: requests are carried out where they are, only the rest is copied.
    fn take<S: Store>(
        &mut self,
        read: &[u8],
        shared: &mut Shared,
        cache: &mut Cache<S>,
        server: &mut Server,
    ) -> io::Result<Next> {
        if self.input.is_empty() {
            let (used, drained, wanted) = drain(read, shared, cache, server);
            self.input.extend_from_slice(&read[used..]);
            self.input_wanted = wanted;
            if let Some(next) = self.finish(drained, shared)? {
                return Ok(next);
            }
            // Long replies went out at once.
            if !self.input.is_empty() && self.input.len() >= self.input_wanted.max(1) {
                return Ok(self
                    .carry_out_input(shared, cache, server)?
                    .unwrap_or(Next::Wait(Interest::Read)));
            }
            return Ok(Next::Wait(Interest::Read));
        }
        self.input.extend_from_slice(read);
        if self.input.len() < self.input_wanted {
            return Ok(Next::Wait(Interest::Read));
        }
        Ok(self
            .carry_out_input(shared, cache, server)?
            .unwrap_or(Next::Wait(Interest::Read)))
    }

    /// Carries out requests of `input` until none is whole, or until the client takes no more replies.
    /// `None`: all that is whole is done and sent.
    fn carry_out_input<S: Store>(
        &mut self,
        shared: &mut Shared,
        cache: &mut Cache<S>,
        server: &mut Server,
    ) -> io::Result<Option<Next>> {
        let mut start = 0;
        let next = loop {
            let (used, drained, wanted) = drain(&self.input[start..], shared, cache, server);
            start += used;
            self.input_wanted = wanted;
            let all = matches!(drained, Drained::Input);
            let next = self.finish(drained, shared)?;
            if all || next.is_some() {
                break next;
            }
        };
        self.input.drain(..start);
        if self.input.is_empty() && self.input.capacity() > BUFFER_BYTES_KEPT {
            self.input = Vec::new();
        }
        Ok(next)
    }

    /// Sends the replies of a batch, and keeps what the client does not take now.
    fn finish(&mut self, drained: Drained, shared: &mut Shared) -> io::Result<Option<Next>> {
        match drained {
            Drained::End(After::Shutdown) => {
                // What came before in the same batch is answered, if that is possible at once.
                let _ = self.stream.write(&shared.replies.bytes);
                return Ok(Some(Next::Shutdown));
            }
            Drained::End(_) => self.closing = true,
            Drained::Input | Drained::Replies => {}
        }
        let replies = &mut shared.replies.bytes;
        let mut sent = 0;
        while sent < replies.len() {
            match self.stream.write(&replies[sent..]) {
                Ok(0) => {
                    replies.clear();
                    return Err(ErrorKind::WriteZero.into());
                }
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    replies.clear();
                    return Err(error);
                }
            }
        }
        self.output.extend_from_slice(&replies[sent..]);
        replies.clear();
        if replies.capacity() > 4 * REPLY_BYTES {
            *replies = Vec::new();
        }
        Ok(if !self.output.is_empty() {
            Some(Next::Wait(Interest::Write))
        } else if self.closing {
            Some(Next::Ended)
        } else {
            None
        })
    }

    /// Sends what waits. Whether all of it went.
    fn send_rest(&mut self) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.output.clear();
        if self.output.capacity() > BUFFER_BYTES_KEPT {
            self.output = Vec::new();
        }
        Ok(true)
    }
}

/// Carries out the requests at the start of `input`: bytes that were used, why it stopped, and how many bytes the rest must
/// have before looking at it again is worthwhile.
fn drain<S: Store>(
    input: &[u8],
    shared: &mut Shared,
    cache: &mut Cache<S>,
    server: &mut Server,
) -> (usize, Drained, usize) {
    let mut used = 0;
    loop {
        let rest = &input[used..];
        match resp::parse(rest, shared.word_bytes_max, &mut shared.words) {
            Ok(Parsed::Incomplete(wanted)) => return (used, Drained::Input, wanted),
            Ok(Parsed::Request(bytes)) => {
                used += bytes;
                if shared.words.is_empty() {
                    continue;
                }
                let words = Words {
                    input: rest,
                    ranges: &shared.words,
                };
                let after = commands::execute(cache, server, words, &mut shared.replies);
                if after != After::Next {
                    return (input.len(), Drained::End(after), 0);
                }
                if shared.replies.bytes.len() >= REPLY_BYTES {
                    return (used, Drained::Replies, 0);
                }
            }
            Err(malformed) => {
                shared.replies.error(format_args!("ERR {malformed}"));
                return (input.len(), Drained::End(After::Close), 0);
            }
        }
    }
}
