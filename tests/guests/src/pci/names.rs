//! Names of the devices a guest of ringvisor or QEMU meets.

/// The name of a device; by its class where the device itself is not known.
pub(crate) fn name_of(vendor: u16, device: u16, class: u32) -> &'static str {
    match (vendor, device) {
        (0x1af4, 0x1000 | 0x1041) => "virtio-net",
        (0x1af4, 0x1001 | 0x1042) => "virtio-blk",
        (0x1af4, 0x1002 | 0x1045) => "virtio-balloon",
        (0x1af4, 0x1003 | 0x1043) => "virtio-serial",
        (0x1af4, 0x1004 | 0x1048) => "virtio-scsi",
        (0x1af4, 0x1005 | 0x1044) => "virtio-rng",
        (0x1af4, 0x1009 | 0x1049) => "virtio-9p",
        (0x1af4, 0x1053) => "virtio-vsock",
        (0x1af4, 0x105a) => "virtio-fs",
        (0x8086, 0x1237) => "i440FX host bridge",
        (0x8086, 0x29c0) => "Q35 host bridge",
        (0x8086, 0x7000) => "PIIX3 ISA bridge",
        (0x8086, 0x2918) => "ICH9 ISA bridge",
        (0x1b36, 0x000c) => "PCIe root port",
        _ => class_name(class),
    }
}

fn class_name(class: u32) -> &'static str {
    match class >> 8 {
        0x0100 => "SCSI controller",
        0x0106 => "SATA controller",
        0x0108 => "NVMe controller",
        0x0200 => "Ethernet controller",
        0x0300 => "VGA controller",
        0x0600 => "host bridge",
        0x0601 => "ISA bridge",
        0x0604 => "PCI bridge",
        0x0680 => "bridge",
        0x0c03 => "USB controller",
        0x0c05 => "SMBus",
        _ => "device",
    }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn devices_are_named_by_identity_then_class() {
        assert_eq!(name_of(0x1af4, 0x1042, 0x01_0000), "virtio-blk");
        assert_eq!(name_of(0x8086, 0x2922, 0x01_0601), "SATA controller");
        assert_eq!(name_of(0x1234, 0x5678, 0xff_0000), "device");
    }
}
