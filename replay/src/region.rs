//! Memory of the replayer's own: mapped from the system before anything is measured and touched at once, so that
//! it is a constant in every sample and no allocator holds any of it. All `mmap` of the crate is here.

use crate::error::ReplayError;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

/// From here on a region asks for huge pages.
const HUGE_BYTES: usize = 2 << 20;

/// Mapped memory, given back when dropped.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

impl Region {
    /// Zeroed memory. With `resident` its pages are there now, huge ones where the system has them.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn zeroed(bytes: usize, resident: bool) -> Result<Region, ReplayError> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let region = Region::map(bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1)
            .map_err(|source| ReplayError::Memory { bytes, source })?;
        if resident {
            if bytes >= HUGE_BYTES {
                // SAFETY: the range is the region's own; the advice changes no contents.
                unsafe { libc::madvise(region.start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
            }
            for at in (0..bytes).step_by(4096) {
                // SAFETY: `at` is within the region, which is writable and which nothing else knows yet.
                unsafe { region.start.as_ptr().add(at).write_volatile(0) };
            }
        }
        Ok(region)
    }

    /// The first `bytes` of a file, to be read.
    ///
    /// # Errors
    /// What the system said.
    pub fn of_file(file: &File, bytes: usize) -> io::Result<Region> {
        let flags = libc::MAP_PRIVATE | libc::MAP_POPULATE;
        Region::map(bytes, libc::PROT_READ, flags, file.as_raw_fd())
    }

    fn map(bytes: usize, protection: i32, flags: i32, file: i32) -> io::Result<Region> {
        let bytes = bytes.max(1);
        // SAFETY: a new mapping at an address of the system's choice; nothing else is touched.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, file, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Region { start, bytes })
    }

    /// Its first byte; page aligned.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Its bytes as words, whole ones.
    pub fn words(&self) -> &[u64] {
        // SAFETY: the region is mapped readable for as long as it lives, page aligned, and any bytes are words.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 8) }
    }

    /// Its bytes as words that several threads may read and write. Not of a region of a file.
    pub fn atomic_words(&self) -> &[AtomicU64] {
        // SAFETY: as in `words`; an atomic word is as large and aligned as a plain one. Whoever borrows plain words of
        // the same region to change them borrows it alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 8) }
    }

    /// Its bytes as words, whole ones, to be changed. Not of a region of a file.
    pub fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `words`; zeroed regions are writable, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes / 8) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` and nothing outlives the region that borrowed from it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
