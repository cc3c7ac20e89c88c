//! The driver of `model.rs` and of the fuzz target `rmalloc`: steps on a heap and on a map from handles to contents.
//!
//! What the steps are is the caller's business; this file knows what must hold after each.

use rmalloc::{Error, LocalHeap, RawHandle};
use std::collections::HashMap;
use std::mem::MaybeUninit;

macro_rules! holds {
    ($what:expr $(, $($text:tt)+)?) => {
        if !$what {
            #[allow(unused_mut, unused_assignments)]
            let mut text = String::new();
            $(text = format!($($text)+);)?
            return Err(format!("line {}: {}: {text}", line!(), stringify!($what)));
        }
    };
}

macro_rules! same {
    ($left:expr, $right:expr) => {{
        let (left, right) = ($left, $right);
        if left != right {
            return Err(format!(
                "line {}: {}: {left:?} instead of {right:?}",
                line!(),
                stringify!($left)
            ));
        }
    }};
}

/// One operation; numbers pick blocks among those there are.
#[derive(Clone, Debug)]
pub enum Step {
    /// A block of so many bytes.
    Alloc(usize),
    /// A block at a multiple of 2 to that power.
    Aligned(usize, u32),
    /// Ends one of the live blocks.
    Free(usize),
    /// Gives one another size.
    Resize(usize, usize),
    /// Locks one.
    Lock(usize),
    /// Gives a lock back, if there is one.
    Unlock(usize),
    /// Says whether its contents may be dropped.
    Discardable(usize, bool),
    /// Compacts until nothing is left to gain.
    Compact,
    /// Uses a handle of a block that has ended, and one that is made up.
    Stale(usize),
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

/// Does the steps on a heap in `bytes` bytes, `skip` bytes behind an address, and on the map; compares all contents and
/// checks the invariants after each `check_every`th step.
///
/// # Errors
/// What differs, and at which step.
pub fn drive(steps: &[Step], bytes: usize, skip: usize, check_every: usize) -> Result<(), String> {
    let mut memory = vec![MaybeUninit::uninit(); bytes + skip];
    #[allow(unused_mut, unexpected_cfgs)]
    let mut heap = LocalHeap::new(&mut memory[skip..], None).expect("a heap");
    // Small blocks stay where they were born if nothing is said: here they move in half of the runs.
    #[cfg(feature = "beside")]
    if steps.len() % 2 == 1 {
        heap.set_leave_from(16);
    }
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
                        holds!(heap.usable_bytes(handle).unwrap() >= *size);
                        let mut contents = vec![0; *size];
                        fill(number as u64, &mut contents);
                        let place = heap.lock(handle).unwrap();
                        let alignment = if let Step::Aligned(_, power) = step {
                            1usize << power
                        } else {
                            16
                        };
                        same!(place as usize % alignment.max(16), 0);
                        // SAFETY: the block is locked and has that many bytes.
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
                        holds!(before.is_none());
                        live.push(handle);
                    }
                    Err(error) => {
                        holds!(matches!(error, Error::Memory | Error::Table), "{error}")
                    }
                }
            }
            Step::Free(pick) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let freed = heap.free(handle);
                if model[&handle].locks.is_empty() {
                    same!(freed, Ok(()));
                    same!(heap.free(handle), Err(Error::Handle));
                    model.remove(&handle);
                    live.swap_remove(pick % live.len());
                    ended.push(handle);
                } else {
                    same!(freed, Err(Error::Locked));
                }
            }
            Step::Resize(pick, size) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let of = model.get_mut(&handle).unwrap();
                match heap.resize(handle, *size) {
                    Ok(()) => {
                        holds!(of.locks.is_empty());
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
                    Err(Error::Locked) => holds!(!of.locks.is_empty()),
                    Err(Error::Discarded) => holds!(of.discardable),
                    Err(error) => same!(error, Error::Memory),
                }
            }
            Step::Lock(pick) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let of = model.get_mut(&handle).unwrap();
                match heap.lock(handle) {
                    Ok(place) => of.locks.push(place),
                    Err(Error::Locks) => holds!(of.locks.len() >= 14),
                    Err(error) => holds!(error == Error::Discarded && of.discardable),
                }
                // A locked block stays where it is.
                holds!(of.locks.windows(2).all(|pair| pair[0] == pair[1]));
            }
            Step::Unlock(pick) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let of = model.get_mut(&handle).unwrap();
                let expected = if of.locks.pop().is_some() {
                    Ok(())
                } else {
                    Err(Error::NotLocked)
                };
                same!(heap.unlock(handle), expected);
            }
            Step::Discardable(pick, yes) if !live.is_empty() => {
                let handle = live[pick % live.len()];
                let of = model.get_mut(&handle).unwrap();
                match heap.set_discardable(handle, *yes) {
                    Ok(()) => of.discardable = *yes,
                    Err(Error::Locked) => holds!(!of.locks.is_empty()),
                    Err(error) => holds!(error == Error::Discarded && of.discardable),
                }
            }
            Step::Compact => same!(heap.compact(0).finished, 1),
            Step::Stale(pick) if !ended.is_empty() => {
                let handle = ended[pick % ended.len()];
                same!(heap.lock(handle).err(), Some(Error::Handle));
                same!(heap.unlock(handle), Err(Error::Handle));
                same!(heap.free(handle), Err(Error::Handle));
                same!(heap.resize(handle, 10), Err(Error::Handle));
                let made_up = RawHandle::from_bits(handle.bits() ^ (1 << (pick % 64)));
                if let Some(made_up) = made_up
                    && !model.contains_key(&made_up)
                {
                    same!(heap.lock(made_up).err(), Some(Error::Handle));
                    same!(heap.free(made_up), Err(Error::Handle));
                }
            }
            _ => {}
        }
        if number % check_every == 0 || number + 1 == steps.len() {
            if let Err(violation) = heap.check() {
                return Err(format!("step {number} {step:?}: {violation:?}"));
            }
            for (handle, of) in &model {
                let place = match heap.lock(*handle) {
                    Err(Error::Discarded) if of.discardable => continue,
                    Err(Error::Locks) => of.locks[0],
                    place => place.unwrap(),
                };
                // SAFETY: the block is locked and has that many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(place, of.contents.len()) };
                holds!(
                    bytes == of.contents,
                    "step {} {:?}: contents of {:?}",
                    number,
                    step,
                    handle
                );
                if of.locks.len() < 14 {
                    heap.unlock(*handle).unwrap();
                }
                holds!(of.locks.iter().all(|was| *was == place));
            }
        }
    }
    same!(
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
