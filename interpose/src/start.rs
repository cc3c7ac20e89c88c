//! Starting: once, from the constructor or from the first hooked call, whichever comes first.
//!
//! The order matters: first the originals, so that hooked functions work whatever comes after; then
//! the clock, the run, the spool, the process; patches last. If anything is missing the program runs
//! on unrecorded.

use crate::detours::hook_all;
use crate::elf::{self, LinkMap, Scope, Symbol};
use crate::hooks::{self, HOOKS};
use crate::process::{self, Setup, Title};
use crate::rundir::{self, Run};
use crate::{clock, longjmp, spool, sys, thread};
use core::arch::naked_asm;
use core::ffi::{CStr, c_char};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use rmtrace_format::spool as layout;

static STATE: AtomicU32 = AtomicU32::new(0);
static MAIN: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

/// The initial stack: arguments, environment, auxiliary vector.
pub struct Environment {
    arguments: *const usize,
    count: usize,
    variables: *const usize,
}

impl Environment {
    /// Finds it: glibc publishes the initial stack; elsewhere it is found from `environ` (musl passes
    /// nothing to constructors).
    fn find() -> Option<Environment> {
        let stack = elf::initial_stack();
        if !stack.is_null() {
            // SAFETY: the initial stack begins with the number of arguments.
            let count = unsafe { stack.read() };
            let arguments = stack.wrapping_add(1);
            let variables = arguments.wrapping_add(count).wrapping_add(1);
            return Some(Environment {
                arguments,
                count,
                variables,
            });
        }
        let environ = find(b"__environ")?.1.address as *const *const usize;
        // SAFETY: the C library's variable of this name is a pointer to the variables.
        let variables = unsafe { environ.read() };
        if variables.is_null() {
            return None;
        }
        // Before the variables lie NULL, the arguments backwards, and their number.
        const ARGUMENTS_MAX: usize = 100_000;
        let at = |back: usize| variables.wrapping_sub(back);
        // SAFETY: the words before the variables are the initial stack's, up to their number.
        let count = (0..ARGUMENTS_MAX).find(|n| unsafe { at(n.wrapping_add(2)).read() } == *n)?;
        Some(Environment {
            arguments: at(count.wrapping_add(1)),
            count,
            variables,
        })
    }

    fn strings(first: *const usize) -> impl Iterator<Item = &'static [u8]> {
        let mut at = first;
        core::iter::from_fn(move || {
            if at.is_null() {
                return None;
            }
            // SAFETY: the kernel's arrays end with NULL.
            let string = unsafe { at.read() } as *const c_char;
            at = at.wrapping_add(1);
            // SAFETY: the kernel's strings are NUL-terminated and stay.
            (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_bytes())
        })
    }

    /// Value of a variable.
    pub fn get(&self, name: &[u8]) -> Option<&'static [u8]> {
        Self::strings(self.variables).find_map(|variable| {
            let value = variable.strip_prefix(name)?;
            value.strip_prefix(b"=")
        })
    }

    /// What the program was called as.
    pub fn program(&self) -> &'static [u8] {
        Self::strings(self.arguments).next().unwrap_or_default()
    }

    /// Where the arguments and, behind them, the variables lie.
    fn title(&self) -> Title {
        let end = |text: &[u8]| {
            (text.as_ptr() as usize)
                .wrapping_add(text.len())
                .wrapping_add(1)
        };
        let (Some(first), Some(last)) = (
            Self::strings(self.arguments).next(),
            Self::strings(self.arguments).last(),
        ) else {
            return Title::default();
        };
        let start = first.as_ptr() as usize;
        let area = Self::strings(self.variables).last().map_or(end(last), end);
        Title {
            start,
            arguments: end(last).saturating_sub(start),
            area: area.saturating_sub(start),
        }
    }

    /// Value of an entry of the auxiliary vector, which follows the variables.
    fn auxiliary(&self, kind: usize) -> usize {
        let mut at = self.variables;
        if at.is_null() {
            return 0;
        }
        // SAFETY: the kernel lays out variables, NULL, then pairs that end with AT_NULL.
        unsafe {
            while at.read() != 0 {
                at = at.wrapping_add(1);
            }
            at = at.wrapping_add(1);
            loop {
                let (tag, value) = (at.read(), at.wrapping_add(1).read());
                if tag == 0 {
                    return 0;
                }
                if tag == kind {
                    return value;
                }
                at = at.wrapping_add(2);
            }
        }
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = process::ending;

extern "C" fn constructor() {
    start_once();
}

/// Starts the library if nobody has: from the constructor, or from a hooked function that is called
/// before it.
pub fn start_once() {
    if STATE.load(Acquire) != 0 || STATE.compare_exchange(0, 1, AcqRel, Acquire).is_err() {
        return;
    }
    let Some(environment) = Environment::find() else {
        // Too early: the constructor comes later.
        STATE.store(0, Release);
        return;
    };
    start(&environment);
    STATE.store(2, Release);
}

/// The definition of `name` that the program reaches if this library is left out.
fn find(name: &[u8]) -> Option<(&'static LinkMap, Symbol)> {
    elf::objects()
        .filter(|object| !object.is_ours())
        .find_map(|object| Some((object, object.find(name)?)))
}

fn address_of(name: &[u8]) -> usize {
    find(name).map_or(0, |(_, symbol)| symbol.address)
}

fn start(environment: &Environment) {
    let scope = Scope::new();
    let address_of = |name: &[u8]| scope.find(name).map_or(0, |(_, symbol)| symbol.address);
    for hook in HOOKS.iter().filter(|hook| hook.exported) {
        if let Some((_, symbol)) = scope.find(hook.name) {
            hooks::set_real(hook.slot, symbol.address);
        }
    }
    for (n, name) in longjmp::NAMES.iter().enumerate() {
        longjmp::set_real(n, address_of(name));
    }
    MAIN.store(address_of(b"__libc_start_main"), Relaxed);
    let Some((allocator, _)) = scope.find(b"malloc") else {
        return;
    };
    let keeps_on_zero = [b"mi_malloc".as_slice(), b"moz_arena_malloc"]
        .iter()
        .any(|name| scope.find_in(allocator, name).is_some());
    hooks::set_zero_frees(!keeps_on_zero && !allocator.path().windows(4).any(|w| w == b"musl"));
    const AT_SYSINFO_EHDR: usize = 33;
    clock::start(environment.auxiliary(AT_SYSINFO_EHDR));
    let Some(run) = Run::find(environment) else {
        return;
    };
    if !open_spool(&run, environment, allocator) {
        sys::say(&[
            b"rmtrace: no room for a spool in ",
            run.path(),
            b"; this program is not recorded",
        ]);
        return;
    }
    let debug = environment.get(b"RMTRACE_DEBUG");
    let debug = debug.unwrap_or(b"/usr/lib/debug");
    let seen = hook_all(&scope, allocator, debug);
    if let Some(header) = spool::spool_header() {
        header.interposed.store(seen.interposed, Relaxed);
        header.detoured.store(seen.detoured, Relaxed);
        header.refused.store(seen.refused, Relaxed);
        let none = seen.interposed | seen.detoured == 0;
        let mut flags = header.flags.load(Relaxed) | layout::FLAG_READY;
        if none {
            flags |= layout::FLAG_NO_HOOKS;
        }
        if seen.no_allocator {
            flags |= layout::FLAG_NO_ALLOCATOR;
        }
        header.flags.store(flags, Release);
    }
    process::started();
}

/// Makes, maps and fills the spool, and everything of the process that goes with it.
fn open_spool(run: &Run, environment: &Environment, allocator: &LinkMap) -> bool {
    // SAFETY: the run has mapped it.
    let control = unsafe { &*run.control };
    let mut random = [0u8; 16];
    if !sys::random(&mut random) {
        return false;
    }
    let number = u128::from_le_bytes(random);
    let id = [number as u64, (number >> 64) as u64];
    let mut slabs = control.pool_bytes.load(Relaxed) / layout::SLAB_BYTES as u64;
    let (file_limit, _) = sys::limit(sys::RLIMIT_FSIZE);
    let room = file_limit.saturating_sub(layout::SLABS_OFFSET as u64);
    slabs = slabs
        .min(room / layout::SLAB_BYTES as u64)
        .min(layout::SLABS_MAX as u64);
    if slabs == 0 {
        return false;
    }
    let bytes =
        layout::SLABS_OFFSET.wrapping_add((slabs as usize).wrapping_mul(layout::SLAB_BYTES));
    let [low, _] = id;
    let prepare = |base: usize| {
        // SAFETY: fresh and mapped.
        unsafe {
            sys::make_present(base, layout::HEADER_BYTES)
                && sys::make_present(base.wrapping_add(layout::DIRECTORY_OFFSET), slabs as usize)
        }
    };
    let mut on_disk = run.on_disk;
    let base = run.make_spool(bytes, low, true, prepare).or_else(|| {
        // The memory file system is full by now, or its directory is gone.
        on_disk = true;
        run.make_spool(bytes, low, false, prepare)
    });
    let Some(base) = base else {
        return false;
    };
    // SAFETY: present.
    unsafe {
        (base as *mut [u64; 512]).write_bytes(0, 1);
        (base.wrapping_add(layout::DIRECTORY_OFFSET) as *mut u8).write_bytes(0, slabs as usize);
    }
    spool::connect(base, slabs as u32, id, run.control);
    if let Some((fd, identity)) = run.open_chunks() {
        let limit = control.limit_bytes.load(Relaxed).min(file_limit);
        spool::set_append(fd, identity, limit);
    }
    let wanted = control.flags.load(Relaxed);
    fill_header(
        base,
        on_disk,
        environment,
        id,
        slabs as u32,
        bytes as u64,
        wanted,
    );
    let usable_size = match wanted & layout::FLAG_USABLE {
        0 => 0,
        _ => allocator
            .find(b"malloc_usable_size")
            .map_or(0, |symbol| symbol.address),
    };
    let ready = process::start(&Setup {
        callers: wanted & layout::FLAG_CALLERS != 0,
        usable_size,
        title: environment.title(),
        key_create: address_of(b"pthread_key_create"),
        set_specific: address_of(b"pthread_setspecific"),
    });
    if ready && let Some(header) = spool::spool_header() {
        header.cost_ps.store(thread::measure_own_cost(), Relaxed);
    }
    ready
}

fn fill_header(
    base: usize,
    on_disk: bool,
    environment: &Environment,
    id: [u64; 2],
    slabs: u32,
    bytes: u64,
    wanted: u32,
) {
    let Some(header) = spool::spool_header() else {
        return;
    };
    let mut flags = wanted;
    if clock::is_monotonic() {
        flags |= layout::FLAG_MONOTONIC;
    }
    if on_disk {
        flags |= layout::FLAG_ON_DISK;
    }
    // /proc/self/task has a link for itself, its parent, and each thread.
    let threads = sys::stat(c"/proc/self/task").map_or(1, |stat| stat.links.saturating_sub(2));
    let others_first = elf::objects().any(|object| !object.is_ours() && object.is_init_first());
    if threads > 1 || others_first {
        flags |= layout::FLAG_LATE;
    }
    header.mapped_at.store(base as u64, Relaxed);
    header.version.store(layout::VERSION, Relaxed);
    header.flags.store(flags, Relaxed);
    for (field, value) in header.id.iter().zip(id) {
        field.store(value, Relaxed);
    }
    header.spool_bytes.store(bytes, Relaxed);
    header.slabs.store(slabs, Relaxed);
    header.pid.store(sys::getpid(), Relaxed);
    header.ppid.store(sys::getppid(), Relaxed);
    header.arguments.store(environment.count as u32, Relaxed);
    spool::store_triple(&header.started, clock::triple());
    header.realtime_ns.store(clock::realtime_ns(), Relaxed);
    // SAFETY: the header page is present, these ranges are in it and nobody else's yet.
    let (program, arguments) = unsafe {
        (
            core::slice::from_raw_parts_mut(
                base.wrapping_add(layout::PROGRAM_OFFSET) as *mut u8,
                layout::PROGRAM_BYTES.wrapping_sub(1),
            ),
            core::slice::from_raw_parts_mut(
                base.wrapping_add(layout::ARGUMENTS_OFFSET) as *mut u8,
                layout::ARGUMENTS_BYTES,
            ),
        )
    };
    sys::readlink(c"/proc/self/exe", program);
    let mut slots = arguments.iter_mut();
    'all: for argument in Environment::strings(environment.arguments) {
        for byte in argument.iter().chain([&0]) {
            match slots.next() {
                Some(slot) => *slot = *byte,
                None => break 'all,
            }
        }
    }
    header.magic.store(layout::MAGIC, Release);
}

/// What the program calls to run `main`: passes through, with the run in the environment.
///
/// # Safety
/// Called by the program's start code.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn __libc_start_main() {
    naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "sub rsp, 8",
        "call {before_main}",
        "mov r11, rax",
        "add rsp, 8",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "jmp r11",
        before_main = sym before_main,
    )
}

extern "C" fn before_main() -> usize {
    start_once();
    rundir::export();
    match MAIN.load(Relaxed) {
        0 => match address_of(b"__libc_start_main") {
            0 => sys::abort(),
            address => address,
        },
        address => address,
    }
}
