//! A screenful at a time.

use super::edit::Key;

const MORE: &str = "-- more -- (space: page, Enter: line, q: enough)";
/// Over the question: to the left margin, erase the line (ECMA-48 EL).
const ERASE_LINE: &str = "\r\x1b[K";

/// The peer's screen.
#[derive(Clone, Copy, Debug)]
struct Screen {
    rows: usize,
    columns: usize,
}

/// Holds back what does not fit the screen.
#[derive(Debug, Default)]
pub(super) struct Pager {
    /// None: everything fits.
    screen: Option<Screen>,
    /// What has not been shown.
    rest: String,
}

impl Pager {
    /// Sets the size; too small or unknown ones turn paging off.
    pub(super) fn set_screen(&mut self, rows: u16, columns: u16) {
        let screen = Screen { rows: rows.into(), columns: columns.into() };
        self.screen = (rows >= 3 && columns >= 10).then_some(screen);
    }

    /// Whether a key is waited for.
    pub(super) fn waits(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Takes a text with `\r\n` ends and gives the first screenful.
    pub(super) fn show(&mut self, text: String) -> String {
        let Some(screen) = self.screen else { return text };
        self.rest = text;
        self.take(screen.rows - 1)
    }

    /// Takes a key and gives what it shows.
    pub(super) fn key(&mut self, key: Key) -> String {
        let page = self.screen.map_or(usize::MAX, |screen| screen.rows - 1);
        match key {
            Key::Char(' ') => format!("{ERASE_LINE}{}", self.take(page)),
            Key::Enter => format!("{ERASE_LINE}{}", self.take(1)),
            Key::Char('q' | 'Q') | Key::Interrupt => {
                self.rest.clear();
                ERASE_LINE.to_owned()
            }
            _ => String::new(),
        }
    }

    /// Takes lines that fill at most `rows` rows, at least one line.
    fn take(&mut self, rows: usize) -> String {
        let columns = self.screen.map_or(usize::MAX, |screen| screen.columns);
        let (mut end, mut used) = (0, 0);
        for line in self.rest.split_inclusive('\n') {
            used += line.trim_end().chars().count().div_ceil(columns).max(1);
            if used > rows && end > 0 {
                break;
            }
            end += line.len();
        }
        let mut shown = self.rest[..end].to_owned();
        self.rest.drain(..end);
        if self.waits() {
            shown += MORE;
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::{ERASE_LINE, Key, MORE, Pager};

    fn lines(range: std::ops::RangeInclusive<u32>) -> String {
        range.map(|n| format!("line {n}\r\n")).collect::<Vec<_>>().concat()
    }

    #[test]
    fn what_fits_is_shown_at_once() {
        let mut pager = Pager::default();
        assert_eq!(pager.show(lines(1..=100)), lines(1..=100));
        pager.set_screen(6, 80);
        assert_eq!(pager.show(lines(1..=5)), lines(1..=5));
        assert!(!pager.waits());
        pager.set_screen(0, 0);
        assert_eq!(pager.show(lines(1..=100)), lines(1..=100));
    }

    #[test]
    fn pages_lines_and_enough() {
        let mut pager = Pager::default();
        pager.set_screen(6, 80);
        assert_eq!(pager.show(lines(1..=12)), lines(1..=5) + MORE);
        assert_eq!(pager.key(Key::Char('x')), "");
        assert_eq!(pager.key(Key::Enter), ERASE_LINE.to_owned() + &lines(6..=6) + MORE);
        assert_eq!(pager.key(Key::Char(' ')), ERASE_LINE.to_owned() + &lines(7..=11) + MORE);
        assert!(pager.waits());
        assert_eq!(pager.key(Key::Char('q')), ERASE_LINE);
        assert!(!pager.waits());
    }

    #[test]
    fn long_lines_take_several_rows() {
        let mut pager = Pager::default();
        pager.set_screen(4, 10);
        let long = format!("{}\r\nb\r\nc\r\n", "a".repeat(15));
        assert_eq!(pager.show(long), format!("{}\r\nb\r\n{MORE}", "a".repeat(15)));
    }
}
