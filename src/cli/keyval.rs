//! QEMU's `key=value,key=value` option strings.

use devices::text::split_commas;
use std::collections::BTreeSet;

/// A parsed option string; keys are taken out one by one, and what is left over is an error.
#[derive(Debug)]
pub(crate) struct KeyVal {
    option: String,
    pairs: Vec<(String, String)>,
}

impl KeyVal {
    /// Parses `text`. A first part without `=` is the value of `implied`, where that is given; any
    /// other part without `=` is a switch that is on (`noX`: X is off). `,,` is a literal comma.
    pub(crate) fn parse(option: &str, text: &str, implied: Option<&str>) -> Result<Self, String> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut seen = BTreeSet::new();
        for (n, part) in split_commas(text).into_iter().enumerate() {
            if part.is_empty() {
                continue;
            }
            let (key, value) = match (part.split_once('='), implied) {
                (Some((key, value)), _) => (key.to_owned(), value.to_owned()),
                (None, Some(key)) if n == 0 => (key.to_owned(), part),
                (None, _) => match part.strip_prefix("no") {
                    Some(key) if !key.is_empty() => (key.to_owned(), "off".to_owned()),
                    _ => (part, "on".to_owned()),
                },
            };
            if !seen.insert(key.clone()) {
                return Err(format!("-{option}: '{key}' is given twice"));
            }
            pairs.push((key, value));
        }
        Ok(Self { option: option.to_owned(), pairs })
    }

    /// Takes the value of `key` out.
    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(k, _)| k == key)?;
        Some(self.pairs.remove(at).1)
    }

    /// Takes a switch out.
    pub(crate) fn take_bool(&mut self, key: &str) -> Result<Option<bool>, String> {
        self.take(key)
            .map(|value| match value.as_str() {
                "on" | "yes" | "true" | "y" => Ok(true),
                "off" | "no" | "false" | "n" => Ok(false),
                _ => Err(self.error(&format!("'{key}' takes on or off, not '{value}'"))),
            })
            .transpose()
    }

    /// Takes a number within `range` out.
    pub(crate) fn take_number(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, String> {
        self.take(key)
            .map(|value| {
                value.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
                    let (least, most) = (range.start(), range.end());
                    self.error(&format!(
                        "'{key}' takes a number from {least} to {most}, not '{value}'"
                    ))
                })
            })
            .transpose()
    }

    /// An error that names the option.
    pub(crate) fn error(&self, text: &str) -> String {
        format!("-{}: {text}", self.option)
    }

    /// Nothing may be left; `known` is what the option has, for the message.
    pub(crate) fn finish(self, known: &str) -> Result<(), String> {
        self.nothing_left(known)
    }

    /// As [`finish`](Self::finish), for who still needs it.
    pub(crate) fn nothing_left(&self, known: &str) -> Result<(), String> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => {
                Err(self.error(&format!("there is no '{key}' here; there are {known}")))
            }
        }
    }
}

/// A size with QEMU's suffixes (b, k, M, G, T, P); a bare number counts in `unit` bytes.
pub(crate) fn size(text: &str, unit: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => unit,
        "b" | "B" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        "p" | "P" => 1 << 50,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::{KeyVal, size};

    #[test]
    fn pairs_switches_and_commas() {
        let mut kv =
            KeyVal::parse("drive", "disk,,1.raw,if=virtio,readonly,nolocking", Some("file"))
                .unwrap();
        assert_eq!(kv.take("file").unwrap(), "disk,1.raw");
        assert_eq!(kv.take("if").unwrap(), "virtio");
        assert_eq!(kv.take_bool("readonly"), Ok(Some(true)));
        assert_eq!(kv.take_bool("locking"), Ok(Some(false)));
        assert_eq!(kv.take_bool("readonly"), Ok(None));
        kv.finish("nothing").unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = KeyVal::parse("drive", "id=a,id=b", None).unwrap_err();
        assert_eq!(error, "-drive: 'id' is given twice");
        let kv = KeyVal::parse("drive", "fiel=x", None).unwrap();
        let error = kv.finish("file, id").unwrap_err();
        assert_eq!(error, "-drive: there is no 'fiel' here; there are file, id");
        let mut kv = KeyVal::parse("smp", "cpus=0", None).unwrap();
        let error = kv.take_number("cpus", 1..=8).unwrap_err();
        assert_eq!(error, "-smp: 'cpus' takes a number from 1 to 8, not '0'");
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(size("512", 1 << 20), Some(512 << 20));
        assert_eq!(size("6G", 1 << 20), Some(6 << 30));
        assert_eq!(size("1k", 1), Some(1024));
        assert_eq!(size("99999999999999P", 1), None);
        assert_eq!(size("x", 1), None);
        assert_eq!(size("1Q", 1), None);
        assert_eq!(size("", 1), None);
    }
}
