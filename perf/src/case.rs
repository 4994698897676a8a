//! What is measured: cases, the benches that measure several of them at once, and their results.

use crate::lab::Lab;
use crate::samples::{Measured, Samples, Spread};
use crate::{Error, report};

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

impl Better {
    /// The word in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        }
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// ringvisor, or its crates.
    Ours,
    /// The other VMM.
    Peer,
    /// The least that this machine needs for it, by bare system calls.
    Limit,
}

impl Side {
    /// All, in the order in which they take turns.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Peer, Self::Limit];
}

/// A goal: a ratio of ours to another side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// To whom.
    pub to: Side,
    /// At most this where lower is better, else at least.
    pub ratio: f64,
}

/// One figure of merit.
#[derive(Clone, Debug)]
pub struct Case {
    /// The suite's name.
    pub suite: &'static str,
    /// What is done, and how.
    pub name: String,
    /// Of times a quantile (`p50`, `p99`), else what the figure is.
    pub metric: &'static str,
    /// `ns`, `us`, `ms` for times, else what the figure counts.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// What to reach.
    pub goal: Option<Goal>,
}

impl Case {
    /// A time whose median counts.
    pub fn time(suite: &'static str, name: impl Into<String>, unit: &'static str) -> Self {
        let better = Better::Lower;
        Self { suite, name: name.into(), metric: "p50", unit, better, goal: None }
    }

    /// A figure of which less is better.
    pub fn less(
        suite: &'static str,
        name: impl Into<String>,
        metric: &'static str,
        unit: &'static str,
    ) -> Self {
        Self { suite, name: name.into(), metric, unit, better: Better::Lower, goal: None }
    }

    /// A figure of which more is better.
    pub fn more(
        suite: &'static str,
        name: impl Into<String>,
        metric: &'static str,
        unit: &'static str,
    ) -> Self {
        Self { better: Better::Higher, ..Self::less(suite, name, metric, unit) }
    }

    /// With another quantile of the times.
    #[must_use]
    pub fn at(mut self, metric: &'static str) -> Self {
        self.metric = metric;
        self
    }

    /// With a goal.
    #[must_use]
    pub fn goal(mut self, to: Side, ratio: f64) -> Self {
        self.goal = Some(Goal { to, ratio });
        self
    }

    /// Picoseconds of one unit.
    pub fn scale(&self) -> f64 {
        match self.unit {
            "ns" => 1e3,
            "us" => 1e6,
            "ms" => 1e9,
            _ => 1.0,
        }
    }

    /// The figure of one round.
    fn figure(&self, measured: &Measured) -> Option<f64> {
        match measured {
            Measured::Times(samples) if samples.count() > 0 => {
                Some(samples.quantile(quantile(self.metric)) / self.scale())
            }
            Measured::Value(value) => Some(*value).filter(|value| value.is_finite()),
            Measured::Times(_) | Measured::Cannot(_) => None,
        }
    }
}

fn quantile(metric: &str) -> f64 {
    match metric {
        "p90" => 0.9,
        "p99" => 0.99,
        "p99.9" => 0.999,
        "max" => 1.0,
        _ => 0.5,
    }
}

/// What measures one round of one side: an outcome for each case, in their order.
pub type Measure = Box<dyn Fn(&Lab, Side) -> Result<Vec<Measured>, Error>>;

/// Cases that are measured together.
pub struct Bench {
    /// The cases.
    pub cases: Vec<Case>,
    /// Rounds of a full run.
    pub rounds: u32,
    /// The measurement.
    pub measure: Measure,
}

impl Bench {
    /// With five rounds.
    pub fn new(
        cases: Vec<Case>,
        measure: impl Fn(&Lab, Side) -> Result<Vec<Measured>, Error> + 'static,
    ) -> Self {
        Self { cases, rounds: 5, measure: Box::new(measure) }
    }

    /// With that many rounds.
    #[must_use]
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }
}

/// What a side has shown in a case, over all rounds, in the case's unit.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Samples.
    pub n: u64,
    /// Least, quantiles and greatest of all samples.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// Nine of ten are not above.
    pub p90: f64,
    /// 99 of 100 are not above.
    pub p99: f64,
    /// 999 of 1000 are not above.
    pub p999: f64,
    /// The greatest.
    pub max: f64,
    /// The figure of merit of each round.
    pub rounds: Vec<f64>,
    /// All times, where the case measures times.
    pub samples: Option<Samples>,
}

/// Figures of all rounds of one side; `None` for a round that gave none.
#[derive(Clone, Debug, Default)]
pub struct Series {
    figures: Vec<Option<f64>>,
    samples: Option<Samples>,
    /// Why there are none.
    pub cannot: Option<String>,
}

impl Series {
    /// Adds a round.
    pub fn add(&mut self, case: &Case, measured: &Measured) {
        self.figures.push(case.figure(measured));
        match measured {
            Measured::Times(samples) => {
                self.samples.get_or_insert_default().merge(samples);
            }
            Measured::Cannot(reason) => self.cannot = Some(reason.clone()),
            Measured::Value(_) => {}
        }
    }

    /// This to another, round by round.
    fn ratio(&self, to: &Self) -> Option<Spread> {
        let pairs = self.figures.iter().zip(&to.figures);
        let ratios = pairs.filter_map(|pair| match pair {
            (Some(ours), Some(other)) if *other != 0.0 => Some(ours / other),
            _ => None,
        });
        Spread::of(&ratios.collect::<Vec<f64>>())
    }

    /// Of all rounds together.
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    pub fn summary(&self, case: &Case) -> Option<Summary> {
        let rounds: Vec<f64> = self.figures.iter().flatten().copied().collect();
        let spread = Spread::of(&rounds)?;
        let Some(samples) = self.samples.clone() else {
            let Spread { median, min, max } = spread;
            let n = rounds.len() as u64;
            let top = max;
            return Some(Summary {
                n,
                min,
                p50: median,
                p90: top,
                p99: top,
                p999: top,
                max,
                rounds,
                samples: None,
            });
        };
        let at = |quantile| samples.quantile(quantile) / case.scale();
        Some(Summary {
            n: samples.count(),
            min: samples.histogram().min() as f64 / case.scale(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
            rounds,
            samples: Some(samples),
        })
    }
}

/// The result of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// Ours.
    pub ours: Option<Summary>,
    /// The peer's.
    pub peer: Option<Summary>,
    /// The bare limit.
    pub limit: Option<Summary>,
    /// Ours to the peer's, round by round.
    pub ratio: Option<Spread>,
    /// Ours to the limit, round by round.
    pub limit_ratio: Option<Spread>,
    /// Why a side is missing.
    pub notes: Vec<String>,
}

impl Outcome {
    /// From what the three sides have shown, in the order of [`Side::ALL`].
    pub fn new(case: &Case, series: &[Series; 3]) -> Self {
        let [ours, peer, limit] = series;
        let mut notes = Vec::new();
        for (who, series) in [("ringvisor", ours), ("peer", peer), ("limit", limit)] {
            if let Some(reason) = &series.cannot {
                notes.push(format!("{who}: {reason}"));
            }
        }
        if let (Some(bare), Some(goal)) = (limit.ratio(peer), case.goal)
            && goal.to == Side::Peer
        {
            notes.push(format!(
                "the bare limit alone is {} of the peer",
                report::ratio(bare.median)
            ));
        }
        Self {
            case: case.clone(),
            ours: ours.summary(case),
            peer: peer.summary(case),
            limit: limit.summary(case),
            ratio: ours.ratio(peer),
            limit_ratio: ours.ratio(limit),
            notes,
        }
    }

    /// Whether the goal is reached; `None` without a goal or without the ratio.
    pub fn met(&self) -> Option<bool> {
        let goal = self.case.goal?;
        let ratio = if goal.to == Side::Limit { self.limit_ratio } else { self.ratio };
        let median = ratio?.median;
        Some(match self.case.better {
            Better::Lower => median <= goal.ratio,
            Better::Higher => median >= goal.ratio,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn times(us: &[u64]) -> Measured {
        let mut samples = Samples::new();
        for us in us {
            samples.add(Duration::from_micros(*us));
        }
        Measured::Times(samples)
    }

    fn series(case: &Case, rounds: &[Measured]) -> Series {
        let mut series = Series::default();
        for round in rounds {
            series.add(case, round);
        }
        series
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let case = Case::time("s", "c", "us").goal(Side::Peer, 0.5);
        let ours = series(&case, &[times(&[10, 10, 900]), times(&[20]), times(&[30])]);
        let peer = series(&case, &[times(&[100]), times(&[40]), times(&[60])]);
        let outcome = Outcome::new(&case, &[ours, peer, Series::default()]);
        let ratio = outcome.ratio.unwrap();
        assert!((ratio.min - 0.1).abs() < 0.001 && (ratio.max - 0.5).abs() < 0.001, "{ratio:?}");
        assert!((ratio.median - 0.5).abs() < 0.001);
        let ours = outcome.ours.clone().unwrap();
        assert_eq!((ours.n, ours.rounds.len()), (5, 3));
        assert!((ours.max - 900.0).abs() < 1.0 && (ours.p50 - 20.0).abs() < 0.1, "{ours:?}");
        assert!(outcome.limit.is_none() && outcome.limit_ratio.is_none());
        assert_eq!(outcome.met(), Some(ratio.median <= 0.5));
    }

    #[test]
    fn goals_look_the_right_way() {
        let met = |better, goal, ours| {
            let case =
                Case { better, ..Case::less("s", "c", "iops", "1/s") }.goal(Side::Peer, goal);
            let side = |value| series(&case, &[Measured::Value(value)]);
            Outcome::new(&case, &[side(ours), side(100.0), Series::default()]).met()
        };
        assert_eq!(met(Better::Lower, 0.5, 40.0), Some(true));
        assert_eq!(met(Better::Lower, 0.5, 60.0), Some(false));
        assert_eq!(met(Better::Higher, 1.5, 160.0), Some(true));
        assert_eq!(met(Better::Higher, 1.5, 140.0), Some(false));
    }

    #[test]
    fn a_side_that_cannot_says_why() {
        let case = Case::time("s", "c", "us").goal(Side::Peer, 0.5);
        let ours = series(&case, &[times(&[10])]);
        let peer = series(&case, &[Measured::cannot("one client only")]);
        let outcome = Outcome::new(&case, &[ours, peer, Series::default()]);
        assert_eq!((outcome.met(), outcome.ratio), (None, None));
        assert_eq!(outcome.notes, ["peer: one client only"]);
    }

    #[test]
    fn how_much_of_the_peer_the_limit_is_stands_beside_a_goal() {
        let case = Case::time("s", "c", "us").goal(Side::Peer, 0.5);
        let sides = [9, 10, 8].map(|us| series(&case, &[times(&[us])]));
        let outcome = Outcome::new(&case, &sides);
        assert_eq!(outcome.notes, ["the bare limit alone is 0.80x of the peer"]);
    }

    #[test]
    fn a_goal_may_be_a_ratio_to_the_limit() {
        let case = Case::time("s", "c", "us").goal(Side::Limit, 1.3);
        let ours = series(&case, &[times(&[12])]);
        let limit = series(&case, &[times(&[10])]);
        assert_eq!(Outcome::new(&case, &[ours, Series::default(), limit]).met(), Some(true));
    }
}
