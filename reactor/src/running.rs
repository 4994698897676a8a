//! What a context is busy with at this moment, readable from any thread: a context that is stuck can
//! be named while it is stuck.

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

/// A task or bottom half that runs, for how long so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The task's or bottom half's name.
    pub name: &'static str,
    /// Since its poll began.
    pub since: Duration,
}

/// A sequence lock with one writer, the context's thread. An even sequence: the fields belong together.
pub(crate) struct Running {
    sequence: AtomicU32,
    name: AtomicPtr<u8>,
    len: AtomicUsize,
    /// Nanoseconds since `epoch`.
    begun: AtomicU64,
    epoch: Instant,
}

impl Running {
    pub(crate) fn new() -> Self {
        Self {
            sequence: AtomicU32::new(0),
            name: AtomicPtr::new(std::ptr::null_mut()),
            len: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    /// On the context's thread.
    pub(crate) fn begin(&self, name: &'static str, now: Instant) {
        let begun = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        self.write(name.as_ptr().cast_mut(), name.len(), begun);
    }

    /// On the context's thread.
    pub(crate) fn end(&self) {
        // The name's length tells whether there is one: the rest may stay.
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.name.store(std::ptr::null_mut(), Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    fn write(&self, name: *mut u8, len: usize, begun: u64) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the fence in `get`: who sees one of the stores below sees the odd sequence.
        fence(Ordering::Release);
        self.name.store(name, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.begun.store(begun, Ordering::Relaxed);
        // Pairs with the first load in `get`: who sees this sees the stores above.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// What runs now. Any thread; never blocks: `None` also where the context changes too fast to look.
    pub(crate) fn get(&self) -> Option<Busy> {
        for _ in 0..64 {
            let before = self.sequence.load(Ordering::Acquire);
            let name = self.name.load(Ordering::Relaxed);
            let len = self.len.load(Ordering::Relaxed);
            let begun = self.begun.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before % 2 == 1 || self.sequence.load(Ordering::Relaxed) != before {
                std::hint::spin_loop();
                continue;
            }
            if name.is_null() {
                return None;
            }
            // SAFETY: an even, unchanged sequence: pointer and length were stored together, from a
            // `&'static str`.
            let name =
                unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(name, len)) };
            let since = self.epoch.elapsed().saturating_sub(Duration::from_nanos(begun));
            return Some(Busy { name, since });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Running;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    #[test]
    fn readers_see_whole_names() {
        const NAMES: [&str; 3] = ["a", "of middling length", "quite a long name for a task"];
        let running = Arc::new(Running::new());
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (running, stop) = (Arc::clone(&running), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut seen = 0;
                while !stop.load(Ordering::Relaxed) {
                    if let Some(busy) = running.get() {
                        assert!(NAMES.contains(&busy.name), "{busy:?}");
                        seen += 1;
                    }
                }
                seen
            })
        };
        let rounds = if cfg!(miri) { 200 } else { 200_000 };
        for round in 0..rounds {
            running.begin(NAMES[round % 3], Instant::now());
            if round % 7 == 0 {
                running.end();
            }
        }
        running.begin("a", Instant::now());
        assert_eq!(running.get().map(|busy| busy.name), Some("a"));
        running.end();
        assert_eq!(running.get(), None);
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    }
}
