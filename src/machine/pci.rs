//! The PCI bus as `query-pci` shows it.

use devices::pci::{
    BAR_COUNT, BAR0, DEVICE_ID, Function, INTERRUPT_LINE, INTERRUPT_PIN, PciRoot, REVISION_ID,
    SUBSYSTEM_VENDOR_ID, Slot, VENDOR_ID,
};
use devices::qdev::DeviceTree;
use monitor::{PciDeviceClass, PciDeviceId, PciDeviceInfo, PciInfo, PciMemoryRegion};
use std::sync::Arc;

/// The root bus, with the ids that the devices of `tree` were given.
pub(super) fn root_bus(root: &PciRoot, tree: &DeviceTree) -> PciInfo {
    let functions = root.functions();
    let id = |slot: Slot| {
        let address = Some(u32::from(slot.devfn()));
        let device = tree.root().find(|device| {
            let on_root = device.bus().is_some_and(|bus| Arc::ptr_eq(&bus, tree.root()));
            on_root && device.address() == address
        });
        device.and_then(|device| device.id().map(str::to_owned)).unwrap_or_default()
    };
    let devices =
        functions.iter().map(|(slot, function)| device(*slot, function, id(*slot))).collect();
    PciInfo { bus: 0, devices }
}

fn device(slot: Slot, function: &Function, qdev_id: String) -> PciDeviceInfo {
    let registers = function.config();
    let pin = registers.u8(INTERRUPT_PIN);
    PciDeviceInfo {
        bus: 0,
        slot: slot.device().into(),
        function: slot.function().into(),
        class_info: PciDeviceClass::new(registers.u16(REVISION_ID + 2)),
        id: PciDeviceId {
            device: registers.u16(DEVICE_ID).into(),
            vendor: registers.u16(VENDOR_ID).into(),
            subsystem: Some(registers.u16(SUBSYSTEM_VENDOR_ID + 2).into()),
            subsystem_vendor: Some(registers.u16(SUBSYSTEM_VENDOR_ID).into()),
        },
        irq: (pin != 0).then(|| registers.u8(INTERRUPT_LINE).into()),
        irq_pin: pin.into(),
        qdev_id,
        regions: (0..BAR_COUNT).filter_map(|index| region(function, index)).collect(),
    }
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
