//! A machine under test: what a program outside drives it by.

use super::Machine;
use crate::config::QtestConfig;
use crate::qtest::{self, Outbox, Target};
use devices::VirtualClock;
use devices::chardev::{Chardevs, FrontEndKind};
use reactor::Reactors;
use std::sync::Arc;
use vcpu::address_space::AddressSpace;
use vcpu::irq::Platform;
use vcpu::memory::Ram;
use vcpu::qtest::{PhysicalMemory, Qtest};

/// What the protocol acts on, until it is served.
pub(super) struct Test {
    pub(super) pio: Arc<AddressSpace>,
    pub(super) memory: PhysicalMemory,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) outbox: Arc<Outbox>,
    /// On a machine without processors.
    pub(super) alone: Option<Alone>,
}

/// What stands in for the accelerator.
pub(super) struct Alone {
    pub(super) platform: Arc<Qtest>,
    pub(super) clock: Arc<VirtualClock>,
}

impl Test {
    /// For a machine that has no processors, with the clock that it goes by.
    pub(super) fn alone(
        ram: &Arc<Ram>,
        pio: &Arc<AddressSpace>,
        mmio: &Arc<AddressSpace>,
    ) -> (Self, Arc<VirtualClock>) {
        let outbox = Outbox::new();
        let told = Arc::clone(&outbox);
        let memory = PhysicalMemory::new(Arc::clone(ram), mmio);
        let platform = Qtest::new(memory.clone(), move |n, high| told.input(n, high));
        let clock = Arc::new(VirtualClock::new());
        let test = Self {
            pio: Arc::clone(pio),
            memory,
            platform: Arc::clone(&platform) as _,
            outbox,
            alone: Some(Alone { platform, clock: Arc::clone(&clock) }),
        };
        (test, clock)
    }

    /// For a machine whose processors run as well: its interrupts are theirs, and so is its time.
    pub(super) fn beside(
        ram: &Arc<Ram>,
        pio: &Arc<AddressSpace>,
        mmio: &Arc<AddressSpace>,
        platform: &Arc<dyn Platform>,
    ) -> Self {
        Self {
            pio: Arc::clone(pio),
            memory: PhysicalMemory::new(Arc::clone(ram), mmio),
            platform: Arc::clone(platform),
            outbox: Outbox::new(),
            alone: None,
        }
    }

    /// The reactors run: interrupt messages are stored from the context that serves the protocol.
    pub(super) fn attach(&self, reactors: &Reactors) {
        if let Some(alone) = &self.alone {
            alone.platform.attach(reactors.iohandler().clone());
        }
    }

    /// Serves the protocol on the character device that `config` names. Returns what must be sent before the
    /// process ends.
    pub(super) async fn serve(
        self,
        config: &QtestConfig,
        reactors: &Reactors,
        chardevs: &Chardevs,
        machine: &Arc<Machine>,
    ) -> Result<Arc<Outbox>, String> {
        let log = qtest::open_log(config.log.as_deref()).await?;
        let frontend = chardevs.attach(&config.chardev, FrontEndKind::Control);
        let frontend = frontend.map_err(|error| format!("{}: {error}", config.option))?;
        let clock = self.alone.map(|alone| alone.clock);
        let outbox = Arc::clone(&self.outbox);
        let target = Target::new(self.pio, self.memory, self.platform, clock, self.outbox);
        let machine = Arc::clone(machine);
        let settled = async move || machine.board.pci.settled().await;
        Arc::new(target).serve(reactors.iohandler(), frontend, log, settled);
        Ok(outbox)
    }
}
