//! The bytes between a port and what is behind it on the host.

use crate::signal::Signal;
use reactor::sync::Notify;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that wait in each direction at most.
const CAPACITY: usize = 64 * 1024;

type Bytes = Mutex<VecDeque<u8>>;

fn lock(bytes: &Bytes) -> MutexGuard<'_, VecDeque<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two bounded buffers: what the host sends, what the guest sends. Any thread; the locks are held
/// while bytes are copied.
#[derive(Default)]
pub struct PortPipe {
    to_guest: Bytes,
    to_host: Bytes,
    /// There is something behind the port.
    host_open: AtomicBool,
    /// A program of the guest has the port open.
    guest_open: AtomicBool,
    /// Bytes of the guest's next chain that the host has already: its queue is between two tasks.
    half_sent: AtomicU64,
    /// For the guest's queues: bytes, room, or an end that was opened or closed.
    pub(super) changed: Arc<Signal>,
    /// For the host: bytes to take.
    output: Notify,
    /// For the host: room for more.
    room: Notify,
}

impl PortPipe {
    /// A pipe with nothing on the host's side.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sends `bytes` to the guest; returns how many there was room for.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let n = {
            let mut queue = lock(&self.to_guest);
            let n = bytes.len().min(CAPACITY - queue.len());
            queue.extend(&bytes[..n]);
            n
        };
        self.changed.changed();
        n
    }

    /// Waits until the guest has taken something. For one task.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    /// Waits for bytes from the guest and takes them all. For one task.
    pub async fn read(&self) -> Vec<u8> {
        loop {
            let taken: Vec<u8> = lock(&self.to_host).drain(..).collect();
            if !taken.is_empty() {
                self.changed.changed();
                return taken;
            }
            self.output.notified().await;
        }
    }

    /// Whether a program of the guest has the port open.
    pub fn guest_open(&self) -> bool {
        self.guest_open.load(Ordering::Acquire)
    }

    pub(super) fn host_open(&self) -> bool {
        self.host_open.load(Ordering::Acquire)
    }

    pub(super) fn set_host_open(&self, open: bool) -> bool {
        let before = self.host_open.swap(open, Ordering::AcqRel);
        self.changed.changed();
        before != open
    }

    pub(super) fn set_guest_open(&self, open: bool) -> bool {
        let before = self.guest_open.swap(open, Ordering::AcqRel);
        self.changed.changed();
        before != open
    }

    /// The queue leaves the context with a chain of which the host has `bytes`.
    pub(super) fn keep_half_sent(&self, bytes: u64) {
        self.half_sent.store(bytes, Ordering::Release);
    }

    /// Bytes of the next chain that the host has.
    pub(super) fn take_half_sent(&self) -> u64 {
        self.half_sent.swap(0, Ordering::AcqRel)
    }

    pub(super) fn has_input(&self) -> bool {
        !lock(&self.to_guest).is_empty()
    }

    /// Takes up to `bytes.len()` bytes for the guest.
    pub(super) fn take_input(&self, bytes: &mut [u8]) -> usize {
        let n = {
            let mut queue = lock(&self.to_guest);
            let n = bytes.len().min(queue.len());
            for (to, from) in bytes.iter_mut().zip(queue.drain(..n)) {
                *to = from;
            }
            n
        };
        if n > 0 {
            self.room.notify_one();
        }
        n
    }

    /// Room for bytes of the guest.
    pub(super) fn output_room(&self) -> usize {
        CAPACITY - lock(&self.to_host).len()
    }

    /// Adds bytes of the guest, for which there is room.
    pub(super) fn add_output(&self, bytes: &[u8]) {
        {
            let mut queue = lock(&self.to_host);
            let n = bytes.len().min(CAPACITY - queue.len());
            queue.extend(&bytes[..n]);
        }
        self.output.notify_one();
    }
}
