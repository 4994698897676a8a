//! The report as one HTML file that needs nothing else.

use super::svg::{self, Line};
use super::table::{goal, merit};
use super::{digits, ratio};
use crate::case::{Outcome, Summary};
use crate::samples::Spread;
use serde_json::Value;
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark; --ours: #1668b8; --peer: #d2691e; --limit: #4a8f3c; --grid: #8884; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; }
.met { color: #2b8a3e; } .missed { color: #d6336c; font-weight: 600; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
svg text { font-size: 10px; fill: currentColor; } svg .title { font-size: 12px; } .grid { stroke: var(--grid); }
.note { color: #888; } code { overflow-wrap: anywhere; }
";

const COLOURS: [(&str, &str); 3] =
    [("ringvisor", "var(--ours)"), ("peer", "var(--peer)"), ("limit", "var(--limit)")];

/// The whole file.
pub fn page(machine: &Value, commands: &[String], outcomes: &[Outcome]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <title>ringvisor perf</title><style>{STYLE}</style></head><body>\n<h1>ringvisor perf</h1>\n"
    );
    facts(&mut html, machine);
    let mut suites: Vec<&str> = outcomes.iter().map(|outcome| outcome.case.suite).collect();
    suites.dedup();
    for suite in suites {
        let _infallible = writeln!(html, "<h2>{suite}</h2>");
        let own: Vec<&Outcome> = outcomes.iter().filter(|o| o.case.suite == suite).collect();
        rows(&mut html, &own);
        for outcome in own {
            plots(&mut html, outcome);
        }
    }
    html += "<h2>Commands</h2>\n<ul>\n";
    for command in commands {
        let _infallible = writeln!(html, "<li><code>{}</code></li>", escaped(command));
    }
    html += "</ul>\n</body></html>\n";
    html
}

fn facts(html: &mut String, machine: &Value) {
    html.push_str("<table>\n");
    for (name, value) in machine.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _infallible =
            writeln!(html, "<tr><td>{}</td><td>{}</td></tr>", escaped(name), escaped(&text));
    }
    html.push_str("</table>\n");
}

fn rows(html: &mut String, outcomes: &[&Outcome]) {
    html.push_str(
        "<table>\n<tr><th>case</th><th>metric</th><th>ringvisor</th><th>peer</th><th>limit</th>\
         <th>to peer (range)</th><th>to limit (range)</th><th>goal</th></tr>\n",
    );
    for outcome in outcomes {
        let case = &outcome.case;
        let figure = |summary: &Option<Summary>| {
            summary.as_ref().map_or("–".to_owned(), |s| digits(merit(case.metric, s)))
        };
        let class = match outcome.met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "none",
        };
        let mut notes = String::new();
        for note in &outcome.notes {
            let _infallible = write!(notes, "<br><span class=\"note\">{}</span>", escaped(note));
        }
        let _infallible = writeln!(
            html,
            "<tr><td>{}{notes}</td><td>{} {}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"{class}\">{}</td></tr>",
            escaped(&case.name),
            case.metric,
            case.unit,
            figure(&outcome.ours),
            figure(&outcome.peer),
            figure(&outcome.limit),
            range(outcome.ratio),
            range(outcome.limit_ratio),
            escaped(&goal(outcome))
        );
    }
    html.push_str("</table>\n");
}

fn range(spread: Option<Spread>) -> String {
    spread.map_or("–".to_owned(), |s| {
        format!("{} ({} to {})", ratio(s.median), ratio(s.min), ratio(s.max))
    })
}

/// Distribution and histogram of a case that measures times.
fn plots(html: &mut String, outcome: &Outcome) {
    let summaries = [&outcome.ours, &outcome.peer, &outcome.limit];
    let lines: Vec<Line<'_>> = summaries
        .into_iter()
        .zip(COLOURS)
        .filter_map(|(summary, (name, colour))| {
            let samples = summary.as_ref()?.samples.as_ref()?;
            Some(Line { name, colour, samples })
        })
        .collect();
    if lines.is_empty() {
        return;
    }
    let case = &outcome.case;
    let _infallible = write!(html, "<h3>{}</h3>\n<p>", escaped(&case.name));
    for line in &lines {
        let at = |quantile| digits(line.samples.quantile(quantile) / case.scale());
        let _infallible = write!(
            html,
            "<span style=\"color:{}\">■</span> {}: p50 {}, p90 {}, p99 {}, p99.9 {}, max {} {}, n {}. ",
            line.colour,
            line.name,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0),
            case.unit,
            line.samples.count()
        );
    }
    let _infallible = write!(
        html,
        "</p>\n<div class=\"plots\">\n{}{}</div>\n",
        svg::distribution(&lines, case.scale(), case.unit),
        svg::histogram(&lines, case.scale(), case.unit)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::json::tests::outcomes;
    use serde_json::json;

    #[test]
    fn the_page_is_complete_and_asks_nobody() {
        let commands = ["x -append 'a<b'".to_owned()];
        let html = page(&json!({"cpu": "A & B", "load": [0.5]}), &commands, &outcomes());
        for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert_eq!(html.matches("<svg").count(), 2, "a distribution and a histogram");
        for text in ["A &amp; B", "a&lt;b", "round trip, &lt;one&gt; CPU", "MISSED", "one client"] {
            assert!(html.contains(text), "{text}");
        }
        for tag in ["table", "svg", "p", "h2", "div", "ul", "body", "html"] {
            let count = |mark: &str| html.matches(mark).count();
            let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
            assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
        }
    }
}
