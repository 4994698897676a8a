//! A block of zeroes to write from.

/// Bytes of [`block`].
const BLOCK: usize = 64 * 1024;

#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

static ZEROES: Aligned = Aligned([0; BLOCK]);

/// 64 KiB of zeroes, aligned for direct I/O.
pub(super) fn block() -> &'static [u8] {
    &ZEROES.0
}
