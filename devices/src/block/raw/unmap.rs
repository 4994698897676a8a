//! Discards and zeroes: fallocate(2) where the storage has it, plain zeroes where not.

use super::super::options::Discard;
use super::super::zero;
use super::{RawQueue, Step};

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
/// Blocks of zeroes in one write.
const BLOCKS_MAX: usize = 16;

/// How a range is made to read as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Free its space.
    Punch,
    /// Mark it zero, space kept.
    ZeroRange,
    /// Write.
    Write,
}

/// What the storage has not refused yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    punch: bool,
    zero_range: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { punch: true, zero_range: true }
    }
}

/// Whether the error says that the storage cannot do it at all.
fn unsupported(errno: i32) -> bool {
    matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY)
}

impl RawQueue {
    pub(super) fn start_discard(&mut self, slot: usize) {
        if self.discard == Discard::Ignore || self.slots[slot].left == 0 || !self.unmap.punch {
            return self.finish(slot, Ok(()));
        }
        self.punch_discard(slot);
    }

    pub(super) fn punch_discard(&mut self, slot: usize) {
        self.slots[slot].step = Step::Discard;
        self.fallocate(slot, PUNCH);
    }

    pub(super) fn start_zero(&mut self, slot: usize, unmap: bool) {
        let punch = unmap && self.discard == Discard::Unmap;
        self.zero(slot, if punch { Method::Punch } else { Method::ZeroRange });
    }

    /// Zeroes what is left of `slot`, by `method` or the next that the storage has.
    pub(super) fn zero(&mut self, slot: usize, method: Method) {
        if self.slots[slot].left == 0 {
            return self.written(slot);
        }
        let method = match method {
            Method::Punch if self.unmap.punch => Method::Punch,
            Method::Punch | Method::ZeroRange if self.unmap.zero_range => Method::ZeroRange,
            _ => Method::Write,
        };
        self.slots[slot].step = Step::Zero(method);
        match method {
            Method::Punch => self.fallocate(slot, PUNCH),
            Method::ZeroRange => self.fallocate(slot, ZERO),
            Method::Write => self.write_zeroes(slot),
        }
    }

    /// A discard is advice: storage that cannot follow it has not failed.
    pub(super) fn discard_failed(&mut self, slot: usize, errno: i32) {
        let harmless = unsupported(errno) || errno == libc::EINVAL;
        self.finish(slot, if harmless { Ok(()) } else { Err(errno) });
    }

    /// Tries the next method: for good where the storage does not have this one, for this
    /// request where it does not like the range.
    pub(super) fn zero_failed(&mut self, slot: usize, method: Method, errno: i32) {
        match method {
            Method::Punch if unsupported(errno) => self.unmap.punch = false,
            Method::ZeroRange if unsupported(errno) => self.unmap.zero_range = false,
            Method::Punch | Method::ZeroRange if errno == libc::EINVAL => {
                return self.zero(slot, Method::Write);
            }
            _ => return self.finish(slot, Err(errno)),
        }
        self.zero(slot, method);
    }

    fn fallocate(&self, slot: usize, mode: i32) {
        let state = &self.slots[slot];
        let target = self.main.target();
        self.group.fallocate(target, mode, state.offset, state.left, slot as u64);
    }

    /// Writes the next piece of zeroes.
    fn write_zeroes(&mut self, slot: usize) {
        if self.aborting {
            return self.finish(slot, Err(libc::ECANCELED));
        }
        let mut list = self.table.slot(slot);
        list.clear();
        for _ in 0..BLOCKS_MAX {
            let left = self.slots[slot].left - list.bytes();
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(zero::block().len());
            if len == 0 || !list.push_static(&zero::block()[..len]) {
                break;
            }
        }
        let state = &mut self.slots[slot];
        state.piece = list.bytes();
        state.write = true;
        self.submit_zeroes(slot);
    }

    fn submit_zeroes(&mut self, slot: usize) {
        let unaligned = self.direct.is_some_and(|direct| {
            (self.slots[slot].offset | self.slots[slot].piece) & (direct.offset as u64 - 1) != 0
        });
        self.submit_segments(slot, unaligned);
    }

    /// A step of zeroing `slot` has succeeded; `n` counts the bytes of a write.
    pub(super) fn zeroed(&mut self, slot: usize, method: Method, n: u64) {
        let (left, piece) = (self.slots[slot].left, self.slots[slot].piece);
        let done = if method == Method::Write { self.whole_blocks(n, piece) } else { left };
        let state = &mut self.slots[slot];
        if done == 0 {
            return self.finish(slot, Err(libc::ENOSPC));
        }
        state.left -= done;
        state.offset += done;
        state.retries = 0;
        self.zero(slot, method);
    }
}
