//! Block requests (virtio 1.3, section 5.2.6): operations, status, and how data is cut into
//! segments.

use core::fmt;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Read from the disk.
    Read,
    /// Write to the disk.
    Write,
    /// Make completed writes durable.
    Flush,
    /// Read the 20 bytes that name the disk.
    GetId,
    /// Give blocks up.
    Discard,
    /// Set blocks to zero.
    WriteZeroes,
}

impl Op {
    /// The `type` field of the request.
    pub fn code(self) -> u32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 4,
            Self::GetId => 8,
            Self::Discard => 11,
            Self::WriteZeroes => 13,
        }
    }

    /// A word for the console.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::GetId => "get-id",
            Self::Discard => "discard",
            Self::WriteZeroes => "write-zeroes",
        }
    }

    /// Whether the device writes the data.
    pub fn fills_data(self) -> bool {
        matches!(self, Self::Read | Self::GetId)
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub u8);

impl Status {
    /// Done.
    pub const OK: Self = Self(0);
    /// The device refused or failed.
    pub const IO_ERROR: Self = Self(1);
    /// The device does not know the request.
    pub const UNSUPPORTED: Self = Self(2);
    /// What a status byte holds before the device has written it.
    pub const UNWRITTEN: Self = Self(0xa5);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OK => write!(f, "OK"),
            Self::IO_ERROR => write!(f, "IOERR"),
            Self::UNSUPPORTED => write!(f, "UNSUPP"),
            Self::UNWRITTEN => write!(f, "not written"),
            Self(other) => write!(f, "{other:#04x}"),
        }
    }
}

/// How the data of a request is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// How many segments, where the data is long enough.
    pub segments: u16,
    /// What a segment's length is a multiple of, but for the last one.
    pub unit: u32,
}

impl Split {
    /// All in one.
    pub const WHOLE: Self = Self { segments: 1, unit: 512 };

    /// The lengths of the segments of `total` bytes, at most `most` long each (as far as the
    /// number of segments allows). None is empty.
    pub fn lengths(self, total: u32) -> impl Iterator<Item = u32> {
        let count = u32::from(self.segments.max(1));
        let even = total / count / self.unit * self.unit;
        let each = if even == 0 { total.min(self.unit) } else { even };
        let mut left = total;
        let mut segments_left = count;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            segments_left = segments_left.saturating_sub(1);
            let len = if segments_left == 0 { left } else { each.min(left) };
            left -= len;
            Some(len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(segments: u16, unit: u32, total: u32) -> Vec<u32> {
        Split { segments, unit }.lengths(total).collect()
    }

    #[test]
    fn segments_add_up_and_are_never_empty() {
        for segments in 1..=9 {
            for unit in [1, 512] {
                for total in [20, 512, 513, 1024, 4096, 5120, 65536] {
                    let cut = lengths(segments, unit, total);
                    assert_eq!(cut.iter().sum::<u32>(), total, "{segments} {unit} {total}");
                    assert!(cut.len() <= usize::from(segments) && !cut.contains(&0));
                }
            }
        }
    }

    #[test]
    fn segments_are_multiples_of_the_unit() {
        assert_eq!(lengths(3, 512, 5 * 512), [512, 512, 3 * 512]);
        assert_eq!(lengths(4, 512, 1024), [512, 512]);
        assert_eq!(lengths(3, 1, 512), [170, 170, 172]);
        assert_eq!(lengths(0, 512, 512), [512]);
        assert_eq!(lengths(1, 512, 0), []);
    }

    #[test]
    fn only_reads_are_filled_by_the_device() {
        let filling = [Op::Read, Op::Write, Op::Flush, Op::GetId, Op::Discard, Op::WriteZeroes]
            .map(Op::fills_data);
        assert_eq!(filling, [true, false, false, true, false, false]);
    }
}
