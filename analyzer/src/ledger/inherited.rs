//! Live blocks that a forked process took over: the parent's at the fork, shared between all that
//! inherit them. What a process changes is its own; what a parent changes between two forks becomes
//! a thin layer over what the earlier children see. A process that never forks pays nothing.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Hash of an address: one multiplication, both halves of the product.
#[derive(Clone, Copy, Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

type ByAddress = BuildHasherDefault<AddressHasher>;

/// What a layer says of an address: the bytes of the block there, or [`GONE`].
pub(crate) type Layer = HashMap<u64, u64, ByAddress>;

/// Changes after which a whole copy is made, at least.
const JOURNAL_MIN: usize = if cfg!(test) { 8 } else { 1024 };

/// No block lives at this address.
pub(crate) const GONE: u64 = u64::MAX;

/// Layers of changes, the oldest first. A layer has more than twice as many entries as the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers(Vec<Arc<Layer>>);

impl Layers {
    /// Bytes of the block at `address`.
    pub fn get(&self, address: u64) -> Option<u64> {
        let said = self.0.iter().rev().find_map(|layer| layer.get(&address));
        said.copied().filter(|bytes| *bytes != GONE)
    }

    /// Puts newer changes over the layers. What others hold of the old layers stays as it is.
    pub fn push(&mut self, mut newer: Layer) {
        if newer.is_empty() {
            return;
        }
        while let Some(below) = self.0.last() {
            if below.len() > 2 * newer.len() {
                break;
            }
            let mut merged = Layer::clone(below);
            merged.extend(newer);
            newer = merged;
            self.0.pop();
        }
        if self.0.is_empty() {
            newer.retain(|_, bytes| *bytes != GONE);
        }
        self.0.push(Arc::new(newer));
    }
}

/// The blocks that a process inherited and that still lie where its parent had them.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    layers: Layers,
    /// Addresses of blocks that are there no more.
    removed: HashSet<u64, ByAddress>,
    /// Blocks that are left, and their bytes.
    left: (u64, u64),
}

impl Inherited {
    /// `left` blocks and bytes, described by `layers`.
    pub fn new(layers: Layers, left: (u64, u64)) -> Inherited {
        Inherited {
            layers,
            removed: HashSet::default(),
            left,
        }
    }

    /// Blocks and bytes that are left.
    pub fn left(&self) -> (u64, u64) {
        self.left
    }

    /// Bytes of the inherited block at `address`.
    pub fn get(&self, address: u64) -> Option<u64> {
        if self.left.0 == 0 {
            return None;
        }
        self.layers
            .get(address)
            .filter(|_| !self.removed.contains(&address))
    }

    /// Takes the inherited block at `address` out; its bytes.
    pub fn take(&mut self, address: u64) -> Option<u64> {
        let bytes = self.get(address)?;
        self.left = (self.left.0.wrapping_sub(1), self.left.1.wrapping_sub(bytes));
        if self.left.0 == 0 {
            self.layers = Layers::default();
            self.removed = HashSet::default();
        } else {
            self.removed.insert(address);
        }
        Some(bytes)
    }
}

/// What a process that has forked shares with its children, and where it has changed since.
#[derive(Debug)]
struct Shared {
    layers: Layers,
    /// Addresses whose block changed since `layers` was complete, in any order, repeated or not.
    journal: Vec<u64>,
    /// Entries at which a new whole copy costs less than going on.
    journal_max: usize,
}

/// A process as a parent.
#[derive(Debug, Default)]
pub(crate) struct Forks {
    shared: Option<Shared>,
}

impl Forks {
    /// Whether changes are to be told.
    pub fn watching(&self) -> bool {
        self.shared.is_some()
    }

    /// The block at `address` changed. Returns whether more changes are to be told.
    pub fn touch(&mut self, address: u64) -> bool {
        let Some(shared) = &mut self.shared else {
            return false;
        };
        shared.journal.push(address);
        if shared.journal.len() > shared.journal_max {
            self.shared = None;
        }
        self.shared.is_some()
    }

    /// The live blocks as they are now, for a child to inherit.
    ///
    /// `own` are the blocks of the process itself, `at` tells what lives at an address, `aside` are
    /// blocks that have no place at the moment (within a realloc): a child has them where they were.
    pub fn share(
        &mut self,
        inherited: Option<&Inherited>,
        own: impl Iterator<Item = (u64, u64)>,
        at: impl Fn(u64) -> Option<u64>,
        aside: impl Iterator<Item = (u64, u64)>,
    ) -> Layers {
        let mut changes = Layer::default();
        let mut shared = match self.shared.take() {
            Some(mut shared) => {
                for address in shared.journal.drain(..) {
                    changes.insert(address, at(address).unwrap_or(GONE));
                }
                shared
            }
            None => {
                let mut layers = Layers::default();
                if let Some(inherited) = inherited {
                    layers = inherited.layers.clone();
                    changes.extend(inherited.removed.iter().map(|address| (*address, GONE)));
                }
                changes.extend(own);
                Shared {
                    layers,
                    journal: Vec::new(),
                    journal_max: changes.len() / 4 + JOURNAL_MIN,
                }
            }
        };
        for (address, bytes) in aside {
            changes.insert(address, bytes);
            shared.journal.push(address);
        }
        shared.layers.push(changes);
        let layers = shared.layers.clone();
        self.shared = Some(shared);
        layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        /// Layers show what all changes up to them left, whatever was pushed later.
        #[test]
        fn layers_show_the_latest_change(pushes in vec(vec((1u64..40, prop_oneof![Just(GONE), 0u64..9]), 0..30), 0..12)) {
            let mut layers = Layers::default();
            let mut all = HashMap::new();
            let mut seen = Vec::new();
            for changes in pushes {
                all.extend(changes.iter().copied());
                layers.push(changes.into_iter().collect());
                seen.push((layers.clone(), all.clone()));
            }
            for (layers, all) in seen {
                for address in 0..41 {
                    let expected = all.get(&address).copied().filter(|bytes| *bytes != GONE);
                    prop_assert_eq!(layers.get(address), expected);
                }
                prop_assert!(layers.0.windows(2).all(|pair| pair[0].len() > 2 * pair[1].len()));
            }
        }

        /// Every child sees the blocks of its parent at the fork, and keeps its own changes to itself.
        #[test]
        fn children_see_the_parent_at_the_fork(steps in vec((0u8..8, 1u64..30, 0u64..9), 0..200)) {
            let mut parent: HashMap<u64, u64> = HashMap::new();
            let mut forks = Forks::default();
            let mut children = Vec::new();
            for (step, address, bytes) in steps {
                match step {
                    0 => {
                        let own = parent.iter().map(|(address, bytes)| (*address, *bytes));
                        // A block aside is not at its place, but the child has it.
                        let aside = (address + 100, bytes);
                        let at = |address| parent.get(&address).copied();
                        let layers = forks.share(None, own, at, std::iter::once(aside));
                        let mut seen = parent.clone();
                        seen.insert(aside.0, aside.1);
                        let left = (seen.len() as u64, seen.values().sum());
                        children.push((Inherited::new(layers, left), seen));
                    }
                    1 => for (child, seen) in &mut children {
                        prop_assert_eq!(child.take(address), seen.remove(&address));
                    },
                    2 | 3 => {
                        parent.remove(&address);
                        forks.touch(address);
                    }
                    _ => {
                        parent.insert(address, bytes);
                        forks.touch(address);
                    }
                }
            }
            for (child, seen) in children {
                prop_assert_eq!(child.left(), (seen.len() as u64, seen.values().sum()));
                for address in 1..131 {
                    prop_assert_eq!(child.get(address), seen.get(&address).copied());
                }
            }
        }
    }
}
