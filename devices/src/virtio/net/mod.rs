//! The network device (section 5.1).
//!
//! - `config`: the configuration space and the features
//! - `filter`: which frames the driver wants
//! - `receive`, `transmit`, `control`: one queue each

mod config;
mod control;
mod filter;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

pub use config::FEATURES;

use super::device::{QueueSetup, VirtioDevice, copy_config};
use super::interrupt::ConfigNotifier;
use super::metrics::{QueueCounters, QueueMetrics};
use super::serve::{idle, serve};
use crate::net::{NetBackend, NetError, Netdev, Nic, RxFilter};
use config::Limits;
use filter::{Filter, Mac};
use rcu::RcuCell;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

const DEVICE_TYPE: u16 = virtio_bindings::virtio_ids::VIRTIO_ID_NET as u16;
/// Network controller, Ethernet.
const CLASS_ETHERNET: u32 = 0x02_00_00;
const CONTROL_QUEUE_SIZE: u16 = 64;

/// What a network device is told at creation.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// `mac=`.
    pub mac: [u8; 6],
    /// `host_mtu=`: 68 to 65535.
    pub mtu: Option<u16>,
    /// `rx_queue_size=`: a power of two, 256 to 1024.
    pub rx_queue_size: u16,
    /// `tx_queue_size=`: likewise.
    pub tx_queue_size: u16,
    /// The optional features (section 5.1.3) that are wanted, a bit each; all by default. Those
    /// that the back end cannot do are not offered.
    pub features: u64,
}

impl Default for NetOptions {
    fn default() -> Self {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        Self { mac, mtu: None, rx_queue_size: 256, tx_queue_size: 256, features: u64::MAX }
    }
}

/// Why a network device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VirtioNetError {
    /// A queue size that cannot be.
    #[error("Invalid {name} (= {size}), must be a power of 2 between 256 and 1024.")]
    QueueSize {
        /// The option.
        name: &'static str,
        /// What was asked for.
        size: u16,
    },
    /// An MTU that cannot be.
    #[error("host_mtu={0} is out of range; use 68 to 65535")]
    Mtu(u16),
    /// An address that cannot be.
    #[error("mac={0} is a group address")]
    GroupAddress(String),
    /// The back end cannot be had.
    #[error(transparent)]
    Netdev(#[from] NetError),
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Receive(u16),
    Transmit(u16),
    Control,
    Unused,
}

/// What `set_link` and the end of the back end do.
#[derive(Default)]
struct Cable {
    pulled: AtomicBool,
    gone: AtomicBool,
}

/// A virtio network device.
pub struct VirtioNet {
    name: String,
    netdev: Option<Arc<Netdev>>,
    limits: Limits,
    mac: Mac,
    filter: RcuCell<Filter>,
    /// Held by who changes the filter.
    filter_changes: Mutex<()>,
    cable: Cable,
    announce: AtomicBool,
    /// Queue pairs that the driver uses.
    active: AtomicU16,
    queue_sizes: Box<[u16]>,
    metrics: Box<[Arc<QueueMetrics>]>,
    notifier: OnceLock<ConfigNotifier>,
    /// Told of a change of the filter, unless it was told and nobody has looked since.
    filter_changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    filter_told: AtomicBool,
}

impl VirtioNet {
    /// A device named `name` on `netdev`; without one, its cable is plugged into nothing.
    pub fn new(
        name: impl Into<String>,
        netdev: Option<Arc<Netdev>>,
        options: &NetOptions,
    ) -> Result<Arc<Self>, VirtioNetError> {
        check(options)?;
        let limits = Limits {
            pairs: match &netdev {
                Some(netdev) if options.features & config::MQ != 0 => netdev.backend().pairs(),
                _ => 1,
            },
            mtu: options.mtu,
            header: netdev.as_ref().is_some_and(|netdev| netdev.backend().virtio_header()),
            wanted: options.features,
        };
        let pair = [options.rx_queue_size, options.tx_queue_size];
        let mut queue_sizes = pair.repeat(usize::from(limits.pairs));
        if limits.features() & config::CTRL_VQ != 0 {
            queue_sizes.push(CONTROL_QUEUE_SIZE);
        }
        let new = Arc::new(Self {
            name: name.into(),
            limits,
            mac: options.mac,
            filter: RcuCell::new(Filter::new(options.mac)),
            filter_changes: Mutex::new(()),
            cable: Cable::default(),
            announce: AtomicBool::new(false),
            active: AtomicU16::new(1),
            metrics: queue_sizes.iter().map(|_| Arc::default()).collect(),
            queue_sizes: queue_sizes.into(),
            notifier: OnceLock::new(),
            filter_changed: OnceLock::new(),
            filter_told: AtomicBool::new(false),
            netdev,
        });
        if let Some(netdev) = &new.netdev {
            netdev.attach(Arc::downgrade(&new) as Weak<dyn Nic>)?;
            new.cable.pulled.store(netdev.link_down(), Ordering::Release);
        }
        Ok(new)
    }

    /// How many queues it has.
    pub fn queues(&self) -> u16 {
        self.queue_sizes.len() as u16
    }

    /// The counters of each queue. Any thread.
    pub fn metrics(&self) -> Vec<QueueCounters> {
        self.metrics.iter().map(|queue| queue.snapshot()).collect()
    }

    /// Names who is told when the driver wants other frames: once, until somebody has looked at the
    /// filter. The first one that is named stays.
    pub fn on_filter_change(&self, told: impl Fn() + Send + Sync + 'static) {
        let _first = self.filter_changed.set(Box::new(told));
    }

    /// Asks the driver to tell the network where it is (section 5.1.6.5.4), if it can. Any thread.
    pub fn announce(&self) {
        self.announce.store(true, Ordering::Release);
        self.config_changed();
    }

    /// The device is removed: its back end is free for another.
    pub fn detach(&self) {
        if let Some(netdev) = &self.netdev {
            netdev.detach();
        }
    }

    fn config_changed(&self) {
        if let Some(notifier) = self.notifier.get() {
            notifier.changed();
        }
    }

    fn backend(&self) -> Option<&dyn NetBackend> {
        self.netdev.as_ref().map(|netdev| &**netdev.backend())
    }

    fn link_up(&self) -> bool {
        !self.cable.pulled.load(Ordering::Acquire) && !self.cable.gone.load(Ordering::Acquire)
    }

    /// Changes the filter for the frames that come from now on.
    fn change_filter(&self, change: impl FnOnce(&mut Filter)) {
        let _one_at_a_time = self.filter_changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filter = self.filter.read(&rcu::read()).clone();
        change(&mut filter);
        self.filter.publish(filter);
    }

    /// As [`change_filter`](Self::change_filter), because the driver says so.
    fn driver_changes_filter(&self, change: impl FnOnce(&mut Filter)) {
        self.change_filter(change);
        if let Some(told) = self.filter_changed.get()
            && !self.filter_told.swap(true, Ordering::AcqRel)
        {
            told();
        }
    }

    fn set_active_pairs(&self, pairs: u16) {
        self.active.store(pairs, Ordering::Release);
        if let Some(backend) = self.backend() {
            backend.set_active_pairs(pairs);
        }
    }

    fn set_offloads(&self, features: u64) {
        if let Some(backend) = self.backend() {
            backend.set_offloads(config::offloads(features));
        }
    }

    /// Section 5.1.2: the control queue is the last one of those that the driver knows of.
    fn role(&self, index: u16, features: u64) -> Role {
        let pairs = if features & config::MQ != 0 { self.limits.pairs } else { 1 };
        match index {
            _ if index < 2 * pairs && index.is_multiple_of(2) => Role::Receive(index / 2),
            _ if index < 2 * pairs => Role::Transmit(index / 2),
            _ if index == 2 * pairs && features & config::CTRL_VQ != 0 => Role::Control,
            _ => Role::Unused,
        }
    }

    async fn serve_queue(self: Arc<Self>, setup: QueueSetup) {
        let metrics = Arc::clone(&self.metrics[usize::from(setup.index)]);
        match self.role(setup.index, setup.features) {
            Role::Receive(pair) => {
                if pair == 0 {
                    self.set_offloads(setup.features);
                }
                let worker = receive::Worker::new(self, pair, &setup);
                serve(worker, setup, metrics).await;
            }
            Role::Transmit(pair) => {
                let worker = transmit::Worker::new(self, pair, &setup);
                serve(worker, setup, metrics).await;
            }
            Role::Control => serve(Ok(control::Worker::new(self, &setup)), setup, metrics).await,
            Role::Unused => idle(setup, metrics).await,
        }
    }
}

fn check(options: &NetOptions) -> Result<(), VirtioNetError> {
    for (name, size) in
        [("rx_queue_size", options.rx_queue_size), ("tx_queue_size", options.tx_queue_size)]
    {
        if !size.is_power_of_two() || !(256..=1024).contains(&size) {
            return Err(VirtioNetError::QueueSize { name, size });
        }
    }
    if let Some(mtu) = options.mtu.filter(|mtu| *mtu < 68) {
        return Err(VirtioNetError::Mtu(mtu));
    }
    if options.mac[0] & 1 != 0 {
        return Err(VirtioNetError::GroupAddress(mac_text(options.mac)));
    }
    Ok(())
}

/// An address as users write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    let mut text = String::new();
    for (n, byte) in mac.iter().enumerate() {
        let colon = if n == 0 { "" } else { ":" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{colon}{byte:02x}");
    }
    text
}

impl Nic for VirtioNet {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn info(&self) -> String {
        let mac = mac_text(self.filter.read(&rcu::read()).mac);
        format!("{}: index=0,type=nic,model=virtio-net-pci,macaddr={mac}", self.name)
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn set_link(&self, up: bool) {
        if self.cable.pulled.swap(!up, Ordering::AcqRel) == up {
            self.config_changed();
        }
    }

    fn backend_gone(&self) {
        if !self.cable.gone.swap(true, Ordering::AcqRel) {
            self.config_changed();
        }
    }

    fn peer(&self) -> Option<Arc<Netdev>> {
        self.netdev.clone()
    }

    fn rx_filter(&self) -> RxFilter {
        self.filter_told.store(false, Ordering::Release);
        self.filter.read(&rcu::read()).describe(&self.name)
    }
}

impl VirtioDevice for VirtioNet {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn pci_class(&self) -> u32 {
        CLASS_ETHERNET
    }

    fn features(&self) -> u64 {
        self.limits.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let mac = self.filter.read(&rcu::read()).mac;
        let image = self.limits.image(mac, self.link_up(), self.announce.load(Ordering::Acquire));
        copy_config(&image, offset, data);
    }

    fn attach(&self, notifier: ConfigNotifier) {
        // A second transport would find the first one's; there is one.
        let _ = self.notifier.set(notifier);
    }

    fn serve(self: Arc<Self>, setup: QueueSetup) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.serve_queue(setup))
    }

    fn reset(&self) {
        self.change_filter(|filter| *filter = Filter::new(self.mac));
        self.announce.store(false, Ordering::Release);
        self.set_active_pairs(1);
        self.set_offloads(0);
    }
}
