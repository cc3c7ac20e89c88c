//! The functions that are hooked: their wrappers, and where the originals are.
//!
//! Each wrapper exists twice, with the same code: under the function's own name, exported, for
//! programs that take their allocator from a library; and under a name of ours, for patched
//! functions (an exported name may lead back to the program's own definition). Both add the place of the
//! return address (`caller`) as one more argument and jump to the Rust function.

use crate::thread::{self, Guard, Thread};
use crate::{bootstrap, clock, start};
use core::arch::{global_asm, naked_asm};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use rmtrace_format::event::Entry;
use rmtrace_format::record::MARK_DISPOSE_ARENA;

/// Number of entries, and one for `moz_dispose_arena`.
const SLOTS: usize = 64;
/// Slot of `moz_dispose_arena`.
pub const DISPOSE_ARENA: usize = 63;

/// Addresses of the originals, by entry number.
static REAL: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];

/// Whether `realloc(p, 0)` that returns NULL has ended the block.
static ZERO_FREES: AtomicBool = AtomicBool::new(true);

/// Sets the original of a slot.
pub fn set_real(slot: usize, address: usize) {
    if let Some(real) = REAL.get(slot) {
        real.store(address, Relaxed);
    }
}

/// Address of the original, 0 if not known.
#[inline(always)]
pub fn real(slot: usize) -> usize {
    match REAL.get(slot) {
        Some(real) => real.load(Relaxed),
        None => 0,
    }
}

/// Says what `realloc(p, 0)` returning NULL means (docs/capture.md has the table).
pub fn set_zero_frees(frees: bool) {
    ZERO_FREES.store(frees, Relaxed);
}

/// Address of the original in `slot`, 0 if there is none; starts the library if it was called before
/// its constructor.
#[inline(always)]
fn original(slot: usize) -> usize {
    match real(slot) {
        0 => original_cold(slot),
        address => address,
    }
}

#[cold]
#[inline(never)]
fn original_cold(slot: usize) -> usize {
    start::start_once();
    let mut address = real(slot);
    if address == 0
        && matches!(slot, s if s == Entry::Cfree as usize || s == Entry::FreeSized as usize || s == Entry::FreeAlignedSized as usize)
    {
        // Absent from this C library: the same as free.
        address = real(Entry::Free as usize);
    }
    address
}

/// Calls the original at `address` with one to three words.
///
/// # Safety
/// `address` came from [`original`], and the arguments are what that function takes; more are ignored
/// by the calling convention.
#[inline(always)]
unsafe fn call<const N: usize>(address: usize, args: [usize; N]) -> usize {
    type One = unsafe extern "C" fn(usize) -> usize;
    type Two = unsafe extern "C" fn(usize, usize) -> usize;
    type Three = unsafe extern "C" fn(usize, usize, usize) -> usize;
    // SAFETY: `start` stores addresses of functions that take words and return one; the rest is the
    // caller's promise.
    unsafe {
        match *args.as_slice() {
            [a] => core::mem::transmute::<usize, One>(address)(a),
            [a, b] => core::mem::transmute::<usize, Two>(address)(a, b),
            [a, b, c] => core::mem::transmute::<usize, Three>(address)(a, b, c),
            _ => crate::sys::abort(),
        }
    }
}

/// Logarithm of the size of a page.
pub const PAGE_LOG2: u8 = 12;

/// Logarithm of an alignment.
pub fn log2(alignment: usize) -> u8 {
    (alignment.trailing_zeros() & 63) as u8
}

/// An allocation through the original in `entry`'s slot, with its words of arguments.
#[inline(always)]
fn allocate<const N: usize>(
    entry: Entry,
    align_log2: u8,
    size: usize,
    args: [usize; N],
    caller: usize,
) -> usize {
    let original = original(entry as usize);
    if original == 0 {
        return bootstrap::allocate(size, align_log2);
    }
    match thread::enter(caller) {
        Guard::Record(thread) => {
            // SAFETY: the arguments are the caller's.
            let block = unsafe { call(original, args) };
            thread.allocated(entry, align_log2, block, size)
        }
        // SAFETY: as above.
        Guard::Pass => unsafe { call(original, args) },
    }
}

/// A free of `block`, one of the arguments.
#[inline(always)]
fn release<const N: usize>(entry: Entry, block: usize, args: [usize; N], caller: usize) {
    if block == 0 || bootstrap::owns(block) {
        return;
    }
    let original = original(entry as usize);
    if original == 0 {
        return;
    }
    match thread::enter_inside(caller) {
        Guard::Record(thread) => {
            if !thread.freeing(entry, block) {
                let mut words = args.into_iter().chain([0; 3]);
                let mut next = || words.next().unwrap_or_default();
                return release_rare(thread, entry, block, next(), next(), next());
            }
            // SAFETY: the arguments are the caller's.
            unsafe { call(original, args) };
            thread.leave();
        }
        Guard::Pass => {
            // SAFETY: as above.
            unsafe { call(original, args) };
        }
    }
}

/// A free that [`Thread::freeing`] could not record.
#[cold]
#[inline(never)]
fn release_rare(thread: &mut Thread, entry: Entry, block: usize, a: usize, b: usize, c: usize) {
    thread.freeing_rare(entry, block);
    let original = original(entry as usize);
    if original != 0 {
        // SAFETY: the arguments are the caller's.
        unsafe { call(original, [a, b, c]) };
    }
    thread.leave();
}

/// A realloc of `block` to `size` bytes.
#[inline(always)]
fn resize<const N: usize>(
    entry: Entry,
    block: usize,
    size: usize,
    args: [usize; N],
    caller: usize,
) -> usize {
    if bootstrap::owns(block) {
        let new = allocate_plain(size, caller);
        bootstrap::copy_out(block, new, size);
        return new;
    }
    let original = original(entry as usize);
    if original == 0 {
        return bootstrap::allocate(size, 4);
    }
    match thread::enter(caller) {
        Guard::Record(thread) => {
            let before = clock::stamp_before();
            // SAFETY: the arguments are the caller's.
            let new = unsafe { call(original, args) };
            if thread.reallocated(entry, block, new, size, before) {
                return new;
            }
            resize_rare(thread, entry, block, new, size, before)
        }
        // SAFETY: as above.
        Guard::Pass => unsafe { call(original, args) },
    }
}

/// The end of a realloc that [`Thread::reallocated`] could not record. `new`.
#[cold]
#[inline(never)]
fn resize_rare(
    thread: &mut Thread,
    entry: Entry,
    block: usize,
    new: usize,
    size: usize,
    before: u64,
) -> usize {
    let freed = new == 0 && size == 0 && block != 0 && ZERO_FREES.load(Relaxed);
    thread.reallocated_rare(entry, block, new, size, before, freed);
    new
}

fn allocate_plain(size: usize, caller: usize) -> usize {
    allocate(Entry::Malloc, 0, size, [size], caller)
}

fn product(count: usize, size: usize) -> usize {
    count.saturating_mul(size)
}

extern "C" fn malloc_hook(size: usize, caller: usize) -> usize {
    allocate(Entry::Malloc, 0, size, [size], caller)
}

extern "C" fn calloc_hook(count: usize, size: usize, caller: usize) -> usize {
    allocate(
        Entry::Calloc,
        0,
        product(count, size),
        [count, size],
        caller,
    )
}

extern "C" fn realloc_hook(block: usize, size: usize, caller: usize) -> usize {
    resize(Entry::Realloc, block, size, [block, size], caller)
}

extern "C" fn reallocarray_hook(block: usize, count: usize, size: usize, caller: usize) -> usize {
    resize(
        Entry::Reallocarray,
        block,
        product(count, size),
        [block, count, size],
        caller,
    )
}

extern "C" fn free_hook(block: usize, caller: usize) {
    release(Entry::Free, block, [block], caller);
}

extern "C" fn cfree_hook(block: usize, caller: usize) {
    release(Entry::Cfree, block, [block], caller);
}

extern "C" fn free_sized_hook(block: usize, size: usize, caller: usize) {
    release(Entry::FreeSized, block, [block, size, 0], caller);
}

extern "C" fn free_aligned_sized_hook(block: usize, align: usize, size: usize, caller: usize) {
    release(Entry::FreeAlignedSized, block, [block, align, size], caller);
}

extern "C" fn posix_memalign_hook(
    out: *mut usize,
    align: usize,
    size: usize,
    caller: usize,
) -> usize {
    const ENOMEM: usize = 12;
    let original = original(Entry::PosixMemalign as usize);
    if original == 0 {
        let block = bootstrap::allocate(size, log2(align));
        if block == 0 {
            return ENOMEM;
        }
        // SAFETY: the caller's pointer.
        unsafe { out.write(block) };
        return 0;
    }
    match thread::enter(caller) {
        Guard::Record(thread) => {
            // SAFETY: the arguments are the caller's.
            let error = unsafe { call(original, [out as usize, align, size]) };
            let block = match error as u32 {
                // SAFETY: after success the function has stored there.
                0 => unsafe { out.read() },
                _ => 0,
            };
            thread.allocated(Entry::PosixMemalign, log2(align), block, size);
            error
        }
        // SAFETY: as above.
        Guard::Pass => unsafe { call(original, [out as usize, align, size]) },
    }
}

extern "C" fn aligned_alloc_hook(align: usize, size: usize, caller: usize) -> usize {
    allocate(
        Entry::AlignedAlloc,
        log2(align),
        size,
        [align, size, 0],
        caller,
    )
}

extern "C" fn memalign_hook(align: usize, size: usize, caller: usize) -> usize {
    allocate(Entry::Memalign, log2(align), size, [align, size, 0], caller)
}

extern "C" fn valloc_hook(size: usize, caller: usize) -> usize {
    allocate(Entry::Valloc, PAGE_LOG2, size, [size, 0, 0], caller)
}

extern "C" fn pvalloc_hook(size: usize, caller: usize) -> usize {
    allocate(Entry::Pvalloc, PAGE_LOG2, size, [size, 0, 0], caller)
}

/// Length of a string, of which `most` bytes are read.
pub fn length(text: usize, most: usize) -> usize {
    let mut n = 0usize;
    // SAFETY: the caller's string, read as strdup and strndup read it.
    while n < most && unsafe { (text.wrapping_add(n) as *const u8).read_volatile() } != 0 {
        n = n.wrapping_add(1);
    }
    n
}

extern "C" fn strdup_hook(text: usize, caller: usize) -> usize {
    let size = length(text, usize::MAX).wrapping_add(1);
    allocate(Entry::Strdup, 0, size, [text, 0, 0], caller)
}

extern "C" fn strndup_hook(text: usize, most: usize, caller: usize) -> usize {
    let size = length(text, most).wrapping_add(1);
    allocate(Entry::Strndup, 0, size, [text, most, 0], caller)
}

extern "C" fn new_nothrow_hook(size: usize, tag: usize, caller: usize) -> usize {
    allocate(Entry::NewNothrow, 0, size, [size, tag, 0], caller)
}

extern "C" fn new_array_nothrow_hook(size: usize, tag: usize, caller: usize) -> usize {
    allocate(Entry::NewArrayNothrow, 0, size, [size, tag, 0], caller)
}

extern "C" fn new_aligned_nothrow_hook(
    size: usize,
    align: usize,
    tag: usize,
    caller: usize,
) -> usize {
    allocate(
        Entry::NewAlignedNothrow,
        log2(align),
        size,
        [size, align, tag],
        caller,
    )
}

extern "C" fn new_array_aligned_nothrow_hook(
    size: usize,
    align: usize,
    tag: usize,
    caller: usize,
) -> usize {
    allocate(
        Entry::NewArrayAlignedNothrow,
        log2(align),
        size,
        [size, align, tag],
        caller,
    )
}

macro_rules! delete_hooks {
    ($($name:ident = $entry:ident;)*) => {$(
        extern "C" fn $name(block: usize, a: usize, b: usize, caller: usize) {
            release(Entry::$entry, block, [block, a, b], caller);
        }
    )*};
}

delete_hooks! {
    delete_hook = Delete;
    delete_array_hook = DeleteArray;
    delete_sized_hook = DeleteSized;
    delete_array_sized_hook = DeleteArraySized;
    delete_aligned_hook = DeleteAligned;
    delete_array_aligned_hook = DeleteArrayAligned;
    delete_sized_aligned_hook = DeleteSizedAligned;
    delete_array_sized_aligned_hook = DeleteArraySizedAligned;
    delete_nothrow_hook = DeleteNothrow;
    delete_array_nothrow_hook = DeleteArrayNothrow;
}

extern "C" fn moz_arena_malloc_hook(arena: usize, size: usize, caller: usize) -> usize {
    allocate(Entry::MozArenaMalloc, 0, size, [arena, size], caller)
}

extern "C" fn moz_arena_calloc_hook(
    arena: usize,
    count: usize,
    size: usize,
    caller: usize,
) -> usize {
    allocate(
        Entry::MozArenaCalloc,
        0,
        product(count, size),
        [arena, count, size],
        caller,
    )
}

extern "C" fn moz_arena_realloc_hook(
    arena: usize,
    block: usize,
    size: usize,
    caller: usize,
) -> usize {
    resize(
        Entry::MozArenaRealloc,
        block,
        size,
        [arena, block, size],
        caller,
    )
}

extern "C" fn moz_arena_free_hook(arena: usize, block: usize, caller: usize) {
    release(Entry::MozArenaFree, block, [arena, block], caller);
}

extern "C" fn moz_arena_memalign_hook(
    arena: usize,
    align: usize,
    size: usize,
    caller: usize,
) -> usize {
    allocate(
        Entry::MozArenaMemalign,
        log2(align),
        size,
        [arena, align, size],
        caller,
    )
}

/// Frees nothing: the arena has to be empty by then.
extern "C" fn moz_dispose_arena_hook(arena: usize, caller: usize) {
    if let Guard::Record(thread) = thread::enter(caller) {
        thread.mark(MARK_DISPOSE_ARENA, arena as u64);
        thread.leave();
    }
    let original = original(DISPOSE_ARENA);
    if original != 0 {
        // SAFETY: the argument is the caller's.
        unsafe { call(original, [arena]) };
    }
}

// Throwing forms of operator new: no Rust frame may lie between them and their caller, as an exception
// passes through. A stub with unwind information calls the original; when an exception passes, the
// unwinder calls the stub's personality, which ends the hooked call as a failed one.
global_asm!(
    ".macro rmtrace_new name, entry, slot",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name, @function",
    "\\name:",
    ".cfi_startproc",
    ".cfi_personality 0x1b, rmtrace_personality",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    "push r12",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset r12, -24",
    "push r13",
    ".cfi_def_cfa_offset 32",
    ".cfi_offset r13, -32",
    "mov rbx, rdi",
    "mov r12, rsi",
    "mov esi, \\entry",
    "lea rdx, [rsp + 24]",
    "call rmtrace_new_begin",
    "mov r13, rax",
    "mov rdi, rbx",
    "mov rsi, r12",
    "lea rax, [rip + {real}]",
    "call [rax + 8 * \\slot]",
    "test r13, r13",
    "je 2f",
    "mov rdi, r13",
    "mov rsi, rbx",
    "mov rdx, r12",
    "mov rcx, rax",
    "mov r8d, \\entry",
    "call rmtrace_new_end",
    "2: pop r13",
    ".cfi_def_cfa_offset 24",
    ".cfi_restore r13",
    "pop r12",
    ".cfi_def_cfa_offset 16",
    ".cfi_restore r12",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    ".cfi_restore rbx",
    "ret",
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".endm",
    ".pushsection .text.rmtrace_new, \"ax\", @progbits",
    "rmtrace_new rmtrace_stub_new, 14, 14",
    "rmtrace_new rmtrace_stub_new_array, 15, 15",
    "rmtrace_new rmtrace_stub_new_aligned, 18, 18",
    "rmtrace_new rmtrace_stub_new_array_aligned, 19, 19",
    // For a second allocator in the program (`spare_stub`).
    "rmtrace_new rmtrace_spare_new, 14, 59",
    "rmtrace_new rmtrace_spare_new_array, 15, 60",
    "rmtrace_new rmtrace_spare_new_aligned, 18, 61",
    "rmtrace_new rmtrace_spare_new_array_aligned, 19, 62",
    ".globl rmtrace_new_begin",
    ".hidden rmtrace_new_begin",
    "rmtrace_new_begin: jmp {begin}",
    ".globl rmtrace_new_end",
    ".hidden rmtrace_new_end",
    "rmtrace_new_end: jmp {end}",
    ".globl rmtrace_personality",
    ".hidden rmtrace_personality",
    "rmtrace_personality: jmp {personality}",
    ".popsection",
    real = sym REAL,
    begin = sym new_begin,
    end = sym new_end,
    personality = sym personality,
);

unsafe extern "C" {
    fn rmtrace_stub_new();
    fn rmtrace_stub_new_array();
    fn rmtrace_stub_new_aligned();
    fn rmtrace_stub_new_array_aligned();
    fn rmtrace_spare_new();
    fn rmtrace_spare_new_array();
    fn rmtrace_spare_new_aligned();
    fn rmtrace_spare_new_array_aligned();
}

/// The stub for a throwing `operator new` of a second allocator, and its slot, if it is not yet taken.
pub fn spare_stub(entry: Entry) -> Option<(usize, usize)> {
    let (slot, stub) = match entry {
        Entry::New => (59, rmtrace_spare_new as *const () as usize),
        Entry::NewArray => (60, rmtrace_spare_new_array as *const () as usize),
        Entry::NewAligned => (61, rmtrace_spare_new_aligned as *const () as usize),
        Entry::NewArrayAligned => (62, rmtrace_spare_new_array_aligned as *const () as usize),
        _ => return None,
    };
    (real(slot) == 0).then_some((slot, stub))
}

extern "C" fn new_begin(size: usize, entry: usize, caller: usize) -> *mut Thread {
    match thread::enter(caller) {
        Guard::Record(thread) => {
            thread.pending = (entry as u64) << 58 | 1 << 57 | (size as u64 & ((1 << 56) - 1));
            thread
        }
        Guard::Pass => core::ptr::null_mut(),
    }
}

extern "C" fn new_end(
    thread: *mut Thread,
    size: usize,
    align: usize,
    block: usize,
    entry: usize,
) -> usize {
    let is_aligned =
        entry == Entry::NewAligned as usize || entry == Entry::NewArrayAligned as usize;
    let align_log2 = if is_aligned { log2(align) } else { 0 };
    // SAFETY: `new_begin` gave it to this very call.
    let thread = unsafe { thread.as_mut() };
    if let (Some(thread), Some(entry)) = (thread, Entry::from_number(entry as u8)) {
        thread.pending = 0;
        thread.allocated(entry, align_log2, block, size);
    }
    block
}

/// What the unwinder calls when an exception passes a stub: in the cleanup phase the call ends.
extern "C" fn personality(_version: i32, actions: i32) -> i32 {
    const CLEANUP_PHASE: i32 = 2;
    const CONTINUE_UNWIND: i32 = 8;
    if actions & CLEANUP_PHASE != 0 {
        thread::abandon();
    }
    CONTINUE_UNWIND
}

/// One hooked function.
pub struct Hook {
    /// Its name in symbol tables.
    pub name: &'static [u8],
    /// Slot of its original: an entry's number, or [`DISPOSE_ARENA`].
    pub slot: usize,
    /// Whether this library exports a definition.
    pub exported: bool,
    wrapper: unsafe extern "C" fn(),
}

impl Hook {
    /// Where a patched function is led.
    pub fn wrapper(&self) -> usize {
        self.wrapper as usize
    }
}

macro_rules! thunks {
    ($($exported:ident $hook:ident $register:literal;)*) => {
        /// Wrappers under the functions' own names.
        mod exported {
            use super::*;
            $(
                #[unsafe(no_mangle)]
                #[unsafe(naked)]
                unsafe extern "C" fn $exported() {
                    naked_asm!(concat!("mov ", $register, ", rsp"), "jmp {}", sym $hook)
                }
            )*
        }
        /// The same wrappers for patched functions.
        mod internal {
            use super::*;
            $(
                #[unsafe(naked)]
                pub unsafe extern "C" fn $exported() {
                    naked_asm!(concat!("mov ", $register, ", rsp"), "jmp {}", sym $hook)
                }
            )*
        }
    };
}

macro_rules! internal_thunks {
    ($($name:ident $hook:ident $register:literal;)*) => {$(
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(concat!("mov ", $register, ", rsp"), "jmp {}", sym $hook)
        }
    )*};
}

thunks! {
    malloc malloc_hook "rsi";
    calloc calloc_hook "rdx";
    realloc realloc_hook "rdx";
    reallocarray reallocarray_hook "rcx";
    free free_hook "rsi";
    cfree cfree_hook "rsi";
    free_sized free_sized_hook "rdx";
    free_aligned_sized free_aligned_sized_hook "rcx";
    posix_memalign posix_memalign_hook "rcx";
    aligned_alloc aligned_alloc_hook "rdx";
    memalign memalign_hook "rdx";
    valloc valloc_hook "rsi";
    pvalloc pvalloc_hook "rsi";
}

internal_thunks! {
    strdup_thunk strdup_hook "rsi";
    strndup_thunk strndup_hook "rdx";
    new_nothrow_thunk new_nothrow_hook "rdx";
    new_array_nothrow_thunk new_array_nothrow_hook "rdx";
    new_aligned_nothrow_thunk new_aligned_nothrow_hook "rcx";
    new_array_aligned_nothrow_thunk new_array_aligned_nothrow_hook "rcx";
    delete_thunk delete_hook "rcx";
    delete_array_thunk delete_array_hook "rcx";
    delete_sized_thunk delete_sized_hook "rcx";
    delete_array_sized_thunk delete_array_sized_hook "rcx";
    delete_aligned_thunk delete_aligned_hook "rcx";
    delete_array_aligned_thunk delete_array_aligned_hook "rcx";
    delete_sized_aligned_thunk delete_sized_aligned_hook "rcx";
    delete_array_sized_aligned_thunk delete_array_sized_aligned_hook "rcx";
    delete_nothrow_thunk delete_nothrow_hook "rcx";
    delete_array_nothrow_thunk delete_array_nothrow_hook "rcx";
    moz_arena_malloc_thunk moz_arena_malloc_hook "rdx";
    moz_arena_calloc_thunk moz_arena_calloc_hook "rcx";
    moz_arena_realloc_thunk moz_arena_realloc_hook "rcx";
    moz_arena_free_thunk moz_arena_free_hook "rdx";
    moz_arena_memalign_thunk moz_arena_memalign_hook "rcx";
    moz_dispose_arena_thunk moz_dispose_arena_hook "rsi";
}

macro_rules! hooks {
    ($($name:literal $entry:ident $exported:literal $wrapper:path;)*) => {
        &[$(Hook { name: $name, slot: Entry::$entry as usize, exported: $exported, wrapper: $wrapper },)*]
    };
}

/// Every hooked function. Where two names are one function, the first is recorded.
pub static HOOKS: &[Hook] = hooks! {
    b"malloc" Malloc true internal::malloc;
    b"free" Free true internal::free;
    b"calloc" Calloc true internal::calloc;
    b"realloc" Realloc true internal::realloc;
    b"memalign" Memalign true internal::memalign;
    b"posix_memalign" PosixMemalign true internal::posix_memalign;
    b"aligned_alloc" AlignedAlloc true internal::aligned_alloc;
    b"reallocarray" Reallocarray true internal::reallocarray;
    b"valloc" Valloc true internal::valloc;
    b"pvalloc" Pvalloc true internal::pvalloc;
    b"cfree" Cfree true internal::cfree;
    b"free_sized" FreeSized true internal::free_sized;
    b"free_aligned_sized" FreeAlignedSized true internal::free_aligned_sized;
    b"strdup" Strdup false strdup_thunk;
    b"strndup" Strndup false strndup_thunk;
    b"_Znwm" New false rmtrace_stub_new;
    b"_Znam" NewArray false rmtrace_stub_new_array;
    b"_ZnwmSt11align_val_t" NewAligned false rmtrace_stub_new_aligned;
    b"_ZnamSt11align_val_t" NewArrayAligned false rmtrace_stub_new_array_aligned;
    b"_ZnwmRKSt9nothrow_t" NewNothrow false new_nothrow_thunk;
    b"_ZnamRKSt9nothrow_t" NewArrayNothrow false new_array_nothrow_thunk;
    b"_ZnwmSt11align_val_tRKSt9nothrow_t" NewAlignedNothrow false new_aligned_nothrow_thunk;
    b"_ZnamSt11align_val_tRKSt9nothrow_t" NewArrayAlignedNothrow false new_array_aligned_nothrow_thunk;
    b"_ZdlPv" Delete false delete_thunk;
    b"_ZdaPv" DeleteArray false delete_array_thunk;
    b"_ZdlPvm" DeleteSized false delete_sized_thunk;
    b"_ZdaPvm" DeleteArraySized false delete_array_sized_thunk;
    b"_ZdlPvSt11align_val_t" DeleteAligned false delete_aligned_thunk;
    b"_ZdaPvSt11align_val_t" DeleteArrayAligned false delete_array_aligned_thunk;
    b"_ZdlPvmSt11align_val_t" DeleteSizedAligned false delete_sized_aligned_thunk;
    b"_ZdaPvmSt11align_val_t" DeleteArraySizedAligned false delete_array_sized_aligned_thunk;
    b"_ZdlPvRKSt9nothrow_t" DeleteNothrow false delete_nothrow_thunk;
    b"_ZdaPvRKSt9nothrow_t" DeleteArrayNothrow false delete_array_nothrow_thunk;
    b"moz_arena_malloc" MozArenaMalloc false moz_arena_malloc_thunk;
    b"moz_arena_calloc" MozArenaCalloc false moz_arena_calloc_thunk;
    b"moz_arena_realloc" MozArenaRealloc false moz_arena_realloc_thunk;
    b"moz_arena_free" MozArenaFree false moz_arena_free_thunk;
    b"moz_arena_memalign" MozArenaMemalign false moz_arena_memalign_thunk;
};

/// `moz_dispose_arena`: a mark.
pub static DISPOSE_HOOK: Hook = Hook {
    name: b"moz_dispose_arena",
    slot: DISPOSE_ARENA,
    exported: false,
    wrapper: moz_dispose_arena_thunk,
};
