//! The firmware configuration device, read by port I/O (QEMU's published specification "fw_cfg").
//!
//! A 16-bit write to port 0x510 selects an item, byte reads of port 0x511 return it from its
//! beginning and zeroes past its end. There is no DMA interface.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vcpu::bus::BusDevice;

/// First port: the selector. The data port is the second.
pub const FW_CFG_PORT: u16 = 0x510;
/// Ports.
pub const FW_CFG_LEN: u16 = 2;

const KEY_SIGNATURE: u16 = 0x00;
const KEY_ID: u16 = 0x01;
const KEY_RAM_SIZE: u16 = 0x03;
const KEY_CPUS: u16 = 0x05;
const KEY_CPUS_MAX: u16 = 0x0f;
const KEY_FILE_DIRECTORY: u16 = 0x19;
/// The traditional interface and nothing else.
const ID_TRADITIONAL: u32 = 1;
const DATA: u64 = 1;

#[derive(Default)]
struct Cursor {
    key: u16,
    offset: usize,
}

/// The firmware configuration device.
pub struct FwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    cursor: Mutex<Cursor>,
}

impl FwCfg {
    /// A device that tells of `ram_size` bytes of RAM, and of `cpus` processors out of `cpus_max`.
    pub fn new(ram_size: u64, cpus: u32, cpus_max: u32) -> Arc<Self> {
        let count = |n: u32| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes().to_vec();
        let items = BTreeMap::from([
            (KEY_SIGNATURE, b"QEMU".to_vec()),
            (KEY_ID, ID_TRADITIONAL.to_le_bytes().to_vec()),
            (KEY_RAM_SIZE, ram_size.to_le_bytes().to_vec()),
            (KEY_CPUS, count(cpus)),
            (KEY_CPUS_MAX, count(cpus_max)),
            // A count of files, big endian: none.
            (KEY_FILE_DIRECTORY, vec![0; 4]),
        ]);
        Arc::new(Self { items, cursor: Mutex::default() })
    }

    /// Power-on state: the signature is selected.
    pub fn reset(&self) {
        *self.lock() = Cursor::default();
    }

    fn next(&self) -> u8 {
        let mut cursor = self.lock();
        let item = self.items.get(&cursor.key);
        let byte = item.and_then(|item| item.get(cursor.offset)).copied();
        cursor.offset += usize::from(byte.is_some());
        byte.unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BusDevice for FwCfg {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match data {
            [byte] if offset == DATA => *byte = self.next(),
            // The selector is write-only, and data comes a byte at a time.
            _ => data.fill(0),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (0, &[low, high]) = (offset, data) {
            *self.lock() = Cursor { key: u16::from_le_bytes([low, high]), offset: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(device: &FwCfg, key: u16, len: usize) -> Vec<u8> {
        device.write(0, &key.to_le_bytes());
        let byte = |_| {
            let mut data = [0xff];
            device.read(DATA, &mut data);
            data[0]
        };
        (0..len).map(byte).collect()
    }

    #[test]
    fn the_keys_that_tests_rely_on() {
        let device = FwCfg::new(512 << 20, 3, 8);
        assert_eq!(item(&device, 0x00, 4), b"QEMU");
        assert_eq!(item(&device, 0x01, 4), [1, 0, 0, 0]);
        assert_eq!(item(&device, 0x03, 8), (512u64 << 20).to_le_bytes());
        assert_eq!(item(&device, 0x05, 2), [3, 0]);
        assert_eq!(item(&device, 0x0f, 2), [8, 0]);
        assert_eq!(item(&device, 0x19, 4), [0; 4]);
    }

    #[test]
    fn past_the_end_and_unknown_keys_read_zero() {
        let device = FwCfg::new(1 << 20, 1, 1);
        assert_eq!(item(&device, 0x00, 6), b"QEMU\0\0");
        assert_eq!(item(&device, 0xffff, 4), [0; 4]);
        assert_eq!(item(&device, 0x00, 2), b"QE", "a selection starts over");
        device.reset();
        let mut data = [0];
        device.read(DATA, &mut data);
        assert_eq!(data, *b"Q");
    }

    #[test]
    fn other_widths_change_nothing() {
        let device = FwCfg::new(1 << 20, 1, 1);
        device.write(0, &[0x05]);
        device.write(0, &[5, 0, 0, 0]);
        device.write(DATA, &[1]);
        let mut wide = [0xff; 4];
        device.read(0, &mut wide);
        assert_eq!(wide, [0; 4]);
        let mut data = [0];
        device.read(DATA, &mut data);
        assert_eq!(data, *b"Q");
    }
}
