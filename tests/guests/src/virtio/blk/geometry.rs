//! The configuration of a block device.

use super::SECTOR;
use crate::mem::Region;
use crate::virtio::feature;

/// What the device says of itself (section 5.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Sectors of 512 bytes.
    pub capacity: u64,
    /// Bytes of a block; requests are multiples of it.
    pub block: u32,
    /// Most data segments of a request.
    pub segments_max: u32,
    /// Queues the device has.
    pub queues: u16,
    /// Most sectors of a discard.
    pub discard_sectors: u32,
    /// Most sectors of a write-zeroes.
    pub zeroes_sectors: u32,
}

impl Geometry {
    /// Reads the configuration; fields whose feature is not agreed upon get what then holds.
    pub fn read(config: Region, features: u64) -> Self {
        let word = |offset: usize, bit: u64| {
            let present = features & bit != 0 && offset + 4 <= config.len();
            if present { config.load::<u32>(offset) } else { 0 }
        };
        let half = |offset: usize| config.load::<u32>(offset);
        let queues = word(32, feature::MQ) >> 16;
        Self {
            capacity: u64::from(half(4)) << 32 | u64::from(half(0)),
            block: word(20, feature::BLK_SIZE).max(SECTOR as u32),
            segments_max: match word(12, feature::SEG_MAX) {
                0 if features & feature::SEG_MAX == 0 => 1,
                segments => segments.max(1),
            },
            queues: (queues as u16).max(1),
            discard_sectors: word(36, feature::DISCARD),
            zeroes_sectors: word(48, feature::WRITE_ZEROES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::test_memory;

    fn config() -> Region {
        let config = test_memory::region(60);
        config.store(0, 0x2_0000_0001u64);
        config.store(12, 254u32);
        config.store(20, 4096u32);
        config.store(34, 4u16);
        config.store(36, 100u32);
        config.store(48, 200u32);
        config
    }

    #[test]
    fn fields_are_read_when_their_feature_is_agreed_upon() {
        let all = Geometry::read(config(), u64::MAX);
        let expected = Geometry {
            capacity: 0x2_0000_0001,
            block: 4096,
            segments_max: 254,
            queues: 4,
            discard_sectors: 100,
            zeroes_sectors: 200,
        };
        assert_eq!(all, expected);
        let none = Geometry::read(config(), 0);
        let defaults = Geometry { capacity: expected.capacity, ..Geometry::default() };
        assert_eq!(none, Geometry { block: 512, segments_max: 1, queues: 1, ..defaults });
    }

    #[test]
    fn a_short_or_zero_configuration_has_sane_values() {
        let short = test_memory::region(8);
        let geometry = Geometry::read(short, u64::MAX);
        assert_eq!((geometry.block, geometry.segments_max, geometry.queues), (512, 1, 1));
    }
}
