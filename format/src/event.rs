//! The words of the event stream: which function was called ([`Entry`]), how it is counted
//! ([`Kind`]), and what one delivered step says ([`Event`], [`Step`]).

/// How a call is counted in reports. The five kinds sum to the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// malloc, strdup, strndup, operator new and their relatives.
    Malloc = 0,
    /// calloc and its relatives.
    Calloc = 1,
    /// realloc, reallocarray and their relatives, from NULL and to zero included.
    Realloc = 2,
    /// Every form that takes an alignment.
    Memalign = 3,
    /// free, operator delete and their relatives, of a non-NULL address.
    Free = 4,
}

impl Kind {
    /// Number of kinds.
    pub const COUNT: usize = 5;
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; Kind::COUNT] = [
        Kind::Malloc,
        Kind::Calloc,
        Kind::Realloc,
        Kind::Memalign,
        Kind::Free,
    ];

    /// The name used in reports and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Malloc => "malloc",
            Kind::Calloc => "calloc",
            Kind::Realloc => "realloc",
            Kind::Memalign => "memalign",
            Kind::Free => "free",
        }
    }
}

macro_rules! entries {
    ($($variant:ident = $number:literal, $kind:ident, $name:literal;)*) => {
        /// The function that was called. The numbers are part of the format (`docs/format.md`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)] // The names are those of the functions.
        pub enum Entry { $($variant = $number,)* }

        impl Entry {
            /// Every entry, in the order of their numbers.
            pub const ALL: &'static [Entry] = &[$(Entry::$variant,)*];

            /// The entry of this number, if there is one.
            pub const fn from_number(number: u8) -> Option<Entry> {
                match number { $($number => Some(Entry::$variant),)* _ => None }
            }

            /// How calls of this function are counted.
            pub const fn kind(self) -> Kind {
                match self { $(Entry::$variant => Kind::$kind,)* }
            }

            /// The function's name as a C or C++ programmer writes it.
            pub const fn name(self) -> &'static str {
                match self { $(Entry::$variant => $name,)* }
            }
        }
    };
}

entries! {
    Malloc = 1, Malloc, "malloc";
    Calloc = 2, Calloc, "calloc";
    Realloc = 3, Realloc, "realloc";
    Reallocarray = 4, Realloc, "reallocarray";
    Free = 5, Free, "free";
    Cfree = 6, Free, "cfree";
    PosixMemalign = 7, Memalign, "posix_memalign";
    AlignedAlloc = 8, Memalign, "aligned_alloc";
    Memalign = 9, Memalign, "memalign";
    Valloc = 10, Memalign, "valloc";
    Pvalloc = 11, Memalign, "pvalloc";
    Strdup = 12, Malloc, "strdup";
    Strndup = 13, Malloc, "strndup";
    New = 14, Malloc, "operator new";
    NewArray = 15, Malloc, "operator new[]";
    NewNothrow = 16, Malloc, "operator new(nothrow)";
    NewArrayNothrow = 17, Malloc, "operator new[](nothrow)";
    NewAligned = 18, Memalign, "operator new(align)";
    NewArrayAligned = 19, Memalign, "operator new[](align)";
    NewAlignedNothrow = 20, Memalign, "operator new(align, nothrow)";
    NewArrayAlignedNothrow = 21, Memalign, "operator new[](align, nothrow)";
    Delete = 22, Free, "operator delete";
    DeleteArray = 23, Free, "operator delete[]";
    DeleteSized = 24, Free, "operator delete(size)";
    DeleteArraySized = 25, Free, "operator delete[](size)";
    DeleteAligned = 26, Free, "operator delete(align)";
    DeleteArrayAligned = 27, Free, "operator delete[](align)";
    DeleteSizedAligned = 28, Free, "operator delete(size, align)";
    DeleteArraySizedAligned = 29, Free, "operator delete[](size, align)";
    DeleteNothrow = 30, Free, "operator delete(nothrow)";
    DeleteArrayNothrow = 31, Free, "operator delete[](nothrow)";
    FreeSized = 32, Free, "free_sized";
    FreeAlignedSized = 33, Free, "free_aligned_sized";
    MozArenaMalloc = 34, Malloc, "moz_arena_malloc";
    MozArenaCalloc = 35, Calloc, "moz_arena_calloc";
    MozArenaRealloc = 36, Realloc, "moz_arena_realloc";
    MozArenaFree = 37, Free, "moz_arena_free";
    MozArenaMemalign = 38, Memalign, "moz_arena_memalign";
}

impl Default for Entry {
    /// The commonest.
    fn default() -> Self {
        Entry::Malloc
    }
}

/// What one delivered event does to the block it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Step {
    /// An allocation returned `address` (0: it failed).
    Alloc = 0,
    /// The block at `address` is about to be freed.
    Free = 1,
    /// A realloc of the block at `old_address` (0: from NULL) begins: the block stays live with its
    /// old size, its address is unoccupied until the end half.
    ReallocBegin = 2,
    /// The same realloc ended with `address` (0: nothing was returned) for `old_address`. Counted
    /// here, once. With `address` 0 the old block is restored, unless [`Event::FREED`] is set.
    ReallocEnd = 3,
}

/// One step of the merged stream, in time order. 64 bytes.
///
/// Every allocation and free is one event; a realloc is two linked halves ([`Step`]) which no other
/// event of the same thread separates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since the first record of the run, rounded down to the trace's time unit.
    pub time_ns: u64,
    /// Address that the event is about; see [`Step`]. For [`Step::ReallocBegin`] it is 0.
    pub address: u64,
    /// Address given to realloc; 0 for other calls.
    pub old_address: u64,
    /// Requested bytes: of an allocation, of calloc the product (`u64::MAX` where it overflows), of
    /// both halves of a realloc the new size. 0 for frees.
    pub requested_bytes: u64,
    /// `malloc_usable_size` of the new block where that was recorded, else 0.
    pub usable_bytes: u64,
    /// Return address of the call where callers were recorded, else 0.
    pub caller: u64,
    /// Number of the process in the trace, from 0 in order of their starts.
    pub process: u32,
    /// Number of the thread in its process, from 0 in order of their first events.
    pub thread: u32,
    /// The function called.
    pub entry: Entry,
    /// What happened.
    pub step: Step,
    /// Binary logarithm of the alignment asked for; 0 where none was.
    pub align_log2: u8,
    /// [`Event::FREED`], other bits 0.
    pub flags: u8,
}

const _: () = assert!(size_of::<Event>() == 64);

impl Event {
    /// Flag of a realloc (both halves) that returned NULL and ended the old block (`realloc(p, 0)`
    /// where the allocator frees in that case).
    pub const FREED: u8 = 1;

    /// How the call is counted.
    #[inline]
    pub const fn kind(&self) -> Kind {
        self.entry.kind()
    }

    /// Whether this is the event at which its call is counted: every step but
    /// [`Step::ReallocBegin`].
    #[inline]
    pub const fn counts(&self) -> bool {
        !matches!(self.step, Step::ReallocBegin)
    }

    /// Whether the call asked for memory and got none. `realloc(p, 0)` that ended the block did not
    /// fail.
    #[inline]
    pub const fn failed(&self) -> bool {
        match self.step {
            Step::Alloc => self.address == 0,
            Step::ReallocEnd => self.address == 0 && self.flags & Event::FREED == 0,
            Step::Free | Step::ReallocBegin => false,
        }
    }
}
