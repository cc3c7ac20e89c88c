//! What the dynamic linker has loaded, and symbol lookup in it without calling it: its own lookup
//! may allocate, and runs in code that is not ours.

use core::arch::asm;
use core::ffi::{CStr, c_char};

// The only symbols this library takes from outside, all weak: the list of loaded objects (glibc:
// `_r_debug`, musl: `_dl_debug_addr`) and the initial stack (glibc: `__libc_stack_end`).
macro_rules! weak_address {
    ($name:literal) => {{
        let address: usize;
        // SAFETY: reads an entry of our own global offset table, which the linker has filled.
        unsafe {
            asm!(
                concat!(".weak ", $name),
                concat!("mov {}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                out(reg) address,
                options(nostack, readonly, preserves_flags)
            );
        }
        address
    }};
}

/// `struct link_map` of <link.h>, its public part.
#[repr(C)]
pub struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: *const [usize; 2],
    next: *const LinkMap,
    previous: *const LinkMap,
}

/// `struct r_debug` of <link.h>, its first members.
#[repr(C)]
struct Debug {
    version: i32,
    map: *const LinkMap,
}

const DT_PLTRELSZ: usize = 2;
const DT_HASH: usize = 4;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_RELA: usize = 7;
const DT_RELASZ: usize = 8;
const DT_JMPREL: usize = 23;
const DT_GNU_HASH: usize = 0x6fff_fef5;
const DT_VERSYM: usize = 0x6fff_fff0;
const DT_FLAGS_1: usize = 0x6fff_fffb;
const DF_1_INITFIRST: usize = 0x20;

/// The initial stack pointer (`argc`, `argv`, the environment and the auxiliary vector are there),
/// where the C library publishes it.
pub fn initial_stack() -> *const usize {
    let variable = weak_address!("__libc_stack_end") as *const *const usize;
    // SAFETY: a symbol of this name is glibc's pointer variable, valid for the whole run.
    unsafe { variable.as_ref() }.map_or(core::ptr::null(), |stack| *stack)
}

/// Loaded objects in the order of the global scope: the program, preloaded libraries, the others.
pub fn objects() -> Objects {
    let mut debug = weak_address!("_r_debug") as *const Debug;
    if debug.is_null() {
        let musl = weak_address!("_dl_debug_addr") as *const *const Debug;
        if !musl.is_null() {
            // SAFETY: musl's variable of this name points to its r_debug.
            debug = unsafe { musl.read() };
        }
    }
    // SAFETY: the dynamic linker keeps the list valid; nothing is unloaded while we start.
    let next = unsafe { debug.as_ref() }.map_or(core::ptr::null(), |debug| debug.map);
    Objects { next }
}

/// Iterates over [`LinkMap`]s.
pub struct Objects {
    next: *const LinkMap,
}

impl Iterator for Objects {
    type Item = &'static LinkMap;

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: as in `objects`.
        let map = unsafe { self.next.as_ref() }?;
        self.next = map.next;
        Some(map)
    }
}

/// A defined symbol.
#[derive(Clone, Copy)]
pub struct Symbol {
    /// Where it is.
    pub address: usize,
    /// Its size, 0 if not said.
    pub bytes: usize,
}

/// A symbol table entry of <elf.h>.
#[repr(C)]
#[derive(Clone, Copy)]
struct Elf64Sym {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    bytes: usize,
}

/// The tables that a lookup needs.
#[derive(Clone, Copy)]
struct Tables {
    base: usize,
    strings: usize,
    symbols: *const Elf64Sym,
    gnu_hash: *const u32,
    hash: *const u32,
    versions: *const u16,
    flags_1: usize,
    /// Relocations of the procedure linkage table, and the others: address and bytes.
    relocations: [(*const Elf64Rela, usize); 2],
}

/// A relocation of <elf.h>.
#[repr(C)]
#[derive(Clone, Copy)]
struct Elf64Rela {
    offset: usize,
    info: u64,
    addend: i64,
}

impl Tables {
    /// # Safety
    /// `dynamic` is the dynamic section of an object loaded at `base`.
    unsafe fn read(base: usize, dynamic: *const [usize; 2]) -> Tables {
        let mut tables = Tables {
            base,
            strings: 0,
            symbols: core::ptr::null(),
            gnu_hash: core::ptr::null(),
            hash: core::ptr::null(),
            versions: core::ptr::null(),
            flags_1: 0,
            relocations: [(core::ptr::null(), 0); 2],
        };
        let [linkage, others] = &mut tables.relocations;
        let mut entry = dynamic;
        while !entry.is_null() {
            // SAFETY: the section ends with a DT_NULL entry.
            let [tag, value] = unsafe { entry.read() };
            // glibc relocates these pointers in place, musl and the vDSO do not.
            let address = if value < base {
                value.wrapping_add(base)
            } else {
                value
            };
            match tag {
                0 => break,
                DT_STRTAB => tables.strings = address,
                DT_SYMTAB => tables.symbols = address as *const Elf64Sym,
                DT_GNU_HASH => tables.gnu_hash = address as *const u32,
                DT_HASH => tables.hash = address as *const u32,
                DT_VERSYM => tables.versions = address as *const u16,
                DT_FLAGS_1 => tables.flags_1 = value,
                DT_JMPREL => linkage.0 = address as *const Elf64Rela,
                DT_PLTRELSZ => linkage.1 = value,
                DT_RELA => others.0 = address as *const Elf64Rela,
                DT_RELASZ => others.1 = value,
                _ => {}
            }
            entry = entry.wrapping_add(1);
        }
        tables
    }

    /// # Safety
    /// `index` is below the number of symbols.
    unsafe fn matches(&self, index: u32, name: &[u8]) -> Option<Symbol> {
        // SAFETY: the caller's promise.
        let symbol = unsafe { self.symbols.wrapping_add(index as usize).read() };
        let kind = symbol.info & 15;
        // Functions, objects and untyped; defined; not an indirect function (10), not thread-local (6).
        if symbol.section == 0
            || symbol.value == 0
            || !matches!(kind, 0..=2)
            || symbol.info >> 4 == 0
        {
            return None;
        }
        let text = self.strings.wrapping_add(symbol.name as usize) as *const c_char;
        // SAFETY: names are NUL-terminated within the string table.
        let text = unsafe { CStr::from_ptr(text) };
        (text.to_bytes() == name).then_some(Symbol {
            address: self.base.wrapping_add(symbol.value),
            bytes: symbol.bytes,
        })
    }

    /// Whether the version of symbol `index` is hidden (not the default one).
    fn is_hidden(&self, index: u32) -> bool {
        // SAFETY: the table has an entry a symbol.
        !self.versions.is_null()
            && unsafe { self.versions.wrapping_add(index as usize).read() } & 0x8000 != 0
    }

    /// # Safety
    /// The tables are those of a loaded object.
    unsafe fn find(&self, name: &[u8]) -> Option<Symbol> {
        if self.symbols.is_null() || self.strings == 0 {
            return None;
        }
        let mut hidden = None;
        let mut consider = |index: u32| -> Option<Symbol> {
            // SAFETY: indices come from the object's hash table.
            let symbol = unsafe { self.matches(index, name) }?;
            if self.is_hidden(index) {
                hidden = Some(symbol);
                return None;
            }
            Some(symbol)
        };
        if !self.gnu_hash.is_null() {
            let word = |at: usize| {
                // SAFETY: offsets follow the layout of the GNU hash table.
                unsafe { self.gnu_hash.wrapping_add(at).read() }
            };
            let (buckets, first, bloom, shift) = (word(0), word(1), word(2), word(3));
            if buckets == 0 {
                return None;
            }
            let hash = name.iter().fold(5381u32, |hash, byte| {
                hash.wrapping_mul(33).wrapping_add(*byte as u32)
            });
            if bloom.is_power_of_two() {
                let at = ((hash / 64) & bloom.wrapping_sub(1)) as usize;
                let filter = self.gnu_hash.wrapping_add(4) as *const u64;
                // SAFETY: the filter has `bloom` words behind the four of the head.
                let bits = unsafe { filter.wrapping_add(at).read_unaligned() };
                let (one, two) = (hash & 63, hash.wrapping_shr(shift) & 63);
                if bits >> one & bits >> two & 1 == 0 {
                    return None;
                }
            }
            let table = (4usize).wrapping_add((bloom as usize).wrapping_mul(2));
            let mut index = word(table.wrapping_add((hash % buckets) as usize));
            if index >= first {
                let chains = table.wrapping_add(buckets as usize);
                loop {
                    let entry = word(chains.wrapping_add(index.wrapping_sub(first) as usize));
                    if (entry | 1) == (hash | 1)
                        && let Some(symbol) = consider(index)
                    {
                        return Some(symbol);
                    }
                    if entry & 1 != 0 {
                        break;
                    }
                    index = index.wrapping_add(1);
                }
            }
        } else if !self.hash.is_null() {
            let word = |at: usize| {
                // SAFETY: offsets follow the layout of the System V hash table.
                unsafe { self.hash.wrapping_add(at).read() }
            };
            let (buckets, symbols) = (word(0), word(1));
            if buckets == 0 {
                return None;
            }
            let hash = name.iter().fold(0u32, |hash, byte| {
                let hash = (hash << 4).wrapping_add(*byte as u32);
                let high = hash & 0xf000_0000;
                (hash ^ (high >> 24)) & !high
            });
            let mut index = word((2usize).wrapping_add((hash % buckets) as usize));
            let chains = (2usize).wrapping_add(buckets as usize);
            for _ in 0..symbols {
                if index == 0 {
                    break;
                }
                if let Some(symbol) = consider(index) {
                    return Some(symbol);
                }
                index = word(chains.wrapping_add(index as usize));
            }
        }
        hidden
    }

    /// Name of the symbol that the word at `slot` is bound to.
    ///
    /// # Safety
    /// The tables are those of a loaded object.
    unsafe fn bound_at(&self, slot: usize) -> Option<&'static [u8]> {
        if self.symbols.is_null() || self.strings == 0 {
            return None;
        }
        for (first, bytes) in self.relocations {
            for n in 0..bytes / size_of::<Elf64Rela>() {
                // SAFETY: the table has that many entries.
                let relocation = unsafe { first.wrapping_add(n).read() };
                if self.base.wrapping_add(relocation.offset) != slot {
                    continue;
                }
                let index = (relocation.info >> 32) as usize;
                // SAFETY: relocations name symbols of the table, with names in the string table.
                let name = unsafe {
                    let symbol = self.symbols.wrapping_add(index).read();
                    let text = self.strings.wrapping_add(symbol.name as usize);
                    CStr::from_ptr(text as *const c_char)
                };
                return (index != 0).then_some(name.to_bytes());
            }
        }
        None
    }

    /// Whether one of `names` is a symbol that this object takes from another. Those come before the
    /// symbols that the GNU hash table knows.
    ///
    /// # Safety
    /// The tables are those of a loaded object.
    unsafe fn imports_any(&self, names: &[&[u8]]) -> Option<bool> {
        if self.symbols.is_null() || self.strings == 0 || self.gnu_hash.is_null() {
            return None;
        }
        // SAFETY: the second word of the table is the first symbol that it knows.
        let first = unsafe { self.gnu_hash.wrapping_add(1).read() };
        Some((1..first as usize).any(|index| {
            // SAFETY: `index` is below the number of symbols; names are NUL-terminated.
            let name = unsafe {
                let symbol = self.symbols.wrapping_add(index).read();
                CStr::from_ptr(self.strings.wrapping_add(symbol.name as usize) as *const c_char)
            };
            names.contains(&name.to_bytes())
        }))
    }
}

/// The objects that the program's names are looked up in, this library left out, with their tables: for
/// many lookups in a row, as long as nothing is loaded or unloaded.
pub struct Scope {
    tables: [Option<(&'static LinkMap, Tables)>; SCOPE_MAX],
}

/// Objects whose tables are kept; those of others are read for each lookup.
const SCOPE_MAX: usize = 32;

impl Scope {
    /// What is loaded now.
    pub fn new() -> Scope {
        let mut tables = [None; SCOPE_MAX];
        let others = objects().filter(|object| !object.is_ours());
        for (slot, object) in tables.iter_mut().zip(others) {
            // SAFETY: the dynamic linker's entry describes a loaded object.
            *slot = Some((object, unsafe { Tables::read(object.base, object.dynamic) }));
        }
        Scope { tables }
    }

    /// The first definition of `name`.
    pub fn find(&self, name: &[u8]) -> Option<(&'static LinkMap, Symbol)> {
        let kept = self.tables.iter().flatten().find_map(|(object, tables)| {
            // SAFETY: as in `new`.
            Some((*object, unsafe { tables.find(name) }?))
        });
        kept.or_else(|| {
            objects()
                .filter(|object| !object.is_ours())
                .skip(SCOPE_MAX)
                .find_map(|object| Some((object, object.find(name)?)))
        })
    }

    /// The definition of `name` in `object`.
    pub fn find_in(&self, object: &LinkMap, name: &[u8]) -> Option<Symbol> {
        let mut kept = self.tables.iter().flatten();
        match kept.find(|(known, _)| core::ptr::eq(*known, object)) {
            // SAFETY: as in `new`.
            Some((_, tables)) => unsafe { tables.find(name) },
            None => object.find(name),
        }
    }
}

impl LinkMap {
    /// The definition of `name` in this object.
    pub fn find(&self, name: &[u8]) -> Option<Symbol> {
        if self.dynamic.is_null() {
            return None;
        }
        // SAFETY: the dynamic linker's entry describes a loaded object.
        unsafe { Tables::read(self.base, self.dynamic).find(name) }
    }

    /// Name of the symbol that the word at `slot`, of the object's linkage table, is bound to.
    pub fn bound_at(&self, slot: usize) -> Option<&'static [u8]> {
        if self.dynamic.is_null() {
            return None;
        }
        // SAFETY: as in `find`.
        unsafe { Tables::read(self.base, self.dynamic).bound_at(slot) }
    }

    /// Whether the object takes one of `names` from another; `None` if that can't be told.
    pub fn imports_any(&self, names: &[&[u8]]) -> Option<bool> {
        if self.dynamic.is_null() {
            return None;
        }
        // SAFETY: as in `find`.
        unsafe { Tables::read(self.base, self.dynamic).imports_any(names) }
    }

    /// Where the object's addresses begin.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Where the object's dynamic section is.
    pub fn dynamic(&self) -> usize {
        self.dynamic as usize
    }

    /// Path of the object; empty for the program itself.
    pub fn path(&self) -> &[u8] {
        if self.name.is_null() {
            return &[];
        }
        // SAFETY: the dynamic linker keeps a NUL-terminated string.
        unsafe { CStr::from_ptr(self.name) }.to_bytes()
    }

    /// Whether the object asks to be initialised first.
    pub fn is_init_first(&self) -> bool {
        if self.dynamic.is_null() {
            return false;
        }
        // SAFETY: as in `find`.
        unsafe { Tables::read(self.base, self.dynamic) }.flags_1 & DF_1_INITFIRST != 0
    }

    /// Whether this is the entry of this library: the object whose dynamic section is ours.
    pub fn is_ours(&self) -> bool {
        let ours: usize;
        // SAFETY: takes an address.
        unsafe {
            asm!("lea {}, [rip + _DYNAMIC]", out(reg) ours, options(nostack, nomem, preserves_flags));
        }
        self.dynamic as usize == ours
    }
}

/// Address of `name` in the vDSO whose ELF header is at `header` (0: none), or 0.
///
/// # Safety
/// `header` is 0 or what the kernel passed as AT_SYSINFO_EHDR.
pub unsafe fn vdso_symbol(header: usize, name: &[u8]) -> usize {
    if header == 0 {
        return 0;
    }
    let field = |at: usize, bytes: usize| -> usize {
        let from = header.wrapping_add(at);
        // SAFETY: within the ELF header or the program headers, which the vDSO maps.
        unsafe {
            match bytes {
                2 => (from as *const u16).read_unaligned() as usize,
                4 => (from as *const u32).read_unaligned() as usize,
                _ => (from as *const usize).read_unaligned(),
            }
        }
    };
    let (headers, entry, count) = (field(32, 8), field(54, 2), field(56, 2));
    let mut base = header;
    let mut dynamic = 0;
    for n in 0..count {
        let at = headers.wrapping_add(n.wrapping_mul(entry));
        match field(at, 4) {
            // PT_LOAD: the first tells where addresses begin.
            1 if field(at.wrapping_add(8), 8) == 0 => {
                base = header.wrapping_sub(field(at.wrapping_add(16), 8));
            }
            // PT_DYNAMIC.
            2 => dynamic = header.wrapping_add(field(at.wrapping_add(8), 8)),
            _ => {}
        }
    }
    if dynamic == 0 {
        return 0;
    }
    // SAFETY: the dynamic section was found in the program headers.
    let tables = unsafe { Tables::read(base, dynamic as *const [usize; 2]) };
    // SAFETY: as above.
    unsafe { tables.find(name) }.map_or(0, |symbol| symbol.address)
}
