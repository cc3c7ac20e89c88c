//! A spool from the collector's side: taking full chunks and giving them back.
//!
//! The file is mapped for what processes and the collector change together (lists and states); the
//! chunks' bytes are read with `pread`. The traced program may have written anything there: every
//! number is checked before it is used as a place.

use memmap2::{MmapOptions, MmapRaw};
use rmtrace_file::gather::image::{Slot, SpoolImage};
use rmtrace_file::gather::lease::{self, Lease};
use rmtrace_file::gather::spool_file::{read_image, read_slot};
use rmtrace_format::chunk::{ChunkHeader, LARGE_BYTES, SMALL_BYTES, STATE_FREE, STATE_FULL};
use rmtrace_format::spool::{
    DIRECTORY_OFFSET, PAGE_BYTES, SHARED_OFFSET, SLAB_BYTES, SLAB_LARGE, SLAB_SMALL, SLABS_OFFSET,
    SMALL_PER_SLAB, Shared,
};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU8, AtomicU64};

/// A spool file, open and mapped.
pub struct SpoolMap {
    /// Its name.
    pub path: PathBuf,
    file: File,
    map: MmapRaw,
    slabs: u32,
}

/// Offset of a chunk that was handed over.
pub type Offset = u64;

fn offset_of(number: u32) -> Offset {
    (SLABS_OFFSET + number as usize * PAGE_BYTES) as Offset
}

fn number_of(offset: Offset) -> u32 {
    ((offset as usize).saturating_sub(SLABS_OFFSET) / PAGE_BYTES) as u32
}

impl SpoolMap {
    /// Opens and maps the spool at `path`, with the descriptor that [`SpoolMap::lease`] needs to
    /// be the only one.
    pub fn open(path: &Path) -> io::Result<SpoolMap> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        let length = file.metadata()?.len() as usize;
        if !file.metadata()?.is_file() || length < SLABS_OFFSET {
            return Err(io::Error::other("not a whole spool"));
        }
        let map = MmapOptions::new().len(length).map_raw(&file)?;
        let slabs = ((length - SLABS_OFFSET) / SLAB_BYTES) as u32;
        Ok(SpoolMap {
            path: path.to_owned(),
            file,
            map,
            slabs,
        })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The header page, if it is complete.
    pub fn image(&self) -> Option<SpoolImage> {
        read_image(&self.file)
    }

    /// A process slot, if it is filled.
    pub fn slot(&self, number: u32) -> Option<Slot> {
        read_slot(&self.file, number)
    }

    /// Bytes of the mapping.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Whether other processes have it.
    pub fn lease(&self) -> Lease {
        lease::ask(&self.file)
    }

    fn at<T>(&self, offset: usize) -> &T {
        debug_assert!(offset + size_of::<T>() <= self.map.len());
        // SAFETY: callers give offsets within the mapping that are aligned for `T`, which is made of
        // atomics; the mapping lives as long as `self`.
        unsafe { &*(self.map.as_ptr().add(offset) as *const T) }
    }

    /// What is changed together with the processes.
    pub fn shared(&self) -> &Shared {
        self.at(SHARED_OFFSET)
    }

    /// Bytes of the chunk with this number, if there is one.
    fn chunk_bytes(&self, number: u32) -> Option<usize> {
        let slab = number / SMALL_PER_SLAB as u32;
        if slab >= self.slabs {
            return None;
        }
        let kind: &AtomicU8 = self.at(DIRECTORY_OFFSET + slab as usize);
        match kind.load(Acquire) {
            SLAB_LARGE if number.is_multiple_of(SMALL_PER_SLAB as u32) => Some(LARGE_BYTES),
            SLAB_SMALL => Some(SMALL_BYTES),
            _ => None,
        }
    }

    fn header(&self, number: u32) -> &ChunkHeader {
        self.at(offset_of(number) as usize)
    }

    /// Takes everything that was handed over since, the oldest first.
    pub fn take_full(&self, taken: &mut Vec<Offset>) {
        let full = &self.shared().full.0;
        let mut head = full.load(Acquire);
        loop {
            if head as u32 == 0 {
                return;
            }
            let empty = (head >> 32).wrapping_add(1) << 32;
            match full.compare_exchange_weak(head, empty, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        let begin = taken.len();
        let limit = self.slabs as usize * SMALL_PER_SLAB;
        let mut next = head as u32;
        while let Some(number) = next.checked_sub(1) {
            if self.chunk_bytes(number).is_none() || taken.len() - begin >= limit {
                break; // Not a list that we know.
            }
            let header = self.header(number);
            next = header.next.load(Relaxed);
            if header.state.load(Acquire) == STATE_FULL {
                taken.push(offset_of(number));
            }
        }
        taken[begin..].reverse();
    }

    /// Gives a chunk back to the processes.
    pub fn release(&self, offset: Offset) {
        let number = number_of(offset);
        let Some(bytes) = self.chunk_bytes(number) else {
            return;
        };
        let header = self.header(number);
        loop {
            let state = header.state.load(Acquire);
            if state == STATE_FREE {
                return; // Its thread gave it back itself.
            }
            let free = header
                .state
                .compare_exchange(state, STATE_FREE, AcqRel, Acquire);
            if free.is_ok() {
                break;
            }
        }
        let shared = self.shared();
        let list = match bytes {
            LARGE_BYTES => &shared.free_large.0,
            _ => &shared.free_small.0,
        };
        push(list, number, |next| header.next.store(next, Relaxed));
    }
}

fn push(list: &AtomicU64, number: u32, link: impl Fn(u32)) {
    let mut head = list.load(Acquire);
    loop {
        link(head as u32);
        let new = (head >> 32).wrapping_add(1) << 32 | u64::from(number + 1);
        match list.compare_exchange_weak(head, new, AcqRel, Acquire) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}
