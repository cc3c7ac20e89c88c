//! Tests of the size classes: every size, every offset, any list in any geometry.

use super::*;
use proptest::prelude::*;

/// Every byte of a region belongs to the slot that division says; what is no slot is told apart.
fn check_class(class: &Class, geometry: &Geometry) {
    let region_bytes = u32::from(class.spans) * geometry.span_bytes;
    let limit = if class.size <= geometry.block_most {
        geometry.region_bytes
    } else {
        geometry.larger_bytes
    };
    let slots = u32::from(class.slots);
    let end = class.first_slot + slots * class.size;
    assert!(slots >= 1, "{class:?}");
    assert!(region_bytes <= limit, "{class:?}");
    assert!(end <= region_bytes, "{class:?}");
    // No span is taken for nothing, and no slot more would fit.
    assert!(end > region_bytes - geometry.span_bytes, "{class:?}");
    let array = if class.reverse_inside { 4 * slots } else { 0 };
    assert_eq!(class.reverse_inside, class.size < 1024, "{class:?}");
    assert!(array <= class.first_slot, "{class:?}");
    assert!(class.first_slot - array < 64, "{class:?}");
    let entry = if class.reverse_inside { 4 } else { 0 };
    assert!(limit - end < class.size + entry + 64, "{class:?}");
    assert!(class.alignment.is_power_of_two() && class.alignment >= 16);
    for offset in 0..region_bytes {
        let slot = class.slot_of(offset);
        if offset < class.first_slot || offset >= end {
            assert!(slot >= slots, "{offset} of {class:?}");
        } else {
            assert_eq!(
                slot,
                (offset - class.first_slot) / class.size,
                "{offset} of {class:?}"
            );
        }
    }
    for slot in 0..slots {
        let offset = class.offset_of(slot);
        assert_eq!(class.slot_of(offset), slot, "{class:?}");
        assert_eq!(offset % u32::from(class.alignment), 0, "{class:?}");
    }
    // Counted byte by byte: what lies in a page with a byte of a slot, and is neither slot nor map.
    let last_page = (end - 1) / PAGE_BYTES;
    let wasted = (0..(last_page + 1) * PAGE_BYTES)
        .filter(|&byte| byte >= array && !(class.first_slot..end).contains(&byte));
    assert_eq!(wasted.count(), usize::from(class.waste), "{class:?}");
}

/// The lookup against a search through the list.
fn check_lookup(classes: &Classes, sizes: &[u32]) {
    assert_eq!(classes.len(), sizes.len());
    assert!(
        classes
            .iter()
            .map(|class| class.size)
            .eq(sizes.iter().copied())
    );
    let largest = *sizes.last().unwrap();
    assert_eq!(classes.largest(), largest);
    for size in 1..=largest {
        let least = sizes.iter().position(|&class| class >= size).unwrap();
        assert_eq!(classes.index_of(size as usize), Some(least as u8), "{size}");
        assert_eq!(classes.get(least as u8).size, sizes[least]);
    }
    for size in [
        0,
        largest as usize + 1,
        40_000,
        1 << 32,
        (1 << 32) + 16,
        usize::MAX,
    ] {
        assert_eq!(classes.index_of(size), None, "{size}");
    }
}

#[test]
fn every_size_has_the_least_class_that_holds_it() {
    check_lookup(&DEFAULT_CLASSES, &DEFAULT_SIZES);
    let small = Classes::with_default_sizes(&Geometry::SMALL).unwrap();
    let to_4k: Vec<u32> = DEFAULT_SIZES
        .into_iter()
        .take_while(|&size| size <= 4096)
        .collect();
    check_lookup(&small, &to_4k);
}

#[test]
fn every_offset_of_every_default_class_is_divided_exactly() {
    for geometry in [Geometry::DEFAULT, Geometry::SMALL] {
        let classes = Classes::with_default_sizes(&geometry).unwrap();
        for class in classes.iter() {
            check_class(class, &geometry);
        }
    }
}

/// The sizes at which the error of the multiplier is greatest, in the largest regions that are allowed.
#[test]
fn division_is_exact_for_all_sizes_in_the_largest_regions() {
    let geometry = Geometry {
        span_bytes: REGION_BYTES_MAX,
        region_bytes: REGION_BYTES_MAX,
        block_most: SIZE_MAX,
        larger_bytes: REGION_BYTES_MAX,
        largest: SIZE_MAX,
    };
    geometry.check().unwrap();
    for size in (STEP..=SIZE_MAX).step_by(STEP as usize) {
        let class = Class::new(size, &geometry);
        // Division can first be wrong just below a multiple of the size.
        for multiple in (size..REGION_BYTES_MAX - class.first_slot).step_by(size as usize) {
            for offset in [multiple - 1, multiple] {
                let slot = class.slot_of(class.first_slot + offset);
                assert_eq!(slot, offset / size, "{offset} of {class:?}");
            }
        }
    }
}

/// With a reverse map, in regions of any number of pages: it fits, and one slot more would not.
#[test]
fn regions_hold_as_many_slots_as_fit() {
    for region_bytes in (4096..=REGION_BYTES_MAX).step_by(4096) {
        let geometry = Geometry {
            span_bytes: 4096,
            region_bytes,
            block_most: 1024,
            larger_bytes: region_bytes,
            largest: 1024,
        };
        for size in (STEP..REVERSE_INSIDE_BELOW).step_by(STEP as usize) {
            let class = Class::new(size, &geometry);
            let alignment = u32::from(class.alignment);
            let end = |slots: u32| (slots * 4).next_multiple_of(alignment) + slots * size;
            let slots = u32::from(class.slots);
            assert_eq!(class.first_slot + slots * size, end(slots), "{class:?}");
            assert!(
                end(slots) <= region_bytes && end(slots + 1) > region_bytes,
                "{class:?}"
            );
        }
    }
}

#[test]
fn default_sizes_waste_little() {
    let sizes = DEFAULT_SIZES;
    check_sizes(&sizes, SIZE_MAX).unwrap();
    assert!(sizes[..64].iter().copied().eq((16..=1024).step_by(16)));
    assert!(sizes.len() - 64 <= 120);
    for pair in sizes[63..].windows(2) {
        // The least request of a class wastes less than a 16th of it.
        assert!(pair[1] - pair[0] <= pair[1] / 16, "{pair:?}");
    }
    for power in [2048, 4096, 8192, 16384, 32768] {
        assert!(sizes.contains(&power));
    }
    // Whole pages are asked for as such, and aligned.
    for pages in 1..=8 {
        let class = DEFAULT_CLASSES
            .index_of_aligned(pages * 4096, 4096)
            .unwrap();
        assert_eq!(DEFAULT_CLASSES.get(class).size as usize, pages * 4096);
    }
    // All default regions take what the geometry says: 64 KiB, or 256 KiB.
    for class in DEFAULT_CLASSES.iter() {
        assert_eq!(
            class.spans,
            if class.size <= 8192 { 1 } else { 4 },
            "{class:?}"
        );
    }
}

#[test]
fn aligned_blocks_get_the_least_class_that_is_aligned() {
    let classes = &DEFAULT_CLASSES;
    for alignment in [1, 2, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096] {
        for size in 1..=classes.largest() as usize {
            let expected = classes.iter().position(|class| {
                class.size as usize >= size && usize::from(class.alignment) >= alignment
            });
            let found = classes.index_of_aligned(size, alignment).map(usize::from);
            assert_eq!(found, expected, "{size} at {alignment}");
        }
    }
    assert_eq!(classes.index_of_aligned(16, 8192), None);
    assert_eq!(classes.index_of_aligned(0, 64), None);
    assert_eq!(classes.index_of_aligned(32769, 64), None);
    let class = |size| classes.get(classes.index_of(size).unwrap());
    assert_eq!((class(48).alignment, class(32).alignment), (16, 32));
    assert_eq!((class(64).alignment, class(512).alignment), (64, 64));
    assert_eq!((class(1024).alignment, class(8192).alignment), (1024, 4096));
}

/// Figures worked out by hand.
#[test]
fn regions_of_some_classes() {
    let class = |size| *DEFAULT_CLASSES.get(DEFAULT_CLASSES.index_of(size).unwrap());
    // 3,276 x (16 + 4) = 65,520: 16 bytes of the last page are left.
    let least = class(16);
    assert_eq!(
        (least.slots, least.first_slot, least.waste),
        (3276, 13104, 16)
    );
    // 963 x 68 = 65,484, but the slots begin at 3,904 and 963 x 64 = 61,632: together 65,536.
    let line = class(64);
    assert_eq!((line.slots, line.first_slot, line.waste), (963, 3904, 52));
    let page = class(4096);
    assert_eq!(
        (page.slots, page.first_slot, page.spans, page.waste),
        (16, 0, 1, 0)
    );
    let most = class(32768);
    assert_eq!(
        (most.slots, most.first_slot, most.spans, most.waste),
        (8, 0, 4, 0)
    );
    // In a small heap 2 x 2,560 need 5,120 bytes: two spans, and the third slot does not fit.
    let small = Classes::new(&[2560, 4096], &Geometry::SMALL).unwrap();
    let half = small.get(0);
    assert_eq!((half.slots, half.spans, half.waste), (3, 2, 512));
    assert_eq!(small.get(1).slots, 2);
}

#[test]
fn a_region_takes_no_span_that_no_slot_reaches() {
    let geometry = Geometry {
        span_bytes: 4096,
        region_bytes: 16384,
        block_most: 8192,
        larger_bytes: 16384,
        largest: 10240,
    };
    let classes = Classes::new(&[6144, 10240], &geometry).unwrap();
    // 2 x 6,144 = 12,288 are three spans; 10,240 are two and a half.
    assert_eq!((classes.get(0).slots, classes.get(0).spans), (2, 3));
    assert_eq!((classes.get(1).slots, classes.get(1).spans), (1, 3));
    assert_eq!(classes.get(1).waste, 2048);
}

#[test]
fn wrong_lists_and_geometries_are_refused() {
    let refused = |sizes: &[u32]| Classes::new(sizes, &Geometry::DEFAULT).unwrap_err();
    assert_eq!(refused(&[]), ClassError::None);
    assert_eq!(refused(&[0, 16]), ClassError::Step { size: 0 });
    assert_eq!(refused(&[16, 40]), ClassError::Step { size: 40 });
    assert_eq!(
        refused(&[32, 32]),
        ClassError::Order {
            size: 32,
            before: 32
        }
    );
    assert_eq!(
        refused(&[32, 16]),
        ClassError::Order {
            size: 16,
            before: 32
        }
    );
    let (size, largest) = (32784, 32768);
    assert_eq!(refused(&[16, size]), ClassError::TooLarge { size, largest });
    let many: Vec<u32> = (1..=193).map(|i| i * 16).collect();
    assert_eq!(refused(&many), ClassError::TooMany { count: 193 });
    assert!(Classes::new(&many[..192], &Geometry::DEFAULT).is_ok());

    let good = Geometry::DEFAULT;
    let refused = |geometry: Geometry| Classes::with_default_sizes(&geometry).unwrap_err();
    for bytes in [0, 2048, 65536 + 4096, 2 << 20] {
        let span_bytes = bytes;
        assert_eq!(
            refused(Geometry { span_bytes, ..good }),
            ClassError::Span { bytes }
        );
    }
    for bytes in [0, 32768, 65536 + 4096, 2 << 20] {
        let region_bytes = bytes;
        assert_eq!(
            refused(Geometry {
                region_bytes,
                ..good
            }),
            ClassError::Region { bytes }
        );
    }
    for bytes in [0, 65536 + 4096, 2 << 20] {
        let larger_bytes = bytes;
        assert_eq!(
            refused(Geometry {
                larger_bytes,
                ..good
            }),
            ClassError::Region { bytes }
        );
    }
    for bytes in [0, 8, 1000, 32784] {
        let largest = bytes;
        assert_eq!(
            refused(Geometry { largest, ..good }),
            ClassError::Largest { bytes }
        );
    }
    let block_most = 65552;
    let bytes = good.largest;
    assert_eq!(
        refused(Geometry { block_most, ..good }),
        ClassError::Largest { bytes }
    );
    // Larger regions smaller than regions; a block that its region does not hold.
    let small = Geometry {
        region_bytes: 131072,
        larger_bytes: 65536,
        ..good
    };
    assert_eq!(refused(small), ClassError::Region { bytes: 65536 });
    let high = Geometry {
        largest: 8192 + 16,
        ..Geometry::SMALL
    };
    assert_eq!(refused(high), ClassError::Largest { bytes: 8208 });
}

#[test]
fn refusals_name_what_is_wrong() {
    let told = Classes::new(&[16, 40], &Geometry::DEFAULT)
        .unwrap_err()
        .to_string();
    assert_eq!(told, "size class 40 is not a positive multiple of 16");
    let told = Classes::new(&[48, 32], &Geometry::DEFAULT)
        .unwrap_err()
        .to_string();
    assert_eq!(told, "size class 32 follows 48; sizes must ascend");
}

fn geometry() -> impl Strategy<Value = Geometry> {
    let shape = (12u32..=16, 1u32..=4, 1u32..=4);
    (shape, 1u32..=2048, 16u32..=65536).prop_map(|((span, spans, times), largest, block_most)| {
        let span_bytes = 1 << span;
        let region_bytes = span_bytes * spans;
        let larger_bytes = region_bytes * times;
        Geometry {
            span_bytes,
            region_bytes,
            block_most: block_most.min(region_bytes),
            larger_bytes,
            largest: (largest * 16).min(larger_bytes),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any list in any geometry: the least class for each size, and regions without overlap.
    #[test]
    fn any_list_works(
        geometry in geometry(),
        steps in proptest::collection::btree_set(1u32..=2048, 1..24),
    ) {
        let sizes: Vec<u32> = (steps.into_iter().map(|step| step * 16))
            .filter(|&size| size <= geometry.largest)
            .collect();
        prop_assume!(!sizes.is_empty());
        let classes = Classes::new(&sizes, &geometry).unwrap();
        check_lookup(&classes, &sizes);
        for class in classes.iter() {
            check_class(class, &geometry);
        }
    }
}
