//! The picture of a heap: its numbers are the heap's, and the one in `docs` is what the example draws today.
//! The checking build has larger blocks, and entries beside blocks make larger slots: their pictures are others.
#![cfg(not(any(feature = "checked", feature = "beside")))]

#[allow(dead_code)]
#[path = "../examples/heap_map.rs"]
mod example;

#[test]
fn numbers_are_the_heaps() {
    let (svg, panels) = example::draw().expect("a heap");
    for panel in &panels {
        let stats = panel.stats;
        assert_eq!(panel.live_blocks, stats.live_blocks);
        assert_eq!(panel.live_bytes, stats.live_bytes);
        assert_eq!(panel.large_blocks, stats.large_blocks);
        assert_eq!(panel.dirty_bytes, stats.dirty_bytes);
        assert_eq!(panel.span_bytes, stats.span_bytes);
        assert!(panel.large_blocks > 0 && panel.locked_blocks > 0);
        assert!(svg.contains(&format!("live {} bytes", stats.live_bytes)));
        assert!(svg.contains(&format!("pages in use {} bytes", panel.resident_bytes)));
    }
    let [before, after] = panels;
    // What the heap counts beyond the map are its tables.
    let tables = |panel: &example::Panel| {
        panel.stats.resident_bytes - panel.stats.table_bytes - panel.resident_bytes
    };
    assert_eq!(tables(&before), tables(&after));
    assert_eq!(before.live_bytes, after.live_bytes);
    assert_eq!(before.locked_blocks, after.locked_blocks);
    assert!(after.resident_bytes < before.resident_bytes);
}

/// Tags nest and close, attributes are quoted, and there is one root: what the example's XML has.
#[test]
fn is_well_formed() {
    let (svg, _) = example::draw().expect("a heap");
    let mut open = Vec::new();
    let mut roots = 0;
    let mut rest = svg.as_str();
    while let Some((text, behind)) = rest.split_once('<') {
        assert!(!text.contains(['>', '&']), "{text}");
        let (tag, behind) = behind.split_once('>').expect("a tag ends");
        rest = behind;
        assert!(
            !tag.contains(['<', '&']) && tag.matches('"').count() % 2 == 0,
            "{tag}"
        );
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        roots += open.is_empty() as u32;
        if !tag.ends_with('/') {
            open.push(tag.split(' ').next().expect("a name"));
        }
    }
    assert_eq!((open.len(), roots, rest.trim()), (0, 1, ""));
}

#[test]
fn equals_the_committed_picture() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/heap-map.svg");
    let committed = std::fs::read_to_string(path).expect("docs/heap-map.svg");
    let (svg, _) = example::draw().expect("a heap");
    assert!(
        svg == committed,
        "make it anew: cargo run -p rmalloc --example heap_map > docs/heap-map.svg"
    );
}
