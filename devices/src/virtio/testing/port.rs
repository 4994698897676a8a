//! A device in a machine, and its driver.

use super::{Driver, DriverQueue, TestMachine};
use crate::virtio::pci::VirtioPci;
use crate::virtio::{VirtioDevice, features};
use reactor::Reactors;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

/// A virtio device at a slot, its driver not started.
pub(crate) struct Port {
    pub(crate) machine: Arc<TestMachine>,
    pub(crate) virtio: VirtioPci,
    pub(crate) driver: Driver,
    pub(crate) queues: Vec<DriverQueue>,
}

impl Port {
    pub(crate) fn new(
        machine: &Arc<TestMachine>,
        reactors: &Reactors,
        device: Arc<dyn VirtioDevice>,
    ) -> Self {
        let machine = Arc::clone(machine);
        let virtio = VirtioPci::new(
            "device0",
            device,
            Arc::clone(&machine.ram),
            Arc::clone(&machine.platform) as _,
            reactors.cores().to_vec(),
        )
        .unwrap();
        let slot = machine.plug(virtio.function());
        let driver = Driver::new(&machine, slot, 0);
        Self { machine, virtio, driver, queues: Vec::new() }
    }

    /// Brings the device up with `queues` queues of `size` entries.
    pub(crate) fn start(&mut self, features: u64, queues: u16, size: u16) {
        assert!(self.driver.negotiate(features & self.driver.offered()));
        let event_idx = features & features::EVENT_IDX != 0;
        self.driver.use_vectors(queues);
        self.queues =
            (0..queues).map(|queue| self.driver.set_up_queue(queue, size, event_idx)).collect();
        self.driver.driver_ok();
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        self.machine.ram.write_slice(data, GuestAddress(address)).unwrap();
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.machine.ram.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }
}

/// Yields until `condition` holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        reactor::yield_now().await;
    }
}
