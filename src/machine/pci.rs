//! PCI buses as `query-pci` shows them.

use devices::pci::{
    BAR_COUNT, BAR0, BridgeWindow, DEVICE_ID, Function, INTERRUPT_LINE, INTERRUPT_PIN, PciRoot,
    REVISION_ID, SUBSYSTEM_VENDOR_ID, Slot, VENDOR_ID,
};
use devices::qdev::DeviceTree;
use monitor::{
    PciBridgeInfo, PciBusInfo, PciDeviceClass, PciDeviceId, PciDeviceInfo, PciDevices, PciInfo,
    PciMemoryRange, PciMemoryRegion,
};
use std::sync::Arc;

type Functions = Vec<(Slot, Arc<Function>)>;

/// The root bus and what is below, with the ids that the devices of `tree` were given.
pub(super) fn root_bus(root: &PciRoot, tree: &DeviceTree) -> PciInfo {
    PciInfo { bus: 0, devices: bus(0, &root.functions(), tree) }
}

fn bus(number: u8, functions: &Functions, tree: &DeviceTree) -> Vec<PciDeviceInfo> {
    functions.iter().map(|(slot, function)| device(number, *slot, function, tree)).collect()
}

/// The id of the device that `function` belongs to; empty where it was given none.
fn id(function: &Arc<Function>, tree: &DeviceTree) -> String {
    let device = tree.root().find(|device| {
        let own = device.body().and_then(|body| body.function());
        own.is_some_and(|own| Arc::ptr_eq(own, function))
    });
    device.and_then(|device| device.id().map(str::to_owned)).unwrap_or_default()
}

fn device(bus: u8, slot: Slot, function: &Arc<Function>, tree: &DeviceTree) -> PciDeviceInfo {
    let registers = function.config();
    let pin = registers.u8(INTERRUPT_PIN);
    // A bridge has other registers where a subsystem would be named.
    let subsystem = |offset| function.bridge().is_none().then(|| registers.u16(offset).into());
    PciDeviceInfo {
        bus: bus.into(),
        slot: slot.device().into(),
        function: slot.function().into(),
        class_info: PciDeviceClass::new(registers.u16(REVISION_ID + 2)),
        id: PciDeviceId {
            device: registers.u16(DEVICE_ID).into(),
            vendor: registers.u16(VENDOR_ID).into(),
            subsystem: subsystem(SUBSYSTEM_VENDOR_ID + 2),
            subsystem_vendor: subsystem(SUBSYSTEM_VENDOR_ID),
        },
        irq: (pin != 0).then(|| registers.u8(INTERRUPT_LINE).into()),
        irq_pin: pin.into(),
        qdev_id: id(function, tree),
        pci_bridge: bridge(function, tree),
        regions: (0..BAR_COUNT).filter_map(|index| region(function, index)).collect(),
    }
}

fn bridge(function: &Function, tree: &DeviceTree) -> Option<PciBridgeInfo> {
    let bridge = function.bridge()?;
    let view = bridge.view();
    let range = |window: BridgeWindow| PciMemoryRange {
        base: window.base.cast_signed(),
        limit: window.limit.cast_signed(),
    };
    let devices = (view.secondary != 0)
        .then(|| PciDevices(bus(view.secondary, &bridge.segment().functions(), tree)));
    Some(PciBridgeInfo {
        bus: PciBusInfo {
            number: view.primary.into(),
            secondary: view.secondary.into(),
            subordinate: view.subordinate.into(),
            io_range: range(view.io),
            memory_range: range(view.memory),
            prefetchable_range: range(view.prefetch),
        },
        devices,
    })
}

/// The base address register `index`; its kind is in its low bits (PCI Local Bus 3.0, section
/// 6.2.5.1).
fn region(function: &Function, index: usize) -> Option<PciMemoryRegion> {
    let size = i64::try_from(function.bar(index)?.size()).ok()?;
    let number = u16::try_from(index).ok()?;
    let low = function.config().u32(BAR0 + 4 * number);
    let memory = low & 1 == 0;
    let address = function.bar_address(index).and_then(|address| i64::try_from(address).ok());
    Some(PciMemoryRegion {
        bar: number.into(),
        ty: if memory { "memory" } else { "io" }.to_owned(),
        address: address.unwrap_or(-1),
        size,
        prefetch: memory.then_some(low & 8 != 0),
        mem_type_64: memory.then_some(low >> 1 & 3 == 2),
    })
}
