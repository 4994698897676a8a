//! The results as JSON, for other programs and for [`crate::report::compare`].

use crate::case::{Outcome, Side, Summary};
use crate::samples::Spread;
use serde_json::{Value, json};

/// The whole run. `machine` describes it, `commands` are the command lines that were started.
pub fn document(machine: &Value, commands: &[String], outcomes: &[Outcome]) -> Value {
    let results: Vec<Value> = outcomes.iter().map(result).collect();
    json!({"machine": machine, "commands": commands, "results": results})
}

fn result(outcome: &Outcome) -> Value {
    let case = &outcome.case;
    json!({
        "suite": case.suite,
        "case": case.name,
        "metric": case.metric,
        "unit": case.unit,
        "better": case.better.name(),
        "ours": summary(outcome.ours.as_ref()),
        "peer": summary(outcome.peer.as_ref()),
        "limit": summary(outcome.limit.as_ref()),
        "ratio": spread(outcome.ratio),
        "limit_ratio": spread(outcome.limit_ratio),
        "goal": case.goal.map(|goal| goal.ratio),
        "goal_to": case.goal.map(|goal| if goal.to == Side::Limit { "limit" } else { "peer" }),
        "met": outcome.met(),
        "notes": outcome.notes,
    })
}

fn summary(summary: Option<&Summary>) -> Value {
    summary.map_or(Value::Null, |s| {
        json!({
            "n": s.n,
            "min": rounded(s.min),
            "p50": rounded(s.p50),
            "p90": rounded(s.p90),
            "p99": rounded(s.p99),
            "p99.9": rounded(s.p999),
            "max": rounded(s.max),
            "rounds": s.rounds.iter().copied().map(rounded).collect::<Vec<f64>>(),
        })
    })
}

fn spread(spread: Option<Spread>) -> Value {
    spread.map_or(
        Value::Null,
        |s| json!({"median": rounded(s.median), "min": rounded(s.min), "max": rounded(s.max)}),
    )
}

/// Six significant digits: what is beyond is noise.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::case::{Case, Series};
    use crate::samples::{Measured, Samples};
    use std::time::Duration;

    /// One case with times on all sides, one with a figure and a peer that cannot.
    pub(in crate::report) fn outcomes() -> Vec<Outcome> {
        let case = Case::time("qmp", "round trip, <one> CPU", "us").goal(Side::Peer, 0.25);
        let series = [20, 80, 10].map(|us| {
            let mut series = Series::default();
            for round in 0..3 {
                let mut samples = Samples::new();
                (0..100).for_each(|n| samples.add(Duration::from_micros(us + n % 5 + round)));
                series.add(&case, &Measured::Times(samples));
            }
            series
        });
        let figure = Case::more("qmp", "sessions", "sessions", "1/s");
        let mut figures: [Series; 3] = Default::default();
        figures[0].add(&figure, &Measured::Value(1000.0));
        figures[1].add(&figure, &Measured::cannot("one client a socket"));
        vec![Outcome::new(&case, &series), Outcome::new(&figure, &figures)]
    }

    #[test]
    fn every_member_is_there() {
        let commands = ["ringvisor -S".to_owned()];
        let document = document(&json!({"cpus": 2}), &commands, &outcomes());
        assert_eq!(document["machine"]["cpus"], 2);
        assert_eq!(document["commands"][0], "ringvisor -S");
        let first = &document["results"][0];
        for (member, value) in [
            ("suite", json!("qmp")),
            ("case", json!("round trip, <one> CPU")),
            ("metric", json!("p50")),
            ("unit", json!("us")),
            ("better", json!("lower")),
            ("goal", json!(0.25)),
            ("goal_to", json!("peer")),
        ] {
            assert_eq!(first[member], value, "{member}");
        }
        assert_eq!(first["met"], false, "23 to 83 is above a quarter");
        for side in ["ours", "peer", "limit"] {
            assert_eq!(first[side]["n"], 300);
            for member in ["min", "p50", "p90", "p99", "p99.9", "max"] {
                assert!(first[side][member].as_f64().unwrap() > 9.0, "{side} {member}");
            }
            assert_eq!(first[side]["rounds"].as_array().unwrap().len(), 3);
        }
        let ratio = &first["ratio"];
        assert!(ratio["min"].as_f64() <= ratio["median"].as_f64());
        assert!(ratio["median"].as_f64() <= ratio["max"].as_f64());
        let second = &document["results"][1];
        assert!(second["peer"].is_null() && second["ratio"].is_null() && second["met"].is_null());
        assert_eq!(second["notes"][0], "peer: one client a socket");
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "decimal digits are what is tested")]
    fn figures_have_six_digits() {
        assert_eq!(rounded(123.456_789), 123.457);
        assert_eq!(rounded(0.0), 0.0);
    }
}
