//! The server against a model of it: every reply to 10,000 random operations, with values that grow and shrink and a limit
//! that makes the oldest go.

use crate::harness::{Reply, Server, bulk, ok, request};
use std::collections::HashMap;

const LIMIT_BYTES: usize = 64 << 10;
const OPERATIONS: usize = 10_000;

/// A cache as slow and obvious as can be.
#[derive(Default)]
struct Model {
    values: HashMap<String, Vec<u8>>,
    /// Oldest first.
    order: Vec<String>,
    evictions: u64,
}

impl Model {
    fn live_bytes(&self) -> usize {
        self.values
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum()
    }

    fn forget(&mut self, key: &str) -> bool {
        self.order.retain(|other| other != key);
        self.values.remove(key).is_some()
    }

    fn use_now(&mut self, key: &str) {
        if self.values.contains_key(key) {
            self.order.retain(|other| other != key);
            self.order.push(key.to_string());
        }
    }

    fn get(&mut self, key: &str) -> Reply {
        self.use_now(key);
        self.values.get(key).map_or(Reply::Nil, bulk)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Reply {
        self.values.insert(key.to_string(), value.to_vec());
        self.use_now(key);
        while self.live_bytes() > LIMIT_BYTES {
            let oldest = self.order[0].clone();
            self.forget(&oldest);
            self.evictions += 1;
        }
        ok()
    }
}

/// Numbers that look random (xorshift), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }
}

fn compare(allocator: &str) {
    let limit = LIMIT_BYTES.to_string();
    let server = Server::start(allocator, &["--limit", &limit]);
    let mut client = server.client();
    let mut model = Model::default();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut done = 0;
    while done < OPERATIONS {
        // Sizes drift: short, long, short.
        let longest = [100, 3000, 300][done * 3 / OPERATIONS];
        let mut sent = Vec::new();
        let mut wanted = Vec::new();
        for _ in 0..1 + random.below(50) {
            let key = format!("key:{}", random.below(400));
            let name = key.as_bytes();
            match random.below(20) {
                0..9 => {
                    let value: Vec<u8> = (0..random.below(longest))
                        .map(|_| random.below(256) as u8)
                        .collect();
                    sent.extend(request(&[b"SET", name, &value]));
                    wanted.push(model.set(&key, &value));
                }
                9..16 => {
                    sent.extend(request(&[b"GET", name]));
                    wanted.push(model.get(&key));
                }
                16..18 => {
                    sent.extend(request(&[b"DEL", name]));
                    wanted.push(Reply::Integer(model.forget(&key).into()));
                }
                18 => {
                    sent.extend(request(&[b"STRLEN", name]));
                    let bytes = model.values.get(&key).map_or(0, Vec::len);
                    wanted.push(Reply::Integer(bytes as i64));
                }
                _ => {
                    sent.extend(request(&[b"DBSIZE"]));
                    wanted.push(Reply::Integer(model.values.len() as i64));
                }
            }
        }
        client.send(&sent);
        for reply in &wanted {
            assert_eq!(&client.reply(), reply, "after {done} operations");
            done += 1;
        }
    }
    assert_eq!(client.info("live_bytes"), model.live_bytes() as u64);
    assert_eq!(client.info("evicted_keys"), model.evictions);
    assert!(model.evictions > 100);
    for key in model.order.clone() {
        assert_eq!(client.ask(&["GET", &key]), model.get(&key));
    }
}

#[test]
fn malloc_equals_the_model() {
    compare("malloc");
}

#[test]
fn rmalloc_equals_the_model() {
    compare("rmalloc");
}
