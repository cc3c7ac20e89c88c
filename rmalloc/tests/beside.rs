//! Feature `beside`: entries in front of the places where blocks were born, which stay there when blocks move.
#![cfg(all(feature = "beside", not(feature = "checked")))]

use rmalloc::{Error, LocalHeap, RawHandle};
use std::mem::MaybeUninit;

/// 8 MiB and blocks of 3,000 bytes: every fourth one lives on.
fn thin_heap(heap: &LocalHeap<'_>) -> Vec<(RawHandle, u8)> {
    let all: Vec<_> = (0..1500u32)
        .map(|at| (heap.alloc(3000).unwrap(), at as u8))
        .collect();
    for (handle, seed) in &all {
        heap.with(*handle, |bytes| bytes.fill(*seed)).unwrap();
    }
    let mut kept = Vec::new();
    for (at, block) in all.into_iter().enumerate() {
        if at % 4 == 0 {
            kept.push(block);
        } else {
            heap.free(block.0).unwrap();
        }
    }
    kept
}

/// A moved block leaves its entry: the slot is stranded, counted, and comes back when the block ends.
#[test]
fn entries_of_moved_blocks_are_stranded_until_they_end() {
    let mut memory = vec![MaybeUninit::uninit(); 8 << 20];
    let heap = LocalHeap::new(&mut memory, None).unwrap();
    let kept = thin_heap(&heap);
    assert_eq!(heap.stats().stranded_slots, 0);
    let done = heap.compact(0);
    assert!(done.blocks_moved > 0, "{done:?}");
    let stats = heap.stats();
    assert!(stats.stranded_slots > 0 && stats.stranded_slots <= done.blocks_moved);
    assert!(stats.stranded_bytes >= stats.stranded_slots * 3000);
    assert_eq!(stats.live_blocks, kept.len() as u64);
    heap.check().unwrap();
    for (handle, seed) in &kept {
        heap.with(*handle, |bytes| {
            assert!(bytes.iter().all(|byte| byte == seed))
        })
        .unwrap();
    }
    for (handle, _) in kept {
        heap.free(handle).unwrap();
        assert_eq!(heap.free(handle), Err(Error::Handle));
        heap.check().unwrap();
    }
    assert_eq!(heap.stats().stranded_slots, 0);
}

/// Small blocks stay where they were born, as no page would be free without them; those that say so move.
#[test]
fn small_blocks_leave_if_told_to() {
    for (from, moves) in [(None, false), (Some(16), true)] {
        let mut memory = vec![MaybeUninit::uninit(); 8 << 20];
        let mut heap = LocalHeap::new(&mut memory, None).unwrap();
        if let Some(bytes) = from {
            heap.set_leave_from(bytes);
        }
        let handles: Vec<_> = (0..20_000).map(|_| heap.alloc(48).unwrap()).collect();
        for (_, handle) in handles.iter().enumerate().filter(|(at, _)| at % 5 != 0) {
            heap.free(*handle).unwrap();
        }
        let done = heap.compact(0);
        assert_eq!(done.blocks_moved > 0, moves, "{done:?}");
        assert_eq!(heap.stats().stranded_slots > 0, moves);
        heap.check().unwrap();
    }
}

/// Bytes of blocks that look like entries are none: only places where slots begin have entries.
#[test]
fn made_up_numbers_lead_to_no_entry() {
    let mut memory = vec![MaybeUninit::uninit(); 2 << 20];
    let heap = LocalHeap::new(&mut memory, None).unwrap();
    let block = heap.alloc(3000).unwrap();
    let place = heap.lock(block).unwrap();
    // SAFETY: the word in front of the block is its entry, and 3,000 bytes are the block's.
    unsafe {
        let entry = place.sub(8).cast::<u64>().read();
        for at in 0..3000 / 8 {
            place.cast::<u64>().add(at).write(entry);
        }
    }
    heap.unlock(block).unwrap();
    for number in 0..(2u64 << 20) / 16 + 1000 {
        let made_up = RawHandle::from_bits((block.bits() & !0xffff_ffff) | number).unwrap();
        if made_up != block {
            assert_eq!(heap.lock(made_up).err(), Some(Error::Handle), "{made_up:?}");
            assert_eq!(heap.free(made_up), Err(Error::Handle), "{made_up:?}");
        }
    }
    assert_eq!(heap.free(block), Ok(()));
}

/// Memory goes back and comes as slots of another size: no handle comes a second time.
#[test]
fn generations_survive_their_memory() {
    let mut memory = vec![MaybeUninit::uninit(); 512 << 10];
    let heap = LocalHeap::new(&mut memory, None).unwrap();
    let mut seen = std::collections::HashSet::new();
    for round in 0..40 {
        let size = [40, 104, 500, 2000, 6000, 20_000][round % 6];
        let mut handles = Vec::new();
        while let Ok(handle) = heap.alloc(size) {
            assert!(seen.insert(handle), "{handle:?} a second time");
            handles.push(handle);
        }
        assert!(handles.len() > 5, "{size}: {}", handles.len());
        for handle in handles {
            heap.free(handle).unwrap();
        }
        heap.compact(0);
    }
    for handle in &seen {
        assert_eq!(heap.lock(*handle).err(), Some(Error::Handle));
    }
    heap.check().unwrap();
}
