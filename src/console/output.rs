//! From the guest's transmitter to a descriptor.

use devices::legacy::{ConsoleOut, Serial};
use reactor::sync::Notify;
use reactor::{Fd, io};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes that wait for the descriptor at most; then the guest sees a busy transmitter.
const CAPACITY: usize = 16 * 1024;

struct Queue {
    bytes: VecDeque<u8>,
    /// The guest has found it full and waits to be told.
    was_full: bool,
    closed: bool,
}

/// A bounded buffer in front of a descriptor, shared by the guest and the monitor.
pub(crate) struct Output {
    queue: Mutex<Queue>,
    changed: Notify,
    drained: Notify,
    serial: OnceLock<Arc<Serial>>,
}

impl Output {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue { bytes: VecDeque::new(), was_full: false, closed: false }),
            changed: Notify::new(),
            drained: Notify::new(),
            serial: OnceLock::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is told when there is room again.
    pub(crate) fn connect(&self, serial: Arc<Serial>) {
        if self.serial.set(serial).is_err() {
            tracing::warn!("the console is connected already");
        }
    }

    /// Throws everything away from here on: there is no descriptor.
    pub(crate) fn discard(&self) {
        self.lock().closed = true;
        self.drained.notify_one();
    }

    /// Queues what the monitor prints, past the bound: one reply to one typed line.
    pub(crate) fn print(&self, text: &[u8]) {
        self.lock().bytes.extend(text);
        self.changed.notify_one();
    }

    /// Writes what is queued to `fd` until closed and empty, or the descriptor fails. A task in
    /// `iohandler`.
    pub(crate) async fn serve(self: Arc<Self>, fd: Fd) {
        let mut chunk = Vec::new();
        loop {
            let (closed, was_full) = {
                let mut queue = self.lock();
                chunk.clear();
                chunk.extend(queue.bytes.drain(..));
                (queue.closed, std::mem::take(&mut queue.was_full))
            };
            if was_full && let Some(serial) = self.serial.get() {
                serial.output_ready();
            }
            if chunk.is_empty() {
                if closed {
                    break;
                }
                self.changed.notified().await;
                continue;
            }
            let (result, bytes) = io::write_all(&fd, chunk).await;
            chunk = bytes;
            if let Err(error) = result {
                // Nobody listens any more; the guest goes on unheard.
                tracing::warn!(%error, "the console's output is lost from here on");
                self.lock().closed = true;
            }
        }
        self.drained.notify_one();
    }

    /// Ends the stream; resolves when everything has been written.
    pub(crate) async fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
        self.drained.notified().await;
    }
}

impl ConsoleOut for Output {
    fn put(&self, byte: u8) -> bool {
        let first = {
            let mut queue = self.lock();
            if queue.closed {
                return true;
            }
            if queue.bytes.len() >= CAPACITY {
                queue.was_full = true;
                return false;
            }
            queue.bytes.push_back(byte);
            queue.bytes.len() == 1
        };
        // The writer takes all there is: only the first byte needs to tell it.
        if first {
            self.changed.notify_one();
        }
        true
    }

    fn ready(&self) -> bool {
        let mut queue = self.lock();
        let full = !queue.closed && queue.bytes.len() >= CAPACITY;
        queue.was_full |= full;
        !full
    }
}
