//! The loop: who is ready is served, one batch each; in between and at rest the store is compacted. What a batch is, is
//! in `connection.rs`, when to compact in `compaction.rs`.

use super::cache::Cache;
use super::compaction::Compaction;
use super::connection::{Connection, Next, Shared};
use super::histogram::Histogram;
use super::info::Server;
use super::options::Serve;
use super::os::{Interest, Poller};
use super::store::Store;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

/// The listening socket's token; connections have their place.
const LISTENER: u64 = u64::MAX;
/// Connections accepted in one turn.
const ACCEPTED_MAX: usize = 16;
/// Flushed blocks freed in one turn.
const SWEPT: usize = 256;
/// How long nothing must have come before the server is at rest.
const REST_MS: i32 = 1;

/// Listens, says where on stdout, and serves until SHUTDOWN.
///
/// # Errors
/// The port is taken, or the system has no memory or descriptors.
pub fn run<S: Store>(options: &Serve, store: S) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("port {} of 127.0.0.1: {error}", options.port),
        )
    })?;
    listener.set_nonblocking(true)?;
    let mut turns = Loop::new(options, store, listener)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "cache: {} on {}",
        S::NAME,
        turns.listener.local_addr()?
    )?;
    out.flush()?;
    drop(out);
    while turns.turn()? {}
    Ok(())
}

struct Loop<S: Store> {
    listener: TcpListener,
    /// Whether the poller tells of new clients; not while there are as many as may be.
    accepting: bool,
    poller: Poller,
    ready: Vec<u64>,
    /// Connections by token.
    connections: Vec<Option<Connection>>,
    /// Tokens of none.
    free: Vec<usize>,
    clients_max: usize,
    cache: Cache<S>,
    server: Server,
    shared: Shared,
}

impl<S: Store> Loop<S> {
    fn new(options: &Serve, store: S, listener: TcpListener) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER, Interest::Read)?;
        let cache = Cache::new(store, options.limit_bytes)?;
        let shared = Shared::new(options.value_bytes_max);
        Ok(Loop {
            listener,
            accepting: true,
            poller,
            ready: Vec::new(),
            connections: Vec::new(),
            free: Vec::new(),
            clients_max: options.clients_max,
            cache,
            server: Server {
                began: Instant::now(),
                requests: 0,
                clients: 0,
                batches: Histogram::default(),
                compaction: Compaction::new(options)?,
            },
            shared,
        })
    }

    /// Serves whoever is ready. Whether there is another turn.
    fn turn(&mut self) -> io::Result<bool> {
        let sweeping = self.cache.sweep(SWEPT);
        let wanted = self.server.compaction.wanted_at_rest(&self.cache);
        let timeout_ms = match (sweeping, wanted) {
            (true, _) => 0,
            (false, true) => REST_MS,
            (false, false) => -1,
        };
        self.poller.wait(timeout_ms, &mut self.ready)?;
        if self.ready.is_empty() {
            return if sweeping { Ok(true) } else { self.rest() };
        }
        self.serve_ready()
    }

    /// Nothing is asked for: compacts until something is, or until there is nothing to gain.
    fn rest(&mut self) -> io::Result<bool> {
        while self.server.compaction.wanted_at_rest(&self.cache) {
            self.server.compaction.at_rest(&mut self.cache);
            self.poller.wait(0, &mut self.ready)?;
            if !self.ready.is_empty() {
                return self.serve_ready();
            }
        }
        Ok(true)
    }

    fn serve_ready(&mut self) -> io::Result<bool> {
        let mut before = Instant::now();
        for n in 0..self.ready.len() {
            let token = self.ready[n];
            if token == LISTENER {
                self.accept()?;
                before = Instant::now();
                continue;
            }
            let place = token as usize;
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            match connection.serve(&mut self.shared, &mut self.cache, &mut self.server) {
                Next::Wait(interest) if interest == connection.interest => {}
                Next::Wait(interest) => {
                    self.poller.modify(connection.stream(), token, interest)?;
                    connection.interest = interest;
                }
                Next::Ended => self.end(place)?,
                Next::Shutdown => return Ok(false),
            }
            let now = Instant::now();
            self.server.batches.add((now - before).as_nanos() as u64);
            self.server.compaction.between(&mut self.cache, now);
            before = Instant::now();
        }
        Ok(true)
    }

    /// Takes new clients, as many as may be.
    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTED_MAX {
            match self.listener.accept() {
                Ok((stream, _)) if self.server.clients >= self.clients_max => refuse(&stream),
                Ok((stream, _)) => self.welcome(stream)?,
                // Gone before it was taken.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // No descriptor or no memory: the next clients wait until one leaves.
                Err(error) if self.server.clients > 0 => {
                    eprintln!("cache: no more clients for now: {error}");
                    self.poller.remove(&self.listener)?;
                    self.accepting = false;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn welcome(&mut self, stream: TcpStream) -> io::Result<()> {
        let Ok(connection) = Connection::new(stream) else {
            return Ok(());
        };
        let place = self.free.pop().unwrap_or(self.connections.len());
        self.poller
            .add(connection.stream(), place as u64, Interest::Read)?;
        if place == self.connections.len() {
            self.connections.push(None);
        }
        self.connections[place] = Some(connection);
        self.server.clients += 1;
        Ok(())
    }

    /// Forgets a connection; closing it takes it out of the poller.
    fn end(&mut self, place: usize) -> io::Result<()> {
        self.connections[place] = None;
        self.free.push(place);
        self.server.clients -= 1;
        if !self.accepting {
            self.poller.add(&self.listener, LISTENER, Interest::Read)?;
            self.accepting = true;
        }
        Ok(())
    }
}

/// Tells a client that there are too many. Whether it hears is its business.
fn refuse(stream: &TcpStream) {
    let _ = stream.set_nonblocking(true);
    let _ = (&*stream).write(b"-ERR max number of clients reached\r\n");
}
