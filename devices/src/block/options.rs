//! How an image is opened: the part of `-drive` that concerns its file.

use std::path::PathBuf;
use std::str::FromStr;

/// How host caches take part, as `cache=` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Bypass the host's page cache (`O_DIRECT`).
    pub direct: bool,
    /// Tell the guest of a volatile write cache; without, each write is made stable before it
    /// completes.
    pub writeback: bool,
    /// Ignore the guest's flushes.
    pub no_flush: bool,
}

impl Cache {
    /// `cache=writeback`: the page cache, flushed when the guest asks.
    pub const WRITEBACK: Self = Self { direct: false, writeback: true, no_flush: false };
    /// `cache=none`: no page cache, flushed when the guest asks.
    pub const NONE: Self = Self { direct: true, writeback: true, no_flush: false };
    /// `cache=unsafe`: the page cache, never flushed.
    pub const UNSAFE: Self = Self { direct: false, writeback: true, no_flush: true };
    /// `cache=writethrough`: the page cache, each write made stable.
    pub const WRITETHROUGH: Self = Self { direct: false, writeback: false, no_flush: false };
    /// `cache=directsync`: no page cache, each write made stable.
    pub const DIRECTSYNC: Self = Self { direct: true, writeback: false, no_flush: false };
}

impl Default for Cache {
    fn default() -> Self {
        Self::WRITEBACK
    }
}

/// An option value that is none of the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' is not a value of {option}; use one of {expected}")]
pub struct UnknownValue {
    option: &'static str,
    value: String,
    expected: &'static str,
}

impl FromStr for Cache {
    type Err = UnknownValue;

    fn from_str(value: &str) -> Result<Self, UnknownValue> {
        match value {
            "writeback" => Ok(Self::WRITEBACK),
            "none" | "off" => Ok(Self::NONE),
            "unsafe" => Ok(Self::UNSAFE),
            "writethrough" => Ok(Self::WRITETHROUGH),
            "directsync" => Ok(Self::DIRECTSYNC),
            _ => Err(UnknownValue {
                option: "cache",
                value: value.to_owned(),
                expected: "none, writeback, unsafe, writethrough, directsync",
            }),
        }
    }
}

/// What becomes of the guest's discards, as `discard=` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discard {
    /// They succeed and change nothing.
    #[default]
    Ignore,
    /// They free the space in the image.
    Unmap,
}

impl FromStr for Discard {
    type Err = UnknownValue;

    fn from_str(value: &str) -> Result<Self, UnknownValue> {
        match value {
            "ignore" | "off" => Ok(Self::Ignore),
            "unmap" | "on" => Ok(Self::Unmap),
            _ => Err(UnknownValue {
                option: "discard",
                value: value.to_owned(),
                expected: "ignore, unmap",
            }),
        }
    }
}

/// A raw image and how to open it.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// A regular file or a block device.
    pub path: PathBuf,
    /// Open without write permission; the guest sees a read-only disk.
    pub read_only: bool,
    /// Caching.
    pub cache: Cache,
    /// Discards.
    pub discard: Discard,
    /// Lock the image against other writers (`file.locking`).
    pub locking: bool,
}

impl FileOptions {
    /// The defaults: writable, `cache=writeback`, `discard=ignore`, locked.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            cache: Cache::default(),
            discard: Discard::default(),
            locking: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cache, Discard};

    #[test]
    fn names_are_those_of_the_command_line() {
        assert_eq!("none".parse(), Ok(Cache::NONE));
        assert_eq!("writeback".parse(), Ok(Cache::WRITEBACK));
        assert_eq!("unsafe".parse(), Ok(Cache::UNSAFE));
        assert_eq!("unmap".parse(), Ok(Discard::Unmap));
        let error = "fast".parse::<Cache>().unwrap_err().to_string();
        assert_eq!(
            error,
            "'fast' is not a value of cache; use one of none, writeback, unsafe, writethrough, directsync"
        );
    }
}
