//! Slots with an entry in front of each block.

use super::*;

/// Every size has the least class that holds it, its blocks are aligned, and no slot reaches beyond its region.
#[test]
fn slots_have_room_for_an_entry() {
    for geometry in [Geometry::DEFAULT, Geometry::SMALL] {
        let classes = Classes::with_default_sizes(&geometry).unwrap();
        for size in 1..=classes.largest() as usize {
            let index = classes.index_of(size).unwrap();
            let class = classes.get(index);
            assert!(class.size as usize >= size + ENTRY_BYTES as usize);
            if index > 0 {
                let below = classes.get(index - 1);
                assert!((below.size as usize) < size + ENTRY_BYTES as usize);
            }
        }
        assert_eq!(classes.index_of(0), None);
        assert_eq!(classes.index_of(classes.largest() as usize + 1), None);
        for class in classes.iter() {
            assert!(class.slots > 0, "{class:?}");
            let alignment = class.alignment as u32;
            assert!(alignment >= STEP && class.size.is_multiple_of(alignment));
            assert!((class.first_slot + ENTRY_BYTES).is_multiple_of(alignment));
            let reverse = if class.reverse_inside { 4 } else { 0 };
            assert!(class.first_slot >= class.slots as u32 * reverse);
            let end = class.first_slot + class.slots as u32 * class.size;
            let region = class.spans as u32 * geometry.span_bytes;
            assert!(
                end <= region && region <= geometry.larger_bytes,
                "{class:?}"
            );
            // Exact wherever a block may be looked for.
            for slot in 0..class.slots as u32 {
                let begin = class.offset_of(slot);
                for offset in [begin, begin + ENTRY_BYTES, begin + class.size - 1] {
                    assert_eq!(class.slot_of(offset), slot, "{class:?}");
                }
            }
        }
    }
}

/// An alignment is never paid with more than whole pages.
#[test]
fn aligned_blocks_take_no_more_than_pages() {
    let classes = Classes::with_default_sizes(&Geometry::DEFAULT).unwrap();
    for size in 1..=classes.largest() as usize {
        for alignment in [16, 32, 64, 128, 4096] {
            if let Some(index) = classes.index_of_aligned(size, alignment) {
                let class = classes.get(index);
                assert!(class.alignment as usize >= alignment);
                assert!(alignment == 16 || class.size as usize <= size.next_multiple_of(4096));
            }
        }
    }
}
