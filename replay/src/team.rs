//! The threads that perform streams, and who leads them: a coordinator gives each its words up to the next cut or
//! pause, waits until all have done them, starts threads that begin and joins those that have ended. Between two such
//! meetings threads wait for each other alone (`lane.rs`).
//!
//! A thread begins when its first words are due and really ends after its last: what an allocator does at a thread's exit is
//! done. Its stack and everything else that the replayer needs for it is there before the first operation.

use crate::error::ReplayError;
use crate::lane::{Common, Tally, Together, sleep, wake};
use crate::program::Facts;
use crate::region::Region;
use crate::run::{Alone, Hand, Slots, Stopped};
use crate::slot::{Fault, Slot};
use crate::streams::{Streams, seats};
use crate::subject::Subject;
use crate::system::clock_ns;
use crate::touch::{Seated, Touch};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Bytes of a thread's stack, and of the guard below it. Threads' static storage lies there too.
const STACK_BYTES: usize = 256 << 10;
const GUARD_BYTES: usize = 4 << 10;

/// Words that a thread is to do.
#[derive(Clone, Copy, Debug, Default)]
struct Job {
    thread: usize,
    seat: usize,
    /// Words of all streams before it.
    word: usize,
    words: usize,
    /// Words that the thread has done before.
    done: u64,
    /// Whether the thread ends with it.
    is_last: bool,
}

/// Until all threads meet.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Operations of the merged order before its end.
    pub end: u64,
    /// Live bytes at its end, as recorded.
    pub live_bytes: u64,
    most_live_bytes: u64,
    jobs: (usize, usize),
}

/// Why a replay ended.
#[derive(Debug)]
pub enum Trouble {
    /// A fault of a thread: its number, its seat, what it was.
    Fault {
        /// The recorded thread.
        thread: usize,
        /// Where it worked.
        seat: usize,
        /// The fault.
        stopped: Stopped,
    },
    /// A thread could not be started.
    Start(io::Error),
}

/// What threads took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// CPU time of operations in nanoseconds, waits and meetings not included.
    pub cpu_ns: u64,
    /// CPU time of waits and meetings.
    pub other_cpu_ns: u64,
    /// Waits.
    pub tally: Tally,
}

/// What a thread in a seat works with: its own from when `go` counts up until it is not `left` any more.
struct Work<S, T> {
    hand: Hand<S, T>,
    job: Job,
    times: Times,
    fault: Option<Stopped>,
}

/// Where a thread works: one after the other may have it.
#[repr(align(128))]
struct Seat<S, T> {
    /// Counts jobs.
    go: AtomicU32,
    /// No more jobs will come.
    ends: AtomicBool,
    /// The thread is about to exit.
    has_left: AtomicBool,
    work: UnsafeCell<Work<S, T>>,
    stack: Region,
}

/// What threads start from.
struct Start<S, T> {
    seat: *const Seat<S, T>,
    shared: *const Shared,
}

/// What all threads share.
struct Shared {
    common: Common,
    words: *const [u64],
    slots: *mut Slot,
    /// Jobs of the step that are not done.
    left: AtomicU32,
    /// Threads that have left their seats.
    departures: AtomicU32,
    /// Counts up whenever the coordinator has something to do.
    events: AtomicU32,
}

/// Streams that are being performed.
pub struct Team<'a, S, T> {
    streams: &'a Streams,
    /// Their blocks.
    pub slots: Slots,
    steps: Vec<Step>,
    jobs: Vec<Job>,
    seats: Vec<Seat<S, T>>,
    starts: Vec<Start<S, T>>,
    threads: Vec<Option<libc::pthread_t>>,
    /// Jobs whose seats are not free yet.
    pending: Vec<usize>,
    departures: u32,
    shared: Box<Shared>,
    /// What was inherited is allocated with it.
    pub hand: Hand<S, T>,
    /// Steps done.
    at: usize,
    entry: extern "C" fn(*mut c_void) -> *mut c_void,
}

impl<'a, S: Subject, T: Touch + Seated> Team<'a, S, T> {
    /// Streams at their start. With `pauses` threads meet at pauses too, and live bytes are summed up on the way.
    ///
    /// # Errors
    /// When the system refuses memory.
    pub fn new(
        streams: &'a Streams,
        subject: S,
        touch: T,
        pauses: bool,
    ) -> Result<Self, ReplayError> {
        let (steps, jobs) = plan(streams, pauses);
        let count = streams.shape().together as usize;
        let slots = Slots::new(streams.facts().slots)?;
        let first = Hand {
            subject,
            touch,
            live_bytes: 0,
        };
        let seats: Result<Vec<Seat<S, T>>, ReplayError> = (0..count)
            .map(|seat| {
                Ok(Seat {
                    go: AtomicU32::new(0),
                    ends: AtomicBool::new(false),
                    has_left: AtomicBool::new(false),
                    work: UnsafeCell::new(Work {
                        hand: first.seated(seat + 1, count + 1)?,
                        job: Job::default(),
                        times: Times::default(),
                        fault: None,
                    }),
                    stack: stack()?,
                })
            })
            .collect();
        let seats = seats?;
        let shared = Box::new(Shared {
            common: Common::new(streams.spans().len(), count),
            words: streams.ops(),
            slots: slots.start(),
            left: AtomicU32::new(0),
            departures: AtomicU32::new(0),
            events: AtomicU32::new(0),
        });
        let starts = seats.iter().map(|seat| Start {
            seat,
            shared: &*shared,
        });
        Ok(Team {
            starts: starts.collect(),
            hand: first.seated(0, count + 1)?,
            streams,
            slots,
            steps,
            jobs,
            threads: vec![None; count],
            pending: Vec::with_capacity(count),
            departures: 0,
            seats,
            shared,
            at: 0,
            entry: match pauses {
                true => work::<S, T, true>,
                false => work::<S, T, false>,
            },
        })
    }

    /// What is known of the operations.
    pub fn facts(&self) -> &Facts {
        self.streams.facts()
    }

    /// Allocates what was inherited, in the calling thread.
    ///
    /// # Errors
    /// The allocator's fault.
    pub fn setup(&mut self) -> Result<(), Trouble> {
        let words = self.facts().setup_words as usize;
        let (setup, slots) = (self.streams.setup(), self.slots.start());
        // SAFETY: the streams were proven for as many slots as there are; no thread runs yet.
        let done = unsafe { self.hand.perform(setup, 0..words, slots, &mut Alone) };
        let setup = &self.shared.common.setup_bytes;
        setup.store(self.hand.live_bytes, Ordering::Relaxed);
        done.map_err(|stopped| Trouble::Fault {
            thread: 0,
            seat: usize::MAX,
            stopped,
        })
    }

    /// Until all threads meet next; nothing at the end.
    ///
    /// # Errors
    /// A fault; nothing can be performed after it.
    pub fn step(&mut self) -> Result<Option<Step>, Trouble> {
        let Some(&step) = self.steps.get(self.at) else {
            return Ok(None);
        };
        self.at += 1;
        let (first, end) = step.jobs;
        let most = &self.shared.common.most_live_bytes;
        most.store(step.most_live_bytes, Ordering::Relaxed);
        let left = (end - first) as u32;
        self.shared.left.store(left, Ordering::Release);
        let mut started = Ok(());
        for job in first..end {
            let Job { done, seat, .. } = self.jobs[job];
            match (done, self.threads[seat]) {
                // Another thread has not left the seat yet.
                (0, Some(_)) => self.pending.push(job),
                _ => started = started.and(self.give(job)),
            }
        }
        loop {
            let events = self.shared.events.load(Ordering::Acquire);
            started = started.and(self.let_leave());
            if self.shared.left.load(Ordering::Acquire) == 0
                && self.departures == self.shared.departures.load(Ordering::Acquire)
            {
                break;
            }
            sleep(&self.shared.events, events, None);
        }
        started.map_err(Trouble::Start)?;
        match self.shared.common.stops.load(Ordering::Relaxed) {
            true => Err(self.fault()),
            false => Ok(Some(step)),
        }
    }

    /// Hands a job to the thread in its seat, which is started if nobody is there.
    fn give(&mut self, number: usize) -> io::Result<()> {
        let job = self.jobs[number];
        let seat = &self.seats[job.seat];
        // SAFETY: nobody is in the seat, or who is there waits for a job.
        unsafe { (*seat.work.get()).job = job };
        seat.go.fetch_add(1, Ordering::SeqCst);
        if self.threads[job.seat].is_some() {
            wake(&seat.go, 1);
            return Ok(());
        }
        match start(&seat.stack, self.entry, &self.starts[job.seat]) {
            Ok(thread) => {
                self.threads[job.seat] = Some(thread);
                Ok(())
            }
            Err(error) => {
                // The others must not wait for it.
                self.shared.common.stops.store(true, Ordering::Relaxed);
                self.shared.left.fetch_sub(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }

    /// Joins threads that have left, and starts those that were to have their seats.
    fn let_leave(&mut self) -> io::Result<()> {
        let departures = self.shared.departures.load(Ordering::Acquire);
        if departures == self.departures {
            return Ok(());
        }
        for seat in 0..self.seats.len() {
            if self.seats[seat].has_left.swap(false, Ordering::AcqRel) {
                self.departures = self.departures.wrapping_add(1);
                join(&mut self.threads[seat]);
            }
        }
        let mut done = Ok(());
        let mut at = 0;
        while at < self.pending.len() {
            let job = self.pending[at];
            match self.threads[self.jobs[job].seat] {
                Some(_) => at += 1,
                None => {
                    // In their order: two may be for the same seat.
                    self.pending.remove(at);
                    done = done.and(self.give(job));
                }
            }
        }
        done
    }

    /// The first fault of an allocator.
    fn fault(&self) -> Trouble {
        let mut faults = Vec::new();
        for (number, seat) in self.seats.iter().enumerate() {
            // SAFETY: all jobs are done: nobody works.
            let work = unsafe { &*seat.work.get() };
            faults.extend(work.fault.map(|stopped| Trouble::Fault {
                thread: work.job.thread,
                seat: number,
                stopped,
            }));
        }
        let is_own = |trouble: &Trouble| !matches!(trouble, Trouble::Fault { stopped, .. } if stopped.fault == Fault::Elsewhere);
        let at = faults.iter().position(is_own).unwrap_or_default();
        match faults.is_empty() {
            true => Trouble::Start(io::Error::other("no thread tells why it ended")),
            false => faults.swap_remove(at),
        }
    }

    /// Sum of the sizes of live blocks. At a meeting.
    pub fn live_bytes(&self) -> u64 {
        let seats = self.seats.iter();
        // SAFETY: all jobs are done: nobody works.
        let live = seats.map(|seat| unsafe { (*seat.work.get()).hand.live_bytes });
        live.fold(self.hand.live_bytes, u64::wrapping_add)
    }

    /// What the threads took. At a meeting.
    pub fn times(&self) -> Times {
        let mut sum = Times::default();
        for seat in &self.seats {
            // SAFETY: all jobs are done: nobody works.
            let times = unsafe { &(*seat.work.get()).times };
            sum.cpu_ns += times.cpu_ns;
            sum.other_cpu_ns += times.other_cpu_ns;
            sum.tally.add(&times.tally);
        }
        sum
    }

    /// How a seat touches blocks. At a meeting.
    pub fn touch(&self, seat: usize) -> &T {
        match self.seats.get(seat) {
            // SAFETY: all jobs are done: nobody works.
            Some(seat) => unsafe { &(*seat.work.get()).hand.touch },
            None => &self.hand.touch,
        }
    }
}

impl<S, T> Drop for Team<'_, S, T> {
    fn drop(&mut self) {
        for (seat, thread) in self.seats.iter().zip(&mut self.threads) {
            if thread.is_some() {
                seat.ends.store(true, Ordering::SeqCst);
                seat.go.fetch_add(1, Ordering::SeqCst);
                wake(&seat.go, 1);
                join(thread);
            }
        }
    }
}

/// Which thread does which words until each meeting.
fn plan(streams: &Streams, pauses: bool) -> (Vec<Step>, Vec<Job>) {
    let (seat_of, _) = seats(streams.spans());
    let mut done: Vec<u64> = vec![0; streams.spans().len()];
    let (mut steps, mut jobs) = (Vec::new(), Vec::<Job>::new());
    // The job of each thread in the step, if it is one of it.
    let mut latest: Vec<usize> = vec![usize::MAX; done.len()];
    let (mut first, mut piece, mut most) = (0, 0, 0);
    for segment in streams.segments() {
        most = segment.most_live_bytes.max(most);
        for one in &streams.pieces()[piece..][..segment.pieces as usize] {
            let thread = one.thread as usize;
            match jobs.get_mut(latest[thread]) {
                // The words of a thread lie together from cut to cut.
                Some(job) if latest[thread] >= first => job.words += one.words as usize,
                _ => {
                    latest[thread] = jobs.len();
                    jobs.push(Job {
                        thread,
                        seat: seat_of[thread].number,
                        word: one.word as usize,
                        words: one.words as usize,
                        done: done[thread],
                        is_last: false,
                    });
                }
            }
            done[thread] += one.words;
            jobs[latest[thread]].is_last = done[thread] == streams.spans()[thread].words;
        }
        piece += segment.pieces as usize;
        if pauses || segment.is_cut != 0 {
            steps.push(Step {
                end: segment.end,
                live_bytes: segment.live_bytes,
                most_live_bytes: most,
                jobs: (first, jobs.len()),
            });
            (first, most) = (jobs.len(), 0);
        }
    }
    (steps, jobs)
}

/// A stack with a guard below it, all of it there.
fn stack() -> Result<Region, ReplayError> {
    let region = Region::zeroed(GUARD_BYTES + STACK_BYTES, true)?;
    // SAFETY: the first page of the region, which nothing uses. Without the guard an overflow is not seen, no more.
    unsafe { libc::mprotect(region.start().cast(), GUARD_BYTES, libc::PROT_NONE) };
    Ok(region)
}

/// Starts a thread on a stack of ours.
fn start<S, T>(
    stack: &Region,
    entry: extern "C" fn(*mut c_void) -> *mut c_void,
    from: &Start<S, T>,
) -> io::Result<libc::pthread_t> {
    let checked = |status: c_int| match status {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread: libc::pthread_t = 0;
    // SAFETY: the attributes are made before they are used, and freed. The stack is mapped, readable and writable but for
    // its guard, which is left out, and nobody's: the thread before was joined. `from` outlives the thread, as
    // `Team` joins it before it drops anything.
    unsafe {
        checked(libc::pthread_attr_init(attributes.as_mut_ptr()))?;
        let lowest = stack.start().add(GUARD_BYTES).cast();
        let status = libc::pthread_attr_setstack(attributes.as_mut_ptr(), lowest, STACK_BYTES);
        let status = match status {
            0 => libc::pthread_create(
                &mut thread,
                attributes.as_ptr(),
                entry,
                (&raw const *from).cast_mut().cast(),
            ),
            error => error,
        };
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        checked(status)?;
    }
    Ok(thread)
}

/// Waits until a thread is gone, what its end does included.
fn join(thread: &mut Option<libc::pthread_t>) {
    if let Some(thread) = thread.take() {
        // SAFETY: a thread that was started and not joined yet.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    }
}

/// A thread: does the jobs of its seat until one is its last.
extern "C" fn work<S: Subject, T: Touch + Seated, const SAMPLED: bool>(
    from: *mut c_void,
) -> *mut c_void {
    // SAFETY: `start` passed it, and `Team` keeps the seat and what is shared until the thread was joined.
    let (seat, shared) = unsafe {
        let from = &*from.cast::<Start<S, T>>();
        (&*from.seat, &*from.shared)
    };
    // SAFETY: the words of the streams, which outlive the team.
    let words = unsafe { &*shared.words };
    let mut told_ns = 0;
    loop {
        let go = seat.go.load(Ordering::SeqCst);
        if seat.ends.load(Ordering::SeqCst) {
            return std::ptr::null_mut();
        }
        // SAFETY: a job was given, so the work is this thread's until it says that the job is done.
        let work = unsafe { &mut *seat.work.get() };
        let job = work.job;
        let begun_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
        let mut order = Together::<SAMPLED>::new(
            &shared.common,
            job.thread,
            job.seat,
            job.done,
            job.word as u64,
        );
        // SAFETY: the streams were proven for these slots; `order` keeps the waits, and the team the cuts and seats.
        let done = unsafe {
            let range = job.word..job.word + job.words;
            work.hand.perform(words, range, shared.slots, &mut order)
        };
        shared.common.lanes[job.thread].settle();
        let ended_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
        let waited_ns = order.tally.wait_cpu_ns;
        work.times.cpu_ns += (ended_ns - begun_ns).saturating_sub(waited_ns);
        work.times.other_cpu_ns += (begun_ns - told_ns) + waited_ns;
        work.times.tally.add(&order.tally);
        told_ns = ended_ns;
        if let Err(stopped) = done {
            work.fault = Some(stopped);
            shared.common.stops.store(true, Ordering::Relaxed);
        }
        if job.is_last {
            seat.has_left.store(true, Ordering::Release);
            shared.departures.fetch_add(1, Ordering::AcqRel);
        }
        // The work is the coordinator's from here on.
        let left = shared.left.fetch_sub(1, Ordering::AcqRel);
        if left == 1 || job.is_last {
            shared.events.fetch_add(1, Ordering::AcqRel);
            wake(&shared.events, 1);
        }
        if job.is_last {
            return std::ptr::null_mut();
        }
        while seat.go.load(Ordering::SeqCst) == go {
            sleep(&seat.go, go, None);
        }
    }
}
