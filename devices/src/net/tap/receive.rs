//! From the interface straight into guest memory.

use super::super::{FRAME_MAX, HEADER, NetReceiver, passes_by};
use crate::block::{SegmentTable, Segments};
use crate::signal::Watch;
use crate::virtio::Ram;
use reactor::{Fd, OpGroup, Target};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// One read at a time: the kernel hands out one packet a read, and two reads could be answered in
/// the wrong order.
pub(super) struct Receiver {
    table: SegmentTable,
    queue: Option<(Fd, OpGroup)>,
    receiving: bool,
    closed: Watch,
    gone: bool,
}

impl Receiver {
    pub(super) fn new(fd: Option<Fd>, closed: Watch, ram: &Arc<Ram>, segments: usize) -> Self {
        // What does not fit into the guest's buffers is seen by landing in the scratch memory.
        let scratch = HEADER + FRAME_MAX;
        let table = SegmentTable::with_scratch(Arc::clone(ram), 1, segments + 1, scratch);
        let queue = fd.map(|fd| {
            let fd = fd.register().unwrap_or(fd);
            let group = OpGroup::new(1, table.keep());
            group.keep(Rc::new(fd.clone()));
            (fd, group)
        });
        Self { table, queue, receiving: false, closed, gone: false }
    }
}

impl NetReceiver for Receiver {
    fn buffers(&mut self) -> Segments<'_> {
        self.table.slot(0)
    }

    fn start(&mut self) {
        let Some((fd, group)) = &self.queue else { return };
        let mut buffers = self.table.slot(0);
        let bytes = buffers.bytes();
        buffers.push_scratch();
        let (iovecs, n) = buffers.as_iovecs();
        self.receiving = true;
        // SAFETY: iovecs, guest memory and scratch are the table's storage, which the group keeps;
        // they are left alone until the completion.
        unsafe { group.readv(Target::Fd(fd), iovecs, n, u64::MAX, bytes) };
    }

    fn receiving(&self) -> bool {
        self.receiving
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.gone |= self.closed.look(cx);
        let Some((_, group)) = &self.queue else { return Poll::Pending };
        if self.gone && self.receiving {
            group.cancel_all();
        }
        let Poll::Ready(completion) = group.poll_next(cx) else { return Poll::Pending };
        self.receiving = false;
        self.table.slot(0).truncate(completion.token);
        if self.gone {
            self.queue = None;
            return Poll::Ready(None);
        }
        match completion.into_result() {
            Ok(n) => Poll::Ready(Some(u64::from(n)).filter(|n| *n > HEADER as u64)),
            Err(error) => {
                if !passes_by(&error) {
                    tracing::warn!(%error, "a tap interface brings no more packets");
                    self.queue = None;
                }
                Poll::Ready(None)
            }
        }
    }

    fn cancel(&mut self) {
        if let (true, Some((_, group))) = (self.receiving, &self.queue) {
            group.cancel_all();
        }
    }
}
