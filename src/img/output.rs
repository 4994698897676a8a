//! Sizes and progress as text, in qemu-img's forms.

use std::io::Write;

/// A size of three significant digits: `196 KiB`.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    // From 1000 of a unit on, the next one.
    let unit = (0..UNITS.len() - 1)
        .find(|unit| u128::from(bytes) < 1000u128 << (10 * unit))
        .unwrap_or(UNITS.len() - 1);
    let unit_bytes = 1u128 << (10 * unit);
    // In thousandths, hundredths, tenths or whole units.
    let decimals = match u128::from(bytes) {
        less if less < unit_bytes => 3,
        less if less < 10 * unit_bytes => 2,
        less if less < 100 * unit_bytes => 1,
        _ => 0,
    };
    let mut text = decimal(u128::from(bytes), unit_bytes, decimals);
    if decimals > 0 {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text} {}B", UNITS[unit])
}

/// `part / of`, rounded as printf(3) does (halves to even), with so many decimals.
fn decimal(part: u128, of: u128, decimals: u32) -> String {
    let one = 10u128.pow(decimals);
    let (whole, rest) = (part * one / of, part * one % of);
    let up = 2 * rest > of || (2 * rest == of && whole % 2 == 1);
    let scaled = whole + u128::from(up);
    match decimals {
        0 => scaled.to_string(),
        _ => format!("{}.{:0width$}", scaled / one, scaled % one, width = decimals as usize),
    }
}

/// How many hundredths `part` is of `of`, with two decimals.
pub(super) fn percent(part: u64, of: u64) -> String {
    decimal(u128::from(part) * 100, u128::from(of.max(1)), 2)
}

/// A line that says how far a command is, where that is asked for.
pub(super) struct Progress {
    shown: bool,
    total: u64,
    done: u64,
    /// What stands there, in hundredths of a percent.
    printed: Option<u64>,
}

impl Progress {
    pub(super) fn new(shown: bool, total: u64) -> Self {
        let mut progress = Self { shown, total, done: 0, printed: None };
        progress.add(0);
        progress
    }

    /// So many bytes more are done.
    pub(super) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let total = u128::from(self.total.max(1));
        let part = if self.total == 0 { 10_000 } else { u128::from(self.done) * 10_000 / total };
        let part = (part as u64).min(10_000);
        if self.shown && self.printed != Some(part) {
            self.printed = Some(part);
            print!("    ({}.{:02}/100%)\r", part / 100, part % 100);
            // Nobody is told when the terminal has gone.
            let _ = std::io::stdout().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            println!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    /// As qemu-img prints them.
    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.977 KiB"),
            (4096, "4 KiB"),
            (197_120, "192 KiB"),
            (196_616, "192 KiB"),
            (198_144, "194 KiB"),
            (10_485_760, "10 MiB"),
            (1_288_490_188, "1.2 GiB"),
            (1 << 60, "1 EiB"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }
}
