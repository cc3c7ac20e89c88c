//! An allocator whose blocks are behind handles: rmalloc's C interface. Whenever a block is touched it is locked; what
//! else locks it is a rule ([`Held`]).

use crate::error::ReplayError;
use crate::slot::{Fault, Slot};
use crate::subject::{Subject, aligned, mix};
use crate::touch::Touch;
use std::ffi::{c_int, c_void};
use std::ptr;

/// When a block that has a handle is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Only while it is touched.
    Touched,
    /// From its birth on, until the program says or it is freed.
    Born,
    /// For life, if the hash of its number is below this.
    Share(u64),
}

/// Functions of rmalloc's C interface; a handle is opaque.
#[derive(Clone, Copy)]
pub struct HandleFunctions {
    /// `rmalloc`.
    pub rmalloc: unsafe extern "C" fn(*mut *mut c_void, isize) -> c_int,
    /// `rmalloc_aligned`.
    pub rmalloc_aligned: unsafe extern "C" fn(*mut *mut c_void, isize, usize) -> c_int,
    /// `rmlock`.
    pub rmlock: unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int,
    /// `rmlock_shared`, or `rmlock` of a library without it.
    pub rmlock_shared: unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int,
    /// `rmunlock`.
    pub rmunlock: unsafe extern "C" fn(*mut c_void) -> c_int,
    /// `rmresize`.
    pub rmresize: unsafe extern "C" fn(*mut c_void, isize) -> c_int,
    /// `rmfree`.
    pub rmfree: unsafe extern "C" fn(*mut c_void) -> c_int,
}

/// What was asked for.
struct Request {
    bytes: u64,
    zeroed: bool,
    align_log2: u8,
}

/// Blocks behind handles.
pub struct Handles {
    functions: HandleFunctions,
    held: Held,
    /// Number of the latest block.
    born: u64,
    /// From the number of a block to that of the next of the same thread.
    step: u64,
}

/// A function of the interface returned an error.
#[inline(always)]
fn succeeded(function: &'static str, slot: usize, status: c_int) -> Result<(), Fault> {
    match status {
        0 => Ok(()),
        _ => Err(Fault::Failed {
            function,
            slot,
            status,
        }),
    }
}

impl Handles {
    /// Blocks locked as `held` says.
    pub fn new(functions: HandleFunctions, held: Held) -> Handles {
        Handles {
            functions,
            held,
            born: 0,
            step: 1,
        }
    }

    /// Whether the next block is locked from its birth on.
    #[inline(always)]
    fn holds(&mut self) -> bool {
        self.born = self.born.wrapping_add(self.step);
        match self.held {
            Held::Touched => false,
            Held::Born => true,
            Held::Share(below) => mix(self.born) < below,
        }
    }

    /// Locks a block.
    ///
    /// # Safety
    /// The handle is of this allocator and live.
    #[inline(always)]
    unsafe fn lock(&self, at: usize, handle: u64) -> Result<*mut u8, Fault> {
        let mut address = ptr::null_mut();
        // SAFETY: the caller's; the address is written before it is read.
        let status = unsafe { (self.functions.rmlock)(handle as *mut c_void, &mut address) };
        succeeded("rmlock", at, status)?;
        Ok(address.cast())
    }

    /// Locks a block for longer than it is touched. With several threads any of them may have to give it back.
    ///
    /// # Safety
    /// The handle is of this allocator and live.
    #[inline(always)]
    unsafe fn hold(&self, at: usize, handle: u64) -> Result<*mut u8, Fault> {
        if self.step == 1 {
            // SAFETY: the caller's.
            return unsafe { self.lock(at, handle) };
        }
        let mut address = ptr::null_mut();
        // SAFETY: the caller's; the address is written before it is read.
        let status = unsafe { (self.functions.rmlock_shared)(handle as *mut c_void, &mut address) };
        succeeded("rmlock_shared", at, status)?;
        Ok(address.cast())
    }

    /// Ends a lock.
    ///
    /// # Safety
    /// The handle is of this allocator, live, and locked by us.
    #[inline(always)]
    unsafe fn end_lock(&self, at: usize, handle: u64) -> Result<(), Fault> {
        // SAFETY: the caller's.
        succeeded("rmunlock", at, unsafe {
            (self.functions.rmunlock)(handle as *mut c_void)
        })
    }

    /// A block was made: touches it and keeps the lock if it is to be held.
    ///
    /// # Safety
    /// The handle is of this allocator and live, with the bytes of the request.
    #[inline(always)]
    unsafe fn began<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        handle: u64,
        request: Request,
    ) -> Result<(), Fault> {
        let Request {
            bytes,
            zeroed,
            align_log2,
        } = request;
        *slot = Slot {
            block: handle,
            bytes,
        };
        let holds = self.holds();
        if T::TOUCHES || holds || zeroed {
            // SAFETY: the handle is live; while it is locked its `bytes` bytes are ours.
            unsafe {
                let block = match holds {
                    true => self.hold(at, handle)?,
                    false => self.lock(at, handle)?,
                };
                if zeroed {
                    ptr::write_bytes(block, 0, bytes as usize);
                }
                aligned(block as u64, align_log2)?;
                touch.born(at, block, bytes as usize, zeroed)?;
                match holds {
                    true => slot.bytes |= Slot::LOCKED,
                    false => self.end_lock(at, handle)?,
                }
            }
        }
        Ok(())
    }
}

impl Subject for Handles {
    const LOCKS: bool = true;

    fn seated(&self, seat: usize, seats: usize) -> Result<Handles, ReplayError> {
        Ok(Handles {
            // Of all seats together the numbers are 1, 2, 3 ...
            born: (seat as u64 + 1).wrapping_sub(seats as u64),
            step: seats as u64,
            ..*self
        })
    }

    #[inline(always)]
    unsafe fn allocate<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
        zeroed: bool,
    ) -> Result<(), Fault> {
        let mut handle = ptr::null_mut();
        // SAFETY: a new handle; 0 bytes are an error of this interface, so 1 is asked for.
        unsafe {
            let status = (self.functions.rmalloc)(&mut handle, bytes.max(1) as isize);
            if status != 0 {
                return Err(Fault::Refused { bytes, status });
            }
            let request = Request {
                bytes,
                zeroed,
                align_log2: 0,
            };
            self.began(touch, at, slot, handle as u64, request)
        }
    }

    #[inline(never)]
    unsafe fn allocate_aligned<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
        align_log2: u8,
    ) -> Result<(), Fault> {
        let mut handle = ptr::null_mut();
        // SAFETY: as in `allocate`; the alignment is a power of two.
        unsafe {
            let status = (self.functions.rmalloc_aligned)(
                &mut handle,
                bytes.max(1) as isize,
                1 << align_log2,
            );
            if status != 0 {
                return Err(Fault::Refused { bytes, status });
            }
            let request = Request {
                bytes,
                zeroed: false,
                align_log2,
            };
            self.began(touch, at, slot, handle as u64, request)
        }
    }

    #[inline(always)]
    unsafe fn resize<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
    ) -> Result<(), Fault> {
        let (from, held) = (slot.len(), slot.bytes & Slot::LOCKED);
        // SAFETY: the slot's handle is live; a locked block can't be resized, so its lock is given up meanwhile.
        unsafe {
            if held != 0 {
                self.end_lock(at, slot.block)?;
            }
            let status =
                (self.functions.rmresize)(slot.block as *mut c_void, bytes.max(1) as isize);
            succeeded("rmresize", at, status)?;
            slot.bytes = bytes | held;
            if T::TOUCHES || held != 0 {
                let block = match held {
                    0 => self.lock(at, slot.block)?,
                    _ => self.hold(at, slot.block)?,
                };
                touch.resized(at, block, from, bytes as usize)?;
                if held == 0 {
                    self.end_lock(at, slot.block)?;
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn free<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
    ) -> Result<(), Fault> {
        // SAFETY: the slot's handle is live until `rmfree`; locks are counted.
        unsafe {
            if T::TOUCHES {
                let block = self.lock(at, slot.block)?;
                touch.ends(at, block, slot.len())?;
                self.end_lock(at, slot.block)?;
            }
            self.unlock(at, slot)?;
            succeeded(
                "rmfree",
                at,
                (self.functions.rmfree)(slot.block as *mut c_void),
            )
        }
    }

    unsafe fn place(&self, slot: &Slot) -> u64 {
        // SAFETY: the handle is live; the lock ends at once.
        unsafe {
            let address = self.lock(0, slot.block).unwrap_or(ptr::null_mut());
            if !address.is_null() {
                let _ = self.end_lock(0, slot.block);
            }
            address as u64
        }
    }

    #[inline(always)]
    unsafe fn relock(&mut self, at: usize, slot: &mut Slot) -> Result<(), Fault> {
        if slot.bytes & Slot::LOCKED != 0 {
            return Ok(());
        }
        // SAFETY: the handle is live.
        unsafe { self.hold(at, slot.block)? };
        slot.bytes |= Slot::LOCKED;
        Ok(())
    }

    #[inline(always)]
    unsafe fn unlock(&mut self, at: usize, slot: &mut Slot) -> Result<(), Fault> {
        if slot.bytes & Slot::LOCKED == 0 {
            return Ok(());
        }
        slot.bytes &= !Slot::LOCKED;
        // SAFETY: the handle is live and holds the lock of its birth.
        unsafe { self.end_lock(at, slot.block) }
    }
}
