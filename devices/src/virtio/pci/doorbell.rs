//! The queues' doorbells: eventfds that follow the BAR (section 4.1.5.2).

use super::NOTIFY_STEP;
use crate::pci::signal;
use nix::sys::eventfd::{EfdFlags, EventFd};
use reactor::Fd;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vcpu::bus::Space;
use vcpu::irq::Platform;

/// Any width of write rings (section 4.1.5.2 has drivers write 16 bits, some write 32).
const ANY_WIDTH: u32 = 0;

#[derive(Default)]
struct State {
    /// Address of queue 0's doorbell while the BAR decodes.
    base: Option<u64>,
    /// Queues that are live.
    live: Vec<u16>,
    /// What the accelerator has been told: queue and address.
    registered: Vec<(u16, u64)>,
}

/// The doorbells of one device. The accelerator knows those of live queues, at the BAR's present
/// address; with an accelerator that takes none, writes come in through the BAR.
pub(super) struct Doorbells {
    platform: Arc<dyn Platform>,
    eventfds: Box<[Fd]>,
    state: Mutex<State>,
}

impl Doorbells {
    pub(super) fn new(platform: Arc<dyn Platform>, queues: u16) -> io::Result<Self> {
        // Blocking, as io_uring wants them: a read of a non-blocking one fails instead of waiting.
        let eventfd = |_| {
            let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
            Ok(Fd::from(OwnedFd::from(eventfd)))
        };
        let eventfds = (0..queues).map(eventfd).collect::<io::Result<_>>()?;
        Ok(Self { platform, eventfds, state: Mutex::default() })
    }

    /// The eventfd of `queue`.
    pub(super) fn eventfd(&self, queue: u16) -> Option<&Fd> {
        self.eventfds.get(usize::from(queue))
    }

    /// Rings from this side. Any thread.
    pub(super) fn ring(&self, queue: u16) {
        if let Some(eventfd) = self.eventfd(queue) {
            signal(eventfd);
        }
    }

    /// The BAR decodes somewhere else now, or nowhere.
    pub(super) fn mapped(&self, base: Option<u64>) {
        let mut state = self.lock();
        if state.base != base {
            state.base = base;
            self.update(&mut state);
        }
    }

    /// These queues are live now, and no others.
    pub(super) fn set_live(&self, queues: Vec<u16>) {
        let mut state = self.lock();
        state.live = queues;
        self.update(&mut state);
    }

    fn update(&self, state: &mut State) {
        let wanted: Vec<(u16, u64)> = match state.base {
            Some(base) => state
                .live
                .iter()
                .map(|queue| (*queue, base + NOTIFY_STEP * u64::from(*queue)))
                .collect(),
            None => Vec::new(),
        };
        let stale = state.registered.iter().filter(|entry| !wanted.contains(entry));
        for (queue, address) in stale {
            if let Some(fd) = self.eventfd(*queue) {
                self.platform.remove_doorbell(Space::Mmio, *address, ANY_WIDTH, None, fd);
            }
        }
        state.registered.retain(|entry| wanted.contains(entry));
        for (queue, address) in wanted {
            if !state.registered.contains(&(queue, address)) {
                self.register(state, queue, address);
            }
        }
    }

    fn register(&self, state: &mut State, queue: u16, address: u64) {
        let Some(fd) = self.eventfd(queue) else { return };
        match self.platform.add_doorbell(Space::Mmio, address, ANY_WIDTH, None, fd) {
            Ok(()) => state.registered.push((queue, address)),
            // The write then comes in through the BAR: slower, and just as good.
            Err(error) => tracing::warn!(%error, queue, "a doorbell takes the slow way"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        self.set_live(Vec::new());
    }
}
