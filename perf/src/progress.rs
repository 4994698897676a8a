//! How far a run has come: a bar with the time left on a terminal, plain lines elsewhere.

use crate::case::Side;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// Shown on stderr.
pub struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    last: String,
}

impl Progress {
    /// For so many steps.
    pub fn new(steps: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None, lines: true, last: String::new() };
        }
        let bar = ProgressBar::new(steps);
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len}, {eta} left  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar: Some(bar), lines: false, last: String::new() }
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self { bar: None, lines: false, last: String::new() }
    }

    /// The next step begins.
    pub fn step(&mut self, suite: &str, case: &str, side: Side) {
        let name = format!("{suite}: {case}");
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{name} ({side:?})"));
            bar.inc(1);
        } else if self.lines && name != self.last {
            eprintln!("{name}");
        }
        self.last = name;
    }

    /// Says something in between.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.lines => eprintln!("{text}"),
            None => {}
        }
    }

    /// The run is over.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
