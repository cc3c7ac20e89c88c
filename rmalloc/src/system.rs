//! Heaps that threads share: growing from the system up to a limit, or over memory that the caller gives.
//!
//! Owned here: what a heap is made with, from a [`Config`] on; making, ending, and the default heap. Left to others:
//! what the settings may be ([`crate::config`]), the list of heaps ([`crate::thread`]), the thread that compacts
//! ([`crate::background`]).

use crate::background;
use crate::class::{ClassError, Classes, Geometry};
use crate::config::{Config, Mode};
use crate::heap::{Heap, Plan, Policy};
use crate::local::layout_for;
use crate::os;
use crate::status::Error;
use crate::thread;

/// Least address range of a heap that grows.
const RESERVE_BYTES_MIN: u64 = 1 << 20;

/// What a heap is made with.
#[derive(Clone)]
pub(crate) struct Settings {
    pub reserve_bytes: u64,
    pub limit_bytes: u64,
    pub entries_max: u64,
    pub generation_bits: u32,
    pub geometry: Geometry,
    pub classes: Classes,
    #[cfg(feature = "beside")]
    pub leave_from_bytes: u32,
    pub policy: Policy,
}

impl Settings {
    /// Those of [`Config::new`].
    pub fn defaults() -> Settings {
        Settings::from_config(&Config::new()).expect("the defaults have no fault")
    }

    /// What a configuration means. It was checked; `[blocks]`, `[cache]`, `table.way` and what is said there to
    /// change nothing have no part in it.
    ///
    /// # Errors
    /// Classes that do not fit the regions; none after [`Config::check`].
    pub fn from_config(config: &Config) -> Result<Settings, ClassError> {
        let compaction = &config.compaction;
        Ok(Settings {
            reserve_bytes: config.heap.reserve_bytes,
            limit_bytes: config.heap.limit_bytes,
            entries_max: config.table.entries,
            generation_bits: config.entry.generation_bits,
            geometry: config.geometry(),
            classes: config.size_classes()?,
            #[cfg(feature = "beside")]
            leave_from_bytes: u32::try_from(config.blocks.handle_from_bytes).unwrap_or(u32::MAX),
            policy: Policy {
                inline: compaction.mode == Mode::Inline,
                nudge: if compaction.mode == Mode::Background {
                    Some(background::nudge)
                } else {
                    None
                },
                trigger: compaction.trigger_ppm,
                stop: compaction.stop_ppm,
                floor_bytes: compaction.floor_bytes,
                budget_ns: compaction.budget_ns,
                cpu_share: compaction.cpu_share_ppm,
                slack: compaction.slack_ppm,
            },
        })
    }

    fn plan(&self, geometry: Geometry, classes: Classes) -> Plan {
        if self.policy.nudge.is_some() {
            background::prepare();
        }
        Plan {
            geometry,
            classes,
            entries_max: usize::try_from(self.entries_max).unwrap_or(usize::MAX),
            generation_max: (1 << self.generation_bits.min(16)) - 1,
            limit_bytes: self.limit_bytes,
            given: false,
            #[cfg(feature = "beside")]
            leave_from_bytes: self.leave_from_bytes,
            policy: self.policy,
        }
    }
}

/// Makes a heap that grows from the system. `first`: the default heap.
///
/// # Errors
/// [`Error::Memory`]: no addresses, no memory, or too many heaps. [`Error::Busy`]: the default heap is there.
pub(crate) fn create(settings: &Settings, first: bool) -> Result<&'static Heap, Error> {
    let plan = settings.plan(settings.geometry, settings.classes.clone());
    thread::register(first, |tag| {
        let mut bytes = settings.reserve_bytes.max(RESERVE_BYTES_MIN);
        if let Some(limit) = os::address_limit() {
            // The program wants addresses too.
            bytes = bytes.min((limit / 2).next_multiple_of(1 << 16));
        }
        loop {
            if let Some(memory) = os::reserve(bytes as usize) {
                // SAFETY: the range is new, and the platform commits what is used of it.
                match unsafe { Heap::create(memory, bytes as usize, &plan, tag, os::platform()) } {
                    Ok(heap) => return Ok(heap),
                    Err(error) => {
                        // SAFETY: nothing uses it.
                        unsafe { os::unreserve(memory, bytes as usize) };
                        return Err(error);
                    }
                }
            }
            bytes /= 2;
            if bytes < RESERVE_BYTES_MIN {
                return Err(Error::Memory);
            }
        }
    })
}

/// Makes a heap over memory that the caller gives; it never asks the system for more. `first`: the default heap.
///
/// # Errors
/// [`Error::HeapTooSmall`]; [`Error::Memory`]: too many heaps; [`Error::Busy`]: the default heap is there.
///
/// # Safety
/// The memory is the heap's until it is destroyed.
pub(crate) unsafe fn create_in(
    memory: *mut u8,
    bytes: usize,
    settings: &Settings,
    first: bool,
) -> Result<&'static Heap, Error> {
    let (geometry, classes) = layout_for(bytes).map_err(|_| Error::HeapTooSmall)?;
    let mut plan = settings.plan(geometry, classes);
    plan.entries_max = plan.entries_max.min(bytes / 24);
    plan.policy.slack = 0;
    plan.given = true;
    thread::register(first, |tag| {
        // SAFETY: the caller's promise.
        unsafe { Heap::create(memory, bytes, &plan, tag, os::platform_given()) }
    })
}

/// Ends a heap with all its blocks. Memory that the caller gave is the caller's again.
///
/// # Errors
/// [`Error::Heap`]: it is no live heap. [`Error::Argument`]: the default heap, which lasts.
///
/// # Safety
/// No other thread is in a call on this heap, or makes one.
pub(crate) unsafe fn destroy(heap: *const Heap) -> Result<(), Error> {
    let tag = thread::heap_at(heap)?.tag;
    if tag == thread::DEFAULT_TAG {
        return Err(Error::Argument);
    }
    background::stop(tag);
    thread::unregister(heap)?;
    // SAFETY: it lived until now, and nobody else uses it.
    unsafe {
        let (base, bytes, given) = ((*heap).base, (*heap).reserved, (*heap).given);
        if !given {
            os::unreserve(base, bytes);
        }
    }
    Ok(())
}

/// The default heap, made at first use.
///
/// # Errors
/// As [`create`].
#[cold]
pub(crate) fn default_heap() -> Result<&'static Heap, Error> {
    if let Some(heap) = thread::heap_of(thread::DEFAULT_TAG) {
        return Ok(heap);
    }
    let settings = Settings::from_config(&config_of_default()).map_err(|_| Error::Config)?;
    match create(&settings, true) {
        // Another thread was faster.
        Err(Error::Busy) => thread::heap_of(thread::DEFAULT_TAG).ok_or(Error::Handle),
        made => made,
    }
}

/// What the environment says of the default heap, or the defaults; then one line on standard error says why.
#[cfg(feature = "config-file")]
pub(crate) fn config_of_default() -> Config {
    use std::sync::Once;
    static TOLD: Once = Once::new();
    Config::from_env().unwrap_or_else(|error| {
        TOLD.call_once(|| tell(&error.warning()));
        Config::new()
    })
}

/// The defaults: this build reads no files and no environment.
#[cfg(not(feature = "config-file"))]
pub(crate) fn config_of_default() -> Config {
    Config::new()
}

/// What a file says; why it can't be used goes to standard error.
///
/// # Errors
/// [`Error::Config`].
#[cfg(feature = "config-file")]
pub(crate) fn config_of_file(path: &core::ffi::CStr) -> Result<Config, Error> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    Config::from_file(path).map_err(|error| {
        tell(&format!("rmalloc: {error}\n"));
        Error::Config
    })
}

/// This build reads no files.
///
/// # Errors
/// [`Error::Config`], always.
#[cfg(not(feature = "config-file"))]
pub(crate) fn config_of_file(_: &core::ffi::CStr) -> Result<Config, Error> {
    Err(Error::Config)
}

/// Writes a line to standard error; that it can't be written is nobody's error.
#[cfg(feature = "config-file")]
pub(crate) fn tell(line: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(line.as_bytes());
}
