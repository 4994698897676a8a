//! Histograms as files: the percentile distribution that HdrHistogram's plotters read (`.hgrm`).

use crate::Error;
use crate::case::{Outcome, Summary};
use std::fmt::Write as _;
use std::path::Path;

/// Steps between halvings of what is left.
const TICKS: u32 = 5;

/// Writes a file for each side of each case that measures times into `dir`, which is made.
pub fn keep(dir: &Path, outcomes: &[Outcome]) -> Result<usize, Error> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir.display().to_string(), e))?;
    let mut count = 0;
    for outcome in outcomes {
        let sides = [("ours", &outcome.ours), ("peer", &outcome.peer), ("limit", &outcome.limit)];
        for (side, summary) in sides {
            let Some(summary) = summary else { continue };
            let Some(text) = distribution(summary, outcome.case.scale()) else { continue };
            let name = format!("{}-{}-{side}.hgrm", outcome.case.suite, slug(&outcome.case.name));
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|e| Error::io(path.display().to_string(), e))?;
            count += 1;
        }
    }
    Ok(count)
}

/// A name as a file may have it.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let space = if slug.is_empty() { "" } else { "-" };
        slug += space;
        slug += &word.to_ascii_lowercase();
    }
    slug
}

/// The distribution in units of `scale` picoseconds; `None` without times.
#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn distribution(summary: &Summary, scale: f64) -> Option<String> {
    let histogram = summary.samples.as_ref()?.histogram();
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let (value, quantile) =
            (step.value_iterated_to() as f64 / scale, step.quantile_iterated_to());
        let inverse =
            if quantile < 1.0 { format!("{:.2}", 1.0 / (1.0 - quantile)) } else { "inf".into() };
        let _infallible = writeln!(text, "{value:12.3} {quantile:.12} {total:10} {inverse:>14}");
    }
    let (mean, deviation) = (histogram.mean() / scale, histogram.stdev() / scale);
    let _infallible = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let max = histogram.max() as f64 / scale;
    let _infallible = writeln!(text, "#[Max     = {max:12.3}, Total count    = {:12}]", summary.n);
    let _infallible = writeln!(
        text,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        histogram.distinct_values() / usize::from(histogram.buckets()).max(1)
    );
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::json::tests::outcomes;

    #[test]
    fn each_side_has_a_file_that_ends_with_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(keep(dir.path(), &outcomes()).unwrap(), 3, "the figure has no distribution");
        let path = dir.path().join("qmp-round-trip-one-cpu-peer.hgrm");
        let text = std::fs::read_to_string(path).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|l| !l.starts_with('#'))
            .skip(2)
            .map(|l| l.split_whitespace().collect())
            .collect();
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last[3]), ("1.000000000000", "300", "inf"));
        let least: f64 = rows[0][0].parse().unwrap();
        assert!((least - 80.0).abs() < 0.2, "{least} us");
        assert!(text.contains("#[Max     =       86"), "{text}");
    }
}
