//! What becomes of the results: JSON, tables, comparisons, plots.

pub mod compare;
pub mod hgrm;
pub mod html;
pub mod json;
pub mod readme;
pub mod svg;
pub mod table;

/// A figure in four significant digits at most.
pub fn digits(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if size >= 99_999.5 {
        format!("{:.0} k", value / 1e3)
    } else if size >= 999.5 {
        format!("{value:.0}")
    } else if size >= 99.95 {
        format!("{value:.1}")
    } else if size >= 9.995 {
        format!("{value:.2}")
    } else if size >= 0.0995 {
        format!("{value:.3}")
    } else {
        format!("{value:.2e}")
    }
}

/// A ratio, as the tables show it.
pub fn ratio(value: f64) -> String {
    match value.abs() {
        99.95.. => format!("{value:.0}x"),
        9.995.. => format!("{value:.1}x"),
        0.0995.. => format!("{value:.2}x"),
        0.000_995.. => format!("{value:.4}x"),
        _ => format!("{value:.0e}x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown = [0.0, 0.001_234, 0.512, 3.44, 21.06, 612.34, 61_000.4, 412_345.0];
        let texts = shown.map(digits);
        assert_eq!(texts, ["0", "1.23e-3", "0.512", "3.440", "21.06", "612.3", "61000", "412 k"]);
        assert_eq!([4.9e-6, 0.0171, 0.25, 12.3].map(ratio), ["5e-6x", "0.0171x", "0.25x", "12.3x"]);
    }
}
