//! Which functions are hooked, and how: nothing to do where our definition comes first, a patch where
//! the program reaches another.

use crate::arena;
use crate::elf::{self, LinkMap, Scope, Symbol};
use crate::family::{self, Function, Shape};
use crate::hooks::{self, DISPOSE_HOOK, HOOKS, Hook};
use crate::patch::{self, Islands};
use crate::symtab;

/// Entries seen, a bit each.
#[derive(Default)]
pub struct Seen {
    /// Through symbol interposition.
    pub interposed: u64,
    /// Through a patched function.
    pub detoured: u64,
    /// Not: their function can't be patched.
    pub refused: u64,
    /// The program itself calls no allocation function that could be found.
    pub no_allocator: bool,
}

fn is_before_us(object: &LinkMap) -> bool {
    elf::objects()
        .take_while(|candidate| !candidate.is_ours())
        .any(|candidate| core::ptr::eq(candidate, object))
}

/// Hooks what the program calls. `allocator` defines the `malloc` that it reaches; separate debug symbols
/// are below `debug`.
pub fn hook_all(scope: &Scope, allocator: &'static LinkMap, debug: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let mut patcher = Patcher::new();
    let own_allocator = scope.find_in(allocator, b"__libc_start_main").is_none();
    for hook in HOOKS {
        let Some((object, symbol)) = scope.find(hook.name) else {
            continue;
        };
        // Names that we do not export matter only where the allocator itself defines them.
        let by_allocator = own_allocator && core::ptr::eq(object, allocator);
        if hook.exported && !is_before_us(object) {
            seen.interposed |= 1u64 << hook.slot;
        } else if hook.exported || by_allocator {
            let patched = patcher.patch_hook(hook, object, symbol);
            patched.count(1u64 << hook.slot, &mut seen);
        }
    }
    if own_allocator {
        if let Some(symbol) = allocator.find(DISPOSE_HOOK.name) {
            patcher.patch_hook(&DISPOSE_HOOK, allocator, symbol);
        }
        for function in family::OPERATORS {
            let known = HOOKS.iter().any(|hook| hook.name == function.name);
            if !known
                && let Some((object, symbol)) = scope.find(function.name)
                && core::ptr::eq(object, allocator)
            {
                patcher.patch_function(function, 0, object, symbol, &mut seen);
            }
        }
    }
    for object in elf::objects() {
        if !object.is_ours() {
            hook_families(scope, object, &mut patcher, &mut seen);
        }
    }
    hook_unexported(scope, debug, &mut patcher, &mut seen);
    patcher.finish();
    seen
}

/// Hooks the families that `object` exports.
fn hook_families(scope: &Scope, object: &'static LinkMap, patcher: &mut Patcher, seen: &mut Seen) {
    let mut buffer = [0u8; 48];
    for (n, prefix) in family::PREFIXES.iter().enumerate() {
        let Some(key) = joined(&mut buffer, prefix, family::KEY) else {
            continue;
        };
        if scope.find_in(object, key).is_none() {
            continue;
        }
        for function in family::STANDARD.iter().chain(family::PREFIXED) {
            if let Some(name) = joined(&mut buffer, prefix, function.name)
                && let Some(symbol) = scope.find_in(object, name)
            {
                patcher.patch_function(function, n.wrapping_add(1), object, symbol, seen);
            }
        }
    }
    if scope.find_in(object, family::KEY_FLAGS).is_some() {
        for function in family::STANDARD {
            // The others are the C library's names.
            if function.name.ends_with(b"x")
                && let Some(symbol) = scope.find_in(object, function.name)
            {
                patcher.patch_function(function, 0, object, symbol, seen);
            }
        }
    }
}

fn joined<'a>(buffer: &'a mut [u8; 48], prefix: &[u8], name: &[u8]) -> Option<&'a [u8]> {
    let length = prefix.len().checked_add(name.len())?;
    let text = buffer.get_mut(..length)?;
    for (slot, byte) in text.iter_mut().zip(prefix.iter().chain(name)) {
        *slot = *byte;
    }
    Some(text)
}

/// A function that the program has and does not export.
#[derive(Clone, Copy)]
struct Unexported {
    family: usize,
    function: &'static Function,
    symbol: Symbol,
}

/// Hooks allocation functions of the program that a symbol table names and no other object reaches.
fn hook_unexported(scope: &Scope, debug: &[u8], patcher: &mut Patcher, seen: &mut Seen) {
    let Some(program) = elf::objects().next().filter(|program| !program.is_ours()) else {
        return;
    };
    // A program that neither takes its allocator from outside nor exports one has it inside, if
    // anywhere: worth a look for debug symbols.
    const USUAL: [&[u8]; 5] = [
        b"malloc",
        b"calloc",
        b"realloc",
        b"_Znwm",
        b"posix_memalign",
    ];
    let is_odd = USUAL
        .iter()
        .all(|name| scope.find_in(program, name).is_none())
        && program.imports_any(&USUAL) == Some(false);
    let mut found = [None::<Unexported>; 160];
    let mut slots = found.iter_mut();
    symtab::functions(program, is_odd.then_some(debug), |name, symbol| {
        if let Some((family, function)) = family::named(name)
            && let Some(slot) = slots.next()
        {
            *slot = Some(Unexported {
                family,
                function,
                symbol,
            });
        }
    });
    let found = || found.iter().flatten();
    // One function of such a name may be anything; two are an allocator.
    let has = |family: usize, name: &[u8]| {
        found().any(|known| known.family == family && known.function.name == name)
    };
    let is_operator = |known: &Unexported| known.function.name.starts_with(b"_Z");
    let is_family = |family: usize| has(family, b"malloc") && has(family, b"free");
    let has_any = (0..=family::PREFIXES.len()).any(is_family);
    seen.no_allocator = is_odd && !has_any;
    // Functions of the C library's kind first: what calls them is then left alone.
    for operators in [false, true] {
        for known in found().filter(|known| is_operator(known) == operators) {
            if if operators {
                has_any
            } else {
                is_family(known.family)
            } {
                let Unexported {
                    family,
                    function,
                    symbol,
                } = *known;
                patcher.patch_function(function, family, program, symbol, seen);
            }
        }
    }
}

/// What became of a function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patched {
    /// It is patched.
    Done,
    /// What it leads to is hooked.
    Alias,
    /// It can't be.
    Refused,
}

impl Patched {
    fn count(self, bit: u64, seen: &mut Seen) {
        match self {
            Patched::Done => seen.detoured |= bit,
            Patched::Alias => {}
            Patched::Refused => seen.refused |= bit,
        }
    }
}

/// Where a function leads.
enum Body {
    /// Here.
    At(Symbol),
    /// To a function that this library exports.
    Ours,
}

const BODIES_MAX: usize = 192;
/// Groups of islands: one near each image, and one more where one is full.
const GROUPS_MAX: usize = 6;

/// Where a patch leads, and what is to be minded.
struct Detour {
    wrapper: usize,
    /// See [`Islands::patch`].
    number: Option<u32>,
    /// It is left alone if it calls what is hooked.
    is_new: bool,
    /// See [`Islands::patch`].
    throws: bool,
}

struct Patcher {
    groups: [Option<Islands>; GROUPS_MAX],
    opened: bool,
    /// Bodies that are patched, and what calls their originals.
    bodies: [usize; BODIES_MAX],
    originals: [usize; BODIES_MAX],
    count: usize,
    /// Numbers of members of families given out.
    numbers: u32,
}

impl Patcher {
    fn new() -> Patcher {
        Patcher {
            groups: [const { None }; GROUPS_MAX],
            opened: false,
            bodies: [0; BODIES_MAX],
            originals: [0; BODIES_MAX],
            count: 0,
            numbers: 0,
        }
    }

    fn patched(&self) -> &[usize] {
        self.bodies.get(..self.count).unwrap_or_default()
    }

    /// What calls the original of a body that is patched.
    fn original_of(&self, body: usize) -> Option<usize> {
        let at = self.patched().iter().position(|done| *done == body)?;
        self.originals.get(at).copied()
    }

    /// Follows jumps from `symbol` of `object`, through its procedure linkage table too.
    fn body(&self, object: &'static LinkMap, symbol: Symbol) -> Body {
        let (mut object, mut body) = (object, patch::body(symbol, self.patched()));
        for _ in 0..4 {
            let Some(slot) = patch::linkage_slot(body.address) else {
                break;
            };
            let Some(name) = object.bound_at(slot) else {
                break;
            };
            // As the dynamic linker binds it, this library included.
            let bound = elf::objects().find_map(|object| Some((object, object.find(name)?)));
            let Some((definer, symbol)) = bound else {
                break;
            };
            if definer.is_ours() {
                return Body::Ours;
            }
            object = definer;
            body = patch::body(symbol, self.patched());
        }
        Body::At(body)
    }

    /// Whether a call of `target` from `object`, which may be no code at all, is a hooked one.
    fn leads_to_hooked(&self, object: &'static LinkMap, target: usize) -> bool {
        if !patch::is_readable(target) {
            return false;
        }
        if let Some(jump) = patch::jump_target(target) {
            return self.original_of(jump).is_some();
        }
        let name = patch::linkage_slot(target).and_then(|slot| object.bound_at(slot));
        let bound = name.and_then(|name| {
            elf::objects().find_map(|definer| Some((definer, definer.find(name)?)))
        });
        bound.is_some_and(|(definer, symbol)| {
            definer.is_ours()
                || match self.body(definer, symbol) {
                    Body::Ours => true,
                    Body::At(body) => self.original_of(body.address).is_some(),
                }
        })
    }

    /// Memory to decode instructions with, and islands near `address`.
    fn islands(&mut self, address: usize) -> Option<&mut Islands> {
        let serves = |group: &Option<Islands>| {
            group
                .as_ref()
                .is_some_and(|islands| islands.serves(address))
        };
        let at = match self.groups.iter().position(serves) {
            Some(at) => at,
            None => {
                let at = self.groups.iter().position(Option::is_none)?;
                *self.groups.get_mut(at)? = Islands::near(address);
                at
            }
        };
        self.groups.get_mut(at)?.as_mut()
    }

    fn open(&mut self) -> bool {
        self.opened = self.opened || arena::open();
        self.opened
    }

    fn patch_hook(&mut self, hook: &Hook, object: &'static LinkMap, symbol: Symbol) -> Patched {
        let is_new = hook.name.starts_with(b"_Zn");
        let detour = Detour {
            wrapper: hook.wrapper(),
            number: None,
            is_new,
            throws: is_new,
        };
        let publish = |address| hooks::set_real(hook.slot, address);
        self.patch(object, symbol, &detour, publish)
    }

    fn patch_function(
        &mut self,
        function: &Function,
        family: usize,
        object: &'static LinkMap,
        symbol: Symbol,
        seen: &mut Seen,
    ) {
        let throws = function.shape == Shape::Throws;
        let patched = if throws {
            let Some((slot, stub)) = hooks::spare_stub(function.entry) else {
                return;
            };
            let publish = |address| hooks::set_real(slot, address);
            let detour = Detour {
                wrapper: stub,
                number: None,
                is_new: true,
                throws: true,
            };
            self.patch(object, symbol, &detour, publish)
        } else {
            let number = self.numbers;
            if number >= family::NUMBERS {
                return;
            }
            // mimalloc, the first of the prefixes, keeps the block.
            const MIMALLOC: usize = 1;
            family::set_meaning(number, function, family != MIMALLOC);
            let publish = |address| family::set_original(number, address);
            let name = function.name;
            let detour = Detour {
                wrapper: family::wrapper(),
                number: Some(number),
                is_new: false,
                // Forms of operator new that catch what another throws.
                throws: name.starts_with(b"_Zn") || name.starts_with(b"new"),
            };
            let patched = self.patch(object, symbol, &detour, publish);
            if patched == Patched::Done {
                self.numbers = number.wrapping_add(1);
            }
            patched
        };
        patched.count(1u64 << function.entry as u64, seen);
    }

    fn patch(
        &mut self,
        object: &'static LinkMap,
        symbol: Symbol,
        detour: &Detour,
        publish: impl Fn(usize),
    ) -> Patched {
        let Body::At(body) = self.body(object, symbol) else {
            return Patched::Alias;
        };
        if let Some(original) = self.original_of(body.address) {
            publish(original);
            return Patched::Alias;
        }
        if !self.open() {
            return Patched::Refused;
        }
        if detour.is_new && patch::reaches(body, |target| self.patched().contains(&target)) {
            // The function it calls records the call.
            return Patched::Alias;
        }
        let mut original = 0;
        let patched = self.islands(body.address).is_some_and(|islands| {
            let publish = |address| {
                original = address;
                publish(address);
            };
            islands
                .patch(body, detour.wrapper, detour.number, detour.throws, publish)
                .is_ok()
        });
        if !patched {
            publish(symbol.address);
            let is_hooked = |target| self.leads_to_hooked(object, target);
            return match detour.is_new && patch::reaches(body, is_hooked) {
                true => Patched::Alias,
                false => Patched::Refused,
            };
        }
        // Wrappers under exported names call it past the patch.
        for hook in HOOKS.iter().filter(|hook| hook.exported) {
            if hooks::real(hook.slot) == body.address {
                hooks::set_real(hook.slot, original);
            }
        }
        if let (Some(done), Some(slot)) = (
            self.bodies.get_mut(self.count),
            self.originals.get_mut(self.count),
        ) {
            *done = body.address;
            *slot = original;
            self.count = self.count.wrapping_add(1);
        }
        Patched::Done
    }

    fn finish(self) {
        if self.opened {
            patch::finish();
        }
    }
}
