//! A platform that keeps what devices do to it, for tests.

use crate::clock::{Clock, ClockSleep};
use crate::legacy::ConsoleOut;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use reactor::Fd;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vcpu::irq::{IrqError, IrqLine, MsiMessage, MsiVector, Platform};

/// One input of the interrupt controllers: every level it was driven to.
#[derive(Default)]
pub(crate) struct TestLine(Mutex<Vec<bool>>);

impl TestLine {
    pub(crate) fn high(&self) -> bool {
        self.0.lock().unwrap().last().copied().unwrap_or(false)
    }

    /// Low to high changes so far.
    pub(crate) fn edges(&self) -> usize {
        let levels = self.0.lock().unwrap();
        let before = std::iter::once(false).chain(levels.iter().copied());
        before.zip(levels.iter()).filter(|(before, now)| !before && **now).count()
    }
}

impl IrqLine for TestLine {
    fn set_level(&self, high: bool) {
        self.0.lock().unwrap().push(high);
    }
}

/// A message vector: where it is routed to, how often that changed, and what was delivered.
pub(crate) struct TestVector {
    fd: Fd,
    routed: Mutex<Vec<Option<MsiMessage>>>,
    delivered: AtomicUsize,
}

impl TestVector {
    fn new() -> Self {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let fd = EventFd::from_flags(flags).expect("an eventfd can be had");
        Self {
            fd: Fd::from(OwnedFd::from(fd)),
            routed: Mutex::default(),
            delivered: AtomicUsize::new(0),
        }
    }

    pub(crate) fn signal(&self) {
        nix::unistd::write(&self.fd, &1u64.to_ne_bytes()).expect("its count is small");
        if self.route_now().is_some() {
            self.deliver();
        }
    }

    pub(crate) fn route_now(&self) -> Option<MsiMessage> {
        self.routed.lock().unwrap().last().copied().flatten()
    }

    pub(crate) fn routes(&self) -> usize {
        self.routed.lock().unwrap().len()
    }

    pub(crate) fn delivered(&self) -> usize {
        self.delivered.load(Ordering::Relaxed)
    }

    // The descriptor does not block: it has no count if the read fails.
    fn deliver(&self) {
        if nix::unistd::read(&self.fd, &mut [0; 8]).is_ok() {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl MsiVector for TestVector {
    fn eventfd(&self) -> &Fd {
        &self.fd
    }

    fn route(&self, message: Option<MsiMessage>) -> Result<(), IrqError> {
        self.routed.lock().unwrap().push(message);
        if message.is_some() {
            self.deliver();
        }
        Ok(())
    }

    fn pending(&self) -> bool {
        let mut poll = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let ready = nix::poll::poll(&mut poll, PollTimeout::ZERO).expect("one descriptor");
        self.route_now().is_none() && ready > 0
    }
}

/// The platform.
pub(crate) struct TestPlatform {
    pub(crate) lines: Vec<Arc<TestLine>>,
    pub(crate) vectors: Mutex<Vec<Arc<TestVector>>>,
}

impl TestPlatform {
    pub(crate) fn new() -> Arc<Self> {
        let lines = (0..24).map(|_| Arc::default()).collect();
        Arc::new(Self { lines, vectors: Mutex::default() })
    }

    pub(crate) fn vector(&self, index: usize) -> Arc<TestVector> {
        Arc::clone(&self.vectors.lock().unwrap()[index])
    }
}

impl Platform for TestPlatform {
    fn msi_vector(&self) -> Result<Arc<dyn MsiVector>, IrqError> {
        let vector = Arc::new(TestVector::new());
        self.vectors.lock().unwrap().push(Arc::clone(&vector));
        Ok(vector)
    }

    fn irq_line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        self.lines[gsi as usize].clone()
    }
}

/// A clock that stands still until it is set.
#[derive(Default)]
pub(crate) struct TestClock {
    pub(crate) monotonic_ns: AtomicU64,
    pub(crate) wall_ns: AtomicU64,
}

impl Clock for TestClock {
    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::Relaxed)
    }

    fn wall(&self) -> Duration {
        Duration::from_nanos(self.wall_ns.load(Ordering::Relaxed))
    }

    /// It is set, never stepped: nobody is woken.
    fn sleep_until(&self, _deadline_ns: u64) -> ClockSleep {
        Box::pin(std::future::pending())
    }
}

/// A console that keeps what is written to it, as long as it has room.
pub(crate) struct TestConsole {
    pub(crate) written: Mutex<Vec<u8>>,
    pub(crate) room: AtomicUsize,
}

impl TestConsole {
    pub(crate) fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self { written: Mutex::default(), room: AtomicUsize::new(room) })
    }
}

impl ConsoleOut for TestConsole {
    fn put(&self, byte: u8) -> bool {
        let took = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1))
            .is_ok();
        if took {
            self.written.lock().unwrap().push(byte);
        }
        took
    }

    fn ready(&self) -> bool {
        self.room.load(Ordering::Relaxed) > 0
    }
}
