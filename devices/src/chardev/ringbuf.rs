//! Memory that keeps the last output.

use super::connection::{Connection, stream_pair};
use super::slot::Slot;
use reactor::io;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that a ring buffer may hold at most.
const SIZE_MAX: u64 = 1 << 30;

/// A ring buffer. Any thread.
pub(super) struct Ring {
    bytes: Mutex<VecDeque<u8>>,
    size: usize,
}

impl Ring {
    /// `size` is a power of two.
    pub(super) fn new(size: u64) -> Result<Arc<Self>, String> {
        if !size.is_power_of_two() {
            return Err("size of ringbuf chardev must be power of two".to_owned());
        }
        if size > SIZE_MAX {
            return Err(format!("size of ringbuf chardev must not exceed {SIZE_MAX}"));
        }
        // Memory is taken as it is needed.
        Ok(Arc::new(Self { bytes: Mutex::default(), size: size as usize }))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes; the oldest ones make room.
    pub(super) fn write(&self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.size)..];
        let mut ring = self.lock();
        let over = (ring.len() + kept.len()).saturating_sub(self.size);
        ring.drain(..over);
        ring.extend(kept);
    }

    /// Takes up to `most` bytes out, the oldest first.
    pub(super) fn read(&self, most: usize) -> Vec<u8> {
        let mut ring = self.lock();
        let count = most.min(ring.len());
        ring.drain(..count).collect()
    }
}

/// Takes what front ends send, one after the other, for ever.
pub(super) async fn keep(ring: Arc<Ring>, slot: Arc<Slot>) {
    loop {
        let (ours, theirs) = match stream_pair() {
            Ok(pair) => pair,
            Err(error) => {
                tracing::warn!(%error, "a ring buffer takes nothing from here on");
                return;
            }
        };
        // The end shows by itself, when the other socket is closed.
        let gone = slot.offer(Connection::socket(theirs, None), "ringbuf".to_owned());
        let mut buffer = vec![0; 4096];
        loop {
            let (result, back) = io::read(&ours, buffer).await;
            buffer = back;
            match result {
                Ok(n) if n > 0 => ring.write(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        // An error means that the connection was dropped, which is its end.
        let _ = gone.await;
        slot.disconnected();
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn the_last_bytes_are_kept() {
        let ring = Ring::new(4).unwrap();
        ring.write(b"abc");
        ring.write(b"de");
        assert_eq!(ring.read(1), b"b");
        assert_eq!(ring.read(10), b"cde");
        ring.write(b"0123456789");
        assert_eq!(ring.read(10), b"6789");
        assert!(ring.read(1).is_empty());
    }

    #[test]
    fn sizes_are_powers_of_two() {
        for size in [0, 3, 1000, 1 << 40] {
            assert!(Ring::new(size).is_err(), "{size}");
        }
    }
}
