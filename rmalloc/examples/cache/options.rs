//! The command line: what can be asked for, and what is wrong with what was asked. Nothing is done here.

use std::str::FromStr;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: cache [--allocator rmalloc|malloc] [--port PORT] [--limit BYTES] ...
       cache --drive --port PORT [--pid PID] [--limit BYTES] [--phases RANGES] ...

A key-value cache on 127.0.0.1 that speaks the Redis protocol (RESP2 and inline commands).

  --allocator NAME        where keys and values live: rmalloc (default), or malloc, the one of the process
  --port PORT             default 7379; 0 takes a free one; the first line of output names it
  --limit BYTES           of keys and values together, default 256M; the least recently used go first
  --value-max BYTES       longest key or value taken, default 1M
  --clients N             most connections, default 1000
  --step-us N             longest step of compaction, default 200 microseconds
  --compaction-share N    most percent of the time for compaction while requests come, default 10
  --slack N               percent of the allocator's memory without blocks above which that is done, default 4

With --drive it is the load for such a server, or for redis-server: fills it to the limit, then goes
through the phases; each writes TURNOVER times the limit and reads as often as it writes; then it rests
and takes a last mix. One line of JSON for each phase.

  --pid PID               the server's process: its resident bytes and CPU time are reported
  --phases RANGES         value sizes of the phases, default
                          100-300,150-500,60-200,60-200+1024-4096/20 (20 percent of the second range)
  --turnover X            default 1.5
  --mix N                 requests of the last mix, default 1000000
  --rest-ms N             default 2000
  --connections N         default 8
  --pipeline N            requests sent at once on each, default 16
  --seed N                default 1
";

/// Where keys and values live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocator {
    /// Handles of rmalloc.
    Rmalloc,
    /// Blocks of the process' malloc, whichever was preloaded.
    Malloc,
}

/// What a server is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Serve {
    /// Where keys and values live.
    pub allocator: Allocator,
    /// On 127.0.0.1; 0 for a free one.
    pub port: u16,
    /// Most bytes of keys and values.
    pub limit_bytes: u64,
    /// Longest key or value.
    pub value_bytes_max: usize,
    /// Most connections.
    pub clients_max: usize,
    /// Budget of one step of compaction.
    pub step_ns: u64,
    /// Most percent of the time for compaction while requests come.
    pub compaction_percent: u32,
    /// Percent of the allocator's memory without blocks that is left alone while requests come.
    pub slack_percent: u32,
}

/// What the load is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Drive {
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The server's process, for its resident bytes and CPU time.
    pub pid: Option<u32>,
    /// The server's limit.
    pub limit_bytes: u64,
    /// Value sizes of the phases, of which the first fills.
    pub phases: Vec<Sizes>,
    /// What a phase writes, over the limit.
    pub turnover: f64,
    /// Requests of the last mix.
    pub mix: u64,
    /// Rest before the last measurement.
    pub rest_ms: u64,
    /// Connections at once.
    pub connections: usize,
    /// Requests sent at once on each.
    pub pipeline: usize,
    /// Of every choice.
    pub seed: u64,
}

/// Sizes of values: a range, and for some percent of them a second one. Ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Least and greatest.
    pub range: (u32, u32),
    /// A second range and its percent.
    pub second: Option<(u32, u32, u32)>,
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no range of sizes such as 100-300 or 60-200+1024-4096/20");
        let range = |text: &str| -> Option<(u32, u32)> {
            let (low, high) = text.split_once('-')?;
            let (low, high) = (low.parse().ok()?, high.parse().ok()?);
            (1 <= low && low <= high && high < 1 << 30).then_some((low, high))
        };
        let Some((first, rest)) = text.split_once('+') else {
            let range = range(text).ok_or_else(wrong)?;
            return Ok(Sizes {
                range,
                second: None,
            });
        };
        let (second, percent) = rest.split_once('/').ok_or_else(wrong)?;
        let percent: u32 = percent.parse().map_err(|_| wrong())?;
        let (low, high) = range(second).ok_or_else(wrong)?;
        if percent > 100 {
            return Err(wrong());
        }
        Ok(Sizes {
            range: range(first).ok_or_else(wrong)?,
            second: Some((low, high, percent)),
        })
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Be a server.
    Serve(Serve),
    /// Be the load of one.
    Drive(Drive),
}

impl Command {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// Says which word is wrong.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Command, String> {
        let mut serve = Serve {
            allocator: Allocator::Rmalloc,
            port: 7379,
            limit_bytes: 256 << 20,
            value_bytes_max: 1 << 20,
            clients_max: 1000,
            step_ns: 200_000,
            compaction_percent: 10,
            slack_percent: 4,
        };
        let mut drive = Drive {
            port: 7379,
            pid: None,
            limit_bytes: 256 << 20,
            phases: Vec::new(),
            turnover: 1.5,
            mix: 1_000_000,
            rest_ms: 2000,
            connections: 8,
            pipeline: 16,
            seed: 1,
        };
        let mut phases = "100-300,150-500,60-200,60-200+1024-4096/20".to_string();
        let mut words = words.into_iter();
        // The first option that only one of the two takes decides nothing: `--drive` does.
        let (mut driving, mut served, mut driven) = (false, None, None);
        while let Some(name) = words.next() {
            match name.as_str() {
                "--help" | "-h" => return Ok(Command::Help),
                "--drive" => {
                    driving = true;
                    continue;
                }
                _ => {}
            }
            let Some(value) = words.next() else {
                return Err(format!(
                    "{name} needs a value, or is unknown; --help lists all"
                ));
            };
            let value = value.as_str();
            match name.as_str() {
                "--port" => serve.port = number(&name, value, 0, u16::MAX.into())? as u16,
                "--limit" => serve.limit_bytes = bytes(&name, value, 1 << 10, 1 << 40)?,
                "--allocator" => {
                    serve.allocator = match value {
                        "rmalloc" => Allocator::Rmalloc,
                        "malloc" => Allocator::Malloc,
                        _ => return Err(format!("--allocator {value}: rmalloc or malloc")),
                    }
                }
                "--value-max" => serve.value_bytes_max = bytes(&name, value, 16, 1 << 29)? as usize,
                "--clients" => serve.clients_max = number(&name, value, 1, 1 << 20)? as usize,
                "--step-us" => serve.step_ns = number(&name, value, 1, 1_000_000)? * 1000,
                "--compaction-share" => {
                    serve.compaction_percent = number(&name, value, 0, 90)? as u32
                }
                "--slack" => serve.slack_percent = number(&name, value, 0, 1000)? as u32,
                "--pid" => drive.pid = Some(number(&name, value, 1, u32::MAX.into())? as u32),
                "--phases" => phases = value.to_string(),
                "--turnover" => {
                    let turnover: f64 = value.parse().unwrap_or(f64::NAN);
                    if !(0.0..=1000.0).contains(&turnover) {
                        return Err(format!("--turnover {value}: a number from 0 to 1000"));
                    }
                    drive.turnover = turnover;
                }
                "--mix" => drive.mix = number(&name, value, 0, 1 << 40)?,
                "--rest-ms" => drive.rest_ms = number(&name, value, 0, 3_600_000)?,
                "--connections" => drive.connections = number(&name, value, 1, 1000)? as usize,
                "--pipeline" => drive.pipeline = number(&name, value, 1, 1000)? as usize,
                "--seed" => drive.seed = number(&name, value, 0, u64::MAX)?,
                _ => return Err(format!("{name} is unknown; --help lists all")),
            }
            match name.as_str() {
                "--port" | "--limit" => {}
                "--pid" | "--phases" | "--turnover" | "--mix" | "--rest-ms" | "--connections"
                | "--pipeline" | "--seed" => {
                    driven.get_or_insert(name);
                }
                _ => {
                    served.get_or_insert(name);
                }
            }
        }
        if let Some(name) = if driving { served } else { driven } {
            let other = if driving { "without" } else { "with" };
            return Err(format!("{name} goes {other} --drive only"));
        }
        if !driving {
            return Ok(Command::Serve(serve));
        }
        drive.port = serve.port;
        drive.limit_bytes = serve.limit_bytes;
        drive.phases = phases
            .split(',')
            .map(Sizes::from_str)
            .collect::<Result<_, _>>()?;
        Ok(Command::Drive(drive))
    }
}

/// A number from `least` to `most`.
fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, String> {
    let found = text.parse().ok().filter(|n| (least..=most).contains(n));
    found.ok_or_else(|| format!("{name} {text}: a number from {least} to {most}"))
}

/// A number of bytes, which may end in K, M or G (powers of 1024).
fn bytes(name: &str, text: &str, least: u64, most: u64) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let found = digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift));
    let found = found.filter(|n| (least..=most).contains(n));
    found.ok_or_else(|| {
        format!("{name} {text}: bytes from {least} to {most}, K, M and G may follow")
    })
}
