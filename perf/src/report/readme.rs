//! The table of README.md: the cases that have a goal.

use super::table::{goal, merit};
use super::{digits, ratio};
use crate::Error;
use crate::case::Outcome;
use serde_json::Value;
use std::fmt::Write as _;

const BEGIN: &str = "<!-- perf: begin -->\n";
const END: &str = "<!-- perf: end -->\n";

/// The Markdown between the markers.
pub fn section(machine: &Value, outcomes: &[Outcome]) -> String {
    let text = |member: &str| machine[member].as_str().unwrap_or("?").to_owned();
    let mut section = format!(
        "Measured {} on {} CPUs of an {}, Linux {}, KVM: {}; peer: {}. Load average {}.{}\n\n",
        text("date").get(..10).unwrap_or("?"),
        machine["cpus"],
        text("cpu"),
        text("kernel"),
        text("kvm"),
        text("peer"),
        machine["load"][0],
        if machine["quick"] == true { " A quick run (`--quick`)." } else { "" }
    );
    section += "| case | ringvisor | peer | ratio (range) | goal |\n|---|---:|---:|---:|---|\n";
    for outcome in outcomes.iter().filter(|outcome| outcome.case.goal.is_some()) {
        let case = &outcome.case;
        let limit = case.goal.is_some_and(|goal| goal.to == crate::case::Side::Limit);
        let (other, spread) = if limit {
            (&outcome.limit, outcome.limit_ratio)
        } else {
            (&outcome.peer, outcome.ratio)
        };
        let figure = |summary: &Option<crate::case::Summary>| {
            summary.as_ref().map_or("-".to_owned(), |s| digits(merit(case.metric, s)))
        };
        let range = spread.map_or("-".to_owned(), |s| {
            format!("{} ({} to {})", ratio(s.median), ratio(s.min), ratio(s.max))
        });
        let _infallible = writeln!(
            section,
            "| {}: {}, {} {} | {} | {}{} | {range} | {} |",
            case.suite,
            case.name,
            case.metric,
            case.unit,
            figure(&outcome.ours),
            figure(other),
            if limit { " (limit)" } else { "" },
            goal(outcome)
        );
    }
    section
}

/// `text` with the part between the markers replaced.
pub fn replaced(text: &str, section: &str) -> Result<String, Error> {
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        let markers = format!("{} and {}", BEGIN.trim(), END.trim());
        return Err(Error::Usage(format!("the file has no lines {markers}")));
    };
    let head = &text[..begin + BEGIN.len()];
    Ok(format!("{head}\n{section}\n{}", text.get(end..).unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::json::tests::outcomes;
    use serde_json::json;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let machine = json!({"date": "2026-11-21T00:00:00Z", "cpus": 2, "cpu": "EPYC",
            "kernel": "6.18", "kvm": "hardware", "peer": "QEMU", "load": [0.5]});
        let section = section(&machine, &outcomes());
        assert_eq!(section.matches("\n| qmp:").count(), 1, "{section}");
        let text = format!("a\n{BEGIN}old\n{END}b\n");
        let new = replaced(&text, &section).unwrap();
        assert!(new.starts_with(&format!("a\n{BEGIN}")) && new.ends_with(&format!("{END}b\n")));
        assert!(!new.contains("old") && new.contains("Measured 2026-11-21"));
        assert_eq!(replaced(&new, &section).unwrap(), new);
        assert!(replaced("nothing", &section).is_err());
    }
}
