//! Random operations on a heap against a map from handles to contents; contents and invariants after every step.

use proptest::prelude::*;
use rmalloc::{Error, LocalHeap, RawHandle};
use std::collections::HashMap;
use std::mem::MaybeUninit;

#[derive(Clone, Debug)]
enum Step {
    Alloc(usize),
    Aligned(usize, u32),
    Free(usize),
    Resize(usize, usize),
    Lock(usize),
    Unlock(usize),
    Discardable(usize, bool),
    Compact,
    Stale(usize),
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1usize..200, 4 => 200usize..2000, 2 => 2000usize..9000, 1 => 9000usize..40000]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => size().prop_map(Step::Alloc),
        1 => (size(), 0u32..13).prop_map(|(size, power)| Step::Aligned(size, power)),
        8 => any::<usize>().prop_map(Step::Free),
        3 => (any::<usize>(), size()).prop_map(|(pick, size)| Step::Resize(pick, size)),
        3 => any::<usize>().prop_map(Step::Lock),
        3 => any::<usize>().prop_map(Step::Unlock),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(pick, yes)| Step::Discardable(pick, yes)),
        2 => Just(Step::Compact),
        1 => any::<usize>().prop_map(Step::Stale),
    ]
}

struct Model {
    contents: Vec<u8>,
    locks: Vec<*mut u8>,
    discardable: bool,
}

fn fill(seed: u64, bytes: &mut [u8]) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (seed as usize).wrapping_mul(31).wrapping_add(at * 7) as u8;
    }
}

fn drive(
    steps: &[Step],
    bytes: usize,
    skip: usize,
    check_every: usize,
) -> Result<(), TestCaseError> {
    let mut memory = vec![MaybeUninit::uninit(); bytes + skip];
    let heap = LocalHeap::new(&mut memory[skip..], None).expect("a heap");
    let mut live: Vec<RawHandle> = Vec::new();
    let mut ended: Vec<RawHandle> = Vec::new();
    let mut model: HashMap<RawHandle, Model> = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Alloc(size) | Step::Aligned(size, _) => {
                let got = match step {
                    Step::Aligned(_, power) => heap.alloc_aligned(*size, 1 << power),
                    _ => heap.alloc(*size),
                };
                match got {
                    Ok(handle) => {
                        prop_assert!(heap.usable_bytes(handle).unwrap() >= *size);
                        let mut contents = vec![0; *size];
                        fill(number as u64, &mut contents);
                        let place = heap.lock(handle).unwrap();
                        let alignment = if let Step::Aligned(_, power) = step {
                            1usize << power
                        } else {
                            16
                        };
                        prop_assert_eq!(place as usize % alignment.max(16), 0);
                        unsafe { place.copy_from_nonoverlapping(contents.as_ptr(), *size) };
                        heap.unlock(handle).unwrap();
                        let before = model.insert(
                            handle,
                            Model {
                                contents,
                                locks: Vec::new(),
                                discardable: false,
                            },
                        );
                        prop_assert!(before.is_none());
                        live.push(handle);
                    }
                    Err(error) => {
                        prop_assert!(matches!(error, Error::Memory | Error::Table), "{error}")
                    }
                }
            }
            Step::Free(pick) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let freed = heap.free(handle);
                if model[&handle].locks.is_empty() {
                    prop_assert_eq!(freed, Ok(()));
                    prop_assert_eq!(heap.free(handle), Err(Error::Handle));
                    model.remove(&handle);
                    live.swap_remove(pick % live.len());
                    ended.push(handle);
                } else {
                    prop_assert_eq!(freed, Err(Error::Locked));
                }
            }
            Step::Resize(pick, size) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let of = model.get_mut(&handle).unwrap();
                match heap.resize(handle, *size) {
                    Ok(()) => {
                        prop_assert!(of.locks.is_empty());
                        let kept = of.contents.len().min(*size);
                        let mut fresh = vec![0; *size];
                        fill(number as u64, &mut fresh);
                        heap.with(handle, |bytes| {
                            bytes[kept..*size].copy_from_slice(&fresh[kept..])
                        })
                        .unwrap();
                        fresh[..kept].copy_from_slice(&of.contents[..kept]);
                        of.contents = fresh;
                    }
                    Err(Error::Locked) => prop_assert!(!of.locks.is_empty()),
                    Err(Error::Discarded) => prop_assert!(of.discardable),
                    Err(error) => prop_assert_eq!(error, Error::Memory),
                }
            }
            Step::Lock(pick) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let of = model.get_mut(&handle).unwrap();
                match heap.lock(handle) {
                    Ok(place) => of.locks.push(place),
                    Err(Error::Locks) => prop_assert!(of.locks.len() >= 14),
                    Err(error) => prop_assert!(error == Error::Discarded && of.discardable),
                }
                // A locked block stays where it is.
                prop_assert!(of.locks.windows(2).all(|pair| pair[0] == pair[1]));
            }
            Step::Unlock(pick) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let of = model.get_mut(&handle).unwrap();
                let expected = if of.locks.pop().is_some() {
                    Ok(())
                } else {
                    Err(Error::NotLocked)
                };
                prop_assert_eq!(heap.unlock(handle), expected);
            }
            Step::Discardable(pick, yes) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let of = model.get_mut(&handle).unwrap();
                match heap.set_discardable(handle, *yes) {
                    Ok(()) => of.discardable = *yes,
                    Err(Error::Locked) => prop_assert!(!of.locks.is_empty()),
                    Err(error) => prop_assert!(error == Error::Discarded && of.discardable),
                }
            }
            Step::Compact => prop_assert_eq!(heap.compact(0).finished, 1),
            Step::Stale(pick) if !ended.is_empty() => {
                let handle = ended[pick % ended.len()];
                prop_assert_eq!(heap.lock(handle).err(), Some(Error::Handle));
                prop_assert_eq!(heap.unlock(handle), Err(Error::Handle));
                prop_assert_eq!(heap.free(handle), Err(Error::Handle));
                prop_assert_eq!(heap.resize(handle, 10), Err(Error::Handle));
                let made_up = RawHandle::from_bits(handle.bits() ^ (1 << (pick % 64)));
                if let Some(made_up) = made_up
                    && !model.contains_key(&made_up)
                {
                    prop_assert_eq!(heap.lock(made_up).err(), Some(Error::Handle));
                    prop_assert_eq!(heap.free(made_up), Err(Error::Handle));
                }
            }
            _ => {}
        }
        if number % check_every == 0 || number + 1 == steps.len() {
            if let Err(violation) = heap.check() {
                return Err(TestCaseError::fail(format!(
                    "step {number} {step:?}: {violation:?}"
                )));
            }
            for (handle, of) in &model {
                let place = match heap.lock(*handle) {
                    Err(Error::Discarded) if of.discardable => continue,
                    Err(Error::Locks) => of.locks[0],
                    place => place.unwrap(),
                };
                let bytes = unsafe { std::slice::from_raw_parts(place, of.contents.len()) };
                prop_assert!(
                    bytes == of.contents,
                    "step {} {:?}: contents of {:?}",
                    number,
                    step,
                    handle
                );
                if of.locks.len() < 14 {
                    heap.unlock(*handle).unwrap();
                }
                prop_assert!(of.locks.iter().all(|was| *was == place));
            }
        }
    }
    prop_assert_eq!(
        heap.stats().live_blocks,
        model.len() as u64 - discarded(&heap, &model)
    );
    Ok(())
}

fn discarded(heap: &LocalHeap, model: &HashMap<RawHandle, Model>) -> u64 {
    model
        .keys()
        .filter(|handle| heap.usable_bytes(**handle) == Err(Error::Discarded))
        .count() as u64
}

proptest! {
    /// After every step.
    #[test]
    fn a_small_heap_does_what_a_map_does(steps in prop::collection::vec(step(), 1..120), skip in 0usize..5000) {
        drive(&steps, 512 << 10, skip, 1)?;
    }

    /// Longer, checked now and then.
    #[test]
    fn a_heap_of_8_mib_does_what_a_map_does(steps in prop::collection::vec(step(), 1..2500)) {
        drive(&steps, 8 << 20, 0, 100)?;
    }
}
