//! Patches a function of the program: its first instructions move to a trampoline, and a jump to
//! our wrapper takes their place.
//!
//! Runs in the constructor alone, before the program has other threads. No page is ever writable
//! and executable at once. A function is refused if it is too short, branches into the bytes that
//! the jump covers, or can throw and calls from within them.

use crate::arena;
use crate::elf::Symbol;
use crate::sys;
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Decoder, DecoderOptions, FlowControl, Instruction,
    InstructionBlock,
};

/// Bytes of `jmp rel32`.
const JUMP_BYTES: usize = 5;
/// Bytes looked at where a symbol does not tell its size.
const SIZE_ASSUMED: usize = 64;
/// Bytes of an island: a jump to the wrapper and the trampoline.
const ISLAND_BYTES: usize = 128;
/// Bytes of an island before the trampoline: a number for the wrapper and the jump there.
const ENTRY_BYTES: usize = 32;
/// Islands of a page group.
const ISLANDS: usize = 128;
/// How far an island may be from a function: less than a jump reaches, as functions have a length.
const REACH_BYTES: usize = (1 << 31) - (1 << 21);

/// Why a function can't be patched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Fewer bytes than the jump.
    TooShort,
    /// A branch of the function leads into the covered bytes.
    BranchInto,
    /// An instruction that can't be moved, or isn't one.
    NotMovable,
    /// No page within reach, or the kernel refused to change protections.
    NoPage,
}

/// Pages near the image that hold islands.
pub struct Islands {
    page: usize,
    used: usize,
}

fn bytes_at(address: usize, length: usize) -> &'static [u8] {
    // SAFETY: callers name code of a loaded object.
    unsafe { core::slice::from_raw_parts(address as *const u8, length) }
}

/// Follows `endbr64` and direct jumps at the start of a function to the body that does the work, but
/// not the jumps that are our patches of the functions in `patched`.
pub fn body(symbol: Symbol, patched: &[usize]) -> Symbol {
    let mut symbol = symbol;
    for _ in 0..4 {
        if patched.contains(&symbol.address) {
            return symbol;
        }
        let at = skip_endbr(symbol.address);
        let [first, rest @ ..] = bytes_at(at, 5) else {
            return symbol;
        };
        let target = match (first, rest) {
            (0xe9, [a, b, c, d]) => {
                let offset = i32::from_le_bytes([*a, *b, *c, *d]);
                at.wrapping_add(5).wrapping_add(offset as usize)
            }
            (0xeb, [a, ..]) => at.wrapping_add(2).wrapping_add(*a as i8 as usize),
            _ => return symbol,
        };
        symbol = Symbol {
            address: target,
            bytes: 0,
        };
    }
    symbol
}

/// Whether the first bytes at `address`, which may be anything, can be read.
pub fn is_readable(address: usize) -> bool {
    let mask = sys::block_signals();
    // SAFETY: all signals are blocked.
    let readable =
        unsafe { sys::is_readable(address) && sys::is_readable(address.wrapping_add(8)) };
    sys::restore_signals(mask);
    readable
}

/// Where the function at `address` leads if it is nothing but a jump.
pub fn jump_target(address: usize) -> Option<usize> {
    match bytes_at(address, 5) {
        [0xe9, a, b, c, d] => {
            let offset = i32::from_le_bytes([*a, *b, *c, *d]);
            Some(address.wrapping_add(5).wrapping_add(offset as usize))
        }
        _ => None,
    }
}

/// If `address` is an entry of a procedure linkage table (`jmp [rip + offset]`, perhaps with `endbr64`
/// and `bnd` before it): the word that it jumps through.
pub fn linkage_slot(address: usize) -> Option<usize> {
    let at = skip_endbr(address);
    let (at, bytes) = match bytes_at(at, 7) {
        [0xf2, rest @ ..] => (at.wrapping_add(1), rest),
        other => (at, other),
    };
    match bytes {
        [0xff, 0x25, a, b, c, d, ..] => {
            let offset = i32::from_le_bytes([*a, *b, *c, *d]);
            Some(at.wrapping_add(6).wrapping_add(offset as usize))
        }
        _ => None,
    }
}

fn skip_endbr(address: usize) -> usize {
    match bytes_at(address, 4) {
        [0xf3, 0x0f, 0x1e, 0xfa] => address.wrapping_add(4),
        _ => address,
    }
}

impl Islands {
    /// Finds room for islands within reach of a jump from anywhere in an image around `near`.
    pub fn near(near: usize) -> Option<Islands> {
        let bytes = ISLANDS.wrapping_mul(ISLAND_BYTES);
        let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_FIXED_NOREPLACE;
        let step = 1usize << 21;
        // Up to 1 GiB to either side: images of several 100 MiB still reach.
        for n in 1..512usize {
            let distance = n.wrapping_mul(step);
            for at in [near.wrapping_sub(distance), near.wrapping_add(distance)] {
                let at = at & !4095;
                // SAFETY: NOREPLACE maps free ranges only.
                let got =
                    unsafe { sys::mmap(at, bytes, sys::PROT_READ | sys::PROT_WRITE, flags, -1) };
                if got == at as isize {
                    return Some(Islands { page: at, used: 0 });
                }
                if got > 0 {
                    // A kernel that does not know NOREPLACE mapped it elsewhere.
                    sys::munmap(got as usize, bytes);
                }
            }
        }
        None
    }

    /// Whether there is room for one more, within reach of a jump from `address`.
    pub fn serves(&self, address: usize) -> bool {
        self.used < ISLANDS && self.page.abs_diff(address) < REACH_BYTES
    }

    /// Patches `function` to enter `wrapper`, with `number` in r11 (which is free where a function
    /// begins) if there is one. `publish` learns the address that calls the original before the patch
    /// is in place. A function that `throws` is refused if it calls others from within the bytes that
    /// the jump covers: what those throw could not pass the trampoline.
    pub fn patch(
        &mut self,
        function: Symbol,
        wrapper: usize,
        number: Option<u32>,
        throws: bool,
        publish: impl FnOnce(usize),
    ) -> Result<(), Refused> {
        if !self.serves(function.address) {
            return Err(Refused::NoPage);
        }
        let start = skip_endbr(function.address);
        let skipped = start.wrapping_sub(function.address);
        let length = match function.bytes {
            0 => SIZE_ASSUMED,
            bytes => bytes.saturating_sub(skipped),
        };
        let covered = covered_bytes(start, length, function.bytes != 0, throws)?;
        let island = self.page.wrapping_add(self.used.wrapping_mul(ISLAND_BYTES));
        // `mov r11d, number`, the jump to the wrapper (`jmp [rip]` and its address), the trampoline.
        let trampoline = island.wrapping_add(ENTRY_BYTES);
        let code = moved(start, covered, trampoline)?;
        if code.len() > ISLAND_BYTES.wrapping_sub(ENTRY_BYTES + 14) {
            return Err(Refused::NotMovable);
        }
        self.writable()?;
        // SAFETY: the island is ours and writable now.
        unsafe {
            let mut jump = island;
            if let Some(number) = number {
                copy(jump, &[0x41, 0xbb]);
                copy(jump.wrapping_add(2), &number.to_le_bytes());
                jump = jump.wrapping_add(6);
            }
            write_far_jump(jump, wrapper);
            copy(trampoline, &code);
            write_far_jump(
                trampoline.wrapping_add(code.len()),
                start.wrapping_add(covered),
            );
        }
        self.executable()?;
        self.used = self.used.wrapping_add(1);
        publish(trampoline);
        let offset = island.wrapping_sub(start.wrapping_add(JUMP_BYTES)) as isize;
        let Ok(offset) = i32::try_from(offset) else {
            return Err(Refused::NoPage);
        };
        let mut jump = [0xcc; 32];
        let Some(jump) = jump.get_mut(..covered.min(32)) else {
            return Err(Refused::NotMovable);
        };
        for (slot, byte) in jump
            .iter_mut()
            .zip([0xe9].into_iter().chain(offset.to_le_bytes()))
        {
            *slot = byte;
        }
        let page = start & !4095;
        let bytes = start
            .wrapping_add(covered)
            .wrapping_sub(page)
            .wrapping_add(4095)
            & !4095;
        // SAFETY: nobody runs this code while we are in the constructor of a process with one thread,
        // and ours is elsewhere.
        unsafe {
            if sys::mprotect(page, bytes, sys::PROT_READ | sys::PROT_WRITE) != 0 {
                return Err(Refused::NoPage);
            }
            copy(start, jump);
            if sys::mprotect(page, bytes, sys::PROT_READ | sys::PROT_EXEC) != 0 {
                return Err(Refused::NoPage);
            }
        }
        Ok(())
    }

    fn protect(&self, protection: i32) -> Result<(), Refused> {
        let bytes = ISLANDS.wrapping_mul(ISLAND_BYTES);
        // SAFETY: our own pages.
        match unsafe { sys::mprotect(self.page, bytes, protection) } {
            0 => Ok(()),
            _ => Err(Refused::NoPage),
        }
    }

    fn writable(&self) -> Result<(), Refused> {
        self.protect(sys::PROT_READ | sys::PROT_WRITE)
    }

    fn executable(&self) -> Result<(), Refused> {
        self.protect(sys::PROT_READ | sys::PROT_EXEC)
    }
}

/// # Safety
/// `to` is writable for the length of `code`.
unsafe fn copy(to: usize, code: &[u8]) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), to as *mut u8, code.len()) };
}

/// # Safety
/// 14 bytes at `at` are writable.
unsafe fn write_far_jump(at: usize, target: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        copy(at, &[0xff, 0x25, 0, 0, 0, 0]);
        copy(at.wrapping_add(6), &target.to_le_bytes());
    }
}

fn decoder(start: usize, length: usize) -> Decoder<'static> {
    Decoder::with_ip(
        64,
        bytes_at(start, length),
        start as u64,
        DecoderOptions::NONE,
    )
}

/// Whole instructions that cover the jump, if they may be moved.
fn covered_bytes(start: usize, length: usize, exact: bool, throws: bool) -> Result<usize, Refused> {
    let mut decoder = decoder(start, length);
    let mut instruction = Instruction::default();
    let mut covered = 0usize;
    while covered < JUMP_BYTES {
        if !decoder.can_decode() {
            return Err(Refused::TooShort);
        }
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return Err(Refused::NotMovable);
        }
        covered = covered.wrapping_add(instruction.len());
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::ConditionalBranch => {}
            // A function that ends here is long enough only if this is its last instruction.
            FlowControl::Return | FlowControl::UnconditionalBranch if covered >= JUMP_BYTES => {}
            // It returns to the trampoline.
            FlowControl::Call | FlowControl::IndirectCall if !throws => {}
            FlowControl::Call | FlowControl::IndirectCall => return Err(Refused::NotMovable),
            _ => return Err(Refused::TooShort),
        }
    }
    // No branch of the function may lead into the bytes that the jump covers.
    let inside = (start as u64).wrapping_add(1)..(start as u64).wrapping_add(covered as u64);
    let mut decoder = self::decoder(start, length);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            break;
        }
        if inside.contains(&instruction.near_branch_target()) {
            return Err(Refused::BranchInto);
        }
        let ends = matches!(
            instruction.flow_control(),
            FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::Interrupt
        );
        if ends && !exact {
            break;
        }
    }
    Ok(covered)
}

/// The first `covered` bytes of code, encoded anew for `target`.
fn moved(start: usize, covered: usize, target: usize) -> Result<alloc::vec::Vec<u8>, Refused> {
    let mut decoder = decoder(start, covered);
    let mut instructions = alloc::vec::Vec::with_capacity(8);
    while decoder.can_decode() {
        instructions.push(decoder.decode());
    }
    let block = InstructionBlock::new(&instructions, target as u64);
    BlockEncoder::encode(64, block, BlockEncoderOptions::NONE)
        .map(|result| result.code_buffer)
        .map_err(|_| Refused::NotMovable)
}

/// Whether `function` calls or jumps to a place directly of which `is_target` holds.
pub fn reaches(function: Symbol, is_target: impl Fn(usize) -> bool) -> bool {
    let length = if function.bytes == 0 {
        4 * SIZE_ASSUMED
    } else {
        function.bytes.min(4096)
    };
    let mut decoder = decoder(function.address, length);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            break;
        }
        if instruction.is_call_near() || instruction.is_jmp_near() || instruction.is_jmp_short() {
            let target = instruction.near_branch_target() as usize;
            if is_target(target) {
                return true;
            }
        }
        if function.bytes == 0 && instruction.flow_control() == FlowControl::Return {
            break;
        }
    }
    false
}

/// Gives back what patching needed beside the islands.
pub fn finish() {
    arena::close();
}
