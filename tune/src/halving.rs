//! Successive halving: which part of the traces how many candidates are tried on. The first rung is short and takes all of
//! them, each further one is longer and takes the better third, the last one is all traces, several rounds.

use crate::bench::{Part, Subject};

/// Of so many candidates one goes on to the next rung.
pub const SHARE: usize = 3;
/// Rounds on the last rung.
pub const ROUNDS: u32 = 3;
/// A first rung takes this part of the time that there is.
const FIRST: u64 = 80;

/// A step of halving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// What is replayed.
    pub parts: Vec<Part>,
    /// Rounds on each.
    pub rounds: u32,
}

/// The rungs for these traces, if the search may take `time_ns`.
pub fn rungs(subjects: &[Subject], time_ns: Option<u64>) -> Vec<Rung> {
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    order.sort_by_key(|at| (subjects[*at].round_ns, *at));
    let whole = |subject: usize| Part {
        subject,
        points: subjects[subject].points,
    };
    let mut rungs = Vec::new();
    let Some(shortest) = order.first().copied() else {
        return rungs;
    };
    let cheap_ns = time_ns.map_or(2_000_000_000, |time| (time / FIRST).min(2_000_000_000));
    let subject = &subjects[shortest];
    let parts = subject.round_ns.div_ceil(cheap_ns.max(1)).clamp(1, 32);
    if parts > 1 {
        let points = (subject.points / parts).max(1);
        let part = Part {
            subject: shortest,
            points,
        };
        rungs.push(Rung {
            parts: vec![part],
            rounds: 1,
        });
    }
    let mut count = 1;
    while count < order.len() {
        rungs.push(Rung {
            parts: order[..count].iter().map(|at| whole(*at)).collect(),
            rounds: 1,
        });
        count *= 2;
    }
    if order.len() == 1 {
        rungs.push(Rung {
            parts: vec![whole(shortest)],
            rounds: 1,
        });
    }
    let mut all: Vec<Part> = order.iter().map(|at| whole(*at)).collect();
    all.sort();
    rungs.push(Rung {
        parts: all,
        rounds: ROUNDS,
    });
    rungs
}

/// How many of so many go on.
pub fn kept(count: usize) -> usize {
    count.div_ceil(SHARE).max(2).min(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str, round_ns: u64) -> Subject {
        Subject {
            name: name.to_string(),
            title: String::new(),
            process: 0,
            checksum: name.to_string(),
            points: 1_000,
            operations: 1,
            round_ns,
        }
    }

    #[test]
    fn rungs_grow_from_a_part_of_the_shortest_to_all() {
        let second = 1_000_000_000;
        let three = [
            subject("a", 9 * second),
            subject("b", second),
            subject("c", 2 * second),
        ];
        let of = |rungs: &[Rung]| -> Vec<(Vec<(usize, u64)>, u32)> {
            let parts = |rung: &Rung| {
                rung.parts
                    .iter()
                    .map(|part| (part.subject, part.points))
                    .collect()
            };
            rungs
                .iter()
                .map(|rung| (parts(rung), rung.rounds))
                .collect()
        };
        let found = rungs(&three, Some(8 * second));
        let whole = vec![(0, 1_000), (1, 1_000), (2, 1_000)];
        let expected = vec![
            (vec![(1, 100)], 1),
            (vec![(1, 1_000)], 1),
            (vec![(1, 1_000), (2, 1_000)], 1),
            (whole, ROUNDS),
        ];
        assert_eq!(of(&found), expected);
        let one = rungs(&three[1..2], None);
        assert_eq!(
            of(&one),
            vec![(vec![(0, 1_000)], 1), (vec![(0, 1_000)], ROUNDS)]
        );
        assert_eq!(rungs(&[], None), vec![]);
        assert_eq!((kept(1), kept(5), kept(30)), (1, 2, 10));
    }
}
