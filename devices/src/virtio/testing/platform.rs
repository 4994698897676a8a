//! A platform of eventfds.

use nix::sys::eventfd::EventFd;
use reactor::Fd;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use vcpu::bus::Space;
use vcpu::irq::{IrqError, IrqLine, MsiMessage, MsiVector, Platform};

pub(crate) struct EventVector {
    fd: Fd,
    message: Mutex<Option<MsiMessage>>,
}

impl EventVector {
    /// Waits for the interrupt; how many times it was raised.
    pub(crate) async fn wait(&self) -> u64 {
        reactor::io::read_eventfd(&self.fd).await.unwrap()
    }

    /// Whether it has been raised.
    pub(crate) fn raised(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    pub(crate) fn message(&self) -> Option<MsiMessage> {
        *self.message.lock().unwrap()
    }
}

impl MsiVector for EventVector {
    fn eventfd(&self) -> &Fd {
        &self.fd
    }

    fn route(&self, message: Option<MsiMessage>) -> Result<(), IrqError> {
        *self.message.lock().unwrap() = message;
        Ok(())
    }

    fn pending(&self) -> bool {
        self.message().is_none() && self.raised()
    }
}

/// The level of one input.
#[derive(Default)]
pub(crate) struct EventLine(Mutex<bool>);

impl IrqLine for EventLine {
    fn set_level(&self, high: bool) {
        *self.0.lock().unwrap() = high;
    }
}

pub(crate) struct EventPlatform {
    vectors: Mutex<Vec<Arc<EventVector>>>,
    lines: Vec<Arc<EventLine>>,
    /// Addresses that turn into events; `None`: the platform has none of that kind.
    doorbells: Option<Mutex<Vec<(u64, Fd)>>>,
}

impl EventPlatform {
    pub(crate) fn new(doorbells: bool) -> Arc<Self> {
        Arc::new(Self {
            vectors: Mutex::default(),
            lines: (0..24).map(|_| Arc::default()).collect(),
            doorbells: doorbells.then(Mutex::default),
        })
    }

    /// The vectors in the order of their making: one device's are 0 for the configuration as
    /// tests use them, then its queues'.
    pub(crate) fn vector(&self, index: usize) -> Arc<EventVector> {
        Arc::clone(&self.vectors.lock().unwrap()[index])
    }

    /// Vectors that somebody still has.
    pub(crate) fn vectors_in_use(&self) -> usize {
        let vectors = self.vectors.lock().unwrap();
        vectors.iter().filter(|vector| Arc::strong_count(vector) > 1).count()
    }

    pub(crate) fn any_line_high(&self) -> bool {
        self.lines.iter().any(|line| *line.0.lock().unwrap())
    }

    /// Addresses of the doorbells that are registered.
    pub(crate) fn doorbells(&self) -> Vec<u64> {
        let Some(doorbells) = &self.doorbells else { return Vec::new() };
        let mut addresses: Vec<u64> =
            doorbells.lock().unwrap().iter().map(|(address, _)| *address).collect();
        addresses.sort_unstable();
        addresses
    }

    /// Rings the doorbell at `address`, if there is one.
    pub(crate) fn ring(&self, address: u64) -> bool {
        let Some(doorbells) = &self.doorbells else { return false };
        let doorbells = doorbells.lock().unwrap();
        let Some((_, fd)) = doorbells.iter().find(|(at, _)| *at == address) else { return false };
        nix::unistd::write(fd, &1u64.to_ne_bytes()).unwrap();
        true
    }
}

impl Platform for EventPlatform {
    fn msi_vector(&self) -> Result<Arc<dyn MsiVector>, IrqError> {
        let fd = Fd::from(OwnedFd::from(EventFd::new().unwrap()));
        let vector = Arc::new(EventVector { fd, message: Mutex::default() });
        self.vectors.lock().unwrap().push(Arc::clone(&vector));
        Ok(vector)
    }

    fn irq_line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        self.lines[gsi as usize].clone()
    }

    fn add_doorbell(
        &self,
        space: Space,
        address: u64,
        len: u32,
        datamatch: Option<u64>,
        fd: &Fd,
    ) -> Result<(), IrqError> {
        assert_eq!((space, len, datamatch), (Space::Mmio, 0, None));
        let Some(doorbells) = &self.doorbells else {
            return Err(IrqError::Exhausted("doorbell"));
        };
        let mut doorbells = doorbells.lock().unwrap();
        assert!(doorbells.iter().all(|(at, _)| *at != address), "{address:#x} is taken");
        doorbells.push((address, fd.clone()));
        Ok(())
    }

    fn remove_doorbell(&self, _: Space, address: u64, _: u32, _: Option<u64>, _: &Fd) {
        let doorbells = self.doorbells.as_ref().expect("nothing was added");
        let mut doorbells = doorbells.lock().unwrap();
        let index = doorbells.iter().position(|(at, _)| *at == address);
        doorbells.remove(index.expect("only what was added is removed"));
    }
}
