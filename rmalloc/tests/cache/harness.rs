//! A server of the example in a process of its own, and a plain client for it.

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// What no answer takes as long as; a server that hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// The example, built once as the tests were: `cargo test --test cache` alone builds no example.
fn example() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args([
            "build",
            "--package",
            "rmalloc",
            "--example",
            "cache",
            "--message-format=json",
        ]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let output = cargo.output().expect("cargo runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo build failed:\n{errors}");
        let answer = String::from_utf8_lossy(&output.stdout);
        let rest = answer.split("\"executable\":\"").skip(1);
        let mut paths = rest
            .filter_map(|rest| rest.split('"').next())
            .map(PathBuf::from);
        paths
            .find(|path| path.ends_with("examples/cache"))
            .expect("cargo names the example it built")
    })
}

/// A server that runs until it is dropped.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts one on a free port.
    pub fn start(allocator: &str, more: &[&str]) -> Server {
        let mut command = Command::new(example());
        command
            .args(["--allocator", allocator, "--port", "0"])
            .args(more);
        // A test that is killed leaves no server behind.
        // SAFETY: prctl may be called between fork and exec; it takes no pointer here.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it was piped");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("it says where it listens");
        assert!(
            line.starts_with(&format!("cache: {allocator} on 127.0.0.1:")),
            "{line:?}"
        );
        let port = line
            .rsplit(':')
            .next()
            .and_then(|port| port.trim().parse().ok());
        Server {
            child,
            port: port.expect("a port"),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new client.
    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client {
            replies: BufReader::new(stream.try_clone().expect("a second descriptor")),
            stream,
        }
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A reply.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
}

impl Debug for Reply {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reply::Simple(text) => write!(out, "+{text}"),
            Reply::Error(text) => write!(out, "-{text}"),
            Reply::Integer(n) => write!(out, ":{n}"),
            Reply::Bulk(bytes) => write!(
                out,
                "{} bytes \"{}\"",
                bytes.len(),
                bytes[..bytes.len().min(80)].escape_ascii()
            ),
            Reply::Nil => out.write_str("nil"),
            Reply::Array(replies) => replies.fmt(out),
        }
    }
}

/// `+OK`
pub fn ok() -> Reply {
    Reply::Simple("OK".to_string())
}

/// A string.
pub fn bulk(bytes: impl AsRef<[u8]>) -> Reply {
    Reply::Bulk(bytes.as_ref().to_vec())
}

/// A request as an array of strings.
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Client {
    /// Sends any bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends a request and waits for its reply.
    pub fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Reply {
        let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
        self.send(&request(&words));
        self.reply()
    }

    /// The next reply.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply, not the end")
    }

    /// The next reply; `None` at the end of the connection.
    pub fn try_reply(&mut self) -> Option<Reply> {
        let mut line = Vec::new();
        self.replies
            .read_until(b'\n', &mut line)
            .expect("a reply in time");
        if line.is_empty() {
            return None;
        }
        assert!(line.ends_with(b"\r\n"), "{}", line.escape_ascii());
        let text = String::from_utf8(line[1..line.len() - 2].to_vec()).expect("text");
        let number = || text.parse::<i64>().expect("a number");
        Some(match line[0] {
            b'+' => Reply::Simple(text),
            b'-' => Reply::Error(text),
            b':' => Reply::Integer(number()),
            b'*' => Reply::Array((0..number()).map(|_| self.reply()).collect()),
            b'$' if text == "-1" => Reply::Nil,
            b'$' => {
                let mut bytes = vec![0; number() as usize + 2];
                self.replies
                    .read_exact(&mut bytes)
                    .expect("the whole string");
                assert_eq!(bytes.split_off(bytes.len() - 2), b"\r\n");
                Reply::Bulk(bytes)
            }
            other => panic!("no reply starts with {}", other.escape_ascii()),
        })
    }

    /// One number of INFO.
    pub fn info(&mut self, name: &str) -> u64 {
        let Reply::Bulk(text) = self.ask(&["INFO"]) else {
            panic!("INFO is a string");
        };
        let text = String::from_utf8(text).expect("text");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {text}"))
    }
}
