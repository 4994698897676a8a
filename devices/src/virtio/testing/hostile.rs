//! What drivers offer that mean no good: random descriptors, and memory that no device may touch.

use super::RawDescriptor;
use proptest::prelude::*;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestRegionMmap, MmapRegion};

const MIB: usize = 1 << 20;
/// Guest RAM is the first and the last part of one mapping; between them lies what no guest may
/// reach.
const MAPPING: usize = 64 * MIB;
const FORBIDDEN: std::ops::Range<usize> = MIB..2 * MIB;
const CANARY: u8 = 0xc3;

/// Guest RAM with a hole that is mapped in the host: an access there is seen, not refused.
pub(crate) struct GuardedRam {
    pub(crate) ram: Arc<crate::virtio::Ram>,
    // Dropped last: owns the memory that `ram` refers to.
    mapping: MmapRegion,
}

impl GuardedRam {
    pub(crate) fn new() -> Self {
        let mapping = MmapRegion::new(MAPPING).unwrap();
        let part = |range: std::ops::Range<usize>| {
            // SAFETY: inside of `mapping`, which lives longer; such a region does not unmap.
            let region = unsafe {
                MmapRegion::build_raw(
                    mapping.as_ptr().add(range.start),
                    range.len(),
                    mapping.prot(),
                    mapping.flags(),
                )
            };
            GuestRegionMmap::new(region.unwrap(), GuestAddress(range.start as u64)).unwrap()
        };
        let regions = vec![part(0..FORBIDDEN.start), part(FORBIDDEN.end..MAPPING)];
        let ram = Arc::new(crate::virtio::Ram::from_regions(regions).unwrap());
        let new = Self { ram, mapping };
        new.forbidden().fill(CANARY);
        new
    }

    /// Whether nobody has written where no device may.
    pub(crate) fn untouched(&self) -> bool {
        self.forbidden().iter().all(|byte| *byte == CANARY)
    }

    #[expect(clippy::mut_from_ref, reason = "the canary belongs to nobody else")]
    fn forbidden(&self) -> &mut [u8] {
        // SAFETY: mapped while `mapping` lives; a device that behaves never touches it.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.mapping.as_ptr().add(FORBIDDEN.start),
                FORBIDDEN.len(),
            )
        }
    }
}

/// An address that is likely to mean something: around the borders of RAM, in the request area, in
/// the rings, or anywhere.
pub(crate) fn address(area: u64) -> impl Strategy<Value = u64> {
    let around = |at: usize| (0u64..1024).prop_map(move |n| (at as u64 + n).wrapping_sub(512));
    prop_oneof![
        8 => (0u64..64).prop_map(move |n| area + 64 * n),
        2 => around(0),
        2 => around(FORBIDDEN.start),
        2 => around(FORBIDDEN.end),
        2 => around(MAPPING),
        1 => any::<u64>(),
    ]
}

pub(crate) fn descriptor(area: u64) -> impl Strategy<Value = RawDescriptor> {
    let len = prop_oneof![
        4 => Just(16u32),
        2 => Just(1u32),
        4 => (1u32..9).prop_map(|n| n * 512),
        1 => Just(0u32),
        1 => any::<u32>(),
        1 => 0u32..2_000_000,
    ];
    let flags = prop_oneof![8 => 0u16..4, 2 => 4u16..8, 1 => any::<u16>()];
    let next = prop_oneof![10 => 0u16..16, 1 => any::<u16>()];
    (address(area), len, flags, next).prop_map(|(address, len, flags, next)| RawDescriptor {
        address,
        len,
        flags,
        next,
    })
}
