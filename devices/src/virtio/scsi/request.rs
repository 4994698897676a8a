//! The headers of requests and their answers (section 5.6.6.1).

use super::config::{SENSE_SIZE_MAX, Shape};
use crate::block::Segments;
use crate::scsi::{Address, CDB_BYTES, Cdb, Failure, status};
use crate::virtio::queue::{ChainFault, Gathered};

/// Bytes of a request's header before the CDB.
const HEADER: usize = 19;
/// Bytes of an answer's header before the sense data.
const ANSWER: usize = 12;

/// The response byte of requests and of control requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Response {
    /// Also: a task management function is complete.
    Ok = 0,
    Overrun = 1,
    Aborted = 2,
    BadTarget = 3,
    Reset = 4,
    TargetFailure = 7,
    Failure = 9,
    FunctionSucceeded = 10,
    FunctionRejected = 11,
    IncorrectLun = 12,
}

/// Where a request goes: byte 0 is 1, then the target, a single-level LUN and four zero bytes.
pub(super) fn address(lun: [u8; 8]) -> Option<Address> {
    let [1, target, high, low, 0, 0, 0, 0] = lun else { return None };
    // Peripheral addressing on bus 0, or flat space addressing (SAM-5, section 4.7.7).
    let flat = high >> 6 == 1;
    let lun = u16::from_be_bytes([high & 0x3f, low]);
    (flat || high == 0).then_some(Address { target, lun })
}

/// A unit's place, as [`address`] reads it.
pub(super) fn encoded(address: Address) -> [u8; 8] {
    let [high, low, ..] = address.encoded_lun();
    [1, address.target, high, low, 0, 0, 0, 0]
}

/// A request's header, and where its parts are in its list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) head: u16,
    /// `None`: nowhere.
    pub(super) address: Option<Address>,
    pub(super) id: u64,
    pub(super) cdb: Cdb,
    pub(super) layout: Layout,
}

/// Where the parts of a request are in its list, and how long they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    /// Start of the data from the guest.
    pub(super) out_at: u64,
    pub(super) out_bytes: u64,
    /// Start of the answer.
    answer_at: u64,
    answer_bytes: u32,
    /// Start of the data to the guest.
    pub(super) in_at: u64,
    pub(super) in_bytes: u64,
}

/// Reads the header of a gathered chain, whose list is `list`.
pub(super) fn parse(
    found: &Gathered,
    list: &Segments<'_>,
    shape: Shape,
) -> Result<Header, ChainFault> {
    let out_at = HEADER as u64 + u64::from(shape.cdb);
    let answer_bytes = ANSWER as u32 + shape.sense;
    let (Some(out_bytes), Some(in_bytes), false) = (
        found.readable.checked_sub(out_at),
        found.writable.checked_sub(answer_bytes.into()),
        found.overflow,
    ) else {
        return Err(ChainFault::Incomplete);
    };
    let mut bytes = [0; HEADER + CDB_BYTES];
    let cdb_bytes = CDB_BYTES.min(shape.cdb as usize);
    list.copy_to(&mut bytes[..HEADER + cdb_bytes]);
    let [lun @ .., _, _, _] = *bytes.first_chunk::<HEADER>().ok_or(ChainFault::Incomplete)?;
    let [l0, l1, l2, l3, l4, l5, l6, l7, id @ ..] = lun;
    let mut cdb = Cdb::default();
    cdb.copy_from_slice(&bytes[HEADER..]);
    Ok(Header {
        head: found.head,
        address: address([l0, l1, l2, l3, l4, l5, l6, l7]),
        id: u64::from_le_bytes(id),
        cdb,
        layout: Layout {
            out_at,
            out_bytes,
            answer_at: found.readable,
            answer_bytes,
            in_at: found.readable + u64::from(answer_bytes),
            in_bytes,
        },
    })
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// GOOD, with this much data moved to the guest and from it.
    Good { read: u64, written: u64 },
    /// The unit says no.
    Failed(Failure),
    /// The device does.
    Refused(Response),
}

impl Layout {
    /// Writes the answer to `list`; returns how many bytes from its start on have been written.
    pub(super) fn answer(&self, list: &mut Segments<'_>, verdict: Verdict) -> u32 {
        let (status, response, moved) = match verdict {
            Verdict::Good { read, written } => (status::GOOD, Response::Ok, read + written),
            Verdict::Failed(Failure::Check(_)) => (status::CHECK_CONDITION, Response::Ok, 0),
            Verdict::Failed(Failure::Status(status)) => (status, Response::Ok, 0),
            Verdict::Refused(response) => (status::GOOD, response, 0),
        };
        let mut bytes = [0; ANSWER + SENSE_SIZE_MAX as usize];
        if let Verdict::Failed(Failure::Check(sense)) = verdict {
            let sense = sense.fixed();
            let n = sense.len().min(self.answer_bytes as usize - ANSWER);
            bytes[..4].copy_from_slice(&(n as u32).to_le_bytes());
            bytes[ANSWER..ANSWER + n].copy_from_slice(&sense[..n]);
        }
        let residual = (self.out_bytes + self.in_bytes).saturating_sub(moved);
        let residual = u32::try_from(residual).unwrap_or(u32::MAX);
        bytes[4..8].copy_from_slice(&residual.to_le_bytes());
        (bytes[10], bytes[11]) = (status, response as u8);
        list.write_at(self.answer_at, &bytes[..self.answer_bytes as usize]);
        let read = if let Verdict::Good { read, .. } = verdict { read } else { 0 };
        u32::try_from(u64::from(self.answer_bytes) + read).unwrap_or(u32::MAX)
    }
}
