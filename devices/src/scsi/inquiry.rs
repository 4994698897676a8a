//! What a unit says about itself: INQUIRY, vital product data, READ CAPACITY.

use super::sense::Sense;
use super::unit::{Kind, LogicalUnit, UNMAP_DESCRIPTORS_MAX};

/// Peripheral qualifier and type of a unit that is not there (SPC-4, section 6.6.2).
const NO_UNIT: u8 = 0x7f;
/// SPC-3.
const VERSION: u8 = 5;
/// Response data format 2, hierarchical addressing.
const FORMAT: u8 = 0x12;
/// Command queuing.
const CMDQUE: u8 = 0x02;

fn device_type(kind: Kind) -> u8 {
    match kind {
        Kind::Disk => 0x00,
        Kind::Cd => 0x05,
    }
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (byte, character) in field.iter_mut().zip(text.bytes()) {
        *byte = character;
    }
    field
}

/// Standard INQUIRY data (SPC-4, section 6.6.2).
pub(super) fn standard(unit: &LogicalUnit) -> Vec<u8> {
    let options = &unit.options;
    let removable = if options.removable { 0x80 } else { 0 };
    let mut data = vec![device_type(options.kind), removable, VERSION, FORMAT, 31, 0, 0, CMDQUE];
    data.extend(padded::<8>(&options.vendor));
    data.extend(padded::<16>(&options.product));
    data.extend(padded::<4>(&options.version));
    data
}

/// What a target says of a unit that it does not have; `lun` 0 might have one.
pub(super) fn absent(lun: u16) -> Vec<u8> {
    let mut data =
        vec![if lun == 0 { 0x3f } else { NO_UNIT }, 0, VERSION, FORMAT, 31, 0, 0, CMDQUE];
    data.resize(36, b' ');
    data
}

/// A vital product data page (SPC-4, section 7.8; SBC-3, section 6.5); `None` where there is no
/// such page.
pub(super) fn page(unit: &LogicalUnit, page: u8) -> Option<Vec<u8>> {
    let disk = unit.kind() == Kind::Disk;
    let content = match page {
        0x00 => {
            let mut pages = vec![0x00];
            pages.extend(unit.options.serial.is_some().then_some(0x80));
            pages.push(0x83);
            if disk {
                pages.extend([0xb0, 0xb1, 0xb2]);
            }
            pages
        }
        0x80 => unit.options.serial.as_ref()?.as_bytes().to_vec(),
        0x83 => designators(unit),
        0xb0 if disk => block_limits(unit),
        0xb1 if disk => characteristics(unit),
        0xb2 if disk => provisioning(unit),
        _ => return None,
    };
    let mut data = vec![device_type(unit.kind()), page, 0, 0];
    data.extend(content);
    let length = (data.len() - 4) as u16;
    data[2..4].copy_from_slice(&length.to_be_bytes());
    Some(data)
}

/// Page 83: names (SPC-4, section 7.8.6).
fn designators(unit: &LogicalUnit) -> Vec<u8> {
    const BINARY: u8 = 1;
    const ASCII: u8 = 2;
    const VENDOR: u8 = 0x00;
    const NAA: u8 = 0x03;
    const RELATIVE_PORT: u8 = 0x04;
    /// Of the target port, and not of the unit.
    const PORT: u8 = 0x10;
    let options = &unit.options;
    let mut data = Vec::new();
    let mut add = |code: u8, kind: u8, name: &[u8]| {
        data.extend([code, kind, 0, name.len() as u8]);
        data.extend(name);
    };
    if let Some(id) = options.device_id.as_ref().or(options.serial.as_ref()) {
        add(ASCII, VENDOR, id.as_bytes());
    }
    if options.wwn != 0 {
        add(BINARY, NAA, &options.wwn.to_be_bytes());
    }
    if options.port_wwn != 0 {
        add(BINARY, PORT | NAA, &options.port_wwn.to_be_bytes());
    }
    if options.port_index != 0 {
        let [high, low] = options.port_index.to_be_bytes();
        add(BINARY, PORT | RELATIVE_PORT, &[0, 0, high, low]);
    }
    data
}

/// Bytes that the disk writes at once.
fn physical_block(unit: &LogicalUnit) -> u32 {
    let disks = unit.medium().map_or(0, |disk| disk.info().physical_block);
    let wanted = unit.options.physical_block;
    (if wanted == 0 { disks } else { wanted }).max(unit.block())
}

/// Granularity of discards that free space, in bytes.
fn discard_granularity(unit: &LogicalUnit) -> Option<u32> {
    unit.medium()?.info().discard_granularity
}

/// Page B0 (SBC-3, section 6.5.3).
fn block_limits(unit: &LogicalUnit) -> Vec<u8> {
    let block = unit.block();
    let unmap = unit.unmap_blocks_max();
    let io_max = u32::try_from(unit.options.io_bytes_max / u64::from(block)).unwrap_or(u32::MAX);
    let granularity = discard_granularity(unit).unwrap_or(0).max(block) / block;
    let mut data = vec![0; 60];
    let mut put =
        |at: usize, bytes: &[u8]| data[at - 4..at - 4 + bytes.len()].copy_from_slice(bytes);
    // WSNZ: WRITE SAME with no number of blocks is refused.
    put(4, &[1]);
    put(6, &((physical_block(unit) / block) as u16).to_be_bytes());
    put(8, &io_max.to_be_bytes());
    put(20, &unmap.to_be_bytes());
    put(24, &(UNMAP_DESCRIPTORS_MAX as u32).to_be_bytes());
    put(28, &granularity.to_be_bytes());
    put(36, &u64::from(unmap).to_be_bytes());
    data
}

/// Page B1 (SBC-3, section 6.5.2).
fn characteristics(unit: &LogicalUnit) -> Vec<u8> {
    let mut data = vec![0; 60];
    data[..2].copy_from_slice(&unit.options.rotation_rate.to_be_bytes());
    data
}

/// Page B2 (SBC-3, section 6.5.4).
fn provisioning(unit: &LogicalUnit) -> Vec<u8> {
    const THIN: u8 = 2;
    // UNMAP and both WRITE SAME with UNMAP.
    if discard_granularity(unit).is_some() { vec![0, 0xe0, THIN, 0] } else { vec![0; 4] }
}

/// READ CAPACITY(10) data (SBC-3, section 5.15.2).
pub(super) fn capacity10(unit: &LogicalUnit) -> Result<Vec<u8>, Sense> {
    let last = unit.blocks()?.checked_sub(1).ok_or(Sense::NO_MEDIUM)?;
    let last = u32::try_from(last).unwrap_or(u32::MAX);
    Ok([last.to_be_bytes(), unit.block().to_be_bytes()].concat())
}

/// READ CAPACITY(16) data (SBC-3, section 5.16.2).
pub(super) fn capacity16(unit: &LogicalUnit) -> Result<Vec<u8>, Sense> {
    let last = unit.blocks()?.checked_sub(1).ok_or(Sense::NO_MEDIUM)?;
    let mut data = vec![0; 32];
    data[..8].copy_from_slice(&last.to_be_bytes());
    data[8..12].copy_from_slice(&unit.block().to_be_bytes());
    data[13] = (physical_block(unit) / unit.block()).ilog2() as u8;
    // LBPME: blocks can be unmapped.
    data[14] = if discard_granularity(unit).is_some() { 0x80 } else { 0 };
    Ok(data)
}
