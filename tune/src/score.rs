//! From samples to one number: what a candidate gains over the defaults, with its interval, and whether it keeps
//! the limits. A score is the natural logarithm of a ratio to the defaults: below 0 is better.

use crate::bench::Sample;
use crate::chance::Chance;
use serde::Serialize;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 400;
/// Changes below this are not told from none, whatever was measured.
pub const NOISE_MIN: f64 = 0.002;

/// What is to be small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// CPU time.
    Time,
    /// Mean resident memory over live + D.
    Memory,
    /// Their geometric mean.
    #[default]
    Both,
}

impl Objective {
    /// Weights of time and memory; their sum is 1.
    fn weights(self) -> (f64, f64) {
        match self {
            Objective::Time => (1.0, 0.0),
            Objective::Memory => (0.0, 1.0),
            Objective::Both => (0.5, 0.5),
        }
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Objective::Time => "time",
            Objective::Memory => "memory",
            Objective::Both => "both",
        }
    }

    /// From a word.
    ///
    /// # Errors
    /// What it may be.
    pub fn parse(word: &str) -> Result<Objective, String> {
        let all = [Objective::Time, Objective::Memory, Objective::Both];
        let found = all.into_iter().find(|objective| objective.name() == word);
        found.ok_or_else(|| "time, memory or both".to_string())
    }
}

/// What a candidate may not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// CPU time more than that of the defaults, as a share of it, over all traces.
    pub overhead: Option<f64>,
    /// The longest step of compaction in nanoseconds, on each trace.
    pub pause_ns: Option<u64>,
    /// Most resident bytes, on each trace.
    pub memory_bytes: Option<u64>,
}

/// An estimate and its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    /// With logarithms turned into ratios.
    pub fn ratio(self) -> Estimate {
        Estimate {
            value: self.value.exp(),
            low: self.low.exp(),
            high: self.high.exp(),
        }
    }
}

/// A candidate beside the defaults on some traces, all logarithms of ratios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// What is to be small.
    pub objective: Estimate,
    /// CPU time.
    pub time: Estimate,
    /// Resident memory.
    pub memory: Estimate,
}

/// One round: logarithms of ratios to the defaults.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    /// CPU time, each time it was measured.
    times: Vec<f64>,
    memory: f64,
}

/// The rounds of one candidate on one trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounds {
    pairs: Vec<Pair>,
}

impl Rounds {
    /// Sets a candidate's rounds beside those of the defaults: times that were measured in turn pair by pair, what the rounds that
    /// look at memory tell beside the median of all those of the defaults.
    pub fn new(samples: &[&Sample], references: &[&Sample]) -> Rounds {
        let middle =
            |of: fn(&Sample) -> f64| median(references.iter().map(|sample| of(sample)).collect());
        let paced_ns = middle(|sample| sample.paced_ns);
        let resident = middle(|sample| sample.resident_over_rounded);
        let pair = |sample: &&Sample| {
            let times = sample.cpu_ns.iter().zip(&sample.reference_cpu_ns);
            Pair {
                times: times
                    .map(|(own, other)| ln(own + sample.paced_ns, other + paced_ns))
                    .collect(),
                memory: ln(sample.resident_over_rounded, resident),
            }
        };
        let pairs = match references.is_empty() {
            true => Vec::new(),
            false => samples.iter().map(pair).collect(),
        };
        Rounds { pairs }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn middle(&self, chance: Option<&mut Chance>) -> (f64, f64) {
        let (mut times, mut memories) = (Vec::new(), Vec::new());
        match chance {
            None => {
                for pair in &self.pairs {
                    times.extend(&pair.times);
                    memories.push(pair.memory);
                }
            }
            // Rounds first, then the measurements in each: those of one round are alike.
            Some(chance) => {
                for _ in 0..self.pairs.len() {
                    let pair = &self.pairs[chance.below(self.pairs.len())];
                    let drawn = (0..pair.times.len()).map(|_| chance.below(pair.times.len()));
                    times.extend(drawn.map(|at| pair.times[at]).collect::<Vec<f64>>());
                    memories.push(pair.memory);
                }
            }
        }
        (median(times), median(memories))
    }
}

/// The logarithm of a ratio; 0 where one of the two is not above 0, as of a round in which nothing took time.
fn ln(of: f64, over: f64) -> f64 {
    match of > 0.0 && over > 0.0 {
        true => (of / over).ln(),
        false => 0.0,
    }
}

/// The median; 0 of nothing.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        len if len % 2 == 1 => numbers[len / 2],
        len => (numbers[len / 2 - 1] + numbers[len / 2]) / 2.0,
    }
}

/// The score over traces: the mean of logarithms, so the geometric mean of ratios. Of each trace the median of its rounds counts;
/// the interval is that of a bootstrap over rounds and measurements, the same in each run.
pub fn score(of_traces: &[Rounds], objective: Objective) -> Score {
    let (time_weight, memory_weight) = objective.weights();
    let traces = of_traces.len().max(1) as f64;
    let mean = |mut chance: Option<&mut Chance>| {
        let (mut time, mut memory) = (0.0, 0.0);
        for rounds in of_traces {
            let middle = rounds.middle(chance.as_deref_mut());
            time += middle.0 / traces;
            memory += middle.1 / traces;
        }
        [time * time_weight + memory * memory_weight, time, memory]
    };
    let values = mean(None);
    let mut chance = Chance::new(1);
    let drawn: Vec<[f64; 3]> = (0..RESAMPLES).map(|_| mean(Some(&mut chance))).collect();
    let estimate = |at: usize| {
        let mut sorted: Vec<f64> = drawn.iter().map(|values| values[at]).collect();
        sorted.sort_by(f64::total_cmp);
        Estimate {
            value: values[at],
            low: sorted[RESAMPLES / 40],
            high: sorted[RESAMPLES - 1 - RESAMPLES / 40],
        }
    };
    Score {
        objective: estimate(0),
        time: estimate(1),
        memory: estimate(2),
    }
}

impl Limits {
    /// Which limit is exceeded, in words. `samples` are the rounds on each trace by name; `margin` is what times may be
    /// wrong by. A pause seen in one round alone counts from four times the limit on, unless it is to be `strict`.
    pub fn exceeded(
        &self,
        score: &Score,
        samples: &[(&str, Vec<&Sample>)],
        margin: f64,
        strict: bool,
    ) -> Option<String> {
        if let Some(overhead) = self.overhead
            && score.time.value > (1.0 + overhead).ln() + margin
        {
            let more = (score.time.value.exp() - 1.0) * 100.0;
            return Some(format!("{more:.1} % more CPU time, above --max-overhead"));
        }
        for (name, samples) in samples {
            if let Some(most) = self.memory_bytes
                && let Some(peak) = samples
                    .iter()
                    .map(|sample| sample.peak_resident_bytes)
                    .max()
                && peak > most
            {
                let mib = peak as f64 / f64::from(1 << 20);
                return Some(format!("{mib:.1} MiB resident on {name}, above --memory"));
            }
            if let Some(most) = self.pause_ns {
                let Some(pauses) = samples
                    .iter()
                    .map(|sample| sample.pause_ns)
                    .collect::<Option<Vec<_>>>()
                else {
                    return Some(
                        "its library does not tell pauses, which --max-pause limits".to_string(),
                    );
                };
                // A step that lost its processor is long in one round only: one alone has to be far above.
                let most_seen = match pauses.len() == 1 && !strict {
                    true => most.saturating_mul(4),
                    false => most,
                };
                let least = pauses.into_iter().min().unwrap_or(0);
                if least > most_seen {
                    let ms = least as f64 / 1e6;
                    return Some(format!(
                        "a pause of {ms:.2} ms on {name}, above --max-pause"
                    ));
                }
            }
        }
        None
    }
}

/// How far a score is from the truth by chance: two standard deviations of a mean over so many traces, from rounds of the
/// defaults beside themselves.
pub fn noise(of_traces: &[Rounds], objective: Objective, traces: usize) -> f64 {
    let (time_weight, memory_weight) = objective.weights();
    let pairs = of_traces.iter().flat_map(|rounds| &rounds.pairs);
    let squares: Vec<f64> = pairs
        .map(|pair| time_weight * median(pair.times.clone()) + memory_weight * pair.memory)
        .map(|number| number * number)
        .collect();
    let of_one = squares.iter().sum::<f64>() / squares.len().max(1) as f64;
    (2.0 * (of_one / traces.max(1) as f64).sqrt()).max(NOISE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu: &[f64], reference: &[f64], memory: f64) -> Sample {
        Sample {
            resident_over_rounded: memory,
            cpu_ns: cpu.to_vec(),
            reference_cpu_ns: reference.to_vec(),
            paced_ns: 10.0,
            peak_resident_bytes: 5 << 20,
            pause_ns: Some(300_000),
            ..Sample::default()
        }
    }

    #[test]
    fn a_score_is_the_mean_of_logarithms_and_its_interval_holds_it() {
        let default = sample(&[90.0, 110.0], &[90.0, 110.0], 1.0);
        let faster = sample(&[40.0, 50.0, 56.0], &[90.0, 110.0, 122.0], 2.0);
        let one = Rounds::new(&[&faster, &faster], &[&default, &default]);
        let same = Rounds::new(&[&default], &[&default]);
        let time = score(std::slice::from_ref(&one), Objective::Time);
        assert!(
            (time.objective.value - 0.5f64.ln()).abs() < 1e-9,
            "{time:?}"
        );
        assert!((time.memory.value - 2f64.ln()).abs() < 1e-9);
        // Half of a half and a double, over two traces of which one is unchanged.
        let both = score(&[one, same], Objective::Both);
        assert!(both.objective.value.abs() < 1e-9, "{both:?}");
        assert!((both.time.value - 0.5 * 0.5f64.ln()).abs() < 1e-9);
        assert!(both.time.low <= both.time.value && both.time.value <= both.time.high);
    }

    #[test]
    fn limits_say_what_exceeds_them() {
        let at = sample(&[100.0], &[90.0], 1.0);
        let default = sample(&[90.0], &[90.0], 1.0);
        let found = score(&[Rounds::new(&[&at], &[&default])], Objective::Both);
        let of = |limits: Limits| limits.exceeded(&found, &[("a.rmt", vec![&at, &at])], 0.0, false);
        assert_eq!(of(Limits::default()), None);
        let overhead = |share| Limits {
            overhead: Some(share),
            ..Limits::default()
        };
        assert_eq!(of(overhead(0.11)), None);
        assert_eq!(
            of(overhead(0.05)).unwrap(),
            "10.0 % more CPU time, above --max-overhead"
        );
        let pause = |ns| Limits {
            pause_ns: Some(ns),
            ..Limits::default()
        };
        assert_eq!(of(pause(300_000)), None);
        assert!(of(pause(200_000)).unwrap().contains("0.30 ms on a.rmt"));
        let memory = Limits {
            memory_bytes: Some(4 << 20),
            ..Limits::default()
        };
        assert!(of(memory).unwrap().contains("5.0 MiB"));
    }

    #[test]
    fn noise_is_no_less_than_its_least_and_grows_with_the_spread() {
        let default = sample(&[90.0], &[90.0], 1.0);
        let still = Rounds::new(&[&default], &[&default]);
        assert_eq!(noise(&[still], Objective::Both, 1), NOISE_MIN);
        let far = sample(&[110.0], &[90.0], 1.0);
        let loud = Rounds::new(&[&far], &[&default]);
        assert!(noise(&[loud], Objective::Both, 1) > 0.05);
    }
}
