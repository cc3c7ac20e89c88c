//! Cut, flipped and invented bytes: every whole frame before the damage comes back, nothing panics,
//! nothing wrong is believed.

mod common;

use common::{all_calls, open_bytes, true_run};
use proptest::prelude::*;
use rmtrace_file::frame::{Frame, FrameHeader, HEADER_BYTES};
use rmtrace_file::writer::FILE_HEADER_BYTES;
use rmtrace_file::{Damage, ReadError};

/// Ends of the frames of a whole trace.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![FILE_HEADER_BYTES];
    let mut at = FILE_HEADER_BYTES;
    while at < bytes.len() {
        let header = FrameHeader::parse(bytes[at..at + HEADER_BYTES].try_into().unwrap()).unwrap();
        at += HEADER_BYTES + header.payload_bytes as usize;
        ends.push(at);
    }
    assert_eq!(at, bytes.len());
    ends
}

#[test]
fn a_cut_trace_keeps_its_whole_frames() {
    let run = true_run(3, 2, 2, 300, 3);
    let bytes = run.to_trace();
    let ends = frame_ends(&bytes);
    let whole = open_bytes(&bytes).unwrap();
    let whole_calls = all_calls(&whole).unwrap();
    for cut in 0..bytes.len() {
        let reader = match open_bytes(&bytes[..cut]) {
            Ok(reader) => reader,
            Err(error) => {
                assert!(cut < FILE_HEADER_BYTES, "{cut}: {error}");
                continue;
            }
        };
        assert!(cut >= FILE_HEADER_BYTES);
        let last_end = *ends.iter().rfind(|end| **end <= cut).unwrap();
        let missing = if last_end == cut {
            Damage::NoEnd { offset: cut as u64 }
        } else {
            Damage::CutShort {
                offset: last_end as u64,
                bytes: (cut - last_end) as u64,
            }
        };
        assert!(
            reader.damage().contains(&missing),
            "{cut}: {:?}",
            reader.damage()
        );
        let kept: Vec<_> = whole
            .frames()
            .iter()
            .filter(|frame| frame.offset + frame.bytes <= cut as u64)
            .cloned()
            .collect();
        assert_eq!(reader.frames(), kept);
        for (thread, calls) in all_calls(&reader).unwrap() {
            assert_eq!(calls, whole_calls[&thread][..calls.len()]);
            assert_eq!(reader.next_ordinal(thread.0, thread.1), calls.len() as u64);
        }
        assert!(!rmtrace_file::verify::verify(&reader).unwrap().passed());
    }
}

/// Everything that can be read of a trace, or the first error.
fn everything(bytes: &[u8]) -> Result<String, ReadError> {
    let reader = open_bytes(bytes)?;
    let calls = all_calls(&reader)?;
    let mut sides = String::new();
    for side in reader.sides() {
        sides += &format!("{:?} {:?}", reader.samples(side)?, reader.marks(side)?);
    }
    let mut tables = rmtrace_file::table::AddressTables::default();
    reader.merge(&mut tables)?;
    Ok(format!(
        "{:?} {:?} {} {calls:?} {sides} {:?} {:?}",
        reader.info(),
        reader.processes(),
        reader.tick_ns(),
        tables.counts(),
        reader.damage()
    ))
}

#[test]
fn a_flipped_bit_is_an_error_or_changes_nothing() {
    let mut run = true_run(9, 1, 2, 120, 3);
    run.window_calls = 50;
    let bytes = run.to_trace();
    let whole = everything(&bytes).unwrap();
    let mut noticed = 0;
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let passed = open_bytes(&changed)
                .and_then(|reader| rmtrace_file::verify::verify(&reader))
                .is_ok_and(|found| found.passed());
            match everything(&changed) {
                Ok(read) if read == whole => assert!(!passed, "byte {at} bit {bit}: not noticed"),
                // Opened in part, and the reader says what is missing.
                Ok(_) => {
                    let reader = open_bytes(&changed).unwrap();
                    assert!(!reader.damage().is_empty(), "byte {at} bit {bit}");
                    assert!(!passed);
                    noticed += 1;
                }
                Err(_) => {
                    assert!(!passed);
                    noticed += 1;
                }
            }
        }
    }
    assert!(noticed > bytes.len() * 2);
}

#[test]
fn frames_behind_a_damaged_one_are_found() {
    let mut run = true_run(21, 1, 1, 400, 3);
    run.window_calls = 40;
    let bytes = run.to_trace();
    let whole = open_bytes(&bytes).unwrap();
    let frames = whole.frames().to_vec();
    // Header of the second frame of events and the end: the scan must go on behind it.
    let mut changed = bytes[..bytes.len() - 10].to_vec();
    changed[frames[1].offset as usize + 9] ^= 0xff;
    let reader = open_bytes(&changed).unwrap();
    let found: Vec<u64> = reader.frames().iter().map(|frame| frame.offset).collect();
    let expected: Vec<u64> = frames
        .iter()
        .map(|frame| frame.offset)
        .filter(|o| *o != frames[1].offset)
        .collect();
    assert_eq!(found, expected);
    assert!(reader.damage().iter().any(|damage| matches!(
        damage,
        Damage::Frame { offset, bytes, .. } if *offset == frames[1].offset && *bytes == frames[1].bytes
    )));
}

#[test]
fn other_files_are_refused_with_a_reason() {
    let message = |bytes: &[u8]| open_bytes(bytes).err().unwrap().to_string();
    assert!(message(b"").contains("the file is empty"));
    assert!(message(b"\x7fELF\x02\x01\x01\0\0\0\0\0").contains("not a trace file"));
    assert!(message(b"RMTRACE\n").contains("only 8 bytes"));
    let mut newer = true_run(1, 1, 1, 3, 3).to_trace();
    newer[8] = 2;
    let check = crc32fast::hash(&newer[..60]);
    newer[60..64].copy_from_slice(&check.to_le_bytes());
    assert!(message(&newer).contains("version 2, this rmtrace reads version 1"));
}

#[test]
fn unknown_frames_and_trailing_fields_are_skipped() {
    let run = true_run(4, 1, 1, 50, 3);
    let bytes = run.to_trace();
    let end = frame_ends(&bytes)[1];
    let payload = b"something of a later version";
    let header = FrameHeader {
        kind: 4711,
        payload_bytes: payload.len() as u32,
        payload_crc: crc32fast::hash(payload),
    };
    let mut with_unknown = bytes[..end].to_vec();
    with_unknown.extend(header.to_bytes());
    with_unknown.extend(payload);
    with_unknown.extend(&bytes[end..]);
    // The index is at another place now, so the file is scanned; that is all that is wrong.
    let reader = open_bytes(&with_unknown).unwrap();
    assert!(
        matches!(reader.damage(), [Damage::Index { .. }]),
        "{:?}",
        reader.damage()
    );
    assert_eq!(
        all_calls(&reader).unwrap(),
        all_calls(&open_bytes(&bytes).unwrap()).unwrap()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Payloads with right checksums and wrong content: an error or calls, no panic, and no more
    /// memory than the limits of the format allow.
    #[test]
    fn invented_payloads_do_no_harm(seed: u64, changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let run = true_run(seed, 1, 2, 60, 3);
        let reader = open_bytes(&run.to_trace()).unwrap();
        if let Some(entry) = reader.frames().first() {
            let mut payload = reader.raw_frame(entry).unwrap().bytes[HEADER_BYTES..].to_vec();
            for (at, value) in changes {
                let at = at as usize % payload.len();
                payload[at] = value;
            }
            if let Ok(frame) = Frame::open(&payload, &mut Default::default()) {
                for n in 0..frame.segments.len() {
                    let _ = frame.calls(n);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_no_payload_that_harms(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Frame::open(&bytes, &mut Default::default());
        let _ = rmtrace_file::index::Index::decode(&bytes);
    }
}
