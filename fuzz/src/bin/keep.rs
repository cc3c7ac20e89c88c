//! keep PATH NAME [FLAGS]: makes seeds of a small trace or run directory.
//!
//! A trace becomes `seeds/trace/NAME`, as it is and without compression, a run directory
//! `seeds/run/NAME` and, of its first chunks, `seeds/records/NAME.N`. Each is kept cut and
//! flipped too. FLAGS are those of a run (`src/pieces.rs`).

use rmtrace_format::chunk::{Chunk, HEADER_BYTES, KIND_EVENTS, MAGIC};
use rmtrace_fuzz::mutate::Random;
use rmtrace_fuzz::pieces::Pieces;
use rmtrace_fuzz::seeds;
use std::error::Error;
use std::fs;
use std::path::Path;

/// Most bytes of records kept of a chunk, and most chunks.
const RECORD_BYTES: usize = 1024;
const CHUNKS: usize = 4;

fn save(folder: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = seeds::directory().join(folder);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// The bytes, and what a crash and a bad disk make of them.
fn save_all(folder: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    save(folder, name, bytes)?;
    save(
        folder,
        &format!("{name}.cut"),
        &bytes[..bytes.len() * 2 / 3],
    )?;
    let mut flipped = bytes.to_vec();
    let mut random = Random::new(1, bytes.len() as u64);
    for _ in 0..8 {
        let at = random.below(flipped.len());
        flipped[at] ^= 1 << random.below(8);
    }
    save(folder, &format!("{name}.flipped"), &flipped)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (Some(path), Some(name)) = (arguments.get(1), arguments.get(2)) else {
        return Err("usage: keep PATH NAME [FLAGS]".into());
    };
    let flags = arguments.get(3).map_or(Ok(1), |text| text.parse())?;
    let path = Path::new(path);
    if path.is_file() {
        let bytes = fs::read(path)?;
        save_all("trace", name, &bytes)?;
        let raw = seeds::uncompressed(&bytes).ok_or("this is no whole trace")?;
        save("trace", &format!("{name}.raw"), &raw)?;
        return Ok(());
    }
    let bytes = Pieces::collect(path, flags)?;
    save_all("run", name, &bytes)?;
    let mut found = 0;
    for at in 0..bytes.len().saturating_sub(HEADER_BYTES) {
        if !bytes[at..].starts_with(&MAGIC.to_le_bytes()) || found == CHUNKS {
            continue;
        }
        // Data behind a run of zeros is in another piece: not of use here.
        let Ok(chunk) = Chunk::parse(&bytes[at..]) else {
            continue;
        };
        let data = &bytes[at + HEADER_BYTES..];
        let length = data.len().min(chunk.committed as usize).min(RECORD_BYTES);
        if chunk.kind == KIND_EVENTS && length > 0 {
            let mut seed = chunk.opened.tsc.to_le_bytes().to_vec();
            seed.extend_from_slice(&data[..length]);
            save("records", &format!("{name}.{found}"), &seed)?;
            found += 1;
        }
    }
    Ok(())
}
