//! `scsi-hd` and `scsi-cd`.

use super::{BLOCK_HELP, DRIVE_PROPERTIES, DeviceType, block_size, write_cache};
use crate::block::graph::SizeListener;
use crate::error::CommandError;
use crate::qdev::property::{Kind as Holds, Property};
use crate::qdev::scsi_bus::SCSI;
use crate::qdev::setup::{Claim, Setup};
use crate::qdev::{BoxFuture, Realized};
use crate::scsi::{Address, Kind, LogicalUnit, UnitOptions};
use serde_json::Value;
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

const PROPERTIES: &[Property] = &[
    Property::uint("channel", Holds::U32, 0),
    Property::int("scsi-id", Holds::I32, -1),
    Property::int("lun", Holds::I32, -1),
    Property::new("serial", Holds::Str),
    Property::new("device_id", Holds::Str),
    Property::new("vendor", Holds::Str),
    Property::new("product", Holds::Str),
    Property::new("ver", Holds::Str),
    Property::uint("wwn", Holds::U64, 0),
    Property::uint("port_wwn", Holds::U64, 0),
    Property::uint("port_index", Holds::U16, 0),
    Property::uint("logical_block_size", Holds::Size, 0).help(BLOCK_HELP),
    Property::uint("physical_block_size", Holds::Size, 0).help(BLOCK_HELP),
    Property::uint("max_io_size", Holds::U64, i32::MAX as u64),
    Property::new("bootindex", Holds::I32).live(),
];

const HD_PROPERTIES: &[Property] = &[
    Property::bool("removable", false),
    Property::uint("rotation_rate", Holds::U16, 0),
    Property::uint("max_unmap_size", Holds::U64, 1 << 30),
];

pub(super) const SCSI_HD: DeviceType = DeviceType {
    name: "scsi-hd",
    alias: None,
    parent: "scsi-disk-base",
    category: "Storage",
    bus: SCSI,
    description: Some("virtual SCSI disk"),
    properties: &[DRIVE_PROPERTIES, PROPERTIES, HD_PROPERTIES],
    realize: |setup| Box::pin(realize(setup, Kind::Disk)) as BoxFuture<'_, _>,
};

pub(super) const SCSI_CD: DeviceType = DeviceType {
    name: "scsi-cd",
    alias: None,
    parent: "scsi-disk-base",
    category: "Storage",
    bus: SCSI,
    description: Some("virtual SCSI CD-ROM"),
    properties: &[DRIVE_PROPERTIES, PROPERTIES],
    realize: |setup| Box::pin(realize(setup, Kind::Cd)) as BoxFuture<'_, _>,
};

#[expect(clippy::unused_async, reason = "other types wait")]
async fn realize(setup: Setup<'_>, kind: Kind) -> Result<Arc<dyn Realized>, CommandError> {
    setup.step("drive")?;
    let drive = setup.properties.text("drive").filter(|drive| !drive.is_empty());
    let id = setup.path.strip_prefix("/machine/peripheral/").unwrap_or(setup.path);
    let claim = setup.claim_drive(setup.type_name, id.to_owned(), kind == Kind::Cd)?;
    let disk = claim.disk();
    let mut options = options(&setup, kind)?;
    if options.device_id.is_none() {
        options.device_id = options.serial.clone().or_else(|| drive.map(str::to_owned));
    }
    if options.physical_block == 0 {
        let disks = disk.as_ref().map_or(0, |disk| disk.info().physical_block);
        options.physical_block = disks.max(options.logical_block);
    }
    if options.logical_block > options.physical_block {
        let text = "logical_block_size > physical_block_size not supported";
        return Err(CommandError::generic(text));
    }
    setup.step("unit")?;
    let unit = LogicalUnit::new(options, disk)
        .map_err(|error| CommandError::generic(error.to_string()))?;
    let unit = Arc::new(unit);
    if unit.is_removable() {
        claim.connect_tray(&unit);
    }
    Ok(Arc::new(ScsiDisk {
        unit,
        address: OnceLock::new(),
        claim: Mutex::new(Some(claim)),
        leaving: Mutex::new(None),
    }))
}

fn options(setup: &Setup<'_>, kind: Kind) -> Result<UnitOptions, CommandError> {
    let properties = setup.properties;
    let usual = UnitOptions::new(kind);
    let text = |name: &str| properties.text(name).map(str::to_owned);
    let logical = block_size(setup, "logical_block_size")?;
    let physical = block_size(setup, "physical_block_size")?;
    Ok(UnitOptions {
        vendor: text("vendor").unwrap_or(usual.vendor),
        product: text("product").unwrap_or(usual.product),
        version: text("ver").unwrap_or(usual.version),
        serial: text("serial"),
        device_id: text("device_id"),
        wwn: properties.uint("wwn"),
        port_wwn: properties.uint("port_wwn"),
        port_index: properties.uint("port_index") as u16,
        removable: usual.removable || properties.bool("removable"),
        rotation_rate: properties.uint("rotation_rate") as u16,
        logical_block: logical.unwrap_or(usual.logical_block),
        physical_block: physical.unwrap_or(0),
        unmap_bytes_max: match properties.uint("max_unmap_size") {
            0 => usual.unmap_bytes_max,
            bytes => bytes,
        },
        io_bytes_max: properties.uint("max_io_size"),
        write_cache: write_cache(setup),
        kind,
    })
}

/// Resolves when no queue uses a unit any more.
type Leaving = BoxFuture<'static, ()>;

/// A realized disk or CD drive.
pub(in crate::qdev) struct ScsiDisk {
    unit: Arc<LogicalUnit>,
    address: OnceLock<Address>,
    claim: Mutex<Option<Claim>>,
    leaving: Mutex<Option<Leaving>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScsiDisk {
    pub(in crate::qdev) fn unit(&self) -> &Arc<LogicalUnit> {
        &self.unit
    }

    /// It has been plugged in there.
    pub(in crate::qdev) fn set_address(&self, address: Address) {
        let _first = self.address.set(address);
    }

    /// Has `listener` called in `main` after each change of the disk's size.
    pub(in crate::qdev) fn on_size_change(&self, listener: SizeListener) {
        if let Some(claim) = &*lock(&self.claim) {
            claim.on_size_change(listener);
        }
    }

    /// It has been unplugged.
    pub(in crate::qdev) fn set_leaving(&self, leaving: Leaving) {
        *lock(&self.leaving) = Some(leaving);
    }

    async fn left(&self) {
        let leaving = lock(&self.leaving).take();
        if let Some(leaving) = leaving {
            leaving.await;
        }
    }
}

impl Realized for ScsiDisk {
    fn property(&self, name: &str) -> Option<Value> {
        let address = self.address.get()?;
        Some(match name {
            "scsi-id" => address.target.into(),
            "lun" => address.lun.into(),
            "logical_block_size" => self.unit.block().into(),
            _ => return None,
        })
    }

    /// The adapter ends what is in flight; a disk whose addition fails has been unplugged.
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.left())
    }

    fn unrealize(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.left().await;
            let claim = lock(&self.claim).take();
            if let Some(claim) = claim {
                claim.release().await;
            }
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
