//! How long the commands of a session took, from their arrival to their reply.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Commands of a session that have a histogram of their own; the others share one.
const COMMANDS_MAX: usize = 16;
/// The longest time that is told from longer ones, in nanoseconds.
const NS_MAX: u64 = 60_000_000_000;
/// Digits of a time that count: 2 KiB a histogram.
const DIGITS: u8 = 1;
/// The name of those that share one.
const OTHERS: &str = "";

/// The histograms of a session, in the order of each command's first use.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<(&'static str, Histogram<u32>)>);

impl Latencies {
    /// Counts a command that has ended.
    pub(crate) fn record(&mut self, command: &'static str, time: Duration) {
        let known = |name| self.0.iter().position(|(own, _)| *own == name);
        let (found, name) = match known(command) {
            None if self.0.len() >= COMMANDS_MAX => (known(OTHERS), OTHERS),
            found => (found, command),
        };
        let at = found.unwrap_or_else(|| {
            // Only bounds that contradict each other are refused.
            let Ok(histogram) = Histogram::new_with_bounds(1, NS_MAX, DIGITS) else { return 0 };
            self.0.push((name, histogram));
            self.0.len() - 1
        });
        if let Some((_, histogram)) = self.0.get_mut(at) {
            let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            histogram.saturating_record(ns.max(1));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Histogram<u32>)> {
        self.0.iter().map(|(command, histogram)| (*command, histogram))
    }
}

/// A request on its way: what to count it as, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// `None`: no command of ours.
    pub(crate) command: Option<&'static str>,
    pub(crate) since: Instant,
}

impl Timing {
    /// From now on.
    pub(crate) fn begin(command: Option<&'static str>) -> Self {
        Self { command, since: Instant::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS_MAX, Latencies, OTHERS};
    use std::time::Duration;

    #[test]
    fn commands_are_told_apart_up_to_a_bound() {
        const NAMES: [&str; 20] = [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
            "r", "s", "t",
        ];
        let mut latencies = Latencies::default();
        for _ in 0..2 {
            for name in NAMES {
                latencies.record(name, Duration::from_micros(100));
            }
        }
        latencies.record("a", Duration::from_secs(3600));
        let counts: Vec<_> = latencies.iter().map(|(name, times)| (name, times.len())).collect();
        assert_eq!(counts.len(), COMMANDS_MAX + 1);
        assert_eq!((counts[0], counts[1]), (("a", 3), ("b", 2)));
        assert_eq!(counts[COMMANDS_MAX], (OTHERS, 8));
        let (_, b) = latencies.iter().nth(1).unwrap();
        assert!((90_000..=110_000).contains(&b.value_at_quantile(0.5)));
    }
}
