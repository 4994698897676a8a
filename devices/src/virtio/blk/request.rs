//! From a descriptor chain to a request (section 5.2.6).

use crate::block::{Request, SECTOR, Segments};
use crate::virtio::queue::{ChainFault, Gathered};
use virtio_bindings::virtio_blk as vb;
use vm_memory::GuestAddress;

/// Bytes of `struct virtio_blk_req` before the data.
const HEADER: u64 = 16;
/// Bytes of `struct virtio_blk_discard_write_zeroes`.
const RANGE: u64 = 16;

/// The status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = vb::VIRTIO_BLK_S_OK as u8,
    IoError = vb::VIRTIO_BLK_S_IOERR as u8,
    Unsupported = vb::VIRTIO_BLK_S_UNSUPP as u8,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The disk does it, on the data left in the segments.
    Submit(Request),
    /// The identity goes into the segments.
    GetId,
    /// It is answered at once.
    Refuse(Status),
}

/// A request that can be answered, whatever it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) head: u16,
    /// Where the status byte goes.
    pub(super) status: GuestAddress,
    /// Bytes of the device-writable part without the status.
    pub(super) room: u64,
    pub(super) action: Action,
}

/// What the device makes of requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// In sectors.
    pub(super) capacity: u64,
    pub(super) read_only: bool,
    pub(super) logical_block: u32,
    /// Writes are stable when they complete.
    pub(super) stable: bool,
    /// The most sectors of a discard or write-zeroes request.
    pub(super) unmap_sectors_max: u32,
}

/// Reads the header of a gathered chain and leaves the request's data in `segments`.
pub(super) fn parse(
    found: &Gathered,
    segments: &mut Segments<'_>,
    rules: &Rules,
) -> Result<Parsed, ChainFault> {
    let (Some(status), true) = (found.last_byte, found.readable >= HEADER) else {
        return Err(ChainFault::Incomplete);
    };
    let parsed = |action| Parsed { head: found.head, status, room: found.writable - 1, action };
    if found.overflow {
        return Ok(parsed(Action::Refuse(Status::IoError)));
    }
    let mut header = [0; HEADER as usize];
    segments.copy_to(&mut header);
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let kind = u32::from_le_bytes([t0, t1, t2, t3]);
    let sector = u64::from_le_bytes(sector);
    Ok(parsed(rules.action(kind, sector, found, segments)))
}

impl Rules {
    fn action(
        &self,
        kind: u32,
        sector: u64,
        found: &Gathered,
        segments: &mut Segments<'_>,
    ) -> Action {
        match kind {
            vb::VIRTIO_BLK_T_IN => {
                keep_writable(found, segments);
                self.transfer(sector, segments.bytes(), |offset| Request::Read { offset })
            }
            vb::VIRTIO_BLK_T_OUT if self.read_only => Action::Refuse(Status::IoError),
            vb::VIRTIO_BLK_T_OUT => {
                keep_readable(found, segments);
                let stable = self.stable;
                self.transfer(sector, segments.bytes(), |offset| Request::Write { offset, stable })
            }
            vb::VIRTIO_BLK_T_FLUSH => Action::Submit(Request::Flush),
            vb::VIRTIO_BLK_T_GET_ID => {
                keep_writable(found, segments);
                if segments.bytes() == 0 { Action::Refuse(Status::IoError) } else { Action::GetId }
            }
            vb::VIRTIO_BLK_T_DISCARD | vb::VIRTIO_BLK_T_WRITE_ZEROES if self.read_only => {
                Action::Refuse(Status::IoError)
            }
            vb::VIRTIO_BLK_T_DISCARD => self.range(false, found, segments),
            vb::VIRTIO_BLK_T_WRITE_ZEROES => self.range(true, found, segments),
            _ => Action::Refuse(Status::Unsupported),
        }
    }

    fn transfer(&self, sector: u64, bytes: u64, request: impl FnOnce(u64) -> Request) -> Action {
        match self.offset(sector, bytes) {
            Some(offset) => Action::Submit(request(offset)),
            None => Action::Refuse(Status::IoError),
        }
    }

    /// The first byte of `bytes` bytes at `sector`, if they are whole blocks of the disk.
    fn offset(&self, sector: u64, bytes: u64) -> Option<u64> {
        let block = u64::from(self.logical_block);
        let offset = sector.checked_mul(SECTOR)?;
        let end = offset.checked_add(bytes)?;
        let inside = end <= self.capacity.checked_mul(SECTOR)?;
        (inside && (offset | bytes).is_multiple_of(block)).then_some(offset)
    }

    /// A discard or write-zeroes request: one range, with flags.
    fn range(&self, zero: bool, found: &Gathered, segments: &mut Segments<'_>) -> Action {
        keep_readable(found, segments);
        let mut range = [0; RANGE as usize];
        if segments.bytes() != RANGE {
            return Action::Refuse(Status::IoError);
        }
        segments.copy_to(&mut range);
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = range;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        // Section 5.2.6.2: unmap means something to write-zeroes only, other flags to nobody.
        let known = if zero { vb::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP } else { 0 };
        if flags & !known != 0 {
            return Action::Refuse(Status::Unsupported);
        }
        let len = u64::from(sectors) * SECTOR;
        match self.offset(sector, len) {
            Some(offset) if sectors <= self.unmap_sectors_max => Action::Submit(if zero {
                Request::WriteZeroes { offset, len, unmap: flags != 0, stable: self.stable }
            } else {
                Request::Discard { offset, len }
            }),
            _ => Action::Refuse(Status::IoError),
        }
    }
}

/// Leaves the device-readable data behind the header.
fn keep_readable(found: &Gathered, segments: &mut Segments<'_>) {
    segments.truncate(found.readable);
    segments.advance(HEADER);
}

/// Leaves the device-writable data before the status byte.
fn keep_writable(found: &Gathered, segments: &mut Segments<'_>) {
    segments.advance(found.readable);
    segments.truncate(found.writable - 1);
}
