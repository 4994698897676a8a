//! What a CD drive tells of its disc and itself (MMC-6, section 6).

use super::sense::Sense;
use super::unit::LogicalUnit;

/// Media events of GET EVENT STATUS NOTIFICATION (MMC-6, section 6.6.3.5).
pub(super) const NO_EVENT: u8 = 0;
pub(super) const EJECT_REQUEST: u8 = 1;
pub(super) const NEW_MEDIA: u8 = 2;
pub(super) const MEDIA_REMOVED: u8 = 3;

/// A data track, as control and address of a TOC entry say it.
const DATA_TRACK: u8 = 0x14;
const LEAD_OUT: u8 = 0xaa;
/// Frames in a second, and before the first block.
const FRAMES: u64 = 75;
const PREGAP: u64 = 150;
/// More blocks than fit on a CD: 80 minutes.
const CD_BLOCKS_MAX: u64 = 80 * 60 * FRAMES;

/// Minute, second, frame of a block.
fn msf(block: u64) -> [u8; 3] {
    let frame = block + PREGAP;
    let minute = (frame / FRAMES / 60).min(255) as u8;
    [minute, (frame / FRAMES % 60) as u8, (frame % FRAMES) as u8]
}

/// An address in a TOC entry.
fn address(block: u64, as_msf: bool) -> [u8; 4] {
    if as_msf {
        let [minute, second, frame] = msf(block);
        [0, minute, second, frame]
    } else {
        u32::try_from(block).unwrap_or(u32::MAX).to_be_bytes()
    }
}

/// READ TOC (MMC-6, section 6.26) of a disc with one session of one track.
pub(super) fn toc(blocks: u64, as_msf: bool, format: u8, track: u8) -> Result<Vec<u8>, Sense> {
    // Length, then first and last track or session.
    let mut data = vec![0, 0, 1, 1];
    match format {
        0 => {
            if track > 1 && track != LEAD_OUT {
                return Err(Sense::INVALID_FIELD);
            }
            if track <= 1 {
                data.extend([0, DATA_TRACK, 1, 0]);
                data.extend(address(0, as_msf));
            }
            data.extend([0, DATA_TRACK, LEAD_OUT, 0]);
            data.extend(address(blocks, as_msf));
        }
        1 => {
            data.extend([0, DATA_TRACK, 1, 0]);
            data.extend(address(0, as_msf));
        }
        2 => {
            let [minute, second, frame] = msf(blocks);
            for (point, at) in
                [(0xa0, [1, 0, 0]), (0xa1, [1, 0, 0]), (0xa2, [minute, second, frame]), (1, msf(0))]
            {
                data.extend([1, DATA_TRACK, 0, point, 0, 0, 0, 0]);
                data.extend(at);
            }
        }
        _ => return Err(Sense::INVALID_FIELD),
    }
    let length = (data.len() - 2) as u16;
    data[..2].copy_from_slice(&length.to_be_bytes());
    Ok(data)
}

const PROFILE_NONE: u16 = 0x0000;
const PROFILE_CD: u16 = 0x0008;
const PROFILE_DVD: u16 = 0x0010;

/// GET CONFIGURATION (MMC-6, section 6.5).
pub(super) fn configuration(unit: &LogicalUnit, choice: u8, first: u16) -> Result<Vec<u8>, Sense> {
    if choice > 2 {
        return Err(Sense::INVALID_FIELD);
    }
    let current = match unit.blocks() {
        Err(_) => PROFILE_NONE,
        Ok(blocks) if blocks <= CD_BLOCKS_MAX => PROFILE_CD,
        Ok(_) => PROFILE_DVD,
    };
    let mut data = vec![0, 0, 0, 0, 0, 0];
    data.extend(current.to_be_bytes());
    for (code, feature) in features(current) {
        let wanted = if choice == 2 { code == first } else { code >= first };
        // All of them are current but for what needs a medium.
        if wanted && (choice != 1 || feature[2] & 1 != 0) {
            data.extend(feature);
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    Ok(data)
}

/// The features by number (MMC-6, section 5.3).
fn features(current: u16) -> Vec<(u16, Vec<u8>)> {
    /// Persistent and current.
    const ALWAYS: u8 = 0x03;
    let mut profiles = vec![0x00, 0x00, ALWAYS, 8];
    for profile in [PROFILE_DVD, PROFILE_CD] {
        profiles.extend(profile.to_be_bytes());
        profiles.extend([u8::from(profile == current), 0]);
    }
    // Core, version 2: SCSI.
    let core = vec![0x00, 0x01, 0x0b, 8, 0, 0, 0, 1, 1, 0, 0, 0];
    // Removable medium: a tray that can be locked, and ejects.
    let removable = vec![0x00, 0x03, 0x0b, 4, 0x39, 0, 0, 0];
    // Random readable: blocks of 2048 bytes, one at a time.
    let readable = u8::from(current != PROFILE_NONE);
    let readable = vec![0x00, 0x10, readable, 8, 0, 0, 8, 0, 0, 1, 0, 0];
    vec![(0x00, profiles), (0x01, core), (0x03, removable), (0x10, readable)]
}

/// GET EVENT STATUS NOTIFICATION (MMC-6, section 6.6).
pub(super) fn event(unit: &LogicalUnit, classes: u8) -> Vec<u8> {
    const MEDIA: u8 = 4;
    const NO_CLASS: u8 = 0x80;
    const SUPPORTED: u8 = 1 << MEDIA;
    if classes & SUPPORTED == 0 {
        return vec![0, 2, NO_CLASS, SUPPORTED];
    }
    let present = u8::from(unit.medium().is_some() && !unit.tray_open()) << 1;
    let status = present | u8::from(unit.tray_open());
    vec![0, 6, MEDIA, SUPPORTED, unit.take_media_event(), status, 0, 0]
}

/// READ DISC INFORMATION (MMC-6, section 6.22): a finished disc of one session of one track.
pub(super) fn disc_information() -> Vec<u8> {
    let mut data = vec![0; 34];
    // Complete and finalised; tracks and sessions; for unrestricted use.
    data[..8].copy_from_slice(&[0, 32, 0x0e, 1, 1, 1, 1, 0x20]);
    data
}

/// MECHANISM STATUS (MMC-6, section 6.8): one slot, no changer.
pub(super) fn mechanism_status(unit: &LogicalUnit) -> Vec<u8> {
    vec![0, u8::from(unit.tray_open()) << 4, 0, 0, 0, 1, 0, 0]
}
