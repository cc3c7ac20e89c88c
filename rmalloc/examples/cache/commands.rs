//! What each request does, and its reply. Where requests come from is left to `connection.rs`, what INFO says to `info.rs`.

use super::cache::{Cache, Refused};
use super::info::{self, Server};
use super::resp::Replies;
use super::store::Store;
use std::ops::Range;

/// Longest reply to a request for several values.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// What happens to the connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request.
    Next,
    /// The connection ends when its replies are sent.
    Close,
    /// The whole server ends.
    Shutdown,
}

/// The words of a request.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// What they are parts of.
    pub input: &'a [u8],
    /// Where each is.
    pub ranges: &'a [Range<usize>],
}

impl<'a> Words<'a> {
    fn len(self) -> usize {
        self.ranges.len()
    }

    fn at(self, n: usize) -> &'a [u8] {
        &self.input[self.ranges[n].clone()]
    }

    fn after_first(self) -> impl Iterator<Item = &'a [u8]> {
        self.ranges[1..]
            .iter()
            .map(move |range| &self.input[range.clone()])
    }
}

/// A command: its name, least and most words with the name, what it does.
type Row<S> = (
    &'static str,
    usize,
    usize,
    fn(&mut Cache<S>, &mut Server, Words<'_>, &mut Replies) -> After,
);

/// All commands, the frequent ones first.
fn table<S: Store>() -> &'static [Row<S>] {
    const ANY: usize = usize::MAX;
    const {
        &[
            ("GET", 2, 2, get::<S>),
            ("SET", 3, 3, set::<S>),
            ("DEL", 2, ANY, del::<S>),
            ("MGET", 2, ANY, mget::<S>),
            ("EXISTS", 2, ANY, exists::<S>),
            ("STRLEN", 2, 2, strlen::<S>),
            ("PING", 1, 2, ping::<S>),
            ("ECHO", 2, 2, echo::<S>),
            ("INFO", 1, ANY, info::<S>),
            ("DBSIZE", 1, 1, dbsize::<S>),
            ("SELECT", 2, 2, select::<S>),
            ("CONFIG", 2, ANY, config::<S>),
            ("COMMAND", 1, ANY, command::<S>),
            ("FLUSHALL", 1, 2, flushall::<S>),
            ("QUIT", 1, 1, quit::<S>),
            ("SHUTDOWN", 1, 2, shutdown::<S>),
        ]
    }
}

/// Carries out one request of at least one word, and appends its reply.
pub fn execute<S: Store>(
    cache: &mut Cache<S>,
    server: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    server.requests += 1;
    let name = words.at(0);
    let row = table::<S>()
        .iter()
        .find(|row| name.eq_ignore_ascii_case(row.0.as_bytes()));
    let Some((known, least, most, act)) = row else {
        let shown = &name[..name.len().min(64)];
        replies.error(format_args!(
            "ERR unknown command '{}'",
            shown.escape_ascii()
        ));
        return After::Next;
    };
    if !(*least..=*most).contains(&words.len()) {
        let known = known.to_ascii_lowercase();
        replies.error(format_args!(
            "ERR wrong number of arguments for '{known}' command"
        ));
        return After::Next;
    }
    act(cache, server, words, replies)
}

fn get<S: Store>(
    cache: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    value(cache, words.at(1), replies);
    After::Next
}

/// The value of a key or nil.
fn value<S: Store>(cache: &mut Cache<S>, key: &[u8], replies: &mut Replies) {
    if cache.get(key, |value| replies.bulk(value)).is_none() {
        replies.nil();
    }
}

fn set<S: Store>(
    cache: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    match cache.set(words.at(1), words.at(2)) {
        Ok(()) => replies.simple("OK"),
        Err(Refused::AboveLimit) => replies.error(format_args!(
            "ERR key and value are above the limit of {} bytes",
            cache.limit_bytes()
        )),
        Err(Refused::OutOfMemory) => replies.error(format_args!(
            "OOM the allocator has no memory for this value"
        )),
    }
    After::Next
}

fn del<S: Store>(
    cache: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    let count = words.after_first().filter(|key| cache.remove(key)).count();
    replies.integer(count as u64);
    After::Next
}

fn mget<S: Store>(
    cache: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    let start = replies.bytes.len();
    replies.array(words.len() - 1);
    for key in words.after_first() {
        value(cache, key, replies);
        if replies.bytes.len() - start > REPLY_BYTES_MAX {
            replies.bytes.truncate(start);
            replies.error(format_args!(
                "ERR the values are more than {REPLY_BYTES_MAX} bytes; ask for fewer at once"
            ));
            break;
        }
    }
    After::Next
}

fn exists<S: Store>(
    cache: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    let found = words
        .after_first()
        .filter(|key| cache.value_bytes(key).is_some());
    replies.integer(found.count() as u64);
    After::Next
}

fn strlen<S: Store>(
    cache: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    replies.integer(cache.value_bytes(words.at(1)).unwrap_or(0).into());
    After::Next
}

fn ping<S: Store>(
    _: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    if words.len() == 2 {
        replies.bulk(words.at(1));
    } else {
        replies.simple("PONG");
    }
    After::Next
}

fn echo<S: Store>(
    _: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    replies.bulk(words.at(1));
    After::Next
}

/// All sections, whichever are asked for.
fn info<S: Store>(
    cache: &mut Cache<S>,
    server: &mut Server,
    _: Words<'_>,
    replies: &mut Replies,
) -> After {
    replies.bulk(info::text(cache, server).as_bytes());
    After::Next
}

fn dbsize<S: Store>(
    cache: &mut Cache<S>,
    _: &mut Server,
    _: Words<'_>,
    replies: &mut Replies,
) -> After {
    replies.integer(cache.entries() as u64);
    After::Next
}

/// There is one database, number 0.
fn select<S: Store>(
    _: &mut Cache<S>,
    _: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    if words.at(1) == b"0" {
        replies.simple("OK");
    } else {
        replies.error(format_args!("ERR there is one database, number 0"));
    }
    After::Next
}

/// CONFIG GET knows what is true of every such cache (redis-benchmark asks for the first two); all else is on the command
/// line. CONFIG RESETSTAT begins the durations anew.
fn config<S: Store>(
    cache: &mut Cache<S>,
    server: &mut Server,
    words: Words<'_>,
    replies: &mut Replies,
) -> After {
    let what = words.at(1);
    if what.eq_ignore_ascii_case(b"GET") && words.len() == 3 {
        let limit = cache.limit_bytes().to_string();
        let known = [
            ("save", ""),
            ("appendonly", "no"),
            ("maxmemory", &limit),
            ("maxmemory-policy", "allkeys-lru"),
        ];
        let found = known
            .iter()
            .find(|(name, _)| words.at(2).eq_ignore_ascii_case(name.as_bytes()));
        replies.array(if found.is_some() { 2 } else { 0 });
        if let Some((name, value)) = found {
            replies.bulk(name.as_bytes());
            replies.bulk(value.as_bytes());
        }
    } else if what.eq_ignore_ascii_case(b"RESETSTAT") && words.len() == 2 {
        server.reset();
        replies.simple("OK");
    } else {
        replies.error(format_args!(
            "ERR CONFIG GET and CONFIG RESETSTAT are all there is"
        ));
    }
    After::Next
}

/// Clients ask for descriptions of commands when they start, and do without.
fn command<S: Store>(
    _: &mut Cache<S>,
    _: &mut Server,
    _: Words<'_>,
    replies: &mut Replies,
) -> After {
    replies.array(0);
    After::Next
}

fn flushall<S: Store>(
    cache: &mut Cache<S>,
    _: &mut Server,
    _: Words<'_>,
    replies: &mut Replies,
) -> After {
    match cache.flush() {
        Ok(()) => replies.simple("OK"),
        Err(error) => replies.error(format_args!(
            "OOM no address space for an empty index: {error}"
        )),
    }
    After::Next
}

fn quit<S: Store>(_: &mut Cache<S>, _: &mut Server, _: Words<'_>, replies: &mut Replies) -> After {
    replies.simple("OK");
    After::Close
}

/// Nothing is saved; there is no reply, as with Redis.
fn shutdown<S: Store>(_: &mut Cache<S>, _: &mut Server, _: Words<'_>, _: &mut Replies) -> After {
    After::Shutdown
}
