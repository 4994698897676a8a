//! The results as a table that fits a terminal.

use super::{digits, ratio};
use crate::case::{Better, Outcome, Side, Summary};
use crate::samples::Spread;
use std::fmt::Write as _;

const NAME: usize = 50;

/// All results, suite by suite, at most 120 columns wide.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let mut suite = "";
    let mut note = "";
    for outcome in outcomes {
        if outcome.case.suite != suite {
            suite = outcome.case.suite;
            let _infallible = writeln!(
                text,
                "\n{suite:NAME$} {:>9} {:>9} {:>9} {:>8} {:>8}  goal",
                "ours", "peer", "limit", "to peer", "to limit"
            );
        }
        row(&mut text, outcome);
        // The same for several cases is said once.
        for said in outcome.notes.iter().filter(|said| *said != note) {
            let _infallible = writeln!(text, "    {said:.112}");
        }
        note = outcome.notes.first().map_or("", String::as_str);
    }
    let goals: Vec<bool> = outcomes.iter().filter_map(Outcome::met).collect();
    if !goals.is_empty() {
        let met = goals.iter().filter(|met| **met).count();
        let _infallible = writeln!(text, "\n{met} of {} goals met", goals.len());
    }
    text
}

fn row(text: &mut String, outcome: &Outcome) {
    let case = &outcome.case;
    let unit = match case.metric {
        "p90" | "p99" | "p99.9" | "max" => format!("{} {}", case.metric, case.unit),
        _ => case.unit.to_owned(),
    };
    let mut name = case.name.clone();
    // A name that leaves no room for the unit is a line of its own.
    if name.chars().count() + unit.len() + 2 > NAME {
        let _infallible = writeln!(text, "{name}");
        name = String::new();
    }
    let width = NAME - 1 - name.chars().count();
    let figure = |summary: &Option<Summary>| {
        summary.as_ref().map_or("-".to_owned(), |s| digits(merit(case.metric, s)))
    };
    let spread = |spread: Option<Spread>| spread.map_or("-".to_owned(), |s| ratio(s.median));
    let line = format!(
        "{name} {unit:>width$} {:>9} {:>9} {:>9} {:>8} {:>8}  {}",
        figure(&outcome.ours),
        figure(&outcome.peer),
        figure(&outcome.limit),
        spread(outcome.ratio),
        spread(outcome.limit_ratio),
        goal(outcome)
    );
    let _infallible = writeln!(text, "{}", line.trim_end());
}

/// Of all samples together, the quantile that counts.
pub fn merit(metric: &str, summary: &Summary) -> f64 {
    match metric {
        "p90" => summary.p90,
        "p99" => summary.p99,
        "p99.9" => summary.p999,
        "max" => summary.max,
        _ => summary.p50,
    }
}

/// The goal in words, and whether it is met.
pub fn goal(outcome: &Outcome) -> String {
    let Some(goal) = outcome.case.goal else { return String::new() };
    let sign = if outcome.case.better == Better::Lower { "<=" } else { ">=" };
    let to = if goal.to == Side::Limit { " of limit" } else { "" };
    let verdict = match outcome.met() {
        Some(true) => " met",
        Some(false) => " MISSED",
        None => "",
    };
    format!("{sign}{}{to}{verdict}", goal.ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::json::tests::outcomes;

    #[test]
    fn rows_fit_and_tell_the_goal() {
        let text = table(&outcomes());
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(text.contains("<=0.25 MISSED") && text.contains("0 of 1 goals met"), "{text}");
        assert!(text.contains("peer: one client a socket"), "{text}");
    }
}
