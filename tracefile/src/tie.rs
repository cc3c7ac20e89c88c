//! The order of events that threads of one process have at the same tick.
//!
//! The stored time can't tell which came first; the addresses can. An event is *judged* if another
//! thread of the tie is concerned with the same address. Of the orders that keep each thread's own
//! and in which every judged release finds a block and every judged allocation none, the first is
//! taken, in the order of the thread numbers. True events always have such an order: their own.

use rmtrace_format::event::{Event, Step};
use std::collections::{HashMap, HashSet};

/// Steps that the search may take for each event before it gives up.
const SEARCH_STEPS: usize = 64;

/// What a step does to an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing that could be judged.
    None,
    /// A block must be there and is gone after it.
    Release(u64),
    /// No block may be there; there is one after it.
    Occupy(u64),
}

fn effect(event: &Event) -> Effect {
    let (address, occupies) = match event.step {
        Step::Free => (event.address, false),
        Step::ReallocBegin => (event.old_address, false),
        Step::Alloc => (event.address, true),
        // A failed realloc puts its block back.
        Step::ReallocEnd if event.failed() => (event.old_address, true),
        Step::ReallocEnd => (event.address, true),
    };
    match (address, occupies) {
        (0, _) => Effect::None,
        (address, true) => Effect::Occupy(address),
        (address, false) => Effect::Release(address),
    }
}

/// Whether no event is judged: then the threads' events may follow each other thread by thread.
/// `ends` has the range in `events` of each thread.
pub(crate) fn is_harmless(events: &[Event], ends: &[(usize, usize)]) -> bool {
    /// Events that are compared each with each.
    const FEW: usize = 24;
    if events.len() > FEW {
        return false; // The search finds out.
    }
    let range = |(from, to): (usize, usize)| events.get(from..to).unwrap_or_default();
    let address = |event: &Event| match effect(event) {
        Effect::None => 0,
        Effect::Release(address) | Effect::Occupy(address) => address,
    };
    ends.iter().enumerate().all(|(n, earlier)| {
        range(*earlier).iter().map(address).all(|wanted| {
            wanted == 0
                || ends[n + 1..]
                    .iter()
                    .flat_map(|later| range(*later))
                    .all(|event| address(event) != wanted)
        })
    })
}

/// Finds the order of `lists`, the tied events of each thread: which list is next, for each event.
/// `is_live` tells whether a block is there before the tie, `None` that nobody knows. The second
/// result is false if no order fits.
pub(crate) fn order(
    lists: &[&[Event]],
    mut is_live: impl FnMut(u64) -> Option<bool>,
) -> (Vec<usize>, bool) {
    let mut effects: Vec<Vec<Effect>> = lists
        .iter()
        .map(|list| list.iter().map(effect).collect())
        .collect();
    let mut owners: HashMap<u64, Option<usize>> = HashMap::new();
    for (n, list) in effects.iter().enumerate() {
        for effect in list {
            if let Effect::Release(address) | Effect::Occupy(address) = effect {
                let owner = owners.entry(*address).or_insert(Some(n));
                if *owner != Some(n) {
                    *owner = None;
                }
            }
        }
    }
    owners.retain(|_, owner| owner.is_none());
    if owners.is_empty() {
        let one_after_other = lists
            .iter()
            .enumerate()
            .flat_map(|(n, list)| std::iter::repeat_n(n, list.len()));
        return (one_after_other.collect(), true);
    }
    let mut live: HashMap<u64, bool> = HashMap::new();
    for address in owners.keys() {
        match is_live(*address) {
            Some(is_live) => drop(live.insert(*address, is_live)),
            None => return (frees_first(&effects, &owners), true),
        }
    }
    for effect in effects.iter_mut().flatten() {
        if let Effect::Release(address) | Effect::Occupy(address) = effect
            && !owners.contains_key(address)
        {
            *effect = Effect::None;
        }
    }
    match search(&effects, &mut live.clone()) {
        Some(found) => (found, true),
        None => (greedy(&effects, &mut live), false),
    }
}

fn fits(effect: Effect, live: &HashMap<u64, bool>) -> bool {
    match effect {
        Effect::None => true,
        Effect::Release(address) => live.get(&address) == Some(&true),
        Effect::Occupy(address) => live.get(&address) == Some(&false),
    }
}

fn apply(effect: Effect, live: &mut HashMap<u64, bool>) {
    match effect {
        Effect::None => {}
        Effect::Release(address) => drop(live.insert(address, false)),
        Effect::Occupy(address) => drop(live.insert(address, true)),
    }
}

/// Depth first, in the order of the lists. The table depends only on how far each list is, so a
/// combination of positions that failed once is not tried again.
fn search(effects: &[Vec<Effect>], live: &mut HashMap<u64, bool>) -> Option<Vec<usize>> {
    let total: usize = effects.iter().map(Vec::len).sum();
    let mut positions = vec![0; effects.len()];
    let mut taken: Vec<usize> = Vec::with_capacity(total);
    let mut failed: HashSet<Vec<usize>> = HashSet::new();
    let mut candidate = 0;
    for _ in 0..total.saturating_mul(SEARCH_STEPS) {
        if taken.len() == total {
            return Some(taken);
        }
        let next = (candidate..effects.len()).find(|n| {
            let effect = effects[*n].get(positions[*n]);
            effect.is_some_and(|effect| fits(*effect, live)) && {
                positions[*n] += 1;
                let is_new = !failed.contains(&positions);
                positions[*n] -= 1;
                is_new
            }
        });
        match next {
            Some(n) => {
                apply(effects[n][positions[n]], live);
                positions[n] += 1;
                taken.push(n);
                candidate = 0;
            }
            None => {
                failed.insert(positions.clone());
                let n = taken.pop()?;
                positions[n] -= 1;
                // What a fitting step did is undone by its opposite.
                match effects[n][positions[n]] {
                    Effect::None => {}
                    Effect::Release(address) => apply(Effect::Occupy(address), live),
                    Effect::Occupy(address) => apply(Effect::Release(address), live),
                }
                candidate = n + 1;
            }
        }
    }
    (taken.len() == total).then_some(taken)
}

/// At each step the first list whose event fits, else the first.
fn greedy(effects: &[Vec<Effect>], live: &mut HashMap<u64, bool>) -> Vec<usize> {
    let mut heads = Heads::new(effects);
    while let Some(first) = heads.first() {
        let n = heads.find(|effect| fits(effect, live)).unwrap_or(first);
        apply(heads.take(n), live);
    }
    heads.taken
}

/// At each step the first list whose event is not a judged allocation, else the first.
fn frees_first(effects: &[Vec<Effect>], judged: &HashMap<u64, Option<usize>>) -> Vec<usize> {
    let mut heads = Heads::new(effects);
    while let Some(first) = heads.first() {
        let goes = |effect| !matches!(effect, Effect::Occupy(a) if judged.contains_key(&a));
        let n = heads.find(goes).unwrap_or(first);
        heads.take(n);
    }
    heads.taken
}

/// The next event of each list.
struct Heads<'a> {
    effects: &'a [Vec<Effect>],
    positions: Vec<usize>,
    taken: Vec<usize>,
}

impl<'a> Heads<'a> {
    fn new(effects: &'a [Vec<Effect>]) -> Self {
        Heads {
            effects,
            positions: vec![0; effects.len()],
            taken: Vec::new(),
        }
    }

    fn find(&self, accept: impl Fn(Effect) -> bool) -> Option<usize> {
        (0..self.effects.len()).find(|n| {
            let effect = self.effects[*n].get(self.positions[*n]);
            effect.is_some_and(|effect| accept(*effect))
        })
    }

    fn first(&self) -> Option<usize> {
        self.find(|_| true)
    }

    fn take(&mut self, n: usize) -> Effect {
        let effect = self.effects[n][self.positions[n]];
        self.positions[n] += 1;
        self.taken.push(n);
        effect
    }
}
