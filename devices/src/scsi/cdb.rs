//! From a command descriptor block to a command.

use super::opcodes::{self, Known};
use super::sense::Sense;
use super::unit::Kind;

/// Bytes of the longest CDB that is understood.
pub const CDB_BYTES: usize = 16;

/// A CDB, zero-padded.
pub type Cdb = [u8; CDB_BYTES];

/// Which way a command's data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// There is none.
    None,
    /// To the guest.
    In,
    /// From the guest.
    Out,
}

/// Blocks of the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The first one.
    pub lba: u64,
    /// How many.
    pub count: u64,
}

/// A command whose CDB is sound. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// TEST UNIT READY.
    TestUnitReady,
    /// REQUEST SENSE.
    RequestSense {
        /// In the descriptor format.
        descriptor: bool,
        /// Allocation length.
        room: u32,
    },
    /// INQUIRY.
    Inquiry {
        /// The vital product data page asked for, if one is.
        page: Option<u8>,
        /// Allocation length.
        room: u32,
    },
    /// REPORT LUNS.
    ReportLuns {
        /// Well-known logical units only.
        well_known: bool,
        /// Allocation length.
        room: u32,
    },
    /// MODE SENSE of 6 or 10 bytes.
    ModeSense {
        /// Of 10 bytes.
        long: bool,
        /// Without block descriptors.
        bare: bool,
        /// Page control: current, changeable, default or saved values.
        control: u8,
        /// The page.
        page: u8,
        /// Its subpage.
        subpage: u8,
        /// Allocation length.
        room: u32,
    },
    /// MODE SELECT of 6 or 10 bytes.
    ModeSelect {
        /// Of 10 bytes.
        long: bool,
        /// Parameter list length.
        length: u32,
    },
    /// READ of any length.
    Read(Blocks),
    /// WRITE and WRITE AND VERIFY of any length.
    Write {
        /// Where.
        blocks: Blocks,
        /// Stable when the command ends.
        stable: bool,
    },
    /// VERIFY of any length, without comparing data; SEEK(10).
    Verify(Blocks),
    /// WRITE SAME of 10 or 16 bytes.
    WriteSame {
        /// Where.
        blocks: Blocks,
        /// The space may be freed.
        unmap: bool,
        /// No data: zeroes.
        zeroes: bool,
    },
    /// UNMAP.
    Unmap {
        /// Parameter list length.
        length: u32,
    },
    /// SYNCHRONIZE CACHE of 10 or 16 bytes.
    SynchronizeCache(Blocks),
    /// READ CAPACITY(10).
    ReadCapacity10,
    /// READ CAPACITY(16).
    ReadCapacity16 {
        /// Allocation length.
        room: u32,
    },
    /// START STOP UNIT.
    StartStop {
        /// Start, or load; otherwise stop, or eject.
        start: bool,
        /// Load or eject.
        medium: bool,
        /// A power condition other than START_VALID.
        power: bool,
    },
    /// PREVENT ALLOW MEDIUM REMOVAL.
    PreventRemoval(bool),
    /// RESERVE and RELEASE: there is one initiator, which has what it reserves.
    Reserve,
    /// REPORT SUPPORTED OPERATION CODES.
    ReportOpcodes {
        /// RCTD and the reporting options.
        options: u8,
        /// The code asked for.
        code: u8,
        /// The service action asked for.
        action: u16,
        /// Allocation length.
        room: u32,
    },
    /// READ TOC.
    ReadToc {
        /// Addresses as minute, second, frame.
        msf: bool,
        /// What is asked for.
        format: u8,
        /// The first track, or session.
        track: u8,
        /// Allocation length.
        room: u32,
    },
    /// GET CONFIGURATION.
    GetConfiguration {
        /// All features, current ones, one.
        choice: u8,
        /// The first one.
        first: u16,
        /// Allocation length.
        room: u32,
    },
    /// GET EVENT STATUS NOTIFICATION, polled.
    GetEvent {
        /// The classes asked for.
        classes: u8,
        /// Allocation length.
        room: u32,
    },
    /// READ DISC INFORMATION.
    ReadDiscInformation {
        /// Allocation length.
        room: u32,
    },
    /// MECHANISM STATUS.
    MechanismStatus {
        /// Allocation length.
        room: u32,
    },
}

fn be16(cdb: &Cdb, at: usize) -> u32 {
    u32::from(u16::from_be_bytes([cdb[at], cdb[at + 1]]))
}

fn be32(cdb: &Cdb, at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

fn be64(cdb: &Cdb, at: usize) -> u64 {
    u64::from(be32(cdb, at)) << 32 | u64::from(be32(cdb, at + 4))
}

/// The address and the number of blocks, which lie at the same place in all CDBs of a length.
fn blocks(cdb: &Cdb) -> Blocks {
    match cdb[0] >> 5 {
        0 => {
            let lba = be32(cdb, 0) & 0x1f_ffff;
            // 0 stands for 256 (SBC-3, section 5.7).
            let count = if cdb[4] == 0 { 256 } else { cdb[4].into() };
            Blocks { lba: lba.into(), count }
        }
        4 => Blocks { lba: be64(cdb, 2), count: be32(cdb, 10).into() },
        5 => Blocks { lba: be32(cdb, 2).into(), count: be32(cdb, 6).into() },
        _ => Blocks { lba: be32(cdb, 2).into(), count: be16(cdb, 7).into() },
    }
}

fn bit(byte: u8, number: u8) -> bool {
    byte >> number & 1 != 0
}

impl Command {
    /// Reads a CDB for a device of `kind`: fails with INVALID OPCODE or INVALID FIELD.
    pub fn parse(cdb: &Cdb, kind: Kind) -> Result<Self, Sense> {
        match opcodes::find(kind, cdb[0], cdb[1] & 0x1f) {
            Known::No => Err(Sense::INVALID_OPCODE),
            Known::CodeOnly => Err(Sense::INVALID_FIELD),
            Known::Yes => Self::parse_access(cdb)
                .or_else(|| Self::parse_primary(cdb))
                .or_else(|| Self::parse_mmc(cdb))
                .unwrap_or(Err(Sense::INVALID_OPCODE)),
        }
    }

    /// Commands that access the medium (SBC-3, section 5).
    fn parse_access(cdb: &Cdb) -> Option<Result<Self, Sense>> {
        let (flags, blocks) = (cdb[1], blocks(cdb));
        // Protection information is not supported: its bits are 0 (SBC-3, section 4.22).
        let unprotected = |command| {
            if flags & 0xe0 == 0 { Ok(command) } else { Err(Sense::INVALID_FIELD) }
        };
        Some(match cdb[0] {
            0x08 => Ok(Self::Read(blocks)),
            0x28 | 0x88 | 0xa8 => unprotected(Self::Read(blocks)),
            0x0a => Ok(Self::Write { blocks, stable: false }),
            0x2a | 0x8a | 0xaa => unprotected(Self::Write { blocks, stable: bit(flags, 3) }),
            // Data is compared with the medium by reading it back, which a disk does for itself.
            0x2e | 0x8e | 0xae if flags & 0x06 == 0 => {
                unprotected(Self::Write { blocks, stable: true })
            }
            0x2f | 0x8f | 0xaf if flags & 0x06 == 0 => unprotected(Self::Verify(blocks)),
            0x2e | 0x8e | 0xae | 0x2f | 0x8f | 0xaf => Err(Sense::INVALID_FIELD),
            0x2b => Ok(Self::Verify(Blocks { count: 0, ..blocks })),
            0x35 | 0x91 => Ok(Self::SynchronizeCache(blocks)),
            // Neither anchors nor blocks that differ.
            0x41 | 0x93 if flags & 0x16 != 0 => Err(Sense::INVALID_FIELD),
            0x41 | 0x93 => {
                unprotected(Self::WriteSame { blocks, unmap: bit(flags, 3), zeroes: bit(flags, 0) })
            }
            0x42 if bit(flags, 0) => Err(Sense::INVALID_FIELD),
            0x42 => Ok(Self::Unmap { length: be16(cdb, 7) }),
            0x25 => Ok(Self::ReadCapacity10),
            0x9e => Ok(Self::ReadCapacity16 { room: be32(cdb, 10) }),
            _ => return None,
        })
    }

    /// Commands of every device type (SPC-4, section 6).
    fn parse_primary(cdb: &Cdb) -> Option<Result<Self, Sense>> {
        Some(Ok(match cdb[0] {
            0x00 => Self::TestUnitReady,
            0x03 => Self::RequestSense { descriptor: bit(cdb[1], 0), room: cdb[4].into() },
            0x12 => {
                let page = bit(cdb[1], 0).then_some(cdb[2]);
                if page.is_none() && cdb[2] != 0 {
                    return Some(Err(Sense::INVALID_FIELD));
                }
                Self::Inquiry { page, room: be16(cdb, 3) }
            }
            0x15 | 0x55 => return Some(Self::parse_mode_select(cdb)),
            0x16 | 0x17 | 0x56 | 0x57 => Self::Reserve,
            0x1a | 0x5a => {
                let long = cdb[0] == 0x5a;
                Self::ModeSense {
                    long,
                    bare: bit(cdb[1], 3),
                    control: cdb[2] >> 6,
                    page: cdb[2] & 0x3f,
                    subpage: cdb[3],
                    room: if long { be16(cdb, 7) } else { cdb[4].into() },
                }
            }
            0x1b => Self::StartStop {
                start: bit(cdb[4], 0),
                medium: bit(cdb[4], 1),
                power: cdb[4] >> 4 != 0,
            },
            0x1e => Self::PreventRemoval(bit(cdb[4], 0)),
            0xa0 => {
                let room = be32(cdb, 6);
                // SPC-4, section 6.33.
                if cdb[2] > 2 || room < 16 {
                    return Some(Err(Sense::INVALID_FIELD));
                }
                Self::ReportLuns { well_known: cdb[2] == 1, room }
            }
            0xa3 => Self::ReportOpcodes {
                options: cdb[2],
                code: cdb[3],
                action: be16(cdb, 4) as u16,
                room: be32(cdb, 6),
            },
            _ => return None,
        }))
    }

    fn parse_mode_select(cdb: &Cdb) -> Result<Self, Sense> {
        let (page_format, save) = (bit(cdb[1], 4), bit(cdb[1], 0));
        // Pages are in the format of the standard, and are not saved (SPC-4, section 6.11).
        if !page_format || save {
            return Err(Sense::INVALID_FIELD);
        }
        let long = cdb[0] == 0x55;
        let length = if long { be16(cdb, 7) } else { cdb[4].into() };
        Ok(Self::ModeSelect { long, length })
    }

    /// Commands of CD drives (MMC-6, section 6).
    fn parse_mmc(cdb: &Cdb) -> Option<Result<Self, Sense>> {
        Some(Ok(match cdb[0] {
            0x43 => {
                // Old drivers put the format into the last byte.
                let format = match cdb[2] & 0x0f {
                    0 => cdb[9] >> 6,
                    format => format,
                };
                Self::ReadToc { msf: bit(cdb[1], 1), format, track: cdb[6], room: be16(cdb, 7) }
            }
            0x46 => Self::GetConfiguration {
                choice: cdb[1] & 3,
                first: be16(cdb, 2) as u16,
                room: be16(cdb, 7),
            },
            // Nobody is told of events but who asks (MMC-6, section 6.6).
            0x4a if !bit(cdb[1], 0) => return Some(Err(Sense::INVALID_FIELD)),
            0x4a => Self::GetEvent { classes: cdb[4], room: be16(cdb, 7) },
            0x51 if cdb[1] & 7 != 0 => return Some(Err(Sense::INVALID_FIELD)),
            0x51 => Self::ReadDiscInformation { room: be16(cdb, 7) },
            0xbd => Self::MechanismStatus { room: be16(cdb, 8) },
            _ => return None,
        }))
    }

    /// Which way data goes, and how many bytes the CDB asks for. `block`: bytes of a block.
    pub fn data(&self, block: u32) -> (Direction, u64) {
        let block = u64::from(block);
        match *self {
            Self::Read(blocks) => (Direction::In, blocks.count.saturating_mul(block)),
            Self::Write { blocks, .. } => (Direction::Out, blocks.count.saturating_mul(block)),
            Self::WriteSame { zeroes: false, .. } => (Direction::Out, block),
            Self::ModeSelect { length, .. } | Self::Unmap { length } => {
                (Direction::Out, length.into())
            }
            Self::ReadCapacity10 => (Direction::In, 8),
            _ => self.room().map_or((Direction::None, 0), |room| (Direction::In, room.into())),
        }
    }

    /// The allocation length of a command that tells something.
    pub fn room(&self) -> Option<u32> {
        match *self {
            Self::RequestSense { room, .. }
            | Self::Inquiry { room, .. }
            | Self::ReportLuns { room, .. }
            | Self::ModeSense { room, .. }
            | Self::ReadCapacity16 { room }
            | Self::ReportOpcodes { room, .. }
            | Self::ReadToc { room, .. }
            | Self::GetConfiguration { room, .. }
            | Self::GetEvent { room, .. }
            | Self::ReadDiscInformation { room }
            | Self::MechanismStatus { room } => Some(room),
            _ => None,
        }
    }
}

/// Whether a command of this code is carried out although a unit attention waits, which it does not
/// tell (SPC-4, sections 6.6 and 6.33; MMC-6, sections 6.5 and 6.6).
pub(super) fn passes_attention(code: u8) -> bool {
    const INQUIRY: u8 = 0x12;
    const REPORT_LUNS: u8 = 0xa0;
    const REQUEST_SENSE: u8 = 0x03;
    const GET_CONFIGURATION: u8 = 0x46;
    const GET_EVENT: u8 = 0x4a;
    matches!(code, INQUIRY | REPORT_LUNS | REQUEST_SENSE | GET_CONFIGURATION | GET_EVENT)
}
