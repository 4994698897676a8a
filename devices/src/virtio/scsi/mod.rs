//! The SCSI host device (section 5.6): 256 targets of 16384 logical units.
//!
//! - `config`: the configuration space and the features
//! - `request`: a descriptor chain becomes a command; its answer
//! - `worker`: one request queue; `units`: the disks it has opened
//! - `control`: task management; `order`, `mailbox`: how it reaches the request queues
//! - `event`: units that come, go and change

mod config;
mod control;
mod event;
mod mailbox;
mod order;
mod request;
#[cfg(test)]
mod tests;
mod units;
mod worker;

use super::device::{QueueSetup, VirtioDevice, copy_config};
use super::metrics::{QueueCounters, QueueMetrics};
use super::serve::serve;
use crate::block::Disk;
use crate::scsi::{Address, Attention, Bus, BusError, Found, LogicalUnit};
use config::Sizes;
use control::Control;
use event::{Event, EventBox, Events};
use mailbox::Mailboxes;
use order::{Deed, Order, Scope};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use worker::Worker;

const DEVICE_TYPE: u16 = virtio_bindings::virtio_ids::VIRTIO_ID_SCSI as u16;
/// Mass storage, SCSI.
const CLASS_STORAGE_SCSI: u32 = 0x01_00_00;

const CONTROL_QUEUE: u16 = 0;
const EVENT_QUEUE: u16 = 1;
/// Queues that are not request queues.
const FIXED_QUEUES: u16 = 2;

const REQUEST_QUEUES_MAX: u16 = 1022;
/// The kernel takes no more segments a call (`IOV_MAX`); a queue's size bounds a request's.
const QUEUE_SIZE_MAX: u16 = 1024;
const QUEUE_SIZE_MIN: u16 = 4;

/// What a SCSI host device is told at creation.
#[derive(Clone, Debug)]
pub struct ScsiOptions {
    /// `num_queues=`: request queues, 1 to 1022.
    pub num_queues: u16,
    /// `virtqueue_size=`: a power of two, 4 to 1024.
    pub queue_size: u16,
    /// Data segments in a request, as the driver is told; `None`: all that a queue has room for.
    pub seg_max: Option<u32>,
    /// `max_sectors=`: sectors of 512 bytes in a request, as the driver is told.
    pub max_sectors: u32,
    /// `cmd_per_lun=`: commands in flight to one unit, as the driver is told; 1 or more.
    pub cmd_per_lun: u32,
    /// `hotplug=`: the driver can be told of units that come and go.
    pub hotplug: bool,
    /// `param_change=`: the driver can be told of units that change.
    pub param_change: bool,
}

impl Default for ScsiOptions {
    fn default() -> Self {
        Self {
            num_queues: 1,
            queue_size: 256,
            seg_max: None,
            max_sectors: 0xffff,
            cmd_per_lun: 128,
            hotplug: true,
            param_change: true,
        }
    }
}

/// Why a SCSI host device cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScsiError {
    /// A number of queues that cannot be.
    #[error("num_queues={0} is out of range; use 1 to {REQUEST_QUEUES_MAX}")]
    NumQueues(u16),
    /// A queue size that cannot be.
    #[error("virtqueue_size={0} is not a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}")]
    QueueSize(u16),
    /// No command at all.
    #[error("cmd_per_lun=0 would allow no command; use 1 or more")]
    CmdPerLun,
}

/// A virtio SCSI host device.
pub struct VirtioScsi {
    bus: Bus,
    options: ScsiOptions,
    sizes: Sizes,
    queue_sizes: Box<[u16]>,
    metrics: Box<[Arc<QueueMetrics>]>,
    /// To the request queues.
    orders: Mailboxes<Arc<Order>>,
    /// To the event queue.
    events: EventBox,
}

impl VirtioScsi {
    /// A host device with an empty bus.
    pub fn new(options: ScsiOptions) -> Result<Self, ScsiError> {
        let ScsiOptions { num_queues, queue_size, cmd_per_lun, .. } = options;
        if !(1..=REQUEST_QUEUES_MAX).contains(&num_queues) {
            return Err(ScsiError::NumQueues(num_queues));
        }
        if !queue_size.is_power_of_two() || !(QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&queue_size)
        {
            return Err(ScsiError::QueueSize(queue_size));
        }
        if cmd_per_lun == 0 {
            return Err(ScsiError::CmdPerLun);
        }
        let queues = num_queues + FIXED_QUEUES;
        Ok(Self {
            bus: Bus::default(),
            options,
            sizes: Sizes::default(),
            queue_sizes: vec![queue_size; usize::from(queues)].into(),
            metrics: (0..queues).map(|_| Arc::default()).collect(),
            orders: Mailboxes::default(),
            events: EventBox::default(),
        })
    }

    /// The units. To be changed through this device only, so that the guest is told.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The counters of each queue: control, events, then requests. Any thread.
    pub fn metrics(&self) -> Vec<QueueCounters> {
        self.metrics.iter().map(|queue| queue.snapshot()).collect()
    }

    /// Adds a unit and tells the guest. In `main`.
    pub fn plug(&self, address: Address, unit: Arc<LogicalUnit>) -> Result<(), BusError> {
        self.bus.add(address, unit)?;
        self.events.post(Event::Added(address));
        Ok(())
    }

    /// Removes a unit at once and tells the guest; commands in flight end and are answered. The
    /// result completes when a grace period has passed and no queue uses the unit's disk any
    /// more; `None` where there was no unit. In `main`.
    pub fn unplug(&self, address: Address) -> Option<impl Future<Output = ()> + Send + 'static> {
        let gone = self.bus.remove(address)?;
        self.orders.wake();
        self.events.post(Event::Removed(address));
        Some(async move {
            // Either way it is gone.
            let _ = gone.await;
        })
    }

    /// The size of a unit's disk has changed: the guest is told. Any thread.
    pub fn size_changed(&self, address: Address) {
        if let Found::Unit(member) = self.bus.find(address) {
            member.unit.attend(Attention::CapacityChanged);
            let sense = Attention::CapacityChanged.sense();
            self.events.post(Event::Changed(address, sense));
        }
    }

    /// Puts another medium into a unit, or none. The result completes when no queue uses the old one
    /// any more; `None` where there is no unit. In `main`.
    pub fn change_medium(
        &self,
        address: Address,
        medium: Option<Arc<dyn Disk>>,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let Found::Unit(member) = self.bus.find(address) else { return None };
        member.unit.set_medium(medium);
        let (order, done) = Order::new(Scope::Unit(address), Deed::Release);
        self.orders.post(&order);
        Some(async move {
            let _ = done.await;
        })
    }
}

impl VirtioDevice for VirtioScsi {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn pci_class(&self) -> u32 {
        CLASS_STORAGE_SCSI
    }

    fn features(&self) -> u64 {
        let unwanted = |wanted, feature| if wanted { 0 } else { feature };
        config::OFFERED
            & !unwanted(self.options.hotplug, config::HOTPLUG)
            & !unwanted(self.options.param_change, config::CHANGE)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        copy_config(&config::image(&self.options, self.sizes.shape()), offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8], _features: u64) {
        self.sizes.write(offset, data);
    }

    fn serve(self: Arc<Self>, setup: QueueSetup) -> Pin<Box<dyn Future<Output = ()>>> {
        let metrics = Arc::clone(&self.metrics[usize::from(setup.index)]);
        match setup.index {
            CONTROL_QUEUE => Box::pin(serve(Ok(Control::new(self, &setup)), setup, metrics)),
            EVENT_QUEUE => Box::pin(serve(Ok(Events::new(self, &setup)), setup, metrics)),
            _ => Box::pin(serve(Ok(Worker::new(self, &setup)), setup, metrics)),
        }
    }

    fn started(&self, features: u64) {
        self.events.open(features);
    }

    fn reset(&self) {
        self.events.close();
        self.sizes.reset();
        for member in self.bus.select(|_| true) {
            member.unit.reset(Attention::PowerOn);
        }
    }
}
