//! Walks all runs of a [`Machine`], depth first, each state once, and tells the way to the first that is wrong.
//!
//! States are remembered by 128 bits of hash: with ten million of them the odds of overlooking one are below 1 in 10^24.

use crate::machine::{Machine, State, Step, Verdict};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Two 64-bit hashes at once.
#[derive(Default)]
struct Twin(u64, u64);

impl Hasher for Twin {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(word);
            let product = (self.0 ^ word) as u128 * 0x9e37_79b9_7f4a_7c15;
            self.0 = (product as u64) ^ (product >> 64) as u64;
            let product = (self.1.rotate_left(23) ^ word).wrapping_add(0x1656_67b1_9e37_79f9)
                as u128
                * 0xc2b2_ae3d_27d4_eb4f;
            self.1 = (product as u64) ^ (product >> 64) as u64;
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A hash is its own hash.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u128 is hashed");
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn fingerprint(state: &State) -> u128 {
    let mut hasher = Twin::default();
    state.hash(&mut hasher);
    (hasher.0 as u128) << 64 | hasher.1 as u128
}

/// What was found.
pub struct Outcome {
    /// Different states.
    pub states: usize,
    /// What is wrong, and the steps that lead there.
    pub violation: Option<(&'static str, String)>,
}

struct Frame {
    step: Option<Step>,
    next: Vec<(Step, State, Verdict)>,
}

/// Walks all runs, or until something is wrong.
pub fn explore(machine: &Machine) -> Outcome {
    let mut seen: HashSet<u128, BuildHasherDefault<Same>> = HashSet::default();
    let mut path: Vec<Frame> = Vec::new();
    let mut enter = Some((None, machine.first.clone(), Ok(())));
    loop {
        if let Some((step, state, verdict)) = enter.take() {
            if verdict.is_ok() && !seen.insert(fingerprint(&state)) {
                continue;
            }
            let mut next = Vec::new();
            let verdict = verdict
                .and_then(|()| (machine.always)(&state))
                .and_then(|()| {
                    machine.successors(&state, |step, state, verdict| {
                        next.push((step, state, verdict))
                    });
                    match (next.is_empty(), machine.is_over(&state)) {
                        (true, true) => (machine.finally)(&state),
                        (true, false) => Err("threads wait for each other for good"),
                        _ => Ok(()),
                    }
                });
            path.push(Frame { step, next });
            if let Err(what) = verdict {
                let violation = Some((what, tell(machine, &path)));
                return Outcome {
                    states: seen.len(),
                    violation,
                };
            }
        }
        let Some(frame) = path.last_mut() else {
            return Outcome {
                states: seen.len(),
                violation: None,
            };
        };
        match frame.next.pop() {
            Some((step, state, verdict)) => enter = Some((Some(step), state, verdict)),
            None => {
                path.pop();
            }
        }
    }
}

fn tell(machine: &Machine, path: &[Frame]) -> String {
    let mut text = String::new();
    for step in path.iter().filter_map(|frame| frame.step) {
        let name = machine.programs[step.thread].name;
        let word = step.word.map_or(String::new(), |(word, value)| {
            format!(" [{}] {value:#x}", crate::words::name(word))
        });
        text += &format!("{name:>9}: {}{word}   {}\n", step.what, step.source);
    }
    text
}
