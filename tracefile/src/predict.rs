//! Where the next block will be: what encoder and decoder of a segment both know about the addresses
//! so far, and the coding of an address against it.
//!
//! Allocators hand out again what was freed last, or the bytes behind the block before, and programs
//! free what they allocated last or in the order of allocation. `docs/format.md` states the rules.

use crate::codec::Column;
use crate::error::Malformed;
use crate::varint::{self, Cursor};

/// Place of an address (bits 6-7 of an operation byte). Of a block: the one freed last in its class.
/// Of a release: the block allocated last.
pub(crate) const LAST: u8 = 0x00;
/// Of a block: right behind the block before. Of a release: the block allocated after the one
/// released before.
pub(crate) const NEXT: u8 = 0x40;
/// Of a release: the block of the allocation whose number the column of numbers leads to. Of the
/// block that realloc returns: where it was.
pub(crate) const NUMBERED: u8 = 0x80;
/// In the column of addresses.
pub(crate) const GIVEN: u8 = 0xc0;

/// Size classes that are told apart; larger blocks share the last.
const CLASSES: usize = 64;
/// Freed addresses remembered for a class.
const DEPTH: usize = 8;
/// Allocations remembered; a power of two.
const NUMBERED_MAX: usize = 1 << 16;
/// Bits of an entry of [`Prediction::numbered`] that hold the class.
const CLASS_BITS: u32 = 8;

/// Code in the column of addresses: address 0.
const ADDRESS_ZERO: u64 = 0;
/// Code in the column of addresses: the difference in bytes follows.
const ADDRESS_ODD: u64 = 1;
/// First code of differences in units of 16 bytes.
const ADDRESS_UNITS: u64 = 2;

/// What both sides know.
#[derive(Clone)]
pub(crate) struct Prediction {
    /// Address that the column gave last.
    given: u64,
    /// Where the block before ends, if it was not one that had been freed.
    next: u64,
    /// Number of the allocation after the one released last.
    after_released: u64,
    /// Allocations so far.
    allocations: u64,
    /// The last allocations: the low 56 bits of the address, and the class. The slot of an allocation
    /// is its number modulo [`NUMBERED_MAX`].
    numbered: Vec<u64>,
    /// Freed addresses by class, a ring each.
    freed: Box<[[u64; DEPTH]; CLASSES]>,
    /// Where the last one of each ring is.
    tops: [u8; CLASSES],
}

impl Default for Prediction {
    fn default() -> Self {
        Prediction {
            given: 0,
            next: 0,
            after_released: 0,
            allocations: 0,
            numbered: Vec::new(),
            freed: Box::new([[0; DEPTH]; CLASSES]),
            tops: [0; CLASSES],
        }
    }
}

/// The class of a block of so many bytes: as glibc rounds, 8 bytes of header, multiples of 16.
#[inline(always)]
const fn class_of(bytes: u64) -> usize {
    let units = bytes.saturating_add(23) >> 4;
    if units < CLASSES as u64 {
        units as usize
    } else {
        CLASSES - 1
    }
}

impl Prediction {
    /// Forgets everything, for the next segment.
    pub(crate) fn reset(&mut self) {
        let mut numbered = std::mem::take(&mut self.numbered);
        numbered.clear();
        *self.freed = [[0; DEPTH]; CLASSES];
        self.tops = [0; CLASSES];
        (self.given, self.next) = (0, 0);
        (self.after_released, self.allocations) = (0, 0);
        self.numbered = numbered;
    }

    #[inline(always)]
    fn freed_last(&self, class: usize) -> u64 {
        self.freed[class][self.tops[class] as usize % DEPTH]
    }

    #[inline(always)]
    fn pop_freed(&mut self, class: usize) {
        let top = self.tops[class] as usize % DEPTH;
        self.freed[class][top] = 0;
        self.tops[class] = ((top + DEPTH - 1) % DEPTH) as u8;
    }

    #[inline(always)]
    fn push_freed(&mut self, class: usize, address: u64) {
        let top = (self.tops[class] as usize + 1) % DEPTH;
        self.freed[class][top] = address;
        self.tops[class] = top as u8;
    }

    /// The next allocation is this one.
    #[inline(always)]
    pub(crate) fn number(&mut self, address: u64, bytes: u64) {
        let entry = address << CLASS_BITS | class_of(bytes) as u64;
        let slot = self.allocations as usize % NUMBERED_MAX;
        match self.numbered.get_mut(slot) {
            Some(old) => *old = entry,
            None => self.numbered.push(entry),
        }
        self.allocations += 1;
    }

    /// Address and class of an allocation, if it is still remembered.
    #[inline(always)]
    fn numbered(&self, number: u64) -> Option<(u64, usize)> {
        let age = self.allocations.wrapping_sub(number);
        if age.wrapping_sub(1) >= NUMBERED_MAX as u64 {
            return None;
        }
        let entry = *self.numbered.get(number as usize % NUMBERED_MAX)?;
        let class = (entry & ((1 << CLASS_BITS) - 1)) as usize % CLASSES;
        Some((entry >> CLASS_BITS, class))
    }

    #[inline(always)]
    fn released(&mut self, number: u64, address: u64, class: usize) {
        self.after_released = number.wrapping_add(1);
        self.push_freed(class, address);
    }

    #[inline(always)]
    fn block(&mut self, place: u8, address: u64, bytes: u64) {
        let class = class_of(bytes);
        if place == LAST {
            self.pop_freed(class);
        } else {
            self.next = address.wrapping_add((class as u64) << 4);
        }
        self.number(address, bytes);
    }

    /// The address of a block of `bytes` bytes that is at `place`.
    #[inline(always)]
    pub(crate) fn take_block(
        &mut self,
        place: u8,
        bytes: u64,
        addresses: &mut Cursor<'_>,
    ) -> Result<u64, Malformed> {
        let address = match place {
            LAST => self.freed_last(class_of(bytes)),
            NEXT => self.next,
            GIVEN => self.take_given(addresses)?,
            _ => {
                return Err(Malformed::new(
                    "a block has a place that only a release can have",
                ));
            }
        };
        self.block(place, address, bytes);
        Ok(address)
    }

    /// The address that is released and is at `place`.
    #[inline(always)]
    pub(crate) fn take_release(
        &mut self,
        place: u8,
        numbers: &mut Cursor<'_>,
        addresses: &mut Cursor<'_>,
    ) -> Result<u64, Malformed> {
        let number = match place {
            LAST => self.allocations.wrapping_sub(1),
            NEXT => self.after_released,
            NUMBERED => {
                let step = varint::unzigzag(numbers.varint()?);
                self.after_released.wrapping_add(step as u64)
            }
            _ => return self.take_given(addresses),
        };
        let (address, class) = self.numbered(number).ok_or(Malformed::new(
            "a call names an allocation that is not there",
        ))?;
        self.released(number, address, class);
        Ok(address)
    }

    #[inline(always)]
    fn take_given(&mut self, addresses: &mut Cursor<'_>) -> Result<u64, Malformed> {
        let delta = match addresses.varint()? {
            ADDRESS_ZERO => return Ok(0),
            ADDRESS_ODD => varint::unzigzag(addresses.varint()?),
            code => varint::unzigzag(code - ADDRESS_UNITS) << 4,
        };
        self.given = self.given.wrapping_add(delta as u64);
        Ok(self.given)
    }
}

/// Slots of [`Places::table`]; a power of two.
const PLACES: usize = 1 << 17;

/// The encoder's side: the prediction, and the numbers of allocations by address.
pub(crate) struct Places {
    prediction: Prediction,
    /// By a hash of the address: the low bits of the number of the last allocation there. What was
    /// lost to another address, or is of a segment before, leads to another address in
    /// [`Prediction::numbered`]; then the address is given instead.
    table: Box<[u16; PLACES]>,
}

// All numbers that are remembered differ in their low bits.
const _: () = assert!(NUMBERED_MAX <= 1 << u16::BITS);

impl Default for Places {
    fn default() -> Self {
        let table = vec![0; PLACES].into_boxed_slice();
        Places {
            prediction: Prediction::default(),
            table: table.try_into().unwrap_or_else(|_| Box::new([0; PLACES])),
        }
    }
}

impl Places {
    /// Begins a segment.
    pub(crate) fn reset(&mut self) {
        self.prediction.reset();
    }

    #[inline(always)]
    fn slot(address: u64) -> usize {
        let mixed = (address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - PLACES.trailing_zeros())) as usize % PLACES
    }

    /// Notes an allocation that is coded without a place of its own.
    #[inline(always)]
    pub(crate) fn number(&mut self, address: u64, bytes: u64) {
        self.note(address);
        self.prediction.number(address, bytes);
    }

    #[inline(always)]
    fn note(&mut self, address: u64) {
        self.table[Self::slot(address)] = self.prediction.allocations as u16;
    }

    /// The number of the last allocation at `address`, if the table knows one.
    #[inline(always)]
    fn find(&self, address: u64) -> u64 {
        let last = self.prediction.allocations.wrapping_sub(1);
        let age = (last as u16).wrapping_sub(self.table[Self::slot(address)]);
        last.wrapping_sub(u64::from(age))
    }

    /// Codes the address of a block and returns its place.
    #[inline(always)]
    pub(crate) fn put_block(&mut self, address: u64, bytes: u64, addresses: &mut Column<'_>) -> u8 {
        let place = if self.prediction.freed_last(class_of(bytes)) == address {
            LAST
        } else if self.prediction.next == address {
            NEXT
        } else {
            self.put_given(address, addresses);
            GIVEN
        };
        self.note(address);
        self.prediction.block(place, address, bytes);
        place
    }

    /// Codes an address that is released and returns its place.
    #[inline(always)]
    pub(crate) fn put_release(
        &mut self,
        address: u64,
        numbers: &mut Column<'_>,
        addresses: &mut Column<'_>,
    ) -> u8 {
        let number = self.find(address);
        let prediction = &mut self.prediction;
        if let Some((numbered, class)) = prediction.numbered(number)
            && numbered == address
        {
            let step = number.wrapping_sub(prediction.after_released) as i64;
            let place = if step == 0 {
                NEXT
            } else if number == prediction.allocations - 1 {
                LAST
            } else {
                numbers.varint(varint::zigzag(step));
                NUMBERED
            };
            prediction.released(number, address, class);
            return place;
        }
        self.put_given(address, addresses);
        GIVEN
    }

    #[inline(always)]
    fn put_given(&mut self, address: u64, addresses: &mut Column<'_>) {
        if address == 0 {
            addresses.varint(ADDRESS_ZERO);
            return;
        }
        let delta = address.wrapping_sub(self.prediction.given) as i64;
        if delta & 15 == 0 {
            addresses.varint(varint::zigzag(delta >> 4) + ADDRESS_UNITS);
        } else {
            addresses.varint(ADDRESS_ODD);
            addresses.varint(varint::zigzag(delta));
        }
        self.prediction.given = address;
    }
}
