//! The whole: search, confirmation with rounds of its own, what each setting bought, the report. A candidate is chosen by some
//! rounds and judged by others, as the best of many is best by luck in part.

use crate::bench::{Bench, Candidate, Part, Refusal, Sample};
use crate::error::TuneError;
use crate::halving::{ROUNDS, Rung, rungs};
use crate::journal::Journal;
use crate::report::{
    Asked, Course, LeftOut, Level, Outcome, Report, SCHEMA, Setting, Traced, Tried,
};
use crate::score::{Estimate, Rounds, Score, median, score};
use crate::search::{DEFAULTS, OTHERS, Options, Progress, Search, Standing};
use crate::settings;
use crate::space::{PARAMETERS, Scale, Space, changed};
use rmalloc::config::{Config, KEYS};
use std::time::{Duration, Instant};

/// Number of the first confirming round.
const CONFIRM: u32 = 1_000;
/// Confirming rounds.
const CONFIRM_ROUNDS: u32 = 5;
/// Candidates that are confirmed until one keeps the limits.
const CONFIRMED: usize = 3;
/// Candidates that a report calls best.
const BEST: usize = 10;

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of the search.
    pub search: Options,
    /// For all of it; three fifths are the search's.
    pub time: Option<Duration>,
    /// The first so many traces are searched on, the others are for the report alone.
    pub searched: usize,
    /// How it is measured, in words.
    pub measured: String,
    /// Settings that stay as they are.
    pub keep: Vec<String>,
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The report.
    pub report: Report,
    /// The configuration.
    pub config: Config,
    /// The file.
    pub toml: String,
}

/// Searches and confirms. `is_interrupted` is asked when nothing more is measured: whether that is for the user.
///
/// # Errors
/// When the defaults can't be replayed on a trace, or nothing can be measured or written down.
pub fn tune<B: Bench>(
    journal: &mut Journal<B>,
    space: &Space,
    wanted: &Wanted,
    is_interrupted: fn() -> bool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Tuned, TuneError> {
    let began = Instant::now();
    let searched = wanted.searched.min(journal.subjects().len());
    if searched == 0 {
        return Err(TuneError::Option(
            "there is no trace to search on".to_string(),
        ));
    }
    let of_search = wanted.time.map(|time| time * 3 / 5);
    let time_ns = of_search.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let rungs = rungs(&journal.subjects()[..searched], time_ns);
    journal.stop_at = of_search.map(|time| began + time);
    let mut search = Search::new(journal, space, &wanted.search, &rungs, progress);
    let ended = match search.run() {
        Ok(()) => "exhausted",
        Err(Refusal::Stopped) => match (is_interrupted(), wanted.search.candidates_max) {
            (true, _) => "interrupted",
            (false, Some(most)) if search.standings.len() >= most => "candidates",
            _ => "time",
        },
        Err(refusal) => return Err(fatal(refusal)),
    };
    let noise = search.noise(rungs.len() - 1, wanted.search.objective);
    let finalists = finalists(&search, noise);
    let inert: Vec<&str> = space.axes.iter().map(|axis| axis.name).collect();
    let inert = inert
        .into_iter()
        .filter(|name| !search.has_effect(name))
        .collect();
    let defaults_exceed = search.defaults_exceed.take();
    let standings = std::mem::take(&mut search.standings);
    let mut after = After {
        journal,
        space,
        wanted,
        rungs: &rungs,
        searched,
        standings,
        inert,
        noise,
        ended,
        defaults_exceed,
    };
    after.journal.stop_at = wanted.time.map(|time| began + time);
    after.conclude(&finalists)
}

fn fatal(refusal: Refusal) -> TuneError {
    match refusal {
        Refusal::Fatal(error) => error,
        Refusal::Failed(text) => {
            let (trace, what) = text.split_once(": ").unwrap_or(("", &text));
            TuneError::Reference {
                trace: trace.to_string(),
                what: what.to_string(),
            }
        }
        Refusal::Stopped => {
            TuneError::Option("interrupted before anything was measured".to_string())
        }
    }
}

/// What may be chosen, best first: those that went all the way and are better than the defaults; if there is none, those that came
/// furthest.
fn finalists<B: Bench>(search: &Search<'_, B>, noise: f64) -> Vec<Candidate> {
    let fits = |standing: &&Standing| {
        let allowed = standing.dropped.as_deref().is_none_or(|why| why == OTHERS);
        let value = standing.score.map_or(0.0, |score| score.objective.value);
        allowed && (value < -noise / 2.0 || search.defaults_exceed.is_some())
    };
    let mut all: Vec<&Standing> = search.standings.iter().filter(fits).collect();
    all.sort_by(|one, other| {
        let value = |standing: &Standing| standing.score.map_or(0.0, |score| score.objective.value);
        other
            .rungs
            .cmp(&one.rungs)
            .then(value(one).total_cmp(&value(other)))
    });
    let mut found: Vec<Candidate> = Vec::new();
    // The search's own choice first: others may be better by less than noise.
    found.extend(search.best().map(|best| best.candidate.clone()));
    for standing in all.into_iter().take(CONFIRMED) {
        if found
            .iter()
            .all(|other| other.name != standing.candidate.name)
        {
            found.push(standing.candidate.clone());
        }
    }
    found.truncate(CONFIRMED);
    found
}

/// What follows the search.
struct After<'a, B> {
    journal: &'a mut Journal<B>,
    space: &'a Space,
    wanted: &'a Wanted,
    rungs: &'a [Rung],
    searched: usize,
    standings: Vec<Standing>,
    inert: Vec<&'a str>,
    noise: f64,
    ended: &'static str,
    defaults_exceed: Option<String>,
}

/// A candidate without one of its settings.
struct Ablation {
    name: &'static str,
    without: Candidate,
    /// Logarithm of the ratio without it to with it; `None`: not measured.
    change: Option<Estimate>,
}

impl<B: Bench> After<'_, B> {
    fn conclude(&mut self, finalists: &[Candidate]) -> Result<Tuned, TuneError> {
        let defaults = Candidate {
            name: DEFAULTS.to_string(),
            config: Config::new(),
        };
        let mut chosen: Option<Candidate> = None;
        let mut why = "no candidate was better than the defaults by more than noise".to_string();
        for finalist in finalists {
            if !self.confirm(std::slice::from_ref(finalist), true)? {
                why = "nothing could be confirmed before the end".to_string();
                break;
            }
            let Some(score) = self.confirmed(&finalist.name) else {
                continue;
            };
            let samples = self.samples(&finalist.name);
            if let Some(limit) = self
                .wanted
                .search
                .limits
                .exceeded(&score, &samples, 0.0, true)
            {
                why =
                    format!("the best candidate exceeds a limit in the confirming rounds: {limit}");
                continue;
            }
            let gains = score.objective.value < -self.noise / 2.0 && score.objective.high < 0.0;
            if !gains && self.defaults_exceed.is_none() {
                why = "the defaults are within noise of the best".to_string();
                continue;
            }
            chosen = Some(finalist.clone());
            break;
        }
        let interrupted = self.ended == "interrupted";
        if chosen.is_none() && interrupted {
            // Nothing more can be measured: the search's word has to do.
            if let Some(best) = finalists.first() {
                why = "interrupted: the best so far, by the search's own rounds, which flatter it"
                    .to_string();
                chosen = Some(best.clone());
            }
        } else if let (Some(_), Some(limit)) = (&chosen, &self.defaults_exceed) {
            why = format!("the best that keeps the limits; the defaults do not: {limit}");
        } else if let Some(limit) = &self.defaults_exceed {
            why = format!(
                "nothing was found that keeps the limits; the defaults do not either: {limit}"
            );
        } else if chosen.is_some() {
            why = "better than the defaults by more than noise, in rounds that the search did not see".to_string();
        }
        let mut chosen = chosen.unwrap_or_else(|| defaults.clone());
        let mut ablations = self.ablate(&chosen)?;
        let mut put_back = false;
        while let Some(simpler) = self.simpler(&ablations) {
            chosen = simpler;
            put_back = true;
            ablations = self.ablate(&chosen)?;
        }
        if put_back {
            why.push_str("; settings without measurable effect are back at their defaults");
        }
        if chosen.name == DEFAULTS {
            // For the report: what the defaults do on each trace.
            self.confirm(&[], true)?;
        }
        Ok(self.tuned(chosen, &ablations, why))
    }

    fn whole(&self, subject: usize) -> Part {
        Part {
            subject,
            points: self.journal.subjects()[subject].points,
        }
    }

    /// Measures confirming rounds of the defaults and of these on all traces, as far as there is time; the first one whatever the
    /// time if it `must` be. False: not even one is whole.
    fn confirm(&mut self, candidates: &[Candidate], must: bool) -> Result<bool, TuneError> {
        let defaults = Candidate {
            name: DEFAULTS.to_string(),
            config: Config::new(),
        };
        let stop_at = self.journal.stop_at;
        let subjects = self.journal.subjects().len();
        for round in 0..CONFIRM_ROUNDS {
            self.journal.stop_at = stop_at.filter(|_| !must || round > 0);
            for subject in 0..subjects {
                let part = self.whole(subject);
                for candidate in std::iter::once(&defaults).chain(candidates) {
                    let done = self.journal.measure(candidate, part, CONFIRM + round);
                    match done {
                        Ok(()) => {}
                        Err(Refusal::Stopped) => {
                            self.journal.stop_at = stop_at;
                            return Ok(round > 0);
                        }
                        Err(Refusal::Failed(what)) if candidate.name == DEFAULTS => {
                            return Err(TuneError::Reference {
                                trace: self.journal.subjects()[subject].name.clone(),
                                what,
                            });
                        }
                        Err(Refusal::Failed(_)) => {}
                        Err(fatal) => return Err(self::fatal(fatal)),
                    }
                }
            }
        }
        self.journal.stop_at = stop_at;
        Ok(true)
    }

    fn rounds(&self, name: &str, subject: usize) -> Rounds {
        let part = self.whole(subject);
        let own = self.journal.rounds(name, part, CONFIRM);
        let defaults = self.journal.rounds(DEFAULTS, part, CONFIRM);
        Rounds::new(&own, &defaults)
    }

    /// Score of the confirming rounds over the traces of the search.
    fn confirmed(&self, name: &str) -> Option<Score> {
        let all: Vec<Rounds> = (0..self.searched)
            .map(|subject| self.rounds(name, subject))
            .collect();
        let whole = all.iter().all(|rounds| !rounds.is_empty());
        whole.then(|| score(&all, self.wanted.search.objective))
    }

    fn samples(&self, name: &str) -> Vec<(&str, Vec<&Sample>)> {
        let rows = (0..self.searched).map(|at| {
            let trace = self.journal.subjects()[at].name.as_str();
            (trace, self.journal.rounds(name, self.whole(at), CONFIRM))
        });
        rows.collect()
    }

    /// Each setting of a candidate put back alone.
    fn ablate(&mut self, chosen: &Candidate) -> Result<Vec<Ablation>, TuneError> {
        let defaults = Config::new();
        let mut ablations = Vec::new();
        for key in changed(&chosen.config, &defaults) {
            let mut config = chosen.config;
            match key.number(&defaults) {
                Some(number) => drop(key.set(&mut config, number)),
                None => key.set_sizes(&mut config, defaults.classes.sizes),
            }
            // Where the two have to agree, the stop alone can't go back.
            config.compaction.stop_ppm = config
                .compaction
                .stop_ppm
                .min(config.compaction.trigger_ppm / 2);
            let Some(without) = self.space.named(config) else {
                continue;
            };
            if without.name != chosen.name {
                ablations.push(Ablation {
                    name: key.name,
                    without,
                    change: None,
                });
            }
        }
        let all: Vec<Candidate> = ablations
            .iter()
            .map(|ablation| ablation.without.clone())
            .collect();
        if !all.is_empty() {
            self.confirm(&all, false)?;
        }
        for ablation in &mut ablations {
            ablation.change = self.difference(&ablation.without.name, &chosen.name);
        }
        Ok(ablations)
    }

    /// Logarithm of the ratio of one to another, with an interval as of two independent measurements.
    fn difference(&self, one: &str, other: &str) -> Option<Estimate> {
        let (one, other) = (
            self.confirmed(one)?.objective,
            self.confirmed(other)?.objective,
        );
        let value = one.value - other.value;
        let width = |up: bool| {
            let of = |estimate: Estimate, up: bool| match up {
                true => estimate.high - estimate.value,
                false => estimate.value - estimate.low,
            };
            (of(one, up).powi(2) + of(other, !up).powi(2)).sqrt()
        };
        Some(Estimate {
            value,
            low: value - width(false),
            high: value + width(true),
        })
    }

    /// The candidate without the setting that matters least, if that one has no measurable effect; what is left still gains and
    /// keeps the limits.
    fn simpler(&self, ablations: &[Ablation]) -> Option<Candidate> {
        let fits = |ablation: &&Ablation| {
            let Some(change) = ablation.change else {
                return false;
            };
            let Some(score) = self.confirmed(&ablation.without.name) else {
                return false;
            };
            let samples = self.samples(&ablation.without.name);
            let limits = &self.wanted.search.limits;
            change.value < self.noise
                && change.low <= 0.0
                && (score.objective.high < 0.0 || self.defaults_exceed.is_some())
                && limits.exceeded(&score, &samples, 0.0, true).is_none()
        };
        let value = |ablation: &&Ablation| ablation.change.map_or(0.0, |change| change.value);
        let all = ablations.iter().filter(fits);
        let least = all.min_by(|one, other| value(one).total_cmp(&value(other)));
        least.map(|ablation| ablation.without.clone())
    }

    fn level(&self, name: &str, subject: usize) -> Option<Level> {
        let samples = self.journal.rounds(name, self.whole(subject), CONFIRM);
        let first = samples.first()?;
        let operations = self.journal.subjects()[subject].operations.max(1) as f64;
        let cpu = samples.iter().flat_map(|sample| {
            sample
                .cpu_ns
                .iter()
                .map(|net| (net + sample.paced_ns) / operations)
        });
        let middle =
            |of: fn(&Sample) -> f64| median(samples.iter().map(|sample| of(sample)).collect());
        Some(Level {
            cpu_ns_per_op: median(cpu.collect()),
            resident_over_rounded: middle(|sample| sample.resident_over_rounded),
            peak_resident_bytes: middle(|sample| sample.peak_resident_bytes as f64) as u64,
            pause_ns: samples
                .iter()
                .filter_map(|sample| sample.pause_ns)
                .min()
                .or(first.pause_ns),
            moved_bytes: middle(|sample| sample.moved_bytes as f64) as u64,
        })
    }

    /// For each trace, what is best by the search's rounds on the others.
    fn leave_one_out(&self) -> Vec<LeftOut> {
        let last = self.rungs.len();
        if self.searched < 2 {
            return Vec::new();
        }
        let objective = self.wanted.search.objective;
        let of = |name: &str, subject: usize| {
            let part = self.whole(subject);
            let own = self.journal.rounds(name, part, 0);
            let own = &own[..own.len().min(ROUNDS as usize)];
            Rounds::new(own, &self.journal.rounds(DEFAULTS, part, 0))
        };
        let names = self
            .standings
            .iter()
            .filter(|standing| standing.rungs == last && standing.dropped.is_none())
            .map(|standing| standing.candidate.name.as_str());
        let names: Vec<&str> = names.collect();
        let mut found = Vec::new();
        for left_out in 0..self.searched {
            let others: Vec<usize> = (0..self.searched).filter(|at| *at != left_out).collect();
            let mut best = (DEFAULTS, -self.noise / 2.0);
            for name in &names {
                let rounds: Vec<Rounds> = others.iter().map(|at| of(name, *at)).collect();
                let value = score(&rounds, objective).objective.value;
                if value < best.1 {
                    best = (name, value);
                }
            }
            let there = match best.0 {
                DEFAULTS => Estimate::default(),
                name => score(&[of(name, left_out)], objective).objective,
            };
            found.push(LeftOut {
                trace: self.journal.subjects()[left_out].name.clone(),
                name: best.0.to_string(),
                objective: there.ratio(),
            });
        }
        found
    }

    fn tried(&self, standing: &Standing) -> Tried {
        let of =
            |pick: fn(&Score) -> Estimate| standing.score.as_ref().map(|score| pick(score).ratio());
        Tried {
            name: standing.candidate.name.clone(),
            origin: standing.origin.clone(),
            rungs: standing.rungs,
            finished: standing.rungs == self.rungs.len() && standing.dropped.is_none(),
            objective: of(|score| score.objective),
            time: of(|score| score.time),
            memory: of(|score| score.memory),
            dropped: standing.dropped.clone(),
        }
    }

    fn settings(&self, chosen: &Candidate, ablations: &[Ablation]) -> Vec<Setting> {
        let defaults = Config::new();
        let differing = changed(&chosen.config, &defaults);
        let setting = |key: &'static rmalloc::config::Key| {
            let value = self.space.value(key, &chosen.config);
            let default = self.space.value(key, &defaults);
            let axis = self.space.axes.iter().find(|axis| axis.name == key.name);
            let tried = axis.map_or(0, |_| {
                let mut values: Vec<String> = self
                    .standings
                    .iter()
                    .map(|standing| self.space.value(key, &standing.candidate.config))
                    .chain([default.clone()])
                    .collect();
                values.sort();
                values.dedup();
                values.len()
            });
            let change = ablations.iter().find(|ablation| ablation.name == key.name);
            let change = change.and_then(|ablation| ablation.change);
            let is_changed = differing.iter().any(|other| other.name == key.name);
            let comment = match (is_changed, axis, change) {
                (true, _, Some(change)) if is_told(&change) => format!(
                    "bought {} of {}; the default is {default}",
                    percent(&change),
                    self.wanted.search.objective.name()
                ),
                (true, _, Some(change)) => format!(
                    "no measurable effect alone: {}; the default is {default}",
                    percent(&change)
                ),
                (true, _, None) => {
                    format!("what it bought was not measured; the default is {default}")
                }
                (false, None, _) => self.untried(key.name),
                (false, Some(_), _) if self.inert.contains(&key.name) => {
                    format!("the default; {tried} values tried, no measurable effect")
                }
                (false, Some(_), _) => format!("the default; {tried} values tried, none better"),
            };
            Setting {
                name: key.name,
                value,
                default,
                tried,
                without: change.map(Estimate::ratio),
                comment,
            }
        };
        KEYS.iter().map(setting).collect()
    }

    fn untried(&self, name: &str) -> String {
        if self.wanted.keep.iter().any(|kept| kept == name) {
            return "the default, as --keep asked for".to_string();
        }
        let mut all = PARAMETERS.iter();
        match all
            .find(|parameter| parameter.name == name)
            .map(|parameter| parameter.scale)
        {
            Some(Scale::Fixed(why)) => format!("not searched: {why}"),
            _ => "not searched: there was nothing else to try".to_string(),
        }
    }

    fn tuned(&self, chosen: Candidate, ablations: &[Ablation], why: String) -> Tuned {
        let confirmed = self
            .confirmed(&chosen.name)
            .filter(|_| chosen.name != DEFAULTS);
        let of = |pick: fn(&Score) -> Estimate| confirmed.as_ref().map(|score| pick(score).ratio());
        let objective = self.wanted.search.objective;
        let subjects = self.journal.subjects().iter().enumerate();
        let traces = subjects.map(|(at, subject)| {
            let rounds = self.rounds(&chosen.name, at);
            let score = (!rounds.is_empty() && chosen.name != DEFAULTS)
                .then(|| score(std::slice::from_ref(&rounds), objective));
            let of = |pick: fn(&Score) -> Estimate| score.as_ref().map(|score| pick(score).ratio());
            Traced {
                subject: subject.clone(),
                searched: at < self.searched,
                defaults: self.level(DEFAULTS, at),
                result: self.level(&chosen.name, at),
                time: of(|score| score.time),
                memory: of(|score| score.memory),
                objective: of(|score| score.objective),
            }
        });
        let traces: Vec<Traced> = traces.collect();
        let candidates: Vec<Tried> = self
            .standings
            .iter()
            .map(|standing| self.tried(standing))
            .collect();
        let mut best: Vec<Tried> = candidates
            .iter()
            .filter(|tried| tried.objective.is_some())
            .filter(|tried| tried.dropped.as_deref().is_none_or(|why| why == OTHERS))
            .cloned()
            .collect();
        best.sort_by(|one, other| {
            let value = |tried: &Tried| tried.objective.map_or(1.0, |objective| objective.value);
            other
                .rungs
                .cmp(&one.rungs)
                .then(value(one).total_cmp(&value(other)))
        });
        best.truncate(BEST);
        let known = [OTHERS, crate::search::WORSE];
        let is_refused = |tried: &&Tried| {
            tried
                .dropped
                .as_deref()
                .is_some_and(|why| !known.contains(&why))
        };
        let report = Report {
            schema: SCHEMA,
            machine: rmtrace_replay::replay::machine(),
            options: Asked {
                objective: objective.name(),
                limits: self.wanted.search.limits,
                seed: self.wanted.search.seed,
                time_s: self.wanted.time.map(|time| time.as_secs_f64()),
                measured: self.wanted.measured.clone(),
            },
            search: Course {
                tried: candidates.len(),
                finished: candidates.iter().filter(|tried| tried.finished).count(),
                refused: candidates.iter().filter(is_refused).count(),
                rounds: self.journal.measured,
                resumed_rounds: self.journal.found,
                ended: self.ended,
                noise: self.noise.exp() - 1.0,
            },
            result: Outcome {
                is_default: chosen.name == DEFAULTS,
                name: chosen.name.clone(),
                why,
                rounds: self.rounds(&chosen.name, 0).len(),
                objective: of(|score| score.objective),
                time: of(|score| score.time),
                memory: of(|score| score.memory),
            },
            settings: self.settings(&chosen, ablations),
            best,
            leave_one_out: self.leave_one_out(),
            candidates,
            traces,
        };
        let toml = toml(&report, &chosen.config);
        Tuned {
            report,
            config: chosen.config,
            toml,
        }
    }
}

/// Whether an interval leaves no doubt of the sign.
fn is_told(change: &Estimate) -> bool {
    change.low > 0.0 || change.high < 0.0
}

/// The change of a ratio from its logarithm, in percent.
fn percent(change: &Estimate) -> String {
    let of = |value: f64| (value.exp() - 1.0) * 100.0;
    format!(
        "{:+.1} % [{:+.1} .. {:+.1}]",
        of(change.value),
        of(change.low),
        of(change.high)
    )
}

/// The file with a comment at each value.
fn toml(report: &Report, config: &Config) -> String {
    let mut head = format!(
        "Written by `rmtrace tune` {}; objective: {}\n",
        report.machine.rmtrace, report.options.objective
    );
    for traced in report.traces.iter().filter(|traced| traced.searched) {
        let subject = &traced.subject;
        head.push_str(&format!(
            "  on {}, process {}, {}\n",
            subject.name, subject.process, subject.checksum
        ));
    }
    if let Some(ratio) = report.result.objective {
        head.push_str(&format!(
            "{:.3} of the defaults [{:.3} .. {:.3}] in {} rounds\n",
            ratio.value, ratio.low, ratio.high, report.result.rounds
        ));
    }
    head.push_str(&report.result.why);
    settings::write(config, &head, |name| {
        let mut all = report.settings.iter();
        all.find(|setting| setting.name == name)
            .map_or(String::new(), |setting| setting.comment.clone())
    })
}
