//! What the embedded guest prints after a measurement.

use crate::Error;
use crate::samples::Samples;

/// A measurement of the guest.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Time of each request.
    pub samples: Samples,
    /// Requests a second.
    pub iops: f64,
    /// Doorbells rung for each request.
    pub doorbells: f64,
    /// Interrupts taken for each.
    pub interrupts: f64,
}

/// Takes the line of a measurement, from the disk's name on, and the histogram after it apart.
#[expect(clippy::cast_precision_loss, reason = "for reading")]
pub(super) fn parse(text: &str) -> Result<Report, Error> {
    let strange = || Error::unexpected(format!("the guest's report is strange: {text:.300}"));
    let first = text.lines().next().unwrap_or("");
    let after = |name: &str| first.split_once(name).map_or("", |(_, rest)| rest);
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse::<u64>().ok()
    };
    let iops = number(after(": ")).ok_or_else(strange)? as f64;
    let share = |name| number(after(name)).map(|percent| percent as f64 / 100.0);
    let doorbells = share("doorbells ").ok_or_else(strange)?;
    let interrupts = share("interrupts ").ok_or_else(strange)?;
    let errors = number(after("errors ")).ok_or_else(strange)?;
    if errors != 0 {
        return Err(Error::unexpected(format!("the guest saw {errors} requests fail")));
    }
    let mut samples = Samples::new();
    let mut khz = 0;
    for word in text.lines().filter_map(|l| l.strip_prefix("hist:")).flat_map(str::split_whitespace)
    {
        if let Some(value) = word.strip_prefix("khz=") {
            khz = value.parse().map_err(|_| strange())?;
        } else if let Some((ticks, count)) = word.split_once('*') {
            let ticks: u128 = ticks.parse().map_err(|_| strange())?;
            let count = count.parse().map_err(|_| strange())?;
            let picoseconds = ticks * 1_000_000_000 / u128::from(u64::max(khz, 1));
            samples.add_counted(u64::try_from(picoseconds).unwrap_or(u64::MAX), count);
        }
    }
    if khz == 0 || samples.count() == 0 {
        return Err(strange());
    }
    Ok(Report { samples, iops, doorbells, interrupts })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "disk0 read 4 KiB qd=1 queues=1 poll: 4475 iops, us p50 51.6 p90 69.0 p99 4165.2 max 91996.8, \
        doorbells 100% interrupts 7% errors 0\r\nhist: khz=2000000\r\nhist: 2000*10 4000*5\r\nhist: 20000*1\r\nhist: end";

    #[test]
    fn line_and_histogram_are_understood() {
        let report = parse(TEXT).unwrap();
        let figures = [report.iops, report.doorbells, report.interrupts].map(|f| f.to_string());
        assert_eq!(figures, ["4475", "1", "0.07"]);
        assert_eq!(report.samples.count(), 16);
        let us = |quantile| (report.samples.quantile(quantile) / 1e6 * 10.0).round();
        assert_eq!([us(0.5), us(0.9), us(1.0)].map(|t| t.to_string()), ["10", "20", "100"]);
    }

    #[test]
    fn failed_requests_and_nonsense_are_errors() {
        for (from, to) in [("errors 0", "errors 3"), ("khz=2000000", ""), ("iops", "")] {
            let text = if from == "iops" { "bench".to_owned() } else { TEXT.replace(from, to) };
            assert!(parse(&text).is_err(), "{from}");
        }
    }
}
