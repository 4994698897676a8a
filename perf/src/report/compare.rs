//! Two runs beside one another: before and after a change.

use super::{digits, ratio};
use crate::Error;
use serde_json::Value;
use std::fmt::Write as _;

const NAME: usize = 52;

/// What has become of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    /// The rounds of the two runs overlap.
    Same,
}

/// Compares ours of two documents, `a` before and `b` after.
pub fn compare(a: &Value, b: &Value) -> Result<String, Error> {
    let (before, after) = (results(a)?, results(b)?);
    let mut text = format!("{:NAME$} {:>10} {:>10} {:>8}\n", "ours", "before", "after", "ratio");
    let mut counts = [0usize; 3];
    for result in after {
        let Some(old) = before.iter().find(|old| same_case(old, result)) else {
            let _infallible = writeln!(text, "{} is new", name(result));
            continue;
        };
        let (Some(old_figure), Some(figure)) = (figure(old), figure(result)) else { continue };
        let verdict = judge(old, result);
        counts[verdict as usize] += 1;
        let word = match verdict {
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::Same => "",
        };
        let _infallible = writeln!(
            text,
            "{:NAME$} {:>10} {:>10} {:>8} {word}",
            name(result),
            digits(old_figure),
            digits(figure),
            ratio(figure / old_figure)
        );
    }
    for old in before {
        if !after.iter().any(|result| same_case(old, result)) {
            let _infallible = writeln!(text, "{} is gone", name(old));
        }
    }
    let [better, worse, same] = counts;
    let _infallible = writeln!(text, "\n{better} better, {worse} worse, {same} within the spread");
    Ok(text)
}

fn results(document: &Value) -> Result<&Vec<Value>, Error> {
    let results = document["results"].as_array();
    results.ok_or_else(|| Error::Usage("this is no result of perf run --json".to_owned()))
}

fn same_case(a: &Value, b: &Value) -> bool {
    ["suite", "case", "metric", "unit"].iter().all(|member| a[member] == b[member])
}

fn name(result: &Value) -> String {
    let text = |member: &str| result[member].as_str().unwrap_or("?").to_owned();
    format!("{}: {}, {} {}", text("suite"), text("case"), text("metric"), text("unit"))
}

fn rounds(result: &Value) -> Vec<f64> {
    let rounds = result["ours"]["rounds"].as_array();
    rounds.map(|all| all.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}

/// The middle of the rounds' figures.
fn figure(result: &Value) -> Option<f64> {
    crate::samples::Spread::of(&rounds(result)).map(|spread| spread.median)
}

/// Better or worse only where no round of one run is within the other's.
fn judge(old: &Value, new: &Value) -> Verdict {
    let spread = |result| crate::samples::Spread::of(&rounds(result));
    let (Some(old), Some(spread)) = (spread(old), spread(new)) else { return Verdict::Same };
    let lower = new["better"] == "lower";
    if spread.max < old.min {
        if lower { Verdict::Better } else { Verdict::Worse }
    } else if spread.min > old.max {
        if lower { Verdict::Worse } else { Verdict::Better }
    } else {
        Verdict::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(better: &str, rounds: &[f64]) -> Value {
        json!({"results": [{
            "suite": "s", "case": "c", "metric": "p50", "unit": "us", "better": better,
            "ours": {"n": 3, "p50": rounds[0], "rounds": rounds},
        }]})
    }

    #[test]
    fn overlapping_rounds_are_the_same() {
        for (better, rounds, verdict) in [
            ("lower", [5.0, 6.0, 7.0], "1 better, 0 worse, 0 within"),
            ("lower", [15.0, 16.0, 17.0], "0 better, 1 worse, 0 within"),
            ("higher", [15.0, 16.0, 17.0], "1 better, 0 worse, 0 within"),
            ("lower", [5.0, 9.5, 9.6], "0 better, 0 worse, 1 within"),
        ] {
            let text = compare(&document(better, &[9.0, 10.0, 11.0]), &document(better, &rounds));
            let text = text.unwrap();
            assert!(text.contains(verdict), "{better} {rounds:?}: {text}");
        }
    }

    #[test]
    fn new_and_gone_cases_are_named_and_strangers_refused() {
        let a = document("lower", &[1.0]);
        let mut b = document("lower", &[1.0]);
        b["results"][0]["case"] = json!("d");
        let text = compare(&a, &b).unwrap();
        assert!(text.contains("s: d, p50 us is new") && text.contains("s: c, p50 us is gone"));
        assert!(compare(&a, &json!({})).is_err());
    }
}
