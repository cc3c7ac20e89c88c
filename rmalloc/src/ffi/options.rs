//! What a heap is made with, as C says it, and the initialisation of the default heap.
//!
//! Owned here: the struct, which of its fields mean "as before" (0), and what a struct of another version means.
//! Left to others: what a setting may be ([`Config::check`]), and files (`config/file.rs`).

use super::{status, status_t};
use crate::config::{Config, Mode, SEGMENT_ENTRIES};
use crate::heap::Heap;
use crate::status::Error;
use crate::system::{self, Settings};
use core::ffi::{CStr, c_char, c_void};
use core::mem::offset_of;

/// `rmoptions_t`. A field that is 0 leaves the setting as it is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Options {
    /// Bytes of this struct, as the caller knows it.
    pub size: usize,
    /// The heap's memory; null: it grows from the system.
    pub memory: *mut c_void,
    /// Bytes of `memory`.
    pub memory_bytes: usize,
    /// Addresses to set aside, bytes.
    pub reserve_bytes: u64,
    /// The heap takes no more memory than this, bytes.
    pub limit_bytes: u64,
    /// Entries of the handle table at most.
    pub entries: u64,
    /// Free bytes below which the policy does nothing.
    pub floor_bytes: u64,
    /// Longest step of the policy, nanoseconds.
    pub budget_ns: u64,
    /// Path of a configuration file, which says what this struct does not.
    pub config_path: *const c_char,
    /// Bits of an entry's generation, 1 to 16.
    pub generation_bits: u32,
    /// Who compacts when the policy says so: 1 nobody, 2 threads that allocate and free, 3 a thread of its own.
    pub compaction: u32,
    /// Free share of the memory at which the policy starts, millionths.
    pub trigger_ppm: u32,
    /// Free share at which it ends, millionths.
    pub stop_ppm: u32,
    /// Share of the time that steps may take, millionths.
    pub cpu_share_ppm: u32,
    /// Share of the memory that may stay resident without blocks, millionths.
    pub slack_ppm: u32,
}

/// Bytes of the first version of the struct.
const OPTIONS_BYTES_MIN: usize = 96;

const _: () = assert!(size_of::<Options>() == OPTIONS_BYTES_MIN);
const _: () =
    assert!(offset_of!(Options, config_path) == 64 && offset_of!(Options, slack_ppm) == 92);

impl Options {
    /// Nothing said.
    pub const NONE: Options = Options {
        size: size_of::<Options>(),
        memory: core::ptr::null_mut(),
        memory_bytes: 0,
        reserve_bytes: 0,
        limit_bytes: 0,
        entries: 0,
        floor_bytes: 0,
        budget_ns: 0,
        config_path: core::ptr::null(),
        generation_bits: 0,
        compaction: 0,
        trigger_ppm: 0,
        stop_ppm: 0,
        cpu_share_ppm: 0,
        slack_ppm: 0,
    };

    /// A caller's struct. One of a later version is understood if what it says more is 0.
    ///
    /// # Errors
    /// [`Error::Argument`]: the size is too small, or it says what this version does not understand.
    ///
    /// # Safety
    /// Null, or the first field is readable, and so are as many bytes as it says.
    unsafe fn read(from: *const Options) -> Result<Options, Error> {
        let mut options = Options::NONE;
        if from.is_null() {
            return Ok(options);
        }
        // SAFETY: the caller's promise.
        unsafe {
            let size = (&raw const (*from).size).read();
            if size < OPTIONS_BYTES_MIN {
                return Err(Error::Argument);
            }
            let known = size_of::<Options>();
            let bytes: *const u8 = from.cast();
            core::ptr::copy_nonoverlapping(bytes, (&raw mut options).cast(), size.min(known));
            if (known..size).any(|at| bytes.add(at).read() != 0) {
                return Err(Error::Argument);
            }
        }
        Ok(options)
    }

    /// Changes what the options say.
    fn apply(&self, config: &mut Config) -> Result<(), Error> {
        if self.memory.is_null() != (self.memory_bytes == 0) {
            return Err(Error::Argument);
        }
        if !self.memory.is_null() && (self.reserve_bytes != 0 || self.limit_bytes != 0) {
            return Err(Error::Argument);
        }
        if self.generation_bits > 16 {
            return Err(Error::Argument);
        }
        fn set<T: Copy + PartialEq + Default>(setting: &mut T, value: T) {
            if value != T::default() {
                *setting = value;
            }
        }
        let round = |count: u64, to: u64| count.checked_next_multiple_of(to).ok_or(Error::Argument);
        set(
            &mut config.heap.reserve_bytes,
            round(self.reserve_bytes, 1 << 20)?,
        );
        set(&mut config.heap.limit_bytes, self.limit_bytes);
        set(
            &mut config.table.entries,
            round(self.entries, SEGMENT_ENTRIES)?,
        );
        config.table.first_entries = config.table.first_entries.min(config.table.entries);
        set(&mut config.entry.generation_bits, self.generation_bits);
        let compaction = &mut config.compaction;
        set(&mut compaction.floor_bytes, self.floor_bytes);
        set(&mut compaction.budget_ns, self.budget_ns);
        set(&mut compaction.trigger_ppm, self.trigger_ppm);
        set(&mut compaction.stop_ppm, self.stop_ppm);
        set(&mut compaction.cpu_share_ppm, self.cpu_share_ppm);
        set(&mut compaction.slack_ppm, self.slack_ppm);
        compaction.mode = match self.compaction {
            0 => compaction.mode,
            1 => Mode::Off,
            2 => Mode::Inline,
            3 => Mode::Background,
            _ => return Err(Error::Argument),
        };
        config.check().map_err(|_| Error::Argument)
    }
}

/// Makes a heap. `first`: the default heap, which hears of the environment too.
///
/// # Errors
/// [`Error::Argument`], [`Error::Config`], [`Error::HeapTooSmall`], [`Error::Memory`], [`Error::Busy`].
///
/// # Safety
/// As [`Options::read`]; its path ends with a zero, its memory is the heap's until that is destroyed.
pub(super) unsafe fn make(from: *const Options, first: bool) -> Result<&'static Heap, Error> {
    // SAFETY: the caller's promise.
    let options = unsafe { Options::read(from)? };
    let mut config = if !options.config_path.is_null() {
        // SAFETY: the caller's promise.
        system::config_of_file(unsafe { CStr::from_ptr(options.config_path) })?
    } else if first {
        system::config_of_default()
    } else {
        Config::new()
    };
    options.apply(&mut config)?;
    let settings = Settings::from_config(&config).map_err(|_| Error::Config)?;
    if options.memory.is_null() {
        system::create(&settings, first)
    } else {
        // SAFETY: the caller's promise.
        unsafe {
            system::create_in(
                options.memory.cast(),
                options.memory_bytes,
                &settings,
                first,
            )
        }
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `options` is null or what `rmalloc.h` says of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmalloc_init(options: *const Options) -> status_t {
    if crate::thread::heap_of(crate::thread::DEFAULT_TAG).is_some() {
        return Error::Busy as status_t;
    }
    // SAFETY: the caller's promise.
    status(unsafe { make(options, true) }.map(|_| ()))
}
