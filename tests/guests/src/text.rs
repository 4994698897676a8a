//! Numbers: little-endian fields of tables, and how quantities are written on the console.

use core::fmt;

/// The little-endian 16 bits at `offset`; zero where `bytes` ends before.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    field(bytes, offset).map_or(0, u16::from_le_bytes)
}

/// The little-endian 32 bits at `offset`; zero where `bytes` ends before.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    field(bytes, offset).map_or(0, u32::from_le_bytes)
}

/// The little-endian 64 bits at `offset`; zero where `bytes` ends before.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    field(bytes, offset).map_or(0, u64::from_le_bytes)
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// A size in the largest binary unit that divides it: `512 B`, `64 KiB`, `1 GiB`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (unit, name) in units {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{} {name}", self.0 / unit);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// TSC ticks as microseconds with one decimal, at a frequency in kHz.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Micros {
    /// The time, in ticks.
    pub ticks: u64,
    /// Ticks a millisecond.
    pub khz: u64,
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = u128::from(self.ticks) * 10_000 / u128::from(self.khz.max(1));
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

/// A decimal or `0x` hexadecimal number that fits 64 bits.
pub(crate) fn parse_number(word: &str) -> Option<u64> {
    let (digits, radix) = match word.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain { u64::from_str_radix(digits, radix).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_end_with_the_bytes() {
        let bytes = [1, 2, 3, 4, 5];
        assert_eq!(u16_at(&bytes, 1), 0x0302);
        assert_eq!(u32_at(&bytes, 1), 0x0504_0302);
        assert_eq!(u32_at(&bytes, 2), 0);
        assert_eq!(u64_at(&bytes, 0), 0);
        assert_eq!(u16_at(&bytes, usize::MAX), 0);
    }

    #[test]
    fn sizes_use_the_largest_exact_unit() {
        let shown = [0, 512, 1024, 1536, 64 << 20, 3 << 30].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(shown, ["0 B", "512 B", "1 KiB", "1536 B", "64 MiB", "3 GiB"]);
    }

    #[test]
    fn microseconds_have_one_decimal() {
        assert_eq!(Micros { ticks: 2_300, khz: 2_300_000 }.to_string(), "1.0");
        assert_eq!(Micros { ticks: 87_450, khz: 2_300_000 }.to_string(), "38.0");
        assert_eq!(Micros { ticks: u64::MAX, khz: 0 }.to_string().len(), 25);
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(parse_number("64"), Some(64));
        assert_eq!(parse_number("0xf4"), Some(0xf4));
        for bad in ["", "0x", "+1", "-1", "12k", "18446744073709551616", "0x_1"] {
            assert_eq!(parse_number(bad), None, "{bad}");
        }
    }
}
