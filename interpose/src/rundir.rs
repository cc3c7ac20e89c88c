//! The run directory: found through the environment, or made by the first process of a run.

use crate::clock;
use crate::elf;
use crate::start::Environment;
use crate::sys;
use crate::text::{self, Text};
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::{Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use rmtrace_format::spool::{
    CHUNKS_NAME, CONTROL_BYTES, CONTROL_MAGIC, CONTROL_NAME, Control, FLAG_CALLERS, FLAG_USABLE,
    LIMIT_BYTES_DEFAULT, Line, POOL_BYTES_DEFAULT, POOL_NAME, SPOOL_SUFFIX, VERSION,
    WAIT_NS_DEFAULT,
};

/// Name of the variable that tells descendants where the run is.
pub const VARIABLE: &[u8] = b"RMTRACE_SPOOL";

/// Where the control file is mapped: over a page of our own, so that the hot path finds it without a
/// pointer, and finds zeros before the start.
#[repr(C, align(4096))]
struct ControlPage {
    control: Control,
    rest: UnsafeCell<[u8; CONTROL_BYTES - size_of::<Control>()]>,
}

// SAFETY: only `control` is used, which is made of atomics.
unsafe impl Sync for ControlPage {}

static CONTROL: ControlPage = ControlPage {
    control: Control {
        magic: AtomicU64::new(0),
        version: AtomicU32::new(0),
        flags: AtomicU32::new(0),
        pool_bytes: AtomicU64::new(0),
        limit_bytes: AtomicU64::new(0),
        wait_ns: AtomicU64::new(0),
        collector_ns: Line(AtomicU64::new(0)),
        paused: Line(AtomicU32::new(0)),
    },
    rest: UnsafeCell::new([0; CONTROL_BYTES - size_of::<Control>()]),
};

/// Not 0 while recording is paused in the whole run: one load.
#[inline(always)]
pub fn paused() -> u32 {
    CONTROL.control.paused.0.load(Relaxed)
}

/// A run that can be written to.
pub struct Run {
    path: Text,
    /// The control file's mapping.
    pub control: *mut Control,
    /// Whether the pool is not in memory.
    pub on_disk: bool,
}

/// The variable for descendants, `RMTRACE_SPOOL=<path>`, where this process made the run.
struct Exported(UnsafeCell<Text>);
// SAFETY: written by the constructor, read before `main`.
unsafe impl Sync for Exported {}
static EXPORTED: Exported = Exported(UnsafeCell::new(Text::new()));
static HAS_EXPORTED: AtomicBool = AtomicBool::new(false);

impl Run {
    /// The run of the environment, or a new one.
    pub fn find(environment: &Environment) -> Option<Run> {
        if let Some(path) = environment.get(VARIABLE)
            && let Some(run) = Run::open(path)
        {
            return Some(run);
        }
        Run::make(environment)
    }

    fn open(path: &[u8]) -> Option<Run> {
        let control_path = Text::of(&[
            path,
            b"/",
            POOL_NAME.as_bytes(),
            b"/",
            CONTROL_NAME.as_bytes(),
        ]);
        let flags = sys::O_RDWR | sys::O_CLOEXEC | sys::O_NOFOLLOW;
        let fd = sys::open(control_path.path()?, flags, 0);
        if fd < 0 {
            return None;
        }
        let long_enough = sys::fstat(fd as i32).is_some_and(|s| s.bytes >= CONTROL_BYTES as u64);
        let on_disk = !sys::file_system(fd as i32).in_memory;
        let control = if long_enough {
            map_control(fd as i32)
        } else {
            None
        };
        sys::close(fd as i32);
        let control = control?;
        // SAFETY: just mapped.
        let header = unsafe { &*control };
        if header.magic.load(Relaxed) != CONTROL_MAGIC || header.version.load(Relaxed) != VERSION {
            sys::say(&[
                b"rmtrace: ",
                path,
                b" was made by another version; nothing is recorded",
            ]);
            return None;
        }
        Some(Run {
            path: Text::of(&[path]),
            control,
            on_disk,
        })
    }

    /// Makes `<program>-<date-time>-<random>.rmspool` in RMTRACE_DIR or the current directory, else in
    /// $XDG_RUNTIME_DIR or /tmp.
    fn make(environment: &Environment) -> Option<Run> {
        let mut random = [0u8; 24];
        if !sys::random(&mut random) {
            return None;
        }
        let (run_bytes, pool_bytes) = random.split_at(8);
        let name = run_name(environment.program(), run_bytes);
        let mut here = [0u8; text::CAPACITY];
        let length = sys::getcwd(&mut here).max(1).unsigned_abs().wrapping_sub(1);
        let here = here.get(..length).unwrap_or_default();
        let asked = environment
            .get(b"RMTRACE_DIR")
            .filter(|path| !path.is_empty());
        let asked = match asked {
            Some(path) if path.starts_with(b"/") => Text::of(&[path]),
            Some(path) => Text::of(&[here, b"/", path]),
            None => Text::of(&[here]),
        };
        let fallback = environment.get(b"XDG_RUNTIME_DIR").unwrap_or(b"/tmp");
        let mut path = None;
        for (n, parent) in [asked.bytes(), fallback, b"/tmp"].into_iter().enumerate() {
            let candidate = Text::of(&[parent, b"/", name.bytes()]);
            if parent.starts_with(b"/") && sys::mkdir(candidate.path()?, 0o700) == 0 {
                if n > 0 {
                    sys::say(&[
                        b"rmtrace: can't write to ",
                        asked.bytes(),
                        b"; recording to ",
                        candidate.bytes(),
                    ]);
                }
                path = Some(candidate);
                break;
            }
        }
        let Some(path) = path else {
            sys::say(&[
                b"rmtrace: no directory to record to; set RMTRACE_DIR to one that can be written",
            ]);
            return None;
        };
        let on_disk = make_pool(&path, environment, pool_bytes)?;
        let run = Run {
            control: make_control(&path, environment)?,
            path,
            on_disk,
        };
        // SAFETY: the constructor runs once, before anybody reads it.
        unsafe { *EXPORTED.0.get() = Text::of(&[VARIABLE, b"=", run.path.bytes()]) };
        HAS_EXPORTED.store(true, Release);
        Some(run)
    }

    /// Makes the file of a new spool of `bytes` bytes, in the pool or, without `in_pool`, beside it;
    /// maps it, and lets `prepare` make it usable at its address. The address, or `None`.
    pub fn make_spool(
        &self,
        bytes: usize,
        id: u64,
        in_pool: bool,
        prepare: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut path = Text::of(&[self.path.bytes(), b"/"]);
        if in_pool {
            path.push(POOL_NAME.as_bytes());
            path.push(b"/");
        }
        path.push_decimal(sys::getpid() as u64, 1);
        path.push(b"-");
        path.push_hex(id);
        path.push(SPOOL_SUFFIX.as_bytes());
        let flags = sys::O_RDWR | sys::O_CREAT | sys::O_EXCL | sys::O_CLOEXEC | sys::O_NOFOLLOW;
        let fd = sys::open(path.path()?, flags, 0o600);
        if fd < 0 {
            return None;
        }
        let fd = fd as i32;
        let mut at = -1;
        let has_room = !in_pool || {
            let found = sys::file_system(fd);
            !found.in_memory || found.free_bytes >= SPOOL_ROOM_BYTES_MIN
        };
        if has_room && sys::ftruncate(fd, bytes as u64) == 0 {
            let protection = sys::PROT_READ | sys::PROT_WRITE;
            let flags = sys::MAP_SHARED | sys::MAP_NORESERVE;
            // SAFETY: a new mapping.
            at = unsafe { sys::mmap(0, bytes, protection, flags, fd) };
        }
        sys::close(fd);
        if at > 0 && prepare(at as usize) {
            return Some(at as usize);
        }
        if at > 0 {
            sys::munmap(at as usize, bytes);
        }
        sys::unlink(path.path()?);
        None
    }

    /// Opens the file that full chunks are appended to, at a high descriptor number.
    pub fn open_chunks(&self) -> Option<(i32, sys::Stat)> {
        let path = Text::of(&[self.path.bytes(), b"/", CHUNKS_NAME.as_bytes()]);
        let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_APPEND | sys::O_CLOEXEC | sys::O_NOFOLLOW;
        let fd = sys::open(path.path()?, flags, 0o600);
        if fd < 0 {
            return None;
        }
        let (soft, _) = sys::limit(sys::RLIMIT_NOFILE);
        // High enough to be out of the way, low enough to keep the kernel's table small.
        let lowest = soft.min(4096).saturating_sub(24).max(3) as i32;
        let high = sys::dup_from(fd as i32, lowest);
        sys::close(fd as i32);
        if high < 0 {
            return None;
        }
        let identity = sys::fstat(high as i32)?;
        Some((high as i32, identity))
    }

    /// Path of the run directory.
    pub fn path(&self) -> &[u8] {
        self.path.bytes()
    }
}

fn map_control(fd: i32) -> Option<*mut Control> {
    let page = &raw const CONTROL as usize;
    let protection = sys::PROT_READ | sys::PROT_WRITE;
    let flags = sys::MAP_FIXED | sys::MAP_SHARED;
    // SAFETY: the page is ours, aligned, a page long; what is read of it meanwhile are zeros.
    let at = unsafe { sys::mmap(page, CONTROL_BYTES, protection, flags, fd) };
    (at == page as isize).then_some(page as *mut Control)
}

fn run_name(program: &[u8], random: &[u8]) -> Text {
    let base = text::base_name(program);
    let base = base.get(..base.len().min(64)).unwrap_or_default();
    let mut name = Text::of(&[if base.is_empty() { b"program" } else { base }, b"-"]);
    let seconds = clock::realtime_ns() / 1_000_000_000;
    let (year, month, day) = civil_date(seconds / 86_400);
    name.push_decimal(year, 4);
    name.push_decimal(month, 2);
    name.push_decimal(day, 2);
    name.push(b"T");
    name.push_decimal(seconds / 3600 % 24, 2);
    name.push_decimal(seconds / 60 % 60, 2);
    name.push_decimal(seconds % 60, 2);
    name.push(b"Z-");
    let number = u64::from_le_bytes(random.try_into().unwrap_or_default());
    let mut hex = Text::new();
    hex.push_hex(number);
    name.push(hex.bytes().get(..8).unwrap_or_default());
    name.push(b".rmspool");
    name
}

/// Year, month and day of `days` since 1970-01-01 in the Gregorian calendar, counted from the 1st of
/// March so that leap days come last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days.wrapping_add(719_468);
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era
        .wrapping_sub(day_of_era / 1460)
        .wrapping_add(day_of_era / 36_524)
        .wrapping_sub(day_of_era / 146_096))
        / 365;
    let before = year_of_era
        .wrapping_mul(365)
        .wrapping_add(year_of_era / 4)
        .wrapping_sub(year_of_era / 100);
    let day_of_year = day_of_era.wrapping_sub(before);
    let month = day_of_year.wrapping_mul(5).wrapping_add(2) / 153;
    let day = day_of_year
        .wrapping_sub(month.wrapping_mul(153).wrapping_add(2) / 5)
        .wrapping_add(1);
    let month = if month < 10 {
        month.wrapping_add(3)
    } else {
        month.wrapping_sub(9)
    };
    let year = year_of_era
        .wrapping_add(era.wrapping_mul(400))
        .wrapping_add((month <= 2) as u64);
    (year, month, day)
}

/// Makes the pool directory in memory and links it, else in the run itself. Whether it is on disk.
fn make_pool(run: &Text, environment: &Environment, random: &[u8]) -> Option<bool> {
    let link = Text::of(&[run.bytes(), b"/", POOL_NAME.as_bytes()]);
    let (low, high) = random.split_at(8);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let runtime = environment.get(b"XDG_RUNTIME_DIR").unwrap_or_default();
    for parent in [b"/dev/shm".as_slice(), runtime] {
        if !parent.starts_with(b"/") || !has_room(parent) {
            continue;
        }
        let mut pool = Text::of(&[parent, b"/rmtrace-"]);
        pool.push_hex(number(low));
        pool.push_hex(number(high));
        if sys::mkdir(pool.path()?, 0o700) != 0 {
            continue;
        }
        if sys::symlink(pool.path()?, link.path()?) == 0 {
            return Some(false);
        }
        sys::rmdir(pool.path()?);
    }
    (sys::mkdir(link.path()?, 0o700) == 0).then_some(true)
}

/// Room that a memory file system must have for a spool to be put there: one that is full but for what
/// somebody just gave back would take the header, and then drop calls.
const SPOOL_ROOM_BYTES_MIN: u64 = 1 << 20;

/// Room that a memory file system must have for a pool to be put there.
const ROOM_BYTES_MIN: u64 = 16 << 20;

/// Whether `directory` is in memory and has room.
fn has_room(directory: &[u8]) -> bool {
    let path = Text::of(&[directory]);
    let Some(path) = path.path() else {
        return false;
    };
    let fd = sys::open(path, sys::O_RDONLY | sys::O_DIRECTORY | sys::O_CLOEXEC, 0);
    if fd < 0 {
        return false;
    }
    let found = sys::file_system(fd as i32);
    sys::close(fd as i32);
    found.in_memory && found.free_bytes >= ROOM_BYTES_MIN
}

/// Makes the control file from the environment's settings.
fn make_control(run: &Text, environment: &Environment) -> Option<*mut Control> {
    let path = Text::of(&[
        run.bytes(),
        b"/",
        POOL_NAME.as_bytes(),
        b"/",
        CONTROL_NAME.as_bytes(),
    ]);
    let flags = sys::O_RDWR | sys::O_CREAT | sys::O_EXCL | sys::O_CLOEXEC | sys::O_NOFOLLOW;
    let fd = sys::open(path.path()?, flags, 0o600);
    if fd < 0 {
        return None;
    }
    let fd = fd as i32;
    let control = match sys::ftruncate(fd, CONTROL_BYTES as u64) {
        0 => map_control(fd),
        _ => None,
    };
    sys::close(fd);
    let control = control?;
    // SAFETY: fresh and mapped.
    if !unsafe { sys::make_present(control as usize, CONTROL_BYTES) } {
        return None;
    }
    let size = |name: &[u8], default: u64| match environment.get(name) {
        None => default,
        Some(text) => text::parse_size(text).unwrap_or_else(|| {
            sys::say(&[
                b"rmtrace: ",
                name,
                b"=",
                text,
                b" is not a size such as 64M; the default is used",
            ]);
            default
        }),
    };
    let is_set = |name: &[u8]| {
        environment
            .get(name)
            .is_some_and(|v| !v.is_empty() && v != b"0")
    };
    let drops = match environment.get(b"RMTRACE_ON_FULL") {
        Some(b"drop") => true,
        None | Some(b"wait") => false,
        Some(other) => {
            sys::say(&[
                b"rmtrace: RMTRACE_ON_FULL=",
                other,
                b" is neither wait nor drop; waiting",
            ]);
            false
        }
    };
    // SAFETY: mapped and present.
    let header = unsafe { &*control };
    header.version.store(VERSION, Relaxed);
    header
        .pool_bytes
        .store(size(b"RMTRACE_POOL", POOL_BYTES_DEFAULT), Relaxed);
    header
        .limit_bytes
        .store(size(b"RMTRACE_LIMIT", LIMIT_BYTES_DEFAULT), Relaxed);
    header
        .wait_ns
        .store(if drops { 0 } else { WAIT_NS_DEFAULT }, Relaxed);
    let mut wanted = 0;
    if is_set(b"RMTRACE_CALLERS") {
        wanted |= FLAG_CALLERS;
    }
    if is_set(b"RMTRACE_USABLE") {
        wanted |= FLAG_USABLE;
    }
    header.flags.store(wanted, Relaxed);
    header.collector_ns.0.store(0, Relaxed);
    header.magic.store(CONTROL_MAGIC, Release);
    Some(control)
}

/// Adds the run's variable to the environment that `main` and its children see. Called just before
/// `main`: the C library sets its `environ` after our constructor ran.
pub fn export() {
    if !HAS_EXPORTED.load(Relaxed) {
        return;
    }
    // SAFETY: written by the constructor, constant since.
    let variable = unsafe { &*EXPORTED.0.get() }.bytes();
    let Some(environ) = elf::objects().find_map(|object| object.find(b"__environ")) else {
        return;
    };
    let environ = environ.address as *mut *const usize;
    // SAFETY: the C library's pointer to a NULL-terminated array.
    let old = unsafe { environ.read() };
    let mut count = 0usize;
    // SAFETY: as above.
    while !old.is_null() && unsafe { old.wrapping_add(count).read() } != 0 {
        count = count.wrapping_add(1);
    }
    let bytes = count.wrapping_add(2).wrapping_mul(8);
    let (protection, flags) = (
        sys::PROT_READ | sys::PROT_WRITE,
        sys::MAP_PRIVATE | sys::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping.
    let new = unsafe { sys::mmap(0, bytes, protection, flags, -1) };
    if new <= 0 {
        return;
    }
    let new = new as *mut usize;
    let is_ours = |entry: usize| {
        // SAFETY: entries of the environment are strings at least as long as what matches.
        VARIABLE
            .iter()
            .chain(b"=")
            .enumerate()
            .all(|(n, byte)| unsafe { (entry.wrapping_add(n) as *const u8).read() == *byte })
    };
    let mut kept = 0usize;
    for n in 0..count {
        // SAFETY: `n` is below the number of entries, `kept` not above `n`.
        unsafe {
            let entry = old.wrapping_add(n).read();
            if !is_ours(entry) {
                new.wrapping_add(kept).write(entry);
                kept = kept.wrapping_add(1);
            }
        }
    }
    // SAFETY: the array has room for one more and the NULL; the text is NUL-terminated and constant.
    unsafe {
        new.wrapping_add(kept).write(variable.as_ptr() as usize);
        new.wrapping_add(kept).wrapping_add(1).write(0);
        environ.write(new);
    }
}
