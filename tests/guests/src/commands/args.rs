//! The words of a command.

use core::fmt;

use crate::text::parse_number;

/// What follows a command's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args<'a> {
    text: &'a str,
}

/// A word that makes no sense to its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArgumentError<'a> {
    /// The command knows no such word.
    Unknown(&'a str),
    /// What should be a number is none.
    Number(&'a str, &'a str),
    /// A number is too small or too large.
    Range(&'a str, u64),
    /// A number is missing.
    Missing,
}

impl fmt::Display for ArgumentError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "unknown argument '{word}': see help"),
            Self::Number(key, value) => write!(f, "{key} takes a number, not '{value}'"),
            Self::Range(key, value) => write!(f, "{key}={value} is out of range"),
            Self::Missing => write!(f, "a number is missing: see help"),
        }
    }
}

/// The commands of a line, separated by semicolons.
pub(crate) fn commands_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(';').map(str::trim).filter(|command| !command.is_empty())
}

/// Key and value of `key=value`.
pub(crate) fn setting(word: &str) -> Option<(&str, &str)> {
    word.split_once('=')
}

/// The number `value`, given for `key`.
pub(crate) fn number<'a>(key: &'a str, value: &'a str) -> Result<u64, ArgumentError<'a>> {
    parse_number(value).ok_or(ArgumentError::Number(key, value))
}

impl<'a> Args<'a> {
    /// Separates a command's name from its arguments.
    pub fn split(text: &'a str) -> (&'a str, Self) {
        let text = text.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        (name, Self { text: rest })
    }

    /// The words.
    pub fn words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.split_whitespace()
    }

    /// Refuses words other than settings of `keys` and `flags`.
    pub fn allow(&self, keys: &[&str], flags: &[&str]) -> Result<(), ArgumentError<'a>> {
        let known = |word: &&str| match setting(word) {
            Some((key, _)) => keys.contains(&key),
            None => flags.contains(word),
        };
        match self.words().find(|word| !known(word)) {
            Some(word) => Err(ArgumentError::Unknown(word)),
            None => Ok(()),
        }
    }

    /// Whether `flag` is among the words.
    pub fn has(&self, flag: &str) -> bool {
        self.words().any(|word| word == flag)
    }

    /// The number set for `key`, the last one if there are several.
    pub fn get(&self, key: &'a str) -> Result<Option<u64>, ArgumentError<'a>> {
        let settings = self.words().filter_map(setting).filter(|(name, _)| *name == key);
        settings.last().map(|(_, value)| number(key, value)).transpose()
    }

    /// The number set for `key`, or `default`; between `least` and `most`.
    pub fn get_within(
        &self,
        key: &'a str,
        default: u64,
        least: u64,
        most: u64,
    ) -> Result<u64, ArgumentError<'a>> {
        let value = self.get(key)?.unwrap_or(default);
        let inside = (least..=most).contains(&value);
        if inside { Ok(value) } else { Err(ArgumentError::Range(key, value)) }
    }

    /// The first word that is no setting, which must be a number.
    pub fn plain_number(&self, what: &'a str) -> Result<Option<u64>, ArgumentError<'a>> {
        let word = self.words().find(|word| setting(word).is_none());
        word.map(|word| number(what, word)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_semicolons() {
        let commands: Vec<_> = commands_of(" check mib=4 ; ;poweroff;").collect();
        assert_eq!(commands, ["check mib=4", "poweroff"]);
        assert_eq!(commands_of("  ").count(), 0);
    }

    #[test]
    fn words_flags_and_settings_are_told_apart() {
        let (name, args) = Args::split(" bench disk=1  write qd=0x20 disk=2");
        assert_eq!(name, "bench");
        assert!(args.has("write") && !args.has("disk"));
        assert_eq!(args.get("disk"), Ok(Some(2)));
        assert_eq!(args.get("qd"), Ok(Some(32)));
        assert_eq!(args.get("secs"), Ok(None));
        assert_eq!(args.allow(&["disk", "qd"], &["write"]), Ok(()));
        assert_eq!(args.allow(&["disk", "qd"], &[]), Err(ArgumentError::Unknown("write")));
        assert_eq!(args.allow(&["qd"], &["write"]), Err(ArgumentError::Unknown("disk=1")));
    }

    #[test]
    fn numbers_are_checked() {
        let (_, args) = Args::split("exit 300");
        assert_eq!(args.plain_number("status"), Ok(Some(300)));
        let (_, args) = Args::split("exit x");
        assert_eq!(args.plain_number("status"), Err(ArgumentError::Number("status", "x")));
        let (_, args) = Args::split("check mib=0 queues=");
        assert_eq!(args.get_within("mib", 64, 1, 100), Err(ArgumentError::Range("mib", 0)));
        assert_eq!(args.get("queues"), Err(ArgumentError::Number("queues", "")));
        assert_eq!(args.get_within("disk", 7, 1, 100), Ok(7));
    }
}
