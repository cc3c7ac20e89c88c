//! The inner loop: performs the operations of a program on an allocator. What it costs by itself is the replayer's
//! cost, so it holds nothing but the operations, their slots and two sums. One thread that performs a whole program
//! ([`Run`]) and one of several ([`crate::team`]) run the same loop; what keeps several in order is an [`Order`].

use crate::fetch::fetch_at;
use crate::program::{Facts, PADDING, Program};
use crate::region::Region;
use crate::slot::{Fault, Slot};
use crate::subject::Subject;
use crate::touch::{Seated, Touch};
use crate::watch::Watched;
use crate::word::{self, Op};
use std::ops::Range;

/// How many operations ahead the slot of one is fetched.
const SLOTS_AHEAD: usize = 16;
const _: () = assert!(SLOTS_AHEAD < PADDING);

/// A fault, and the word at which it was.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// Words before it.
    pub word: u64,
    /// What it was.
    pub fault: Fault,
}

/// How the operations of one thread keep the order of those of others.
pub trait Order {
    /// All words before `at` have been done; `live_bytes` is the sum of this thread's allocations less its frees.
    fn done(&mut self, at: usize, live_bytes: u64);

    /// A wait.
    ///
    /// # Errors
    /// [`Fault::Elsewhere`], when the replay ends.
    fn wait(&mut self, word: u64) -> Result<(), Fault>;
}

/// There are no others.
pub struct Alone;

impl Order for Alone {
    #[inline(always)]
    fn done(&mut self, _: usize, _: u64) {}

    #[inline(always)]
    fn wait(&mut self, _: u64) -> Result<(), Fault> {
        Ok(())
    }
}

/// What a thread performs operations with.
pub struct Hand<S, T> {
    /// The allocator.
    pub subject: S,
    /// How blocks are touched.
    pub touch: T,
    /// Sum of the sizes of the blocks that it allocated, less those that it freed.
    pub live_bytes: u64,
}

impl<S: Subject, T: Seated> Hand<S, T> {
    /// That of another thread: seat `seat` of `seats`.
    ///
    /// # Errors
    /// When the system refuses memory.
    pub fn seated(&self, seat: usize, seats: usize) -> Result<Self, crate::error::ReplayError> {
        Ok(Hand {
            subject: self.subject.seated(seat, seats)?,
            touch: self.touch.seated(seat, seats),
            live_bytes: 0,
        })
    }
}

impl<S: Subject, T: Touch> Hand<S, T> {
    /// Performs the operations of a range of words.
    ///
    /// # Errors
    /// The allocator's fault; nothing can be performed after it.
    ///
    /// # Safety
    /// `words` were proven for a table of slots that begins at `slots`: every slot is within, an allocation has an empty
    /// one, any other operation a live one. No other thread has the slots, or `order` waits for it as was proven.
    pub unsafe fn perform<O: Order>(
        &mut self,
        words: &[u64],
        range: Range<usize>,
        slots: *mut Slot,
        order: &mut O,
    ) -> Result<(), Stopped> {
        assert!(range.end + PADDING <= words.len());
        let mut live = self.live_bytes;
        let mut at = range.start;
        while at < range.end {
            // SAFETY: `at` is below `range.end`, and `PADDING` words lie behind that.
            let (word, later) = unsafe {
                (
                    *words.get_unchecked(at),
                    *words.get_unchecked(at + SLOTS_AHEAD),
                )
            };
            fetch_at(slots.wrapping_add(word::slot(later)));
            let number = word::slot(word);
            self.touch.begins();
            // SAFETY: the caller's: the slot is one of the table, ours now, and holds a block or none as the operation
            // needs. Neither a wide word's number nor a wait's is used.
            let done = unsafe {
                let slot = slots.wrapping_add(number);
                match word::kind(word) {
                    word::ALLOC => {
                        let bytes = word::bytes(word);
                        live = live.wrapping_add(bytes);
                        self.subject
                            .allocate(&mut self.touch, number, &mut *slot, bytes, false)
                    }
                    word::FREE => {
                        live = live.wrapping_sub((*slot).len() as u64);
                        self.subject.free(&mut self.touch, number, &mut *slot)
                    }
                    word::RESIZE => {
                        let bytes = word::bytes(word);
                        live = live.wrapping_add(bytes).wrapping_sub((*slot).len() as u64);
                        self.subject
                            .resize(&mut self.touch, number, &mut *slot, bytes)
                    }
                    word::ZEROED => {
                        let bytes = word::bytes(word);
                        live = live.wrapping_add(bytes);
                        self.subject
                            .allocate(&mut self.touch, number, &mut *slot, bytes, true)
                    }
                    word::UNLOCK if word::bytes(word) != 0 => {
                        self.subject.relock(number, &mut *slot)
                    }
                    word::UNLOCK => self.subject.unlock(number, &mut *slot),
                    word::WAIT => order.wait(word),
                    _ => {
                        at += 1;
                        self.wide(slots, Op::decode_wide(word, words[at]), &mut live)
                    }
                }
            };
            if let Err(fault) = done {
                return Err(Stopped {
                    word: at as u64,
                    fault,
                });
            }
            if word::kind(word) < word::WIDE {
                // SAFETY: as above; the word names the slot itself.
                let slot = unsafe { &*slots.wrapping_add(number) };
                self.touch.ended(word, number, slot, false);
            }
            at += 1;
            order.done(at, live);
        }
        self.live_bytes = live;
        Ok(())
    }

    /// An operation with a wide word.
    ///
    /// # Safety
    /// As for `perform`: the slot is one of the table, and holds a block or none as the operation needs.
    #[cold]
    unsafe fn wide(&mut self, slots: *mut Slot, op: Op, live: &mut u64) -> Result<(), Fault> {
        let at = op.slot as usize;
        // SAFETY: the caller's.
        unsafe {
            let slot = &mut *slots.wrapping_add(at);
            let old = slot.len() as u64;
            let (subject, touch) = (&mut self.subject, &mut self.touch);
            match op.kind {
                word::FREE | word::RESIZE => *live = live.wrapping_sub(old),
                _ => {}
            }
            if op.kind != word::FREE && op.kind != word::UNLOCK {
                *live = live.wrapping_add(op.bytes);
            }
            touch.begins();
            match op.kind {
                word::FREE => subject.free(touch, at, slot),
                word::RESIZE => subject.resize(touch, at, slot, op.bytes),
                word::UNLOCK if op.bytes != 0 => subject.relock(at, slot),
                word::UNLOCK => subject.unlock(at, slot),
                kind if op.align_log2 == 0 => {
                    subject.allocate(touch, at, slot, op.bytes, kind == word::ZEROED)
                }
                _ => subject.allocate_aligned(touch, at, slot, op.bytes, op.align_log2),
            }?;
            touch.ended(op.encode().1, at, slot, op.align_log2 != 0);
            Ok(())
        }
    }
}

/// Where blocks are kept while a program is performed.
pub struct Slots(Region);

impl Slots {
    /// Empty ones.
    ///
    /// # Errors
    /// When the system refuses memory.
    pub fn new(slots: u64) -> Result<Slots, crate::error::ReplayError> {
        Region::zeroed(slots as usize * size_of::<Slot>(), true).map(Slots)
    }

    /// The first.
    pub fn start(&self) -> *mut Slot {
        self.0.start().cast()
    }

    /// Requested bytes of the block in a slot; of one without a block the last one's.
    pub fn bytes(&self, slot: usize) -> u64 {
        let words = self.0.words();
        words
            .get(slot * 2 + 1)
            .map_or(0, |bytes| bytes & !Slot::LOCKED)
    }
}

/// A program that is being performed by one thread.
pub struct Run<'a, S, T> {
    program: &'a Program,
    /// Its blocks.
    pub slots: Slots,
    /// What it is performed with.
    pub hand: Hand<S, T>,
}

impl<'a, S: Subject, T: Touch> Run<'a, S, T> {
    /// A program at its start.
    ///
    /// # Errors
    /// When the system refuses memory for the slots.
    pub fn new(
        program: &'a Program,
        subject: S,
        touch: T,
    ) -> Result<Self, crate::error::ReplayError> {
        Ok(Run {
            program,
            slots: Slots::new(program.facts().slots)?,
            hand: Hand {
                subject,
                touch,
                live_bytes: 0,
            },
        })
    }

    /// What is known of it.
    pub fn facts(&self) -> &Facts {
        self.program.facts()
    }

    /// Allocates what was inherited.
    ///
    /// # Errors
    /// The allocator's fault.
    pub fn setup(&mut self) -> Result<(), Stopped> {
        let words = self.program.facts().setup_words as usize;
        self.perform(self.program.setup(), 0..words)
    }

    /// Performs the operations of these words, which begin where an earlier call ended.
    ///
    /// # Errors
    /// The allocator's fault; nothing can be performed after it.
    pub fn ops(&mut self, range: Range<usize>) -> Result<(), Stopped> {
        self.perform(self.program.ops(), range)
    }

    fn perform(&mut self, words: &[u64], range: Range<usize>) -> Result<(), Stopped> {
        let slots = self.slots.start();
        // SAFETY: the program was proven for as many slots as there are, and only this run has them.
        unsafe { self.hand.perform(words, range, slots, &mut Alone) }
    }
}

impl<S: Subject, T: Touch> Run<'_, S, Watched<T>> {
    /// Pages of 4 KiB that hold a byte of a live block.
    pub fn pages(&mut self) -> u64 {
        let (slots, subject) = (self.slots.start(), &self.hand.subject);
        self.hand.touch.pages(|number| {
            // SAFETY: whoever watches has seen a block begin in this slot, which is one of the table, and none end.
            let slot = unsafe { &*slots.wrapping_add(number) };
            // SAFETY: as above: the slot holds a block.
            (unsafe { subject.place(slot) }, slot.len() as u64)
        })
    }
}
