//! A machine of a few threads and words under x86-TSO, small enough that all its runs can be looked at. Owned here:
//! memory, store buffers, the instructions and what may happen next. What the threads do is told by the files beside
//! this one, and all runs are walked by [`crate::explore`].
//!
//! The memory model (Owens, Sarkar, Sewell 2009): each thread has a queue of its stores; the oldest goes to memory at any
//! moment; a load takes the thread's own youngest store to that word, else memory; a locked instruction or a fence
//! waits until the thread's queue is empty. `membarrier` waits until each other thread's queue was empty at some moment
//! since its call, each at a moment of its own. Steps that touch registers only belong to the step before them.

use std::hash::{Hash, Hasher};

/// What a word holds.
pub type Value = u16;
/// Words of memory.
pub const WORDS: usize = 28;
/// Registers of a thread.
pub const REGISTERS: usize = 8;
/// Threads.
pub const THREADS: usize = 3;
/// Stores that a thread may have queued. More is a fault of the program, not a wait: no run is left out.
const QUEUE: usize = 16;
/// Words that no thread can see: what really happened, for the properties.
pub const GHOSTS: usize = 12;

pub type Registers = [Value; REGISTERS];
pub type Ghosts = [Value; GHOSTS];
/// A property's verdict.
pub type Verdict = Result<(), &'static str>;

type Address = Box<dyn Fn(&Registers) -> usize>;
type Expression = Box<dyn Fn(&Registers) -> Value>;
type Condition = Box<dyn Fn(&Registers) -> bool>;
type Change = Box<dyn Fn(&Registers, Value) -> Option<Value>>;
type Remark = Box<dyn Fn(&mut Registers, &mut Ghosts) -> Verdict>;

/// A place in a program.
#[derive(Clone, Copy)]
pub struct Label(usize);

enum Instruction {
    Load(usize, Address),
    Store(Address, Expression),
    /// A locked instruction: the register gets the old value; `None` leaves the word.
    Exchange(usize, Address, Change),
    Fence,
    Membarrier,
    /// A load that waits until the word is so.
    Await(usize, Box<dyn Fn(Value) -> bool>),
    Local(Box<dyn Fn(&mut Registers)>),
    JumpIf(Condition, Label),
    Note(Remark),
    End,
}

/// What a thread does.
pub struct Program {
    pub name: &'static str,
    code: Vec<(Instruction, &'static str)>,
    labels: Vec<usize>,
    /// What the next instructions stand for.
    about: &'static str,
}

impl Program {
    pub fn new(name: &'static str) -> Program {
        Program {
            name,
            code: Vec::new(),
            labels: Vec::new(),
            about: "",
        }
    }

    fn push(&mut self, instruction: Instruction) {
        self.code.push((instruction, self.about));
    }

    /// Names the source that the next instructions stand for.
    pub fn about(&mut self, source: &'static str) {
        self.about = source;
    }

    /// A place that is set later.
    pub fn label(&mut self) -> Label {
        self.labels.push(usize::MAX);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    pub fn here(&mut self, label: Label) {
        self.labels[label.0] = self.code.len();
    }

    pub fn load(&mut self, register: usize, from: impl Fn(&Registers) -> usize + 'static) {
        self.push(Instruction::Load(register, Box::new(from)));
    }

    pub fn store(
        &mut self,
        to: impl Fn(&Registers) -> usize + 'static,
        value: impl Fn(&Registers) -> Value + 'static,
    ) {
        self.push(Instruction::Store(Box::new(to), Box::new(value)));
    }

    /// A locked instruction: `register` gets the old value, the word what `change` makes of it.
    pub fn exchange(
        &mut self,
        register: usize,
        at: impl Fn(&Registers) -> usize + 'static,
        change: impl Fn(&Registers, Value) -> Option<Value> + 'static,
    ) {
        self.push(Instruction::Exchange(
            register,
            Box::new(at),
            Box::new(change),
        ));
    }

    /// Compare-and-swap; jumps to `failed` if the word is another. `scratch` is overwritten.
    pub fn compare_exchange(
        &mut self,
        scratch: usize,
        at: impl Fn(&Registers) -> usize + 'static,
        expected: impl Fn(&Registers) -> Value + Clone + 'static,
        new: impl Fn(&Registers) -> Value + 'static,
        failed: Label,
    ) {
        let wanted = expected.clone();
        self.exchange(scratch, at, move |r, old| {
            (old == wanted(r)).then(|| new(r))
        });
        self.jump_if(move |r| r[scratch] != expected(r), failed);
    }

    pub fn fence(&mut self) {
        self.push(Instruction::Fence);
    }

    pub fn membarrier(&mut self) {
        self.push(Instruction::Membarrier);
    }

    /// Waits until a word is so.
    pub fn wait_until(&mut self, word: usize, so: impl Fn(Value) -> bool + 'static) {
        self.push(Instruction::Await(word, Box::new(so)));
    }

    pub fn local(&mut self, change: impl Fn(&mut Registers) + 'static) {
        self.push(Instruction::Local(Box::new(change)));
    }

    pub fn jump_if(&mut self, condition: impl Fn(&Registers) -> bool + 'static, to: Label) {
        self.push(Instruction::JumpIf(Box::new(condition), to));
    }

    pub fn jump(&mut self, to: Label) {
        self.jump_if(|_| true, to);
    }

    /// What no thread sees: part of the step before it.
    pub fn note(&mut self, note: impl Fn(&mut Registers, &mut Ghosts) -> Verdict + 'static) {
        self.push(Instruction::Note(Box::new(note)));
    }

    pub fn end(&mut self) {
        self.push(Instruction::End);
    }
}

#[derive(Clone)]
pub struct Thread {
    counter: u16,
    /// Threads that passed the barrier that this one waits for, a bit each.
    passed: u16,
    queued: u16,
    pub registers: Registers,
    queue: [[Value; 2]; QUEUE],
}

impl Hash for Thread {
    /// What is not queued is not hashed.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        [self.counter, self.passed, self.queued].hash(hasher);
        self.registers.hash(hasher);
        for store in &self.queue[..self.queued as usize] {
            store.hash(hasher);
        }
    }
}

/// Everything at a moment.
#[derive(Clone, Hash)]
pub struct State {
    pub memory: [Value; WORDS],
    pub ghosts: Ghosts,
    pub threads: [Thread; THREADS],
}

impl State {
    /// A word as a thread sees it.
    pub fn seen_by(&self, thread: usize, word: usize) -> Value {
        let of = &self.threads[thread];
        let own = of.queue[..of.queued as usize]
            .iter()
            .rev()
            .find(|store| store[0] as usize == word);
        own.map_or(self.memory[word], |store| store[1])
    }
}

/// What happened in a step.
#[derive(Clone, Copy)]
pub struct Step {
    pub thread: usize,
    pub source: &'static str,
    pub what: &'static str,
    pub word: Option<(usize, Value)>,
}

/// The threads, and what has to hold.
pub struct Machine {
    pub programs: Vec<Program>,
    pub first: State,
    /// In each state.
    pub always: fn(&State) -> Verdict,
    /// When all threads have ended and all stores are in memory.
    pub finally: fn(&State) -> Verdict,
}

impl Machine {
    /// At the beginning, all words 0 but those told.
    pub fn new(
        mut programs: Vec<Program>,
        words: &[(usize, Value)],
        always: fn(&State) -> Verdict,
        finally: fn(&State) -> Verdict,
    ) -> Machine {
        while programs.len() < THREADS {
            programs.push(Program::new("nobody"));
        }
        for program in &mut programs {
            program.end();
            assert!(
                program.labels.iter().all(|at| *at < program.code.len()),
                "a label of {} is set nowhere",
                program.name
            );
        }
        let thread = Thread {
            counter: 0,
            passed: 0,
            queued: 0,
            registers: [0; REGISTERS],
            queue: [[0; 2]; QUEUE],
        };
        let mut first = State {
            memory: [0; WORDS],
            ghosts: [0; GHOSTS],
            threads: [const { None::<Thread> }; THREADS].map(|_| thread.clone()),
        };
        for (word, value) in words {
            first.memory[*word] = *value;
        }
        let machine = Machine {
            programs,
            first,
            always,
            finally,
        };
        let mut first = machine.first.clone();
        for thread in 0..THREADS {
            machine
                .settle(&mut first, thread)
                .expect("nothing is wrong before the first step");
        }
        Machine { first, ..machine }
    }

    /// Runs what touches registers only.
    fn settle(&self, state: &mut State, at: usize) -> Verdict {
        let State {
            threads, ghosts, ..
        } = state;
        let thread = &mut threads[at];
        loop {
            match &self.programs[at].code[thread.counter as usize].0 {
                Instruction::Local(change) => change(&mut thread.registers),
                Instruction::Note(note) => note(&mut thread.registers, ghosts)?,
                Instruction::JumpIf(condition, to) => {
                    if condition(&thread.registers) {
                        thread.counter = self.programs[at].labels[to.0] as u16;
                        continue;
                    }
                }
                _ => return Ok(()),
            }
            thread.counter += 1;
        }
    }

    /// Has everything ended?
    pub fn is_over(&self, state: &State) -> bool {
        (0..THREADS).all(|at| {
            let thread = &state.threads[at];
            thread.queued == 0
                && matches!(
                    self.programs[at].code[thread.counter as usize].0,
                    Instruction::End
                )
        })
    }

    /// Calls `visit` for each state that may come next, and what was found wrong on the way there.
    pub fn successors(&self, state: &State, mut visit: impl FnMut(Step, State, Verdict)) {
        for at in 0..THREADS {
            let thread = &state.threads[at];
            let (instruction, source) = &self.programs[at].code[thread.counter as usize];
            let step = |what, word| Step {
                thread: at,
                source,
                what,
                word,
            };
            if thread.queued > 0 {
                let mut next = state.clone();
                let one = &mut next.threads[at];
                let [word, value] = one.queue[0];
                one.queue.copy_within(1.., 0);
                one.queued -= 1;
                next.memory[word as usize] = value;
                let flushed = Step {
                    thread: at,
                    source: "",
                    what: "store reaches memory",
                    word: Some((word as usize, value)),
                };
                visit(flushed, next, Ok(()));
            }
            let mut go = |mut next: State, step: Step| {
                next.threads[at].counter += 1;
                let verdict = self.settle(&mut next, at);
                visit(step, next, verdict);
            };
            match instruction {
                Instruction::Load(register, from) => {
                    let word = from(&thread.registers);
                    let value = state.seen_by(at, word);
                    let mut next = state.clone();
                    next.threads[at].registers[*register] = value;
                    go(next, step("load", Some((word, value))));
                }
                Instruction::Store(to, value) => {
                    let (word, value) = (to(&thread.registers), value(&thread.registers));
                    let mut next = state.clone();
                    let one = &mut next.threads[at];
                    assert!(
                        (one.queued as usize) < QUEUE,
                        "{}: too many stores in a row",
                        self.programs[at].name
                    );
                    one.queue[one.queued as usize] = [word as Value, value];
                    one.queued += 1;
                    go(next, step("store", Some((word, value))));
                }
                Instruction::Exchange(register, word, change) if thread.queued == 0 => {
                    let word = word(&thread.registers);
                    let old = state.memory[word];
                    let mut next = state.clone();
                    let changed = change(&thread.registers, old);
                    if let Some(value) = changed {
                        next.memory[word] = value;
                    }
                    next.threads[at].registers[*register] = old;
                    go(
                        next,
                        step(
                            if changed.is_some() {
                                "exchange"
                            } else {
                                "exchange fails"
                            },
                            Some((word, changed.unwrap_or(old))),
                        ),
                    );
                }
                Instruction::Fence if thread.queued == 0 => go(state.clone(), step("fence", None)),
                Instruction::Membarrier if thread.queued == 0 => {
                    let all = ((1u16 << THREADS) - 1) & !(1 << at);
                    if thread.passed == all {
                        let mut next = state.clone();
                        next.threads[at].passed = 0;
                        go(next, step("barrier ends", None));
                        continue;
                    }
                    for other in 0..THREADS {
                        if all & !thread.passed & 1 << other != 0
                            && state.threads[other].queued == 0
                        {
                            let mut next = state.clone();
                            next.threads[at].passed |= 1 << other;
                            visit(
                                step("barrier passes a thread", Some((other, 0))),
                                next,
                                Ok(()),
                            );
                        }
                    }
                }
                Instruction::Await(word, so) => {
                    let value = state.seen_by(at, *word);
                    if so(value) {
                        go(state.clone(), step("found", Some((*word, value))));
                    }
                }
                _ => {}
            }
        }
    }
}
