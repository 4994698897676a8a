//! Plots as SVG, written by hand: a cumulative distribution and a histogram over a logarithmic axis.

use crate::samples::Samples;
use std::fmt::Write as _;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 34.0;
const BINS: usize = 60;

/// What is drawn of one side.
pub struct Line<'a> {
    /// Who.
    pub name: &'a str,
    /// Its colour, as CSS has it.
    pub colour: &'a str,
    /// Its times.
    pub samples: &'a Samples,
}

/// A logarithmic axis from `low` to `high`, both above zero.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Holds all times up to the quantile 0.999 of each line, in units of `scale` picoseconds.
    #[expect(clippy::cast_precision_loss, reason = "for drawing")]
    fn over(lines: &[Line<'_>], scale: f64) -> Self {
        let least = lines.iter().map(|l| l.samples.histogram().min().max(1) as f64);
        let low = least.fold(f64::INFINITY, f64::min) / scale;
        let most = lines.iter().map(|l| l.samples.quantile(0.999)).fold(1.0, f64::max) / scale;
        Self { low: low / 1.05, high: (most * 1.05).max(low * 1.2) }
    }

    /// 0 to 1 inside the axis.
    fn share(&self, value: f64) -> f64 {
        (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.share(value).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// 1, 2 and 5 times the powers of ten that are inside.
    fn ticks(&self) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let all: Vec<f64> = (first..=last)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
            .filter(|tick| (self.low..=self.high).contains(tick))
            .collect();
        let step = all.len().div_ceil(8).max(1);
        all.into_iter().step_by(step).collect()
    }
}

fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
}

/// The share of requests that took at most a time.
pub fn distribution(lines: &[Line<'_>], scale: f64, unit: &str) -> String {
    let axis = Axis::over(lines, scale);
    let mut body = String::new();
    for (share, label) in [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (1.0, "100 %")] {
        grid(&mut body, share, label);
    }
    for line in lines {
        let mut points = String::new();
        let mut last = y(0.0);
        for step in 0..=250u32 {
            let quantile = f64::from(step) / 250.0;
            let value = line.samples.quantile(quantile.min(0.9995)) / scale;
            let (x, now) = (axis.x(value), y(quantile));
            let _infallible = write!(points, "{x:.1},{last:.1} {x:.1},{now:.1} ");
            last = now;
        }
        let _infallible = writeln!(
            body,
            r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6"/>"#,
            points.trim_end(),
            line.colour
        );
    }
    frame(&body, &axis, "cumulative share", unit)
}

/// The share of requests in each of 60 ranges of time, equally wide on the logarithmic axis.
#[expect(clippy::cast_precision_loss, reason = "for drawing")]
pub fn histogram(lines: &[Line<'_>], scale: f64, unit: &str) -> String {
    let axis = Axis::over(lines, scale);
    let shares: Vec<[f64; BINS]> =
        lines.iter().map(|line| bins(line.samples, &axis, scale)).collect();
    let highest = shares.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut body = String::new();
    for part in [0.0, 0.5, 1.0] {
        grid(&mut body, part, &format!("{:.1} %", part * highest * 100.0));
    }
    let width = (WIDTH - LEFT - RIGHT) / BINS as f64;
    for (line, shares) in lines.iter().zip(&shares) {
        for (bin, share) in shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let (x, top) = (LEFT + bin as f64 * width, y(share / highest));
            let _infallible = writeln!(
                body,
                r#"<rect x="{x:.1}" y="{top:.1}" width="{width:.1}" height="{:.1}" fill="{}" fill-opacity="0.45"/>"#,
                y(0.0) - top,
                line.colour
            );
        }
    }
    frame(&body, &axis, "share", unit)
}

#[expect(clippy::cast_precision_loss, reason = "for drawing")]
fn bins(samples: &Samples, axis: &Axis, scale: f64) -> [f64; BINS] {
    let mut bins = [0.0; BINS];
    for step in samples.histogram().iter_recorded() {
        let share = axis.share(step.value_iterated_to() as f64 / scale);
        let bin = (share * BINS as f64) as usize;
        bins[bin.min(BINS - 1)] += step.count_at_value() as f64;
    }
    let count = samples.count().max(1) as f64;
    bins.map(|bin| bin / count)
}

fn grid(body: &mut String, share: f64, label: &str) {
    let at = y(share);
    let _infallible = writeln!(
        body,
        r#"<line x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}" class="grid"/><text x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#,
        WIDTH - RIGHT,
        LEFT - 4.0,
        at + 3.5
    );
}

fn frame(body: &str, axis: &Axis, title: &str, unit: &str) -> String {
    let mut ticks = String::new();
    for tick in axis.ticks() {
        let x = axis.x(tick);
        let _infallible = writeln!(
            ticks,
            r#"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{:.1}" class="grid"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{tick}</text>"#,
            y(0.0),
            y(0.0) + 14.0
        );
    }
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
         <text x=\"{LEFT}\" y=\"16\" class=\"title\">{title}</text>\n{ticks}{body}\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{unit}</text>\n</svg>\n",
        WIDTH - RIGHT,
        HEIGHT - 4.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn samples(us: std::ops::Range<u64>) -> Samples {
        let mut samples = Samples::new();
        us.for_each(|us| samples.add(Duration::from_micros(us)));
        samples
    }

    #[test]
    fn plots_stay_in_their_frame() {
        let (fast, slow) = (samples(10..20), samples(100..4000));
        let lines = [
            Line { name: "fast", colour: "red", samples: &fast },
            Line { name: "slow", colour: "blue", samples: &slow },
        ];
        for plot in [distribution(&lines, 1e6, "us"), histogram(&lines, 1e6, "us")] {
            assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"));
            assert!(plot.contains("red") && plot.contains("blue") && plot.contains(">us<"));
            assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
            for number in plot.split(['"', ' ', ',']).filter_map(|word| word.parse::<f64>().ok()) {
                assert!((0.0..=4000.0).contains(&number), "{number}");
            }
        }
    }

    #[test]
    fn a_single_time_is_drawn_as_well() {
        let one = samples(7..8);
        let lines = [Line { name: "one", colour: "red", samples: &one }];
        assert!(!distribution(&lines, 1e6, "us").contains("NaN"));
        assert!(histogram(&lines, 1e6, "us").contains("<rect"));
    }

    #[test]
    fn bins_share_out_everything() {
        let all = samples(1..1000);
        let axis = Axis::over(&[Line { name: "", colour: "", samples: &all }], 1e6);
        let sum: f64 = bins(&all, &axis, 1e6).iter().sum();
        assert!((sum - 1.0).abs() < 1e-9);
        assert!(axis.ticks().len() <= 8 && axis.ticks().contains(&1.0));
    }
}
