//! Every command and every kind of malformed input, over the port.

use crate::harness::{Client, Reply, Server, bulk, ok, request};

fn with_both(test: impl Fn(&str)) {
    for allocator in ["malloc", "rmalloc"] {
        test(allocator);
    }
}

fn error(reply: Reply) -> String {
    match reply {
        Reply::Error(text) => text,
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn commands_answer() {
    with_both(|allocator| {
        let server = Server::start(allocator, &["--limit", "4M"]);
        let mut client = server.client();
        assert_eq!(client.ask(&["PING"]), Reply::Simple("PONG".into()));
        assert_eq!(client.ask(&["PING", "hello"]), bulk("hello"));
        assert_eq!(client.ask(&["ECHO", "hello"]), bulk("hello"));
        assert_eq!(client.ask(&["GET", "a"]), Reply::Nil);
        assert_eq!(client.ask(&["SET", "a", "1"]), ok());
        assert_eq!(client.ask(&["set", "b", "22"]), ok());
        assert_eq!(client.ask(&["Set", "", ""]), ok());
        assert_eq!(client.ask(&["GET", "a"]), bulk("1"));
        assert_eq!(client.ask(&["GET", ""]), bulk(""));
        assert_eq!(client.ask(&["SET", "a", "another"]), ok());
        assert_eq!(client.ask(&["GET", "a"]), bulk("another"));
        assert_eq!(client.ask(&["STRLEN", "a"]), Reply::Integer(7));
        assert_eq!(client.ask(&["STRLEN", "none"]), Reply::Integer(0));
        assert_eq!(
            client.ask(&["MGET", "a", "none", "b"]),
            Reply::Array(vec![bulk("another"), Reply::Nil, bulk("22")])
        );
        assert_eq!(client.ask(&["EXISTS", "a", "none", "a"]), Reply::Integer(2));
        assert_eq!(client.ask(&["DBSIZE"]), Reply::Integer(3));
        assert_eq!(client.info("live_bytes"), 8 + 3);
        assert_eq!(client.ask(&["DEL", "a", "none", "a"]), Reply::Integer(1));
        assert_eq!(client.ask(&["SELECT", "0"]), ok());
        assert!(error(client.ask(&["SELECT", "1"])).starts_with("ERR"));
        assert_eq!(client.ask(&["COMMAND", "DOCS"]), Reply::Array(vec![]));
        assert_eq!(
            client.ask(&["CONFIG", "GET", "save"]),
            Reply::Array(vec![bulk("save"), bulk("")])
        );
        assert_eq!(
            client.ask(&["CONFIG", "GET", "colour"]),
            Reply::Array(vec![])
        );
        assert_eq!(client.ask(&["CONFIG", "RESETSTAT"]), ok());
        assert_eq!(client.ask(&["FLUSHALL"]), ok());
        assert_eq!(client.ask(&["DBSIZE"]), Reply::Integer(0));
        assert_eq!(client.ask(&["GET", "b"]), Reply::Nil);
        assert_eq!(client.info("live_bytes"), 0);

        let wrong = "ERR wrong number of arguments for 'get' command";
        assert_eq!(error(client.ask(&["GET"])), wrong);
        assert_eq!(error(client.ask(&["GET", "a", "b"])), wrong);
        assert!(error(client.ask(&["SET", "a", "1", "EX", "5"])).starts_with("ERR wrong number"));
        assert_eq!(
            error(client.ask(&["a\r\nb"])),
            "ERR unknown command 'a\\r\\nb'"
        );

        assert_eq!(client.ask(&["QUIT"]), ok());
        assert_eq!(client.try_reply(), None);
        let mut last = server.client();
        last.send(b"PING\r\nSHUTDOWN NOSAVE\r\nPING\r\n");
        assert_eq!(last.try_reply(), Some(Reply::Simple("PONG".into())));
        assert_eq!(last.try_reply(), None);
        assert!(server.end().success());
    });
}

#[test]
fn inline_commands_and_pipelines_answer_in_order() {
    with_both(|allocator| {
        let server = Server::start(allocator, &[]);
        let mut client = server.client();
        client.send(b"SET key value\r\n\r\nGET key\n*0\r\n  GET   none \r\n");
        assert_eq!(
            [client.reply(), client.reply(), client.reply()],
            [ok(), bulk("value"), Reply::Nil]
        );

        let mut all = Vec::new();
        for n in 0..5000 {
            let (key, value) = (format!("key {n}"), "v".repeat(n % 300));
            all.extend(request(&[b"SET", key.as_bytes(), value.as_bytes()]));
            all.extend(request(&[b"GET", key.as_bytes()]));
            if n % 100 == 0 {
                all.extend(request(&[b"nonsense"]));
            }
        }
        // In pieces that end anywhere.
        let mut rest = all.as_slice();
        for n in 0.. {
            let (piece, after) = rest.split_at(rest.len().min(1 + n * 7919 % 100_000));
            client.send(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        for n in 0..5000 {
            assert_eq!(client.reply(), ok());
            assert_eq!(client.reply(), bulk("v".repeat(n % 300)));
            if n % 100 == 0 {
                error(client.reply());
            }
        }
    });
}

#[test]
fn single_bytes_make_a_request() {
    let server = Server::start("malloc", &[]);
    let mut client = server.client();
    for byte in request(&[b"SET", b"a", b"\r\n$3\r\n"]) {
        client.send(&[byte]);
    }
    assert_eq!(client.reply(), ok());
    assert_eq!(client.ask(&["GET", "a"]), bulk("\r\n$3\r\n"));
}

#[test]
fn large_values_come_back() {
    with_both(|allocator| {
        let server = Server::start(allocator, &["--limit", "64M", "--value-max", "8M"]);
        let mut client = server.client();
        let value: Vec<u8> = (0..8u32 << 20)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for bytes in [0, 1, 15, 16, 17, 4095, 65_535, 65_536, 1 << 20, 8 << 20] {
            assert_eq!(client.ask(&[b"SET", &b"large"[..], &value[..bytes]]), ok());
            assert_eq!(client.ask(&["GET", "large"]), bulk(&value[..bytes]));
        }
        // More than the client takes at once: the server waits for it, and serves others meanwhile.
        let mut slow = server.client();
        for _ in 0..20 {
            slow.send(&request(&[b"GET", b"large"]));
        }
        let mut other = server.client();
        for _ in 0..100 {
            assert_eq!(other.ask(&["STRLEN", "large"]), Reply::Integer(8 << 20));
        }
        for _ in 0..20 {
            assert_eq!(slow.reply(), bulk(&value));
        }
        let mut many = vec!["large"; 10];
        many[0] = "MGET";
        assert!(error(client.ask(&many)).starts_with("ERR the values are more than"));
        assert_eq!(client.ask(&["PING"]), Reply::Simple("PONG".into()));
    });
}

#[test]
fn values_above_the_limit_are_refused() {
    with_both(|allocator| {
        let server = Server::start(allocator, &["--limit", "1K"]);
        let mut client = server.client();
        assert_eq!(client.ask(&["SET", "a", "kept"]), ok());
        assert_eq!(
            error(client.ask(&["SET", "a", &"x".repeat(1024)])),
            "ERR key and value are above the limit of 1024 bytes"
        );
        assert_eq!(client.ask(&["GET", "a"]), bulk("kept"));
        // One that just fits takes all the room.
        assert_eq!(client.ask(&["SET", "b", &"x".repeat(1023)]), ok());
        assert_eq!(client.ask(&["GET", "a"]), Reply::Nil);
        assert_eq!(client.info("live_bytes"), 1024);
        assert_eq!(client.info("evicted_keys"), 1);
    });
}

#[test]
fn malformed_input_ends_the_connection_alone() {
    with_both(|allocator| {
        let server = Server::start(allocator, &["--value-max", "1K"]);
        let mut other = server.client();
        assert_eq!(other.ask(&["SET", "a", "1"]), ok());
        for (input, wrong) in [
            (
                &b"*1\r\n:1\r\n"[..],
                "ERR Protocol error: expected '$', got ':'",
            ),
            (
                b"*abc\r\n",
                "ERR Protocol error: the number of words is not a number",
            ),
            (b"*100000\r\n", "ERR Protocol error: more than 1024 words"),
            (
                b"*1\r\n$-5\r\n",
                "ERR Protocol error: the length of a word is not a number",
            ),
            (
                b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1025\r\n",
                "ERR Protocol error: a word is longer than 1024 bytes",
            ),
            (
                b"*1\r\n$4\r\nPINGPING\r\n",
                "ERR Protocol error: no line end after a word",
            ),
        ] {
            // What came before is answered.
            let mut client = server.client();
            client.send(&[&b"GET a\r\n"[..], input].concat());
            assert_eq!(client.reply(), bulk("1"));
            assert_eq!(error(client.reply()), wrong);
            assert_eq!(client.try_reply(), None);
            assert_eq!(other.ask(&["GET", "a"]), bulk("1"));
        }
        // Half a request and away.
        let mut client = server.client();
        client.send(b"*2\r\n$3\r\nGE");
        drop(client);
        assert_eq!(other.ask(&["GET", "a"]), bulk("1"));
    });
}

#[test]
fn too_many_clients_are_told() {
    let server = Server::start("malloc", &["--clients", "2"]);
    let mut first = server.client();
    let mut second = server.client();
    assert_eq!(first.ask(&["PING"]), second.ask(&["PING"]));
    let mut third = server.client();
    assert_eq!(
        third.try_reply(),
        Some(Reply::Error("ERR max number of clients reached".into()))
    );
    assert_eq!(third.try_reply(), None);
    assert_eq!(first.ask(&["QUIT"]), ok());
    assert_eq!(first.try_reply(), None);
    let ping = |client: &mut Client| client.ask(&["PING"]);
    assert_eq!(ping(&mut server.client()), ping(&mut second));
}
