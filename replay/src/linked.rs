//! The rmalloc that is linked in: its functions, and what it says of itself. The one place that knows the crate.

use crate::handles::HandleFunctions;
use crate::load::{Allocator, Loaded, Upkeep};
use crate::own::Own;
use crate::watch::Usable;
use std::ffi::{c_int, c_void};
use std::mem;

/// The linked-in rmalloc.
///
/// # Errors
/// Its settings can't be used. It would take the defaults, and the figures would be those of another configuration.
pub fn linked() -> Result<Allocator, String> {
    if let Err(error) = rmalloc::config::Config::from_env() {
        return Err(error.to_string());
    }
    // SAFETY: handles and results are pointers on both sides; what they point to is opaque to the replayer, or, for a
    // result, larger than the structure and as aligned.
    let functions = unsafe {
        HandleFunctions {
            rmalloc: mem::transmute::<
                *const (),
                unsafe extern "C" fn(*mut *mut c_void, isize) -> c_int,
            >(rmalloc::ffi::rmalloc as *const ()),
            rmalloc_aligned: mem::transmute::<
                *const (),
                unsafe extern "C" fn(*mut *mut c_void, isize, usize) -> c_int,
            >(rmalloc::ffi::rmalloc_aligned as *const ()),
            rmlock: mem::transmute::<
                *const (),
                unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int,
            >(rmalloc::ffi::rmlock as *const ()),
            rmlock_shared: mem::transmute::<
                *const (),
                unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int,
            >(rmalloc::ffi::rmlock_shared as *const ()),
            rmunlock: mem::transmute::<*const (), unsafe extern "C" fn(*mut c_void) -> c_int>(
                rmalloc::ffi::rmunlock as *const (),
            ),
            rmresize: mem::transmute::<*const (), unsafe extern "C" fn(*mut c_void, isize) -> c_int>(
                rmalloc::ffi::rmresize as *const (),
            ),
            rmfree: mem::transmute::<*const (), unsafe extern "C" fn(*mut c_void) -> c_int>(
                rmalloc::ffi::rmfree as *const (),
            ),
        }
    };
    // SAFETY: as above.
    let compact = unsafe {
        mem::transmute::<*const (), unsafe extern "C" fn(u64, *mut c_void) -> c_int>(
            rmalloc::ffi::rmcompact as *const (),
        )
    };
    Ok(Allocator {
        loaded: Loaded::Handles(
            functions,
            Upkeep {
                compact,
                own: Some(own),
            },
        ),
        // SAFETY: as above.
        usable: Usable::Handle(unsafe {
            mem::transmute::<*const (), unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int>(
                rmalloc::ffi::rmsize as *const (),
            )
        }),
        version: format!("rmalloc {}", env!("CARGO_PKG_VERSION")),
        file: String::new(),
    })
}

/// What the default heap says of itself.
fn own() -> Own {
    let mut stats = rmalloc::Stats::default();
    // SAFETY: `stats` can be written to.
    if unsafe { rmalloc::ffi::rmstats(&mut stats) } != 0 {
        return Own::default();
    }
    let compaction = stats.compaction;
    Own {
        resident_bytes: stats.resident_bytes,
        table_bytes: stats.table_bytes,
        dirty_bytes: stats.dirty_bytes,
        entries_taken: stats.entries_taken,
        entries_retired: stats.entries_retired,
        moved_blocks: compaction.blocks_moved,
        moved_bytes: compaction.bytes_moved,
        pinned_blocks: compaction.blocks_pinned,
        abandoned_blocks: compaction.blocks_abandoned,
        released_bytes: compaction.bytes_released,
        survey_ns: compaction.survey_ns,
        move_ns: compaction.move_ns,
        release_ns: compaction.release_ns,
        steps: compaction.steps,
        longest_pause_ns: compaction.longest_ns,
    }
}
