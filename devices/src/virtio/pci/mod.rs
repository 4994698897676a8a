//! The PCI transport (section 4.1): a modern device's registers, capabilities and doorbells.
//!
//! One 64-bit BAR holds the four structures, another the MSI-X table and its pending bits:
//!
//! | offset in BAR 4 | structure | section |
//! |---|---|---|
//! | 0x0000 | common configuration | 4.1.4.3 |
//! | 0x1000 | ISR status | 4.1.4.5 |
//! | 0x2000 | device configuration | 4.1.4.6 |
//! | 0x3000 | notification, 4 bytes a queue | 4.1.4.4 |
//!
//! A fifth capability opens a window on them in configuration space (section 4.1.4.9).

mod capability;
mod common;
mod doorbell;
mod life;
mod rehome;
#[cfg(test)]
mod tests;

use super::device::VirtioDevice;
use super::interrupt::{ConfigNotifier, Interrupts};
use super::{Ram, features};
use crate::pci::{
    Bar, ConfigSpace, Function, FunctionSpec, Identity, IntxPin, LayoutError, Msix, MsixPlace,
    PciDevice,
};
use capability::CfgWindow;
use common::Registers;
use doorbell::Doorbells;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use vcpu::irq::{IrqError, Platform};

const VENDOR: u16 = 0x1af4;
/// PCI device ID of a modern device, less its type (section 4.1.2.1).
const DEVICE_BASE: u16 = 0x1040;
const SUBSYSTEM: u16 = 0x1100;

const STRUCTURES_BAR: usize = 4;
const STRUCTURES_SIZE: u64 = 0x4000;
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// Bytes of each structure's part of the BAR.
const PART: u64 = 0x1000;
/// Bytes from one queue's doorbell to the next.
const NOTIFY_STEP: u64 = 4;
const QUEUES_MAX: usize = (PART / NOTIFY_STEP) as usize;

const MSIX_BAR: usize = 1;
const MSIX_PBA_MIN: u64 = 0x800;

/// Why a virtio PCI function cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VirtioPciError {
    /// No queue, too many, or one of an impossible size.
    #[error(
        "{0}: a virtio device has 1 to {QUEUES_MAX} queues, each of a power of two up to 32768"
    )]
    Queues(String),
    /// No context to run queues on.
    #[error("{0}: a virtio device needs one core context at least")]
    NoCores(String),
    /// Vectors or doorbells ran out.
    #[error(transparent)]
    Interrupts(#[from] IrqError),
    /// The registers do not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No eventfd for a doorbell.
    #[error("{name}: making the doorbell of a queue failed: {source}")]
    Doorbell {
        /// The device.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// How a virtio PCI function differs from the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioPciOptions {
    /// Other functions may share its slot.
    pub multifunction: bool,
    /// MSI-X vectors, up to 2048; 0: no MSI-X. `None`: one for each queue and one for changes of the
    /// configuration.
    pub vectors: Option<u16>,
    /// Features that the device has and shall not offer.
    pub without: u64,
}

/// A virtio device as a PCI function: the handle that the machine keeps. Clones are cheap.
#[derive(Clone)]
pub struct VirtioPci {
    transport: Arc<Transport>,
    function: Arc<Function>,
    vectors: u16,
}

impl VirtioPci {
    /// Makes the function of `device`. Queue `i` is served on `cores[i % cores.len()]`; `name`
    /// is the function's id and appears in messages.
    ///
    /// In `main`; may take the accelerator's locks.
    pub fn new(
        name: impl Into<String>,
        device: Arc<dyn VirtioDevice>,
        ram: Arc<Ram>,
        platform: Arc<dyn Platform>,
        cores: Vec<reactor::Context>,
    ) -> Result<Self, VirtioPciError> {
        Self::with_options(name, device, ram, platform, cores, VirtioPciOptions::default())
    }

    /// As [`VirtioPci::new`], with options.
    pub fn with_options(
        name: impl Into<String>,
        device: Arc<dyn VirtioDevice>,
        ram: Arc<Ram>,
        platform: Arc<dyn Platform>,
        cores: Vec<reactor::Context>,
        options: VirtioPciOptions,
    ) -> Result<Self, VirtioPciError> {
        let name = name.into();
        let sizes = device.queue_sizes();
        let sound = |size: &u16| size.is_power_of_two() && *size <= 1 << 15;
        if sizes.is_empty() || sizes.len() > QUEUES_MAX || !sizes.iter().all(sound) {
            return Err(VirtioPciError::Queues(name));
        }
        if cores.is_empty() {
            return Err(VirtioPciError::NoCores(name));
        }
        let queues = sizes.len() as u16;
        let vectors = options.vectors.unwrap_or(queues + 1);
        // A function that does not tell of its vectors has them all the same; nobody enables them.
        let msix = Msix::new(&*platform, vectors.max(1))?;
        let pin = IntxPin::new();
        let (mut spec, window) = declare(&*device, (vectors > 0).then_some(&msix), &pin)?;
        spec.multifunction(options.multifunction);
        let doorbells = Doorbells::new(platform, queues)
            .map_err(|source| VirtioPciError::Doorbell { name: name.clone(), source })?;
        let interrupts = Interrupts::new(name.clone(), sizes.len(), msix, pin);
        let transport = Arc::new_cyclic(|this| Transport {
            this: this.clone(),
            registers: Mutex::new(Registers::new(device.queue_sizes(), cores)),
            moving: reactor::sync::Mutex::new(()),
            without: options.without,
            name: name.clone(),
            interrupts: Arc::new(interrupts),
            doorbells,
            window,
            device,
            ram,
        });
        transport.device.attach(ConfigNotifier(Arc::clone(&transport.interrupts)));
        let function = Function::new(name, spec, Arc::clone(&transport) as Arc<dyn PciDevice>);
        Ok(Self { transport, function, vectors })
    }

    /// MSI-X vectors that the driver finds.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// How many queues it has.
    pub fn queues(&self) -> u16 {
        self.transport.device.queue_sizes().len() as u16
    }

    /// Moves queue `i` to `cores[i % cores.len()]`, while its driver goes on: what is in flight is
    /// finished where it was begun, what comes meanwhile waits in the rings. `cores` must not be empty.
    ///
    /// Where the requests of a queue do not end, all stay where they are; the error names that queue. In
    /// `main`.
    pub async fn move_queues(&self, cores: Vec<reactor::Context>) -> Result<(), u16> {
        self.transport.move_queues(cores, rehome::PATIENCE).await
    }

    /// As [`VirtioPci::move_queues`], for impatient tests.
    #[cfg(test)]
    pub(crate) async fn move_queues_within(
        &self,
        cores: Vec<reactor::Context>,
        patience: std::time::Duration,
    ) -> Result<(), u16> {
        self.transport.move_queues(cores, patience).await
    }

    /// What to plug into the PCI root.
    pub fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// Waits until no reset is under way. After a reset of the function (the machine's or the
    /// guest's) no queue's memory is touched any more from then on, until the driver starts again.
    pub async fn quiesced(&self) {
        poll_fn(|cx| self.transport.poll_quiesced(cx)).await;
    }

    /// Resets the device and waits until that is done: no request is in flight afterwards.
    pub async fn shutdown(&self) {
        self.transport.begin_reset();
        poll_fn(|cx| self.transport.poll_quiesced(cx)).await;
    }
}

fn declare(
    device: &dyn VirtioDevice,
    msix: Option<&Arc<Msix>>,
    pin: &Arc<IntxPin>,
) -> Result<(FunctionSpec, CfgWindow), LayoutError> {
    let mut spec = FunctionSpec::new(Identity {
        vendor: VENDOR,
        device: DEVICE_BASE + device.device_type(),
        revision: 1,
        class: device.pci_class(),
        subsystem_vendor: VENDOR,
        subsystem: SUBSYSTEM,
    });
    spec.bar(STRUCTURES_BAR, Bar::memory64(STRUCTURES_SIZE))?;
    if let Some(msix) = msix {
        let pba_offset = msix.table_size().max(MSIX_PBA_MIN);
        let msix_size = (pba_offset + msix.pba_size()).next_power_of_two().max(PART);
        spec.bar(MSIX_BAR, Bar::memory32(msix_size))?;
        let place = MsixPlace {
            table_bar: MSIX_BAR,
            table_offset: 0,
            pba_bar: MSIX_BAR,
            pba_offset: pba_offset as u32,
        };
        spec.msix(msix, place)?;
    }
    let window = capability::declare(&mut spec)?;
    spec.intx(pin);
    Ok((spec, window))
}

/// The device's side of the function.
struct Transport {
    this: Weak<Transport>,
    name: String,
    device: Arc<dyn VirtioDevice>,
    ram: Arc<Ram>,
    interrupts: Arc<Interrupts>,
    doorbells: Doorbells,
    window: CfgWindow,
    /// Features that are not offered.
    without: u64,
    registers: Mutex<Registers>,
    /// Held while queues move to other contexts.
    moving: reactor::sync::Mutex<()>,
}

impl Transport {
    /// Held for a few instructions, or for one change of doorbells.
    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offered_features(&self) -> u64 {
        self.device.features() & !self.without | features::VERSION_1
    }

    fn read_structures(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match (offset & !(PART - 1), offset & (PART - 1)) {
            (COMMON, at) => self.read_common(at, data),
            (ISR, 0) => {
                if let Some(first) = data.first_mut() {
                    *first = self.interrupts.take_isr();
                }
            }
            (DEVICE, at) => self.device.config_read(at, data),
            _ => {}
        }
    }

    fn write_structures(&self, offset: u64, data: &[u8]) {
        match (offset & !(PART - 1), offset & (PART - 1)) {
            (COMMON, at) => self.write_common(at, data),
            (DEVICE, at) => {
                let features = self.lock().driver_features();
                self.device.config_write(at, data, features);
            }
            // Where the accelerator turns the write into an event itself, it never comes here.
            (NOTIFY, at) => self.doorbells.ring((at / NOTIFY_STEP) as u16),
            _ => {}
        }
    }
}

impl PciDevice for Transport {
    fn bar_read(&self, bar: usize, offset: u64, data: &mut [u8]) {
        if bar == STRUCTURES_BAR { self.read_structures(offset, data) } else { data.fill(0) }
    }

    fn bar_write(&self, bar: usize, offset: u64, data: &[u8]) {
        if bar == STRUCTURES_BAR {
            self.write_structures(offset, data);
        }
    }

    fn bar_mapped(&self, bar: usize, base: Option<u64>) {
        if bar == STRUCTURES_BAR {
            self.doorbells.mapped(base.and_then(|base| base.checked_add(NOTIFY)));
        }
    }

    fn config_read(&self, regs: &ConfigSpace, offset: u16, data: &mut [u8]) -> bool {
        self.window.read(self, regs, offset, data)
    }

    fn config_written(&self, regs: &ConfigSpace, offset: u16, _data: &[u8]) {
        self.window.written(self, regs, offset);
    }

    fn msix_changed(&self, _enabled: bool) {
        self.interrupts.mode_changed();
    }

    fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_quiesced(cx)
    }

    fn reset(&self) {
        self.begin_reset();
    }
}
