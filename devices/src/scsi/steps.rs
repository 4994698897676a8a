//! Commands that take several requests to the disk.

use crate::block::{Request, Segments};

/// What is left of such a command.
#[derive(Debug)]
pub struct Steps(Left);

#[derive(Debug)]
enum Left {
    /// Ranges to discard: first byte and length, the next one last.
    Unmap(Vec<(u64, u64)>),
    /// One block to be written again and again.
    Same { offset: u64, left: u64, stable: bool },
}

impl Steps {
    pub(super) fn unmap(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.reverse();
        Self(Left::Unmap(ranges))
    }

    pub(super) fn same(offset: u64, left: u64, stable: bool) -> Self {
        Self(Left::Same { offset, left, stable })
    }

    /// The next request, its data in `segments`; `None` when all is done. The block to be
    /// repeated is `block` bytes of `data` from `at` on.
    pub fn next(
        &mut self,
        segments: &mut Segments<'_>,
        data: &Segments<'_>,
        at: u64,
        block: u32,
    ) -> Option<Request> {
        match &mut self.0 {
            Left::Unmap(ranges) => {
                let (offset, len) = ranges.pop()?;
                Some(Request::Discard { offset, len })
            }
            Left::Same { offset, left, stable } => {
                segments.clear();
                // The same guest memory, as often as the list has room for it.
                while *left > 0 && segments.extend(data, at, block.into()).is_ok() {
                    *left = left.saturating_sub(block.into());
                }
                let bytes = segments.bytes();
                let request = Request::Write { offset: *offset, stable: *stable };
                *offset += bytes;
                (bytes > 0).then_some(request)
            }
        }
    }
}
