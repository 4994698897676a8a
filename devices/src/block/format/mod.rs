//! Image formats: how they are told apart, and what their headers say.
//!
//! What is here reads bytes that anybody may have written: it checks them, allocates within bounds, and
//! does no I/O.

mod probe;
mod qcow2;

pub use probe::{PROBE_BYTES, Probed, probe};
pub use qcow2::{Compression, HEADER_BYTES, Qcow2Header, SNAPSHOTS_MAX, Snapshot};

/// The big-endian number of `N` bytes at `at`; `None` where there are fewer.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_be_bytes)
}
