//! Disks: their images, virtio-blk devices and PCI functions.

use crate::config::{DiskConfig, Image};
use devices::block::{self, Disk};
use devices::pci::{PciRoot, Slot};
use devices::virtio::blk::{BlkOptions, VirtioBlk};
use devices::virtio::pci::VirtioPci;
use reactor::Reactors;
use std::sync::Arc;
use vcpu::irq::Platform;
use vcpu::memory::Ram;

/// Queues that a disk gets where nobody says how many: one a vCPU, as in QEMU, up to this.
const QUEUES_AUTO_MAX: u32 = 16;

/// A disk that the guest sees.
pub(super) struct DiskDevice {
    pub(super) function: VirtioPci,
    pub(super) disk: Arc<dyn Disk>,
}

/// Opens and locks every image; all or none.
pub(super) async fn open_all(configs: &[DiskConfig]) -> Result<Vec<Arc<dyn Disk>>, String> {
    let mut disks: Vec<Arc<dyn Disk>> = Vec::new();
    for config in configs {
        let disk = match &config.image {
            Image::File(options) => block::open_file(options.clone())
                .await
                .map_err(|error| format!("-drive: {error}"))?,
            Image::Scratch(size) => {
                block::scratch(*size).await.map_err(|error| format!("the scratch disk: {error}"))?
            }
        };
        disks.push(disk);
    }
    Ok(disks)
}

/// What a disk is plugged into.
pub(super) struct Slots<'a> {
    pub(super) cpus: u32,
    pub(super) reactors: &'a Reactors,
    pub(super) ram: &'a Arc<Ram>,
    pub(super) platform: &'a Arc<dyn Platform>,
}

impl Slots<'_> {
    /// Makes the device of an opened disk and plugs it in.
    pub(super) fn plug(
        &self,
        config: &DiskConfig,
        disk: Arc<dyn Disk>,
        pci: &PciRoot,
    ) -> Result<DiskDevice, String> {
        let name = config.id.clone().unwrap_or_else(|| "virtio-blk-pci".to_owned());
        let failed = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let queues = match config.queues {
            0 => self.cpus.min(QUEUES_AUTO_MAX) as u16,
            n => n,
        };
        let options = BlkOptions {
            serial: config.serial.clone(),
            num_queues: queues,
            queue_size: config.queue_size,
            ..Default::default()
        };
        let blk = VirtioBlk::new(Arc::clone(&disk), options).map_err(|error| failed(&error))?;
        let (ram, platform) = (Arc::clone(self.ram), Arc::clone(self.platform));
        let cores = self.reactors.cores().to_vec();
        let function = VirtioPci::new(&name, Arc::new(blk), ram, platform, cores)
            .map_err(|error| failed(&error))?;
        let slot = config.slot.map(|(device, function)| Slot::new(device, function));
        let slot = slot.transpose().map_err(|error| failed(&error))?;
        pci.plug(slot, function.function()).map_err(|error| failed(&error))?;
        Ok(DiskDevice { function, disk })
    }
}
