//! Heaps that threads share: growing from the system up to a limit, or over memory that the caller gives.

use crate::class::{Classes, Geometry};
use crate::heap::{Heap, Plan, Policy};
use crate::local::geometry_for;
use crate::os;
use crate::status::Error;
use crate::thread;

/// Address range of a heap that grows, if nothing else is said: 64 GiB.
const RESERVE_BYTES: u64 = 64 << 30;
/// The least.
const RESERVE_BYTES_MIN: u64 = 1 << 20;

/// What a heap that grows is made with.
#[derive(Clone)]
pub(crate) struct Settings {
    pub reserve_bytes: u64,
    pub limit_bytes: u64,
    pub entries_max: u64,
    pub generation_bits: u32,
    pub geometry: Geometry,
    pub classes: Classes,
    pub policy: Policy,
}

impl Settings {
    pub fn new() -> Settings {
        Settings {
            reserve_bytes: RESERVE_BYTES,
            limit_bytes: u64::MAX,
            entries_max: 1 << 30,
            generation_bits: 16,
            geometry: Geometry::DEFAULT,
            classes: crate::class::DEFAULT_CLASSES.clone(),
            policy: Policy {
                inline: true,
                trigger: 60_000,
                stop: 30_000,
                floor_bytes: 256 << 10,
                budget_ns: 200_000,
                cpu_share: 100_000,
                slack: 20_000,
            },
        }
    }

    fn plan(&self, geometry: Geometry, classes: Classes) -> Plan {
        Plan {
            geometry,
            classes,
            entries_max: self.entries_max as usize,
            generation_max: (1 << self.generation_bits.min(16)) - 1,
            limit_bytes: self.limit_bytes,
            given: false,
            policy: self.policy,
        }
    }
}

/// Makes a heap that grows from the system.
///
/// # Errors
/// [`Error::Memory`]: no addresses, no memory, or too many heaps.
pub(crate) fn create(settings: &Settings, first: bool) -> Result<&'static Heap, Error> {
    thread::register(first, |tag| {
        let mut bytes = settings.reserve_bytes.max(RESERVE_BYTES_MIN);
        if let Some(limit) = os::address_limit() {
            // The program wants addresses too.
            bytes = bytes.min((limit / 2).next_multiple_of(1 << 16));
        }
        loop {
            if let Some(memory) = os::reserve(bytes as usize) {
                let plan = settings.plan(settings.geometry, settings.classes.clone());
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

/// Makes a heap over memory that the caller gives; it never asks the system for more.
///
/// # Errors
/// [`Error::HeapTooSmall`]; [`Error::Memory`]: too many heaps.
///
/// # Safety
/// The memory is the heap's until it is destroyed.
pub(crate) unsafe fn create_in(
    memory: *mut u8,
    bytes: usize,
    settings: &Settings,
    first: bool,
) -> Result<&'static Heap, Error> {
    thread::register(first, |tag| {
        let geometry = geometry_for(bytes);
        let classes = Classes::with_default_sizes(&geometry).map_err(|_| Error::HeapTooSmall)?;
        let mut plan = settings.plan(geometry, classes);
        plan.entries_max = plan.entries_max.min(bytes / 24);
        plan.policy.slack = 0;
        plan.given = true;
        // SAFETY: the caller's promise.
        unsafe { Heap::create(memory, bytes, &plan, tag, os::platform_given()) }
    })
}

/// Ends a heap with all its blocks. Memory that the caller gave is the caller's again.
///
/// # Errors
/// [`Error::Handle`]: it is no live heap.
///
/// # Safety
/// No other thread is in a call on this heap, or makes one.
pub(crate) unsafe fn destroy(heap: *const Heap) -> Result<(), Error> {
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
    match create(&Settings::new(), true) {
        // Another thread was faster.
        Err(Error::Busy) => thread::heap_of(thread::DEFAULT_TAG).ok_or(Error::Handle),
        made => made,
    }
}
