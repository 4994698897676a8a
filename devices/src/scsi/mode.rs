//! Mode pages (SPC-4, section 7.5; SBC-3, section 6.4; MMC-6, section 7).

use super::sense::Sense;
use super::unit::{Kind, LogicalUnit};

const RECOVERY: u8 = 0x01;
const GEOMETRY: u8 = 0x04;
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const CAPABILITIES: u8 = 0x2a;
const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;
const PAGES: [u8; 5] = [RECOVERY, GEOMETRY, CACHING, CONTROL, CAPABILITIES];
/// Byte 2 of the caching page: a volatile write cache is on.
const WCE: u8 = 0x04;
const BLOCK_DESCRIPTOR: usize = 8;

/// Which values of a page are meant (page control).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Current,
    /// A bit is set where MODE SELECT may change it.
    Changeable,
    Default,
}

/// One page with its header, `None` where the unit has no such page.
fn page(unit: &LogicalUnit, code: u8, values: Values) -> Option<Vec<u8>> {
    let disk = unit.kind() == Kind::Disk;
    let length = match code {
        RECOVERY | CONTROL => 10,
        GEOMETRY if disk => 22,
        CACHING => 18,
        CAPABILITIES if !disk => 20,
        _ => return None,
    };
    let mut data = vec![0; 2 + length];
    (data[0], data[1]) = (code, length as u8);
    if values == Values::Changeable {
        if code == CACHING && disk {
            data[2] = WCE;
        }
        return Some(data);
    }
    match code {
        // Automatic write reallocation; CD drives repeat reads.
        RECOVERY if disk => data[2] = 0x80,
        RECOVERY => data[3] = 0x20,
        GEOMETRY => geometry(unit, &mut data),
        CACHING => {
            let current = values == Values::Current;
            let on = if current { unit.write_cache() } else { unit.default_write_cache() };
            data[2] = if on && disk { WCE } else { 0 };
        }
        CAPABILITIES => capabilities(unit, &mut data),
        _ => {}
    }
    Some(data)
}

/// A geometry for old drivers (SBC-3, section 6.4.8): 16 heads of 63 sectors.
fn geometry(unit: &LogicalUnit, data: &mut [u8]) {
    const HEADS: u8 = 16;
    const SECTORS: u64 = 63;
    let blocks = unit.blocks().unwrap_or(0);
    let cylinders = (blocks / (u64::from(HEADS) * SECTORS)).clamp(1, 0xff_ffff) as u32;
    data[2..5].copy_from_slice(&cylinders.to_be_bytes()[1..]);
    data[5] = HEADS;
    // Write precompensation and reduced current start past the end.
    data[6..9].copy_from_slice(&cylinders.to_be_bytes()[1..]);
    data[9..12].copy_from_slice(&cylinders.to_be_bytes()[1..]);
    let rate = unit.options.rotation_rate;
    data[20..22].copy_from_slice(&(if rate > 1 { rate } else { 5400 }).to_be_bytes());
}

/// What a CD drive can do (MMC-6, section E.3.3).
fn capabilities(unit: &LogicalUnit, data: &mut [u8]) {
    // Reads CD-R, CD-RW, DVD-ROM, DVD-R; several sessions, mode 2; reads bar codes no.
    (data[2], data[4], data[5]) = (0x3b, 0x70, 0x00);
    // Tray, eject, lock; whether it is locked now.
    data[6] = 0x29 | u8::from(unit.locked()) << 1;
    // Speeds in kB/s: 50 times 176; a buffer of 2 MB.
    for at in [8, 14] {
        data[at..at + 2].copy_from_slice(&(50u16 * 176).to_be_bytes());
    }
    data[12..14].copy_from_slice(&2048u16.to_be_bytes());
}

/// MODE SENSE data (SPC-4, sections 6.13 and 6.14).
pub(super) fn sense(
    unit: &LogicalUnit,
    long: bool,
    bare: bool,
    control: u8,
    (code, subpage): (u8, u8),
) -> Result<Vec<u8>, Sense> {
    let values = match control {
        0 => Values::Current,
        1 => Values::Changeable,
        2 => Values::Default,
        _ => return Err(Sense::NO_SAVING),
    };
    if subpage != 0 && (code != ALL_PAGES || subpage != ALL_SUBPAGES) {
        return Err(Sense::INVALID_FIELD);
    }
    let pages: Vec<u8> = if code == ALL_PAGES {
        PAGES.into_iter().filter_map(|code| page(unit, code, values)).flatten().collect()
    } else {
        page(unit, code, values).ok_or(Sense::INVALID_FIELD)?
    };
    let descriptor = if bare { Vec::new() } else { block_descriptor(unit) };
    let parameter = device_specific(unit);
    let mut data = if long {
        vec![0, 0, 0, parameter, 0, 0, 0, descriptor.len() as u8]
    } else {
        vec![0, 0, parameter, descriptor.len() as u8]
    };
    data.extend(descriptor);
    data.extend(pages);
    if long {
        let length = (data.len() - 2) as u16;
        data[..2].copy_from_slice(&length.to_be_bytes());
    } else {
        data[0] = (data.len() - 1) as u8;
    }
    Ok(data)
}

/// SBC-3, section 6.4.1: write protected; DPO and FUA are understood.
fn device_specific(unit: &LogicalUnit) -> u8 {
    const WP: u8 = 0x80;
    const DPOFUA: u8 = 0x10;
    match unit.kind() {
        Kind::Disk if unit.medium().is_some_and(|disk| disk.info().read_only) => WP | DPOFUA,
        Kind::Disk => DPOFUA,
        Kind::Cd => 0,
    }
}

/// The short block descriptor of a disk (SBC-3, section 6.4.2).
fn block_descriptor(unit: &LogicalUnit) -> Vec<u8> {
    match (unit.kind(), unit.blocks()) {
        (Kind::Disk, Ok(blocks)) => {
            let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
            let mut descriptor = blocks.to_be_bytes().to_vec();
            descriptor.extend(unit.block().to_be_bytes());
            descriptor
        }
        _ => Vec::new(),
    }
}

/// Checks a MODE SELECT parameter list as a whole (SPC-4, section 6.11); returns whether the
/// write cache shall be on.
pub(super) fn select(unit: &LogicalUnit, long: bool, list: &[u8]) -> Result<bool, Sense> {
    let header = if long { 8 } else { 4 };
    let (header, rest) = list.split_at_checked(header).ok_or(Sense::PARAMETER_LENGTH)?;
    let descriptors = match *header {
        [_, _, _, n] => usize::from(n),
        [_, _, _, _, _, _, high, low] => usize::from(u16::from_be_bytes([high, low])),
        _ => return Err(Sense::PARAMETER_LENGTH),
    };
    let (descriptor, mut pages) =
        rest.split_at_checked(descriptors).ok_or(Sense::PARAMETER_LENGTH)?;
    match descriptor.len() {
        0 => {}
        // Another block size would need another unit.
        BLOCK_DESCRIPTOR if descriptor[5..] == unit.block().to_be_bytes()[1..] => {}
        _ => return Err(Sense::INVALID_PARAMETER),
    }
    let mut write_cache = unit.write_cache();
    while !pages.is_empty() {
        let (code, length) = match *pages {
            // The saveable bit is reserved in a list; a page with subpages there is none.
            [code, length, ..] if code & 0x40 == 0 => (code & 0x3f, usize::from(length)),
            [_, _, ..] => return Err(Sense::INVALID_PARAMETER),
            _ => return Err(Sense::PARAMETER_LENGTH),
        };
        let (given, rest) = pages.split_at_checked(2 + length).ok_or(Sense::PARAMETER_LENGTH)?;
        let current = page(unit, code, Values::Current).ok_or(Sense::INVALID_PARAMETER)?;
        let mask = page(unit, code, Values::Changeable).ok_or(Sense::INVALID_PARAMETER)?;
        let allowed = current.len() == given.len()
            && (2..given.len()).all(|at| (given[at] ^ current[at]) & !mask[at] == 0);
        if !allowed {
            return Err(Sense::INVALID_PARAMETER);
        }
        if code == CACHING && unit.kind() == Kind::Disk {
            write_cache = given[2] & WCE != 0;
        }
        pages = rest;
    }
    Ok(write_cache)
}
