//! Allocation functions under other names than the C library's (`mi_malloc`, `je_calloc`, jemalloc's
//! `mallocx`), and under its names where only the program itself reaches them: the table of names, and
//! the one wrapper behind all of them.
//!
//! They are found by [`crate::detours`] and reached by patches alone. A patch passes the number of its
//! function in r11; the number leads to the original, to what its arguments mean, and to the entry of
//! the standard function that does the same, under which the call is recorded.

use crate::clock;
use crate::hooks::{PAGE_LOG2, length, log2};
use crate::thread::{self, Guard};
use core::arch::naked_asm;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicUsize};
use rmtrace_format::event::Entry;

/// What the arguments of a function mean.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Shape {
    /// `(size)`
    Size,
    /// `(count, size)`
    Product,
    /// `(size, alignment)`
    SizeAlign,
    /// `(count, size, alignment)`
    ProductAlign,
    /// `(alignment, size)`
    AlignSize,
    /// `(size)`, aligned to pages
    Pages,
    /// `(out, alignment, size)`
    Out,
    /// `(size, flags)` of jemalloc
    Flags,
    /// `(text)`
    Text,
    /// `(text, most)`
    TextPart,
    /// `(block, size)`
    Resize,
    /// `(block, count, size)`
    ResizeProduct,
    /// `(block, size)`, which frees the block where it fails
    ResizeOrFree,
    /// `(block, size, extra, flags)` of jemalloc, which answers with the size the block now has
    ResizeInPlace,
    /// `(block, ...)`
    Block,
    /// A throwing `operator new`, which goes through a stub: `(size)` or `(size, alignment)`
    Throws,
}

/// A function of a family, its name without the prefix.
pub struct Function {
    /// The name.
    pub name: &'static [u8],
    /// Whether its first argument is a heap, which is left out here.
    pub of_heap: bool,
    /// Its arguments.
    pub shape: Shape,
    /// What it is recorded as.
    pub entry: Entry,
}

const fn function(name: &'static [u8], shape: Shape, entry: Entry) -> Function {
    Function {
        name,
        of_heap: false,
        shape,
        entry,
    }
}

const fn of_heap(name: &'static [u8], shape: Shape, entry: Entry) -> Function {
    Function {
        name,
        of_heap: true,
        shape,
        entry,
    }
}

/// Prefixes of families: mimalloc, jemalloc as it is built into others and into Rust programs,
/// tcmalloc, oneTBB.
pub const PREFIXES: [&[u8]; 5] = [b"mi_", b"je_", b"_rjem_", b"tc_", b"scalable_"];

/// What tells that a family is there.
pub const KEY: &[u8] = b"malloc";

/// What tells that jemalloc's own functions are there without a prefix.
pub const KEY_FLAGS: &[u8] = b"mallocx";

/// Functions that allocators have with or without a prefix.
pub const STANDARD: &[Function] = &[
    function(b"malloc", Shape::Size, Entry::Malloc),
    function(b"free", Shape::Block, Entry::Free),
    function(b"calloc", Shape::Product, Entry::Calloc),
    function(b"realloc", Shape::Resize, Entry::Realloc),
    function(b"memalign", Shape::AlignSize, Entry::Memalign),
    function(b"posix_memalign", Shape::Out, Entry::PosixMemalign),
    function(b"aligned_alloc", Shape::AlignSize, Entry::AlignedAlloc),
    function(b"reallocarray", Shape::ResizeProduct, Entry::Reallocarray),
    function(b"valloc", Shape::Pages, Entry::Valloc),
    function(b"pvalloc", Shape::Pages, Entry::Pvalloc),
    function(b"cfree", Shape::Block, Entry::Cfree),
    function(b"free_sized", Shape::Block, Entry::FreeSized),
    function(b"free_aligned_sized", Shape::Block, Entry::FreeAlignedSized),
    function(b"mallocx", Shape::Flags, Entry::Malloc),
    function(b"rallocx", Shape::Resize, Entry::Realloc),
    function(b"xallocx", Shape::ResizeInPlace, Entry::Realloc),
    function(b"dallocx", Shape::Block, Entry::Free),
    function(b"sdallocx", Shape::Block, Entry::FreeSized),
];

/// Functions that have a prefix always.
pub const PREFIXED: &[Function] = &[
    function(b"zalloc", Shape::Size, Entry::Calloc),
    function(b"malloc_small", Shape::Size, Entry::Malloc),
    function(b"zalloc_small", Shape::Size, Entry::Calloc),
    function(b"mallocn", Shape::Product, Entry::Malloc),
    function(b"reallocn", Shape::ResizeProduct, Entry::Reallocarray),
    function(b"reallocf", Shape::ResizeOrFree, Entry::Realloc),
    function(b"rezalloc", Shape::Resize, Entry::Realloc),
    function(b"recalloc", Shape::ResizeProduct, Entry::Reallocarray),
    function(b"expand", Shape::Resize, Entry::Realloc),
    function(b"strdup", Shape::Text, Entry::Strdup),
    function(b"strndup", Shape::TextPart, Entry::Strndup),
    function(b"free_size", Shape::Block, Entry::FreeSized),
    function(b"free_size_aligned", Shape::Block, Entry::FreeAlignedSized),
    function(b"free_aligned", Shape::Block, Entry::Free),
    function(b"malloc_aligned", Shape::SizeAlign, Entry::AlignedAlloc),
    function(b"malloc_aligned_at", Shape::SizeAlign, Entry::AlignedAlloc),
    function(b"zalloc_aligned", Shape::SizeAlign, Entry::AlignedAlloc),
    function(b"zalloc_aligned_at", Shape::SizeAlign, Entry::AlignedAlloc),
    function(b"calloc_aligned", Shape::ProductAlign, Entry::AlignedAlloc),
    function(
        b"calloc_aligned_at",
        Shape::ProductAlign,
        Entry::AlignedAlloc,
    ),
    function(b"realloc_aligned", Shape::Resize, Entry::Realloc),
    function(b"realloc_aligned_at", Shape::Resize, Entry::Realloc),
    function(b"rezalloc_aligned", Shape::Resize, Entry::Realloc),
    function(b"rezalloc_aligned_at", Shape::Resize, Entry::Realloc),
    function(
        b"recalloc_aligned",
        Shape::ResizeProduct,
        Entry::Reallocarray,
    ),
    function(b"new", Shape::Throws, Entry::New),
    function(b"newarray", Shape::Throws, Entry::NewArray),
    function(b"new_aligned", Shape::Throws, Entry::NewAligned),
    function(b"newarray_aligned", Shape::Throws, Entry::NewArrayAligned),
    function(b"new_nothrow", Shape::Size, Entry::NewNothrow),
    function(b"newarray_nothrow", Shape::Size, Entry::NewArrayNothrow),
    function(
        b"new_aligned_nothrow",
        Shape::SizeAlign,
        Entry::NewAlignedNothrow,
    ),
    function(
        b"newarray_aligned_nothrow",
        Shape::SizeAlign,
        Entry::NewArrayAlignedNothrow,
    ),
    function(b"delete", Shape::Block, Entry::Delete),
    function(b"deletearray", Shape::Block, Entry::DeleteArray),
    function(b"delete_sized", Shape::Block, Entry::DeleteSized),
    function(b"deletearray_sized", Shape::Block, Entry::DeleteArraySized),
    function(b"delete_nothrow", Shape::Block, Entry::DeleteNothrow),
    function(
        b"deletearray_nothrow",
        Shape::Block,
        Entry::DeleteArrayNothrow,
    ),
    function(b"delete_aligned", Shape::Block, Entry::DeleteAligned),
    function(
        b"deletearray_aligned",
        Shape::Block,
        Entry::DeleteArrayAligned,
    ),
    function(
        b"delete_sized_aligned",
        Shape::Block,
        Entry::DeleteSizedAligned,
    ),
    function(
        b"deletearray_sized_aligned",
        Shape::Block,
        Entry::DeleteArraySizedAligned,
    ),
    function(
        b"delete_aligned_nothrow",
        Shape::Block,
        Entry::DeleteAligned,
    ),
    function(
        b"deletearray_aligned_nothrow",
        Shape::Block,
        Entry::DeleteArrayAligned,
    ),
    of_heap(b"heap_malloc", Shape::Size, Entry::Malloc),
    of_heap(b"heap_malloc_small", Shape::Size, Entry::Malloc),
    of_heap(b"heap_zalloc", Shape::Size, Entry::Calloc),
    of_heap(b"heap_calloc", Shape::Product, Entry::Calloc),
    of_heap(b"heap_mallocn", Shape::Product, Entry::Malloc),
    of_heap(
        b"heap_malloc_aligned",
        Shape::SizeAlign,
        Entry::AlignedAlloc,
    ),
    of_heap(
        b"heap_zalloc_aligned",
        Shape::SizeAlign,
        Entry::AlignedAlloc,
    ),
    of_heap(
        b"heap_calloc_aligned",
        Shape::ProductAlign,
        Entry::AlignedAlloc,
    ),
    of_heap(b"heap_realloc", Shape::Resize, Entry::Realloc),
    of_heap(b"heap_reallocn", Shape::ResizeProduct, Entry::Reallocarray),
    of_heap(b"heap_rezalloc", Shape::Resize, Entry::Realloc),
    of_heap(b"heap_realloc_aligned", Shape::Resize, Entry::Realloc),
    of_heap(b"heap_strdup", Shape::Text, Entry::Strdup),
    of_heap(b"heap_strndup", Shape::TextPart, Entry::Strndup),
];

/// Forms of `operator new` and `delete`, for allocators that only the program itself reaches, and those
/// that [`crate::hooks::HOOKS`] lacks.
pub const OPERATORS: &[Function] = &[
    function(b"_Znwm", Shape::Throws, Entry::New),
    function(b"_Znam", Shape::Throws, Entry::NewArray),
    function(b"_ZnwmSt11align_val_t", Shape::Throws, Entry::NewAligned),
    function(
        b"_ZnamSt11align_val_t",
        Shape::Throws,
        Entry::NewArrayAligned,
    ),
    function(b"_ZnwmRKSt9nothrow_t", Shape::Size, Entry::NewNothrow),
    function(b"_ZnamRKSt9nothrow_t", Shape::Size, Entry::NewArrayNothrow),
    function(
        b"_ZnwmSt11align_val_tRKSt9nothrow_t",
        Shape::SizeAlign,
        Entry::NewAlignedNothrow,
    ),
    function(
        b"_ZnamSt11align_val_tRKSt9nothrow_t",
        Shape::SizeAlign,
        Entry::NewArrayAlignedNothrow,
    ),
    function(b"_ZdlPv", Shape::Block, Entry::Delete),
    function(b"_ZdaPv", Shape::Block, Entry::DeleteArray),
    function(b"_ZdlPvm", Shape::Block, Entry::DeleteSized),
    function(b"_ZdaPvm", Shape::Block, Entry::DeleteArraySized),
    function(b"_ZdlPvSt11align_val_t", Shape::Block, Entry::DeleteAligned),
    function(
        b"_ZdaPvSt11align_val_t",
        Shape::Block,
        Entry::DeleteArrayAligned,
    ),
    function(
        b"_ZdlPvmSt11align_val_t",
        Shape::Block,
        Entry::DeleteSizedAligned,
    ),
    function(
        b"_ZdaPvmSt11align_val_t",
        Shape::Block,
        Entry::DeleteArraySizedAligned,
    ),
    function(b"_ZdlPvRKSt9nothrow_t", Shape::Block, Entry::DeleteNothrow),
    function(
        b"_ZdaPvRKSt9nothrow_t",
        Shape::Block,
        Entry::DeleteArrayNothrow,
    ),
    function(
        b"_ZdlPvSt11align_val_tRKSt9nothrow_t",
        Shape::Block,
        Entry::DeleteAligned,
    ),
    function(
        b"_ZdaPvSt11align_val_tRKSt9nothrow_t",
        Shape::Block,
        Entry::DeleteArrayAligned,
    ),
];

/// The function that a symbol's name means: the family's number (0: none) and the function.
pub fn named(name: &[u8]) -> Option<(usize, &'static Function)> {
    let among = |functions: &'static [Function], name: &[u8]| {
        functions.iter().find(|function| function.name == name)
    };
    for (n, prefix) in PREFIXES.iter().enumerate() {
        if let Some(rest) = name.strip_prefix(*prefix) {
            let function = among(STANDARD, rest).or_else(|| among(PREFIXED, rest))?;
            return Some((n.wrapping_add(1), function));
        }
    }
    let function = match name {
        [b'_', b'Z', ..] => among(OPERATORS, name),
        _ => among(STANDARD, name),
    };
    Some((0, function?))
}

/// A patched function: what the wrapper needs to know.
struct Patched {
    original: AtomicUsize,
    /// Shape, entry, whether there is a heap, whether NULL for no bytes ends a block: a byte each.
    meaning: AtomicU32,
}

const PATCHED_MAX: usize = 128;

static PATCHED: [Patched; PATCHED_MAX] = [const {
    Patched {
        original: AtomicUsize::new(0),
        meaning: AtomicU32::new(0),
    }
}; PATCHED_MAX];

/// Functions that can be patched as members of families.
pub const NUMBERS: u32 = PATCHED_MAX as u32;

/// Says what `number` means, before its function is patched.
pub fn set_meaning(number: u32, function: &Function, zero_frees: bool) {
    if let Some(patched) = PATCHED.get(number as usize) {
        let bytes = [
            function.shape as u8,
            function.entry as u8,
            function.of_heap as u8,
            zero_frees as u8,
        ];
        patched.meaning.store(u32::from_le_bytes(bytes), Relaxed);
    }
}

/// Sets the address that calls the original of `number`.
pub fn set_original(number: u32, address: usize) {
    if let Some(patched) = PATCHED.get(number as usize) {
        patched.original.store(address, Relaxed);
    }
}

/// Where patched functions are led.
pub fn wrapper() -> usize {
    thunk as *const () as usize
}

/// Adds the place of the return address and the number of the function as arguments: none has more than
/// four.
#[unsafe(naked)]
unsafe extern "C" fn thunk() {
    naked_asm!("mov r8, rsp", "mov r9, r11", "jmp {}", sym hook)
}

type Original = unsafe extern "C" fn(usize, usize, usize, usize) -> usize;

/// The number of an entry and of a shape, back.
fn meaning(patched: &Patched) -> Option<(Shape, Entry, bool, bool)> {
    const SHAPES: [Shape; 15] = [
        Shape::Size,
        Shape::Product,
        Shape::SizeAlign,
        Shape::ProductAlign,
        Shape::AlignSize,
        Shape::Pages,
        Shape::Out,
        Shape::Flags,
        Shape::Text,
        Shape::TextPart,
        Shape::Resize,
        Shape::ResizeProduct,
        Shape::ResizeOrFree,
        Shape::ResizeInPlace,
        Shape::Block,
    ];
    let [shape, entry, of_heap, zero_frees] = patched.meaning.load(Relaxed).to_le_bytes();
    let shape = SHAPES.get(shape as usize)?;
    Some((
        *shape,
        Entry::from_number(entry)?,
        of_heap != 0,
        zero_frees != 0,
    ))
}

extern "C" fn hook(a: usize, b: usize, c: usize, d: usize, caller: usize, number: u32) -> usize {
    let Some(patched) = PATCHED.get(number as usize) else {
        crate::sys::abort()
    };
    let address = patched.original.load(Relaxed);
    if address == 0 {
        crate::sys::abort()
    }
    // SAFETY: the address was published before the patch that led here; what it calls takes at most
    // four words and returns one, and more arguments than it takes are ignored.
    let original = unsafe { core::mem::transmute::<usize, Original>(address) };
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { original(a, b, c, d) };
    let Some((shape, entry, of_heap, zero_frees)) = meaning(patched) else {
        return call();
    };
    let (x, y, z) = if of_heap { (b, c, d) } else { (a, b, c) };
    if shape == Shape::Block && x == 0 {
        return call();
    }
    let guard = match shape {
        Shape::Block => thread::enter_inside(caller),
        _ => thread::enter(caller),
    };
    let Guard::Record(thread) = guard else {
        return call();
    };
    let (size, align) = match shape {
        Shape::Block => {
            if !thread.freeing(entry, x) {
                thread.freeing_rare(entry, x);
            }
            let result = call();
            thread.leave();
            return result;
        }
        Shape::Out => {
            let error = call();
            let block = match error as u32 {
                // SAFETY: after success the function has stored there.
                0 => unsafe { (x as *const usize).read() },
                _ => 0,
            };
            thread.allocated(entry, log2(y), block, z);
            return error;
        }
        Shape::Resize | Shape::ResizeProduct | Shape::ResizeOrFree | Shape::ResizeInPlace => {
            let size = match shape {
                Shape::ResizeProduct => y.saturating_mul(z),
                _ => y,
            };
            let before = clock::stamp_before();
            let result = call();
            let new = match shape {
                // It answers with the size that the block has now.
                Shape::ResizeInPlace if result >= size => x,
                Shape::ResizeInPlace => 0,
                _ => result,
            };
            let freed = new == 0
                && x != 0
                && (shape == Shape::ResizeOrFree
                    || size == 0 && zero_frees && shape != Shape::ResizeInPlace);
            if !thread.reallocated(entry, x, new, size, before) {
                thread.reallocated_rare(entry, x, new, size, before, freed);
            }
            return result;
        }
        Shape::Size | Shape::Throws => (x, 0),
        Shape::Product => (x.saturating_mul(y), 0),
        Shape::SizeAlign => (x, log2(y)),
        Shape::ProductAlign => (x.saturating_mul(y), log2(z)),
        Shape::AlignSize => (y, log2(x)),
        Shape::Pages => (x, PAGE_LOG2),
        // The low six bits are the logarithm of the alignment.
        Shape::Flags => (x, (y & 63) as u8),
        Shape::Text => (length(x, usize::MAX).wrapping_add(1), 0),
        Shape::TextPart => (length(x, y).wrapping_add(1), 0),
    };
    let block = call();
    thread.allocated(entry, align, block, size)
}
