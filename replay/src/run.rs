//! The inner loop: performs the operations of a program on an allocator. What it costs by itself is the replayer's
//! cost, so it holds nothing but the operations, their slots and two sums.

use crate::fetch::fetch_at;
use crate::program::{PADDING, Program};
use crate::region::Region;
use crate::slot::{Fault, Slot};
use crate::subject::Subject;
use crate::touch::Touch;
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

/// A program that is being performed.
pub struct Run<'a, S, T> {
    program: &'a Program,
    slots: Region,
    /// The allocator.
    pub subject: S,
    /// How blocks are touched.
    pub touch: T,
    /// Sum of the sizes of live blocks.
    pub live_bytes: u64,
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
            slots: Region::zeroed(program.facts().slots as usize * size_of::<Slot>(), true)?,
            subject,
            touch,
            live_bytes: 0,
        })
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
        assert!(range.end + PADDING <= words.len());
        let slots = self.slots.start().cast::<Slot>();
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
            // SAFETY: the program was proven: every slot is below `slots`, an allocation has an empty one, any
            // other operation a live one; only this function has the slots. A wide word's number is not used.
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
                    word::UNLOCK => self.subject.unlock(number, &mut *slot),
                    _ => {
                        at += 1;
                        self.wide(Op::decode_wide(word, words[at]), &mut live)
                    }
                }
            };
            if let Err(fault) = done {
                return Err(Stopped {
                    word: at as u64,
                    fault,
                });
            }
            at += 1;
        }
        self.live_bytes = live;
        Ok(())
    }

    /// An operation with a wide word.
    ///
    /// # Safety
    /// As proven: the slot is one of the table, and holds a block or none as the operation needs.
    #[cold]
    unsafe fn wide(&mut self, op: Op, live: &mut u64) -> Result<(), Fault> {
        let at = op.slot as usize;
        // SAFETY: the caller's.
        unsafe {
            let slot = &mut *self.slots.start().cast::<Slot>().wrapping_add(at);
            let old = slot.len() as u64;
            let (subject, touch) = (&mut self.subject, &mut self.touch);
            match op.kind {
                word::FREE | word::RESIZE => *live = live.wrapping_sub(old),
                _ => {}
            }
            *live = live.wrapping_add(op.bytes);
            match op.kind {
                word::FREE => subject.free(touch, at, slot),
                word::RESIZE => subject.resize(touch, at, slot, op.bytes),
                word::UNLOCK => subject.unlock(at, slot),
                kind if op.align_log2 == 0 => {
                    subject.allocate(touch, at, slot, op.bytes, kind == word::ZEROED)
                }
                _ => subject.allocate_aligned(touch, at, slot, op.bytes, op.align_log2),
            }
        }
    }

    /// Requested bytes of the block in a slot; of one without a block the last one's.
    pub fn bytes(&self, slot: usize) -> u64 {
        let words = self.slots.words();
        words
            .get(slot * 2 + 1)
            .map_or(0, |bytes| bytes & !Slot::LOCKED)
    }
}
