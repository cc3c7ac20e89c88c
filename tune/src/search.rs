//! The search: every setting alone at its ends first, then steps from the best configuration along each setting that has an
//! effect, what helped alone put together, and new beginnings by chance. Each batch goes through the rungs of
//! [`crate::halving`]. Nothing here looks at a clock: the journal ends a search by refusing to measure.

use crate::bench::{Bench, Candidate, Part, Refusal, Sample};
use crate::chance::Chance;
use crate::halving::{Rung, kept};
use crate::journal::Journal;
use crate::score::{Limits, Objective, Rounds, Score, noise, score};
use crate::space::{Point, Space};
use rmalloc::config::Config;
use std::collections::HashMap;

/// Name of the defaults.
pub const DEFAULTS: &str = "defaults";
/// Rounds of the defaults on each part: what is noise is told from them.
const CALIBRATION: u32 = 3;
/// New beginnings without success after which the search ends.
const RESTARTS: u32 = 3;
/// Configurations by chance at a new beginning.
const BY_CHANCE: usize = 8;
/// A new beginning is followed up if it is at most so much worse than the best.
const PROMISING: f64 = 0.05;
/// Changes that helped alone and are put together, at most.
const TOGETHER: usize = 6;

/// What to search for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What is to be small.
    pub objective: Objective,
    /// What may not be exceeded.
    pub limits: Limits,
    /// Of the numbers by chance.
    pub seed: u64,
    /// Ends the search after so many candidates.
    pub candidates_max: Option<usize>,
    /// Configurations to begin with, and where they are from.
    pub starts: Vec<(String, Config)>,
}

/// A candidate and how far it came.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The candidate.
    pub candidate: Candidate,
    /// Its place.
    pub point: Point,
    /// Why it was tried.
    pub origin: String,
    /// Rungs that it was measured on.
    pub rungs: usize,
    /// On the last of them.
    pub score: Option<Score>,
    /// Why it went no further.
    pub dropped: Option<String>,
    /// It may exceed a limit: one round alone does not tell.
    suspect: bool,
}

/// How far a search is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Candidates measured, whole or in part.
    pub tried: usize,
    /// The best that went all the way, and its score.
    pub best: Option<(&'a str, f64)>,
    /// The rung that is worked on, from 1 on, and how many there are.
    pub rung: (usize, usize),
}

/// A search.
pub struct Search<'a, B> {
    /// What was measured.
    pub journal: &'a mut Journal<B>,
    space: &'a Space,
    options: &'a Options,
    rungs: &'a [Rung],
    /// All candidates, in the order in which they were tried.
    pub standings: Vec<Standing>,
    index: HashMap<String, usize>,
    /// Places among the standings of the best that went all the way; `None`: the defaults.
    best: Option<usize>,
    /// Which limit the defaults themselves exceed: then anything that keeps it is better.
    pub defaults_exceed: Option<String>,
    chance: Chance,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

struct Try {
    candidate: Candidate,
    point: Point,
    origin: String,
}

impl<'a, B: Bench> Search<'a, B> {
    /// Prepares a search on these rungs.
    pub fn new(
        journal: &'a mut Journal<B>,
        space: &'a Space,
        options: &'a Options,
        rungs: &'a [Rung],
        progress: &'a mut dyn FnMut(Progress<'_>),
    ) -> Search<'a, B> {
        Search {
            journal,
            space,
            options,
            rungs,
            standings: Vec::new(),
            index: HashMap::new(),
            best: None,
            defaults_exceed: None,
            chance: Chance::new(options.seed),
            progress,
        }
    }

    /// Searches until nothing is left to try.
    ///
    /// # Errors
    /// [`Refusal::Stopped`] when time, candidates or patience are over: what was found until then stands. [`Refusal::Failed`]
    /// when the defaults can't be replayed, with the trace in its text.
    pub fn run(&mut self) -> Result<(), Refusal> {
        self.look_at_defaults()?;
        let mut centre = self.space.defaults();
        let mut batch = Vec::new();
        for (origin, config) in &self.options.starts {
            let config = self.space.searched(config);
            if let Some(candidate) = self.space.named(config) {
                batch.push(Try {
                    point: self.space.point(&config),
                    candidate,
                    origin: origin.clone(),
                });
            }
        }
        batch.extend(self.ends(&centre));
        self.bracket(batch)?;
        let together = self.together(&centre);
        self.bracket(together)?;
        self.follow(&mut centre);
        let mut restarts = 0;
        loop {
            if self.around(&mut centre)? {
                restarts = 0;
                continue;
            }
            if restarts == RESTARTS {
                return Ok(());
            }
            restarts += 1;
            if self.restart(&mut centre)? {
                restarts = 0;
            }
        }
    }

    /// The best that went all the way, or `None` for the defaults.
    pub fn best(&self) -> Option<&Standing> {
        self.best.map(|at| &self.standings[at])
    }

    /// What of a score on a rung is chance.
    pub fn noise(&self, rung: usize, objective: Objective) -> f64 {
        let parts: Vec<Part> = self
            .rungs
            .iter()
            .flat_map(|rung| rung.parts.clone())
            .collect();
        let of = |part: Part| {
            let samples = self.journal.rounds(DEFAULTS, part, 0);
            Rounds::new(&samples, &samples)
        };
        let rounds: Vec<Rounds> = parts.into_iter().map(of).collect();
        let traces = self.rungs.get(rung).map_or(1, |rung| rung.parts.len());
        noise(&rounds, objective, traces)
    }

    /// A candidate's score on a rung, if it was measured there.
    pub fn score_on(&self, rung: usize, name: &str) -> Option<Score> {
        let rung = &self.rungs[rung];
        let of_traces: Vec<Rounds> = rung
            .parts
            .iter()
            .map(|part| {
                let own = self.journal.rounds(name, *part, 0);
                let defaults = self.journal.rounds(DEFAULTS, *part, 0);
                Rounds::new(&own, &defaults)
            })
            .collect();
        let whole = of_traces.iter().all(|rounds| !rounds.is_empty());
        whole.then(|| score(&of_traces, self.options.objective))
    }

    fn defaults(&self) -> Candidate {
        Candidate {
            name: DEFAULTS.to_string(),
            config: Config::new(),
        }
    }

    /// Rounds of the defaults, before anything is compared with them.
    fn reference(&mut self, part: Part) -> Result<(), Refusal> {
        let defaults = self.defaults();
        let name = self.journal.subjects()[part.subject].name.clone();
        for round in 0..CALIBRATION {
            let measured = self.journal.measure(&defaults, part, round);
            measured.map_err(|refusal| match refusal {
                Refusal::Failed(what) => Refusal::Failed(format!("{name}: {what}")),
                other => other,
            })?;
        }
        Ok(())
    }

    /// Whether the defaults keep the limits on the last rung.
    fn look_at_defaults(&mut self) -> Result<(), Refusal> {
        let limits = self.options.limits;
        if limits.pause_ns.is_none() && limits.memory_bytes.is_none() {
            return Ok(());
        }
        let parts = self
            .rungs
            .last()
            .map_or(Vec::new(), |rung| rung.parts.clone());
        for part in &parts {
            self.reference(*part)?;
        }
        let subjects = self.journal.subjects();
        let of = |part: &Part| {
            let name = subjects[part.subject].name.as_str();
            (name, self.journal.rounds(DEFAULTS, *part, 0))
        };
        let samples: Vec<(&str, Vec<&Sample>)> = parts.iter().map(of).collect();
        self.defaults_exceed = limits.exceeded(&Score::default(), &samples, 0.0, false);
        Ok(())
    }

    /// Every setting alone: its first and its last value, words and lists all of theirs.
    fn ends(&self, centre: &Point) -> Vec<Try> {
        let mut batch = Vec::new();
        for (at, axis) in self.space.axes.iter().enumerate() {
            let last = axis.values.len() - 1;
            let is_list = matches!(axis.name, "classes.sizes" | "table.way" | "compaction.mode");
            let places: Vec<usize> = match is_list {
                true => (0..=last).collect(),
                false => vec![0, last],
            };
            for place in places {
                let mut point = centre.clone();
                point[at] = place;
                self.add(&mut batch, point, axis.name.to_string());
            }
        }
        batch
    }

    fn add(&self, batch: &mut Vec<Try>, point: Point, origin: String) {
        let Some(candidate) = self.space.candidate(&point) else {
            return;
        };
        let is_new = candidate.name != DEFAULTS
            && !self.index.contains_key(&candidate.name)
            && batch
                .iter()
                .all(|other| other.candidate.name != candidate.name);
        if is_new {
            batch.push(Try {
                candidate,
                point,
                origin,
            });
        }
    }

    /// One and two steps along each setting, or along those alone that had an effect.
    fn neighbours(&self, centre: &Point, effective: bool) -> Vec<Try> {
        let mut batch = Vec::new();
        for (at, axis) in self.space.axes.iter().enumerate() {
            if effective && !self.has_effect(axis.name) {
                continue;
            }
            for step in [-1isize, 1, -2, 2] {
                let Some(place) = centre[at].checked_add_signed(step) else {
                    continue;
                };
                if place < axis.values.len() {
                    let mut point = centre.clone();
                    point[at] = place;
                    self.add(&mut batch, point, axis.name.to_string());
                }
            }
        }
        batch
    }

    /// Whether any value of a setting alone changed time or memory by more than noise.
    pub fn has_effect(&self, axis: &str) -> bool {
        let defaults = self.space.defaults();
        let is_alone = |standing: &&Standing| {
            let mut places = standing.point.iter().zip(&defaults).zip(&self.space.axes);
            standing.origin == axis
                && places.all(|((own, default), other)| own == default || other.name == axis)
        };
        let mut tried = self.standings.iter().filter(is_alone);
        tried.any(|standing| {
            let Some(score) = &standing.score else {
                return true;
            };
            let rung = standing.rungs.saturating_sub(1);
            score.time.value.abs() > self.noise(rung, Objective::Time)
                || score.memory.value.abs() > self.noise(rung, Objective::Memory)
        })
    }

    /// What helped alone, put together: the best two, the best three, and so on.
    fn together(&self, centre: &Point) -> Vec<Try> {
        let mut gains: HashMap<usize, (f64, usize)> = HashMap::new();
        for standing in &self.standings {
            let differing: Vec<usize> = (0..centre.len())
                .filter(|at| standing.point[*at] != centre[*at])
                .collect();
            let (&[axis], Some(own)) = (differing.as_slice(), &standing.score) else {
                continue;
            };
            if standing.dropped.as_deref().is_some_and(|why| why != WORSE) {
                continue;
            }
            let rung = standing.rungs.saturating_sub(1);
            let gain = own.objective.value - self.score_at(rung, centre);
            let best = gains.entry(axis).or_insert((0.0, centre[axis]));
            if gain < best.0 {
                *best = (gain, standing.point[axis]);
            }
        }
        let mut sorted: Vec<(f64, usize, usize)> = gains
            .into_iter()
            .filter(|(_, (gain, _))| *gain < 0.0)
            .map(|(axis, (gain, place))| (gain, axis, place))
            .collect();
        sorted.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let mut batch = Vec::new();
        for count in 2..=sorted.len().min(TOGETHER) {
            let mut point = centre.clone();
            for (_, axis, place) in &sorted[..count] {
                point[*axis] = *place;
            }
            self.add(&mut batch, point, format!("the best {count} alone"));
        }
        batch
    }

    fn score_at(&self, rung: usize, point: &Point) -> f64 {
        let name = self.space.candidate(point).map(|candidate| candidate.name);
        let score = name.and_then(|name| self.score_on(rung, &name));
        score.map_or(0.0, |score| score.objective.value)
    }

    /// Moves to the best, if that is another one.
    fn follow(&mut self, centre: &mut Point) -> bool {
        let to = self.best().map(|best| best.point.clone());
        let moved = to.as_ref().is_some_and(|to| to != centre);
        if let Some(to) = to {
            *centre = to;
        }
        moved
    }

    /// Steps from the centre; true: something better was found.
    fn around(&mut self, centre: &mut Point) -> Result<bool, Refusal> {
        for effective in [true, false] {
            let batch = self.neighbours(centre, effective);
            if batch.is_empty() {
                continue;
            }
            self.bracket(batch)?;
            let together = self.together(centre);
            self.bracket(together)?;
            if self.follow(centre) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Begins anew by chance; true: something better was found.
    fn restart(&mut self, centre: &mut Point) -> Result<bool, Refusal> {
        let mut batch = Vec::new();
        for _ in 0..BY_CHANCE {
            let mut point = centre.clone();
            for (at, axis) in self.space.axes.iter().enumerate() {
                if self.has_effect(axis.name) && self.chance.below(2) == 1 {
                    point[at] = self.chance.below(axis.values.len());
                }
            }
            self.add(&mut batch, point, "by chance".to_string());
        }
        let finished = self.bracket(batch)?;
        if self.follow(centre) {
            return Ok(true);
        }
        let incumbent = self.best_score();
        let value = |at: &usize| {
            let score = &self.standings[*at].score;
            score.map_or(f64::INFINITY, |score| score.objective.value)
        };
        let near = finished
            .into_iter()
            .min_by(|one, other| value(one).total_cmp(&value(other)));
        if let Some(at) = near.filter(|at| value(at) < incumbent + PROMISING) {
            let from = self.standings[at].point.clone();
            let batch = self.neighbours(&from, true);
            self.bracket(batch)?;
        }
        Ok(self.follow(centre))
    }

    fn best_score(&self) -> f64 {
        let score = self.best().and_then(|best| best.score);
        score.map_or(self.score_of_defaults(), |score| score.objective.value)
    }

    fn score_of_defaults(&self) -> f64 {
        match self.defaults_exceed {
            None => 0.0,
            Some(_) => f64::INFINITY,
        }
    }

    /// Sends candidates through the rungs; those that went all the way.
    fn bracket(&mut self, batch: Vec<Try>) -> Result<Vec<usize>, Refusal> {
        let mut alive = Vec::new();
        for one in batch {
            if self.index.contains_key(&one.candidate.name) || one.candidate.name == DEFAULTS {
                continue;
            }
            alive.push(one);
        }
        let mut waiting: Vec<Try> = alive;
        let mut ids = Vec::new();
        let last = self.rungs.len().saturating_sub(1);
        for rung in 0..self.rungs.len() {
            let mut passed = Vec::new();
            if rung == 0 {
                for one in waiting.drain(..) {
                    if self
                        .options
                        .candidates_max
                        .is_some_and(|most| self.standings.len() >= most)
                    {
                        return Err(Refusal::Stopped);
                    }
                    let id = self.standings.len();
                    self.index.insert(one.candidate.name.clone(), id);
                    self.standings.push(Standing {
                        candidate: one.candidate,
                        point: one.point,
                        origin: one.origin,
                        rungs: 0,
                        score: None,
                        dropped: None,
                        suspect: false,
                    });
                    let climbed = self.climb(id, rung);
                    if climbed.is_err() && self.standings[id].rungs == 0 {
                        // Nothing of it was measured.
                        self.standings.pop();
                    }
                    if climbed? {
                        passed.push(id);
                    }
                }
            } else {
                for id in ids {
                    if self.climb(id, rung)? {
                        passed.push(id);
                    }
                }
            }
            if rung < last {
                let value = |id: &usize| {
                    let score = self.standings[*id].score;
                    score.map_or(f64::INFINITY, |score| score.objective.value)
                };
                let suspect = |id: &usize| self.standings[*id].suspect;
                passed.sort_by(|one, other| {
                    let first = suspect(one).cmp(&suspect(other));
                    let second = value(one).total_cmp(&value(other));
                    first.then(second).then(one.cmp(other))
                });
                for id in passed.split_off(kept(passed.len())) {
                    self.standings[id].dropped = Some(OTHERS.to_string());
                }
            } else {
                for id in &passed {
                    self.consider(*id);
                }
            }
            ids = passed;
        }
        Ok(ids)
    }

    /// Makes a candidate the best one if it is better by more than half of the noise.
    fn consider(&mut self, id: usize) {
        let Some(score) = self.standings[id].score else {
            return;
        };
        let margin = self.noise(self.rungs.len() - 1, self.options.objective) / 2.0;
        if score.objective.value < self.best_score() - margin {
            self.best = Some(id);
        }
    }

    /// Measures a candidate on a rung; true: it may go on.
    fn climb(&mut self, id: usize, rung: usize) -> Result<bool, Refusal> {
        let candidate = self.standings[id].candidate.clone();
        let best = self
            .best
            .map(|at| self.standings[at].candidate.name.clone());
        let best_score = self.best_score();
        (self.progress)(Progress {
            tried: self.standings.len(),
            best: best.as_deref().map(|name| (name, best_score)),
            rung: (rung + 1, self.rungs.len()),
        });
        let Rung { parts, rounds } = self.rungs[rung].clone();
        for round in 0..rounds {
            for part in &parts {
                self.reference(*part)?;
                match self.journal.measure(&candidate, *part, round) {
                    Ok(()) => {}
                    Err(Refusal::Failed(why)) => {
                        self.standings[id].rungs = rung + 1;
                        self.standings[id].dropped = Some(why);
                        return Ok(false);
                    }
                    Err(other) => return Err(other),
                }
            }
            let score = self.score_on(rung, &candidate.name);
            let standing = &mut self.standings[id];
            standing.rungs = rung + 1;
            standing.score = score;
            let Some(score) = score else {
                continue;
            };
            let noise = self.noise(rung, self.options.objective);
            let names: Vec<String> = self
                .journal
                .subjects()
                .iter()
                .map(|subject| subject.name.clone())
                .collect();
            let samples: Vec<(&str, Vec<&Sample>)> = parts
                .iter()
                .map(|part| {
                    (
                        names[part.subject].as_str(),
                        self.journal.rounds(&candidate.name, *part, 0),
                    )
                })
                .collect();
            let of_time = self.noise(rung, Objective::Time);
            let suspect = self
                .options
                .limits
                .exceeded(&score, &samples, of_time, true);
            self.standings[id].suspect = suspect.is_some();
            if let Some(why) = self
                .options
                .limits
                .exceeded(&score, &samples, of_time, false)
            {
                self.standings[id].dropped = Some(why);
                return Ok(false);
            }
            // On some traces alone a candidate has to be worse by far: others may ask for what it has.
            let margin = if rung + 1 == self.rungs.len() {
                noise
            } else {
                3.0 * noise
            };
            let incumbent = best.as_deref().and_then(|name| self.score_on(rung, name));
            let defaults = self.score_of_defaults();
            let incumbent = incumbent.map_or(defaults, |score| score.objective.value);
            if score.objective.low > incumbent + margin {
                self.standings[id].dropped = Some(WORSE.to_string());
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Why a candidate is dropped that keeps the limits.
pub const WORSE: &str = "worse than the best so far by more than noise";
/// Why one that is not worse is.
pub const OTHERS: &str = "others of its batch were better";
