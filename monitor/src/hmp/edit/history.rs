//! Lines that were typed before.

use std::collections::VecDeque;

/// Lines that are kept.
const LINES_MAX: usize = 100;

/// The lines of a session, and which of them is shown.
#[derive(Debug, Default)]
pub(super) struct History {
    lines: VecDeque<String>,
    /// The line that is shown, counted from the oldest; none: the one being typed.
    at: Option<usize>,
    /// What was being typed when browsing began.
    draft: String,
}

impl History {
    /// A line was entered. Empty ones and repetitions are not kept.
    pub(super) fn add(&mut self, line: &str) {
        self.leave();
        if line.trim().is_empty() || self.lines.back().is_some_and(|last| last == line) {
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    /// Browsing is over.
    pub(super) fn leave(&mut self) {
        self.at = None;
        self.draft.clear();
    }

    /// The line before the one that is shown; `current` is what is shown.
    pub(super) fn older(&mut self, current: &str) -> Option<String> {
        let at = match self.at {
            None => {
                let last = self.lines.len().checked_sub(1)?;
                current.clone_into(&mut self.draft);
                last
            }
            Some(at) => at.checked_sub(1)?,
        };
        self.at = Some(at);
        self.lines.get(at).cloned()
    }

    /// The line behind the one that is shown, or at the end what was being typed.
    pub(super) fn newer(&mut self) -> Option<String> {
        let at = self.at? + 1;
        if let Some(line) = self.lines.get(at) {
            self.at = Some(at);
            return Some(line.clone());
        }
        self.at = None;
        Some(std::mem::take(&mut self.draft))
    }
}
