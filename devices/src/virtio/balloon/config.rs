//! Features and configuration space of the balloon (sections 5.5.3 and 5.5.4).

use crate::virtio::features;

// Feature bits (section 5.5.3).
pub(super) const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
pub(super) const PAGE_POISON: u64 = 1 << 4;
pub(super) const REPORTING: u64 = 1 << 5;

/// Offset of what the driver has given.
pub(super) const ACTUAL: u64 = 4;
/// Offset of the value that free pages are filled with.
pub(super) const POISON: u64 = 12;

pub(super) fn features(deflate_on_oom: bool, reporting: bool) -> u64 {
    let oom = if deflate_on_oom { DEFLATE_ON_OOM } else { 0 };
    // Filled pages matter to who frees reported ones.
    let reporting = if reporting { REPORTING | PAGE_POISON } else { 0 };
    features::COMMON | STATS_VQ | oom | reporting
}

pub(super) fn image(pages: u32, actual: u32, poison: u32) -> [u8; 16] {
    let mut image = [0; 16];
    image[..4].copy_from_slice(&pages.to_le_bytes());
    image[4..8].copy_from_slice(&actual.to_le_bytes());
    image[12..].copy_from_slice(&poison.to_le_bytes());
    image
}
