//! Connections that each send a batch of requests, and the next one when all its replies are there. Replies are checked
//! and counted here; what is asked for is left to `drive/workload.rs`.

use super::super::histogram::Histogram;
use super::super::os::{Interest, Poller};
use super::super::resp;
use super::workload::{Expected, Values};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

/// What was answered.
#[derive(Default)]
pub struct Tally {
    /// Values stored.
    pub sets: u64,
    /// Bytes of their keys and values.
    pub set_bytes: u64,
    /// Values asked for.
    pub gets: u64,
    /// Those that were there.
    pub hits: u64,
    /// Keys that had a value when their length was asked for.
    pub live_keys: u64,
    /// Bytes of these keys and values.
    pub live_bytes: u64,
    /// The last answer of INFO.
    pub info: String,
    /// From the sending of a batch until its last reply was there.
    pub batches: Histogram,
}

/// Some connections.
pub struct Clients {
    poller: Poller,
    clients: Vec<Client>,
    pipeline: usize,
    read: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    expected: Vec<Expected>,
    answered: usize,
    /// What was read and is not a whole reply yet.
    reply: Vec<u8>,
    sent: Instant,
}

impl Tally {
    /// Bytes of the server's index as it gives them itself: those of Redis are its hash table with the headers of
    /// values. 0 if it does not say.
    pub fn index_bytes(&self) -> u64 {
        let number = |name: &str| {
            let value = self
                .info
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<u64>().ok())
        };
        let of_redis =
            || number("used_memory_overhead")?.checked_sub(number("used_memory_startup")?);
        number("index_bytes").or_else(of_redis).unwrap_or(0)
    }
}

impl Clients {
    /// Connects to a port of 127.0.0.1.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(port: u16, connections: usize, pipeline: usize) -> io::Result<Clients> {
        let poller = Poller::new()?;
        let mut clients = Vec::new();
        for n in 0..connections {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
                io::Error::new(error.kind(), format!("no server on port {port}: {error}"))
            })?;
            stream.set_nodelay(true)?;
            poller.add(&stream, n as u64, Interest::Read)?;
            clients.push(Client {
                stream,
                request: Vec::new(),
                expected: Vec::new(),
                answered: 0,
                reply: Vec::new(),
                sent: Instant::now(),
            });
        }
        Ok(Clients {
            poller,
            clients,
            pipeline,
            read: vec![0; 256 << 10],
        })
    }

    /// Sends what `next` appends and tells the reply of, until it gives none and every reply is there.
    ///
    /// # Errors
    /// The server ends, answers with an error, or gives a value that was never stored.
    pub fn run(
        &mut self,
        tally: &mut Tally,
        values: &Values,
        mut next: impl FnMut(&mut Vec<u8>) -> Option<Expected>,
    ) -> io::Result<()> {
        let mut busy = 0;
        for client in &mut self.clients {
            busy += usize::from(client.send(self.pipeline, &mut next)?);
        }
        let mut ready = Vec::new();
        while busy > 0 {
            self.poller.wait(-1, &mut ready)?;
            for &token in &ready {
                let client = &mut self.clients[token as usize];
                if client.receive(&mut self.read, tally, values)?
                    && !client.send(self.pipeline, &mut next)?
                {
                    busy -= 1;
                }
            }
        }
        Ok(())
    }
}

impl Client {
    /// Sends a batch. Whether there was anything to send.
    fn send(
        &mut self,
        pipeline: usize,
        next: &mut impl FnMut(&mut Vec<u8>) -> Option<Expected>,
    ) -> io::Result<bool> {
        self.request.clear();
        self.expected.clear();
        self.answered = 0;
        while self.expected.len() < pipeline
            && let Some(expected) = next(&mut self.request)
        {
            self.expected.push(expected);
        }
        self.sent = Instant::now();
        self.stream.write_all(&self.request)?;
        Ok(!self.expected.is_empty())
    }

    /// Reads once. Whether the batch is answered now.
    fn receive(&mut self, read: &mut [u8], tally: &mut Tally, values: &Values) -> io::Result<bool> {
        let count = self.stream.read(read)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server has closed the connection",
            ));
        }
        self.reply.extend_from_slice(&read[..count]);
        let mut used = 0;
        while self.answered < self.expected.len() {
            let bytes = take(
                &self.reply[used..],
                self.expected[self.answered],
                tally,
                values,
            )?;
            if bytes == 0 {
                break;
            }
            used += bytes;
            self.answered += 1;
        }
        self.reply.drain(..used);
        if self.answered < self.expected.len() {
            return Ok(false);
        }
        if !self.reply.is_empty() {
            return Err(wrong(format_args!("more replies than requests")));
        }
        tally.batches.add(self.sent.elapsed().as_nanos() as u64);
        Ok(true)
    }
}

fn wrong(text: std::fmt::Arguments<'_>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_string())
}

/// Checks and counts the reply at the start of `input`; its bytes, 0 if it is not whole.
fn take(input: &[u8], expected: Expected, tally: &mut Tally, values: &Values) -> io::Result<usize> {
    let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
        return Ok(0);
    };
    let (line, start) = (&input[..end], end + 2);
    let number = || resp::number(&line[1..]).and_then(|n| usize::try_from(n).ok());
    match (expected, line[0]) {
        (Expected::Stored(bytes), b'+') => {
            tally.sets += 1;
            tally.set_bytes += bytes;
        }
        (Expected::Value(_), b'$') if line == b"$-1" => tally.gets += 1,
        (Expected::Value(key), b'$') => {
            let bytes = number()
                .ok_or_else(|| wrong(format_args!("no length: {}", line.escape_ascii())))?;
            let Some(value) = input.get(start..start + bytes + 2) else {
                return Ok(0);
            };
            if !values.is_one(key, &value[..bytes]) {
                return Err(wrong(format_args!(
                    "the value of key {key}, {bytes} bytes, is not one that was stored"
                )));
            }
            tally.gets += 1;
            tally.hits += 1;
            return Ok(start + bytes + 2);
        }
        (Expected::Info, b'$') => {
            let bytes = number()
                .ok_or_else(|| wrong(format_args!("no length: {}", line.escape_ascii())))?;
            let Some(text) = input.get(start..start + bytes + 2) else {
                return Ok(0);
            };
            tally.info = String::from_utf8_lossy(&text[..bytes]).into_owned();
            return Ok(start + bytes + 2);
        }
        (Expected::Length, b':') => {
            let bytes = number()
                .ok_or_else(|| wrong(format_args!("no length: {}", line.escape_ascii())))?;
            if bytes > 0 {
                tally.live_keys += 1;
                tally.live_bytes += bytes as u64 + super::workload::KEY_BYTES;
            }
        }
        _ => {
            return Err(wrong(format_args!(
                "the server says {}",
                line.escape_ascii()
            )));
        }
    }
    Ok(start)
}
