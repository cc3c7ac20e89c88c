//! The protocol by which threads lock, move and free blocks without locks, proved for small cases by looking at all runs of
//! a small machine under x86-TSO, and the other way round: each rule of it is needed, since without it a run goes wrong.
//! Small: up to three threads, one block of two words at four places, two records, a region of three slots; each thread
//! makes one to four calls. What needs more than that to go wrong is not seen. Contents of the program's own calls, tables,
//! books and forks are left to other tests; `tests/fences.rs` has the core of it under the memory model of Rust.
//!
//! What each modelled step stands for is named in the programs (`about`), by its function in src/. The files:
//! `machine` is the memory model, `explore` walks the runs, `owner`, `other`, `mover`, `resizer` and `lists` are what threads
//! do, `protocol` the rules, `mutation` what is left out of them, `scenario` who does what at once.

#[path = "protocol/explore.rs"]
mod explore;
#[path = "protocol/lists.rs"]
mod lists;
#[path = "protocol/machine.rs"]
mod machine;
#[path = "protocol/mover.rs"]
mod mover;
#[path = "protocol/mutation.rs"]
mod mutation;
#[path = "protocol/other.rs"]
mod other;
#[path = "protocol/owner.rs"]
mod owner;
#[path = "protocol/protocol.rs"]
mod protocol;
#[path = "protocol/resizer.rs"]
mod resizer;
#[path = "protocol/scenario.rs"]
mod scenario;
#[path = "protocol/words.rs"]
mod words;

use explore::explore;
use mutation::MUTATIONS;
use protocol::Protocol;
use scenario::SCENARIOS;

/// No scenario goes wrong in any run.
fn holds(c: &Protocol) {
    let mut states = 0;
    for (name, machine) in SCENARIOS {
        let outcome = explore(&machine(c));
        println!("{:>9} states: {name}", outcome.states);
        states += outcome.states;
        if let Some((what, story)) = outcome.violation {
            panic!("{name}: {what}\n{story}");
        }
    }
    println!("{states:>9} states in all");
}

#[test]
fn the_protocol_holds_with_a_barrier() {
    holds(&Protocol::REAL);
}

/// Where the system has no barrier: each thread passes one of its own.
#[test]
fn the_protocol_holds_with_fences() {
    holds(&Protocol {
        fenced: true,
        ..Protocol::REAL
    });
}

/// Without any one rule of it some run goes wrong: the explorer sees, and the rules are needed.
#[test]
fn each_rule_of_the_protocol_is_needed() {
    for (what, leave_out, machine) in MUTATIONS {
        let mut c = Protocol::REAL;
        leave_out(&mut c);
        let Some((wrong, story)) = explore(&machine(&c)).violation else {
            panic!("nothing goes wrong if {what}")
        };
        println!("{what}: {wrong}, after {} steps", story.lines().count());
    }
}
