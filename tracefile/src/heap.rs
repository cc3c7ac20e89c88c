//! A binary heap that shows its two smallest keys, for merging.

/// Smallest key first.
pub(crate) struct Heap<K> {
    keys: Vec<K>,
}

impl<K: Ord + Copy> Heap<K> {
    pub(crate) const fn new() -> Self {
        Heap { keys: Vec::new() }
    }

    pub(crate) fn first(&self) -> Option<K> {
        self.keys.first().copied()
    }

    /// The smallest key but one.
    #[inline]
    pub(crate) fn second(&self) -> Option<K> {
        match self.keys.as_slice() {
            [_, a, b, ..] => Some(*a.min(b)),
            [_, a] => Some(*a),
            _ => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn push(&mut self, key: K) {
        let at = self.keys.len();
        self.keys.push(key);
        self.rise(at);
    }

    /// Lowers the first key that is `wanted` to `key`. Looks at all of them.
    pub(crate) fn lower(&mut self, wanted: impl Fn(&K) -> bool, key: K) {
        if let Some(at) = self.keys.iter().position(wanted)
            && key < self.keys[at]
        {
            self.keys[at] = key;
            self.rise(at);
        }
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.keys[parent] <= self.keys[at] {
                break;
            }
            self.keys.swap(parent, at);
            at = parent;
        }
    }

    pub(crate) fn pop(&mut self) -> Option<K> {
        let last = self.keys.pop()?;
        let Some(first) = self.keys.first_mut() else {
            return Some(last);
        };
        let popped = std::mem::replace(first, last);
        self.sink();
        Some(popped)
    }

    /// Puts `key` in the place of the smallest.
    pub(crate) fn replace_first(&mut self, key: K) {
        if let Some(first) = self.keys.first_mut() {
            *first = key;
            self.sink();
        }
    }

    fn sink(&mut self) {
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            let right = left + 1;
            let mut least = at;
            if left < self.keys.len() && self.keys[left] < self.keys[least] {
                least = left;
            }
            if right < self.keys.len() && self.keys[right] < self.keys[least] {
                least = right;
            }
            if least == at {
                return;
            }
            self.keys.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_heap_behaves_as_a_sorted_list(steps in proptest::collection::vec((0u8..4, 0u32..50), 0..200)) {
            let mut heap = Heap::new();
            let mut list: Vec<u32> = Vec::new();
            for (step, key) in steps {
                match step {
                    0 => { heap.push(key); list.push(key); }
                    1 => {
                        let least = if list.is_empty() { None } else { Some(list.remove(0)) };
                        prop_assert_eq!(heap.pop(), least);
                    }
                    2 => {
                        let wanted = key + 20;
                        heap.lower(|other| *other == wanted, key);
                        if let Some(at) = list.iter().position(|other| *other == wanted) { list[at] = key; }
                    }
                    _ => {
                        heap.replace_first(key);
                        if let Some(first) = list.first_mut() { *first = key; }
                    }
                }
                list.sort_unstable();
                prop_assert_eq!(heap.first(), list.first().copied());
                prop_assert_eq!(heap.second(), list.get(1).copied());
                prop_assert_eq!(heap.len(), list.len());
            }
        }
    }
}
