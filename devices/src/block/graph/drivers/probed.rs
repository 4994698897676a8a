//! Guards an image whose format was told by its content: its guest may not write what would make it
//! another format the next time, which could name any file of the host.

use super::bytes::{Bytes, Local};
use crate::block::format::{PROBE_BYTES, Probed, probe};
use crate::block::{DiskQueue, Done, Request, Segments};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A queue on a raw image whose first bytes are guarded.
pub(super) struct GuardedQueue {
    inner: Box<dyn DiskQueue>,
    bytes: Arc<dyn Bytes>,
    /// Writes of the first bytes, of which a copy is what is looked at and then written; with what
    /// remains of each request.
    writes: FuturesUnordered<Local<'static, (usize, Request, io::Result<()>)>>,
}

impl GuardedQueue {
    pub(super) fn new(inner: Box<dyn DiskQueue>, bytes: Arc<dyn Bytes>) -> Self {
        Self { inner, bytes, writes: FuturesUnordered::new() }
    }

    /// Writes the first bytes, unless the image would become something else by that.
    fn write_start(&mut self, slot: usize, stable: bool) {
        let mut first = vec![0; PROBE_BYTES];
        let copied = self.inner.segments(slot).copy_to(&mut first);
        let bytes = Arc::clone(&self.bytes);
        let rest = Request::Write { offset: copied as u64, stable };
        self.writes.push(Box::pin(async move {
            let write = async {
                if copied < PROBE_BYTES || probe(&first) != Probed::Raw {
                    return Err(io::Error::from_raw_os_error(libc::EPERM));
                }
                bytes.write(0, first).await
            };
            (slot, rest, write.await)
        }));
    }

    /// Goes on with a request whose first bytes are written; its result when that was all.
    fn written(&mut self, slot: usize, rest: Request, result: io::Result<()>) -> Option<Done> {
        if let Err(error) = result {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            return Some(Done { slot, result: Err(errno) });
        }
        let mut list = self.inner.segments(slot);
        list.advance(PROBE_BYTES as u64);
        let all = list.bytes() == 0;
        match rest {
            Request::Write { stable: false, .. } if all => {
                return Some(Done { slot, result: Ok(()) });
            }
            Request::Write { .. } if all => self.inner.submit(slot, Request::Flush),
            rest => self.inner.submit(slot, rest),
        }
        None
    }
}

impl DiskQueue for GuardedQueue {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.inner.segments(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        match request {
            // Requests are whole sectors: no other begins among them.
            Request::Write { offset: 0, stable } => self.write_start(slot, stable),
            request => self.inner.submit(slot, request),
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        while let Poll::Ready(Some((slot, rest, result))) = self.writes.poll_next_unpin(cx) {
            if let Some(done) = self.written(slot, rest, result) {
                return Poll::Ready(done);
            }
        }
        self.inner.poll_done(cx)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.writes.len()
    }

    fn abort(&mut self) {
        self.inner.abort();
    }
}
