//! Arguments as qemu-img has them: short and long options, values beside them or joined.

use std::collections::BTreeMap;

/// An option: its letter (or `\0`), its long name (or nothing), and whether it has a value.
pub(super) struct Option_(pub(super) char, pub(super) &'static str, pub(super) bool);

impl Option_ {
    /// What it is known by.
    fn key(&self) -> String {
        if self.1.is_empty() { self.0.to_string() } else { self.1.to_owned() }
    }
}

/// What a command was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    options: BTreeMap<String, Vec<String>>,
    /// Those that are no options.
    pub(super) files: Vec<String>,
}

impl Arguments {
    /// Sorts `words`; `None` where help is asked for.
    pub(super) fn parse(
        options: &[Option_],
        words: impl IntoIterator<Item = String>,
    ) -> Result<Option<Self>, String> {
        let mut parsed = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if ["-h", "-help", "--help"].contains(&word.as_str()) {
                return Ok(None);
            }
            if word == "--" {
                parsed.files.extend(words);
                break;
            }
            if let Some(long) = word.strip_prefix("--") {
                let (name, joined) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let option = options.iter().find(|option| !name.is_empty() && option.1 == name);
                let option = option.ok_or_else(|| format!("there is no option '--{name}' here"))?;
                parsed.add(option, joined, &mut words)?;
            } else if word.len() > 1 && word.starts_with('-') && !is_size(&word) {
                parsed.short(options, &word, &mut words)?;
            } else {
                parsed.files.push(word);
            }
        }
        Ok(Some(parsed))
    }

    /// Letters in one word; the rest of it is the value of one that has one.
    fn short(
        &mut self,
        options: &[Option_],
        word: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let mut letters = word.chars();
        letters.next();
        while let Some(letter) = letters.next() {
            let option = options.iter().find(|option| option.0 == letter);
            let option = option.ok_or_else(|| format!("there is no option '-{letter}' here"))?;
            if !option.2 {
                self.options.entry(option.key()).or_default().push(String::new());
                continue;
            }
            let rest = letters.as_str();
            return self.add(option, (!rest.is_empty()).then(|| rest.to_owned()), words);
        }
        Ok(())
    }

    fn add(
        &mut self,
        option: &Option_,
        joined: Option<String>,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let value = match (option.2, joined) {
            (false, None) => String::new(),
            (false, Some(_)) => return Err(format!("option '{}' takes no value", option.key())),
            (true, Some(value)) => value,
            (true, None) => {
                words.next().ok_or_else(|| format!("option '{}' needs a value", option.key()))?
            }
        };
        self.options.entry(option.key()).or_default().push(value);
        Ok(())
    }

    /// Whether an option was given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.options.contains_key(key)
    }

    /// The value of an option, the last where it was given again.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.options.get(key)?.last().map(String::as_str)
    }

    /// All values of an option.
    pub(super) fn values(&self, key: &str) -> &[String] {
        self.options.get(key).map_or(&[], Vec::as_slice)
    }

    /// The one file that a command is about.
    pub(super) fn file(&self) -> Result<&str, String> {
        match self.files.as_slice() {
            [file] => Ok(file),
            _ => Err("Expecting one image file name".to_owned()),
        }
    }

    /// Whether `--output=json` was given.
    pub(super) fn json(&self) -> Result<bool, String> {
        match self.value("output") {
            None | Some("human") => Ok(false),
            Some("json") => Ok(true),
            Some(_) => Err("--output must be used with human or json as argument.".to_owned()),
        }
    }
}

/// Whether a word is a negative number: what `resize` takes off.
fn is_size(word: &str) -> bool {
    word[1..].starts_with(|c: char| c.is_ascii_digit())
}

/// A size in bytes: a number with a suffix that multiplies by powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let suffixes = ["b", "k", "m", "g", "t", "p", "e"];
    let at = suffixes.iter().position(|suffix| lower.ends_with(suffix));
    let number = if at.is_some() { &lower[..lower.len() - 1] } else { &lower };
    let unit = 1u64 << (10 * at.unwrap_or(0));
    let whole = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    // 1.5G is a size too.
    let bytes = whole.or_else(|| {
        let (whole, part) = number.split_once('.')?;
        let digits = part.len() as u32;
        if digits == 0 || digits > 15 {
            return None;
        }
        let part = u128::from(part.parse::<u64>().ok()?) * u128::from(unit);
        let part = u64::try_from(part / 10u128.pow(digits)).ok()?;
        whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(part)
    });
    bytes.ok_or_else(|| format!("Invalid image size specified: '{text}'."))
}

/// Options of a format: `key=value,...`, where doubled commas are commas; those given later count.
#[derive(Debug, Default)]
pub(super) struct FormatOptions(BTreeMap<String, String>);

impl FormatOptions {
    pub(super) fn parse(texts: &[String]) -> Self {
        let mut all = BTreeMap::new();
        for (key, value) in texts.iter().flat_map(|text| devices::keyval::pairs(text, None)) {
            all.insert(key, value);
        }
        Self(all)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// An option that has this value only; QEMU's other values are refused.
    pub(super) fn only(&mut self, key: &str, values: &[&str]) -> Result<(), String> {
        match self.take(key) {
            Some(value) if !values.contains(&value.as_str()) => {
                Err(format!("{key}={value} is not supported here, only {key}={}", values[0]))
            }
            _ => Ok(()),
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("Invalid parameter '{key}'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Option_, size};

    const OPTIONS: &[Option_] = &[
        Option_('f', "format", true),
        Option_('q', "quiet", false),
        Option_('p', "", false),
        Option_('\0', "output", true),
    ];

    fn parse(words: &[&str]) -> Result<Option<Arguments>, String> {
        Arguments::parse(OPTIONS, words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn options_are_written_in_all_ways() {
        for words in [
            &["-f", "raw", "-qp", "--output=json", "x", "y"][..],
            &["x", "-fraw", "y", "-q", "-p", "--output", "json"],
            &["--format", "raw", "--quiet", "-p", "--output=json", "--", "x", "y"],
        ] {
            let parsed = parse(words).unwrap().unwrap();
            assert_eq!(parsed.value("format"), Some("raw"));
            assert!(parsed.has("quiet") && parsed.has("p") && parsed.json().unwrap());
            assert_eq!(parsed.files, ["x", "y"]);
        }
        assert_eq!(parse(&["--help"]), Ok(None));
        for (words, error) in [
            (&["-c"][..], "there is no option '-c' here"),
            (&["--object", "x"], "there is no option '--object' here"),
            (&["-f"], "option 'format' needs a value"),
            (&["--quiet=1"], "option 'quiet' takes no value"),
        ] {
            assert_eq!(parse(words), Err(error.to_owned()));
        }
        // A size that is taken off is no option.
        assert_eq!(parse(&["x", "-10M"]).unwrap().unwrap().files, ["x", "-10M"]);
    }

    #[test]
    fn sizes_have_suffixes() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("1k", 1024), ("1.5G", 3 << 29), ("2T", 2 << 40), ("10b", 10)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "1x", "-1", "17E", "1.", ".5.", "1.1234567890123456"] {
            assert_eq!(size(text), Err(format!("Invalid image size specified: '{text}'.")));
        }
    }
}
