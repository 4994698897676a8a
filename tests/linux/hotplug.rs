//! Linux finds devices that are plugged in, and lets go of those that are to leave: by ACPI on the root bus,
//! by SCSI events, and by native hot-plug below root ports.

use super::net::{self, Wire};
use super::{drive, image};
use serde_json::{Value, json};
use std::path::Path;
use testkit::LinuxGuest;

/// Two root ports, one of them with a disk of 16 MiB.
pub fn arguments(directory: &Path) -> Vec<String> {
    let cold = drive(directory, "cold", 16);
    [
        ["-drive", &cold],
        ["-device", "pcie-root-port,id=r1,chassis=1,slot=33,addr=8"],
        ["-device", "pcie-root-port,id=r2,chassis=2,slot=34,addr=9"],
        // Without vectors it interrupts by its pin, which comes out at the port's.
        ["-device", "virtio-blk-pci,drive=cold,id=cold,bus=r2,vectors=0"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// Makes an image of so many MiB, and a block node of it. Unlike a drive, it outlives the device that uses it.
fn add_node(guest: &mut LinuxGuest, directory: &Path, name: &str, mib: u64) {
    let file = json!({"driver": "file", "filename": image(directory, name, mib)});
    let node = json!({"driver": "raw", "node-name": name, "file": file});
    guest.qmp().execute_with("blockdev-add", node);
}

/// Adds a device and waits until the guest's kernel has said `found` so many times.
fn plug(guest: &mut LinuxGuest, device: &Value, found: &str, count: usize) {
    guest.qmp().execute_with("device_add", device.clone());
    guest.wait_kernel(found, count);
}

/// Removes a device; it is gone when this returns.
pub fn unplug(guest: &mut LinuxGuest, id: &str) {
    guest.qmp().execute_with("device_del", json!({"id": id}));
    let deleted = guest.qmp().wait_event("DEVICE_DELETED");
    assert_eq!(deleted["data"]["device"], id);
}

/// Writes `text` to a disk that has come, and finds it in `image`.
fn write(guest: &mut LinuxGuest, disk: &str, text: &str, image: &Path) {
    let copy = format!("dd if=/tmp/text of=/dev/{disk} conv=sync,fsync 2>/dev/null");
    guest.run(&format!("echo '{text}' >/tmp/text && {copy}"));
    let image = std::fs::read(image).unwrap();
    assert!(image.starts_with(text.as_bytes()), "{text}: what was written is in the image");
}

/// The guest returns when the kernel has let go of a disk.
fn wait_gone(guest: &mut LinuxGuest, disk: &str) {
    guest.run(&format!("while [ -e /sys/block/{disk} ]; do sleep 0.1; done"));
}

/// The drivers of both kinds of slots, and what was there from the start.
pub fn finds_slots(guest: &mut LinuxGuest) {
    let log = guest.kernel_log();
    assert!(log.contains("acpiphp: Slot [31] registered"), "{log}");
    assert!(log.contains("_OSC: OS now controls [PCIeHotplug"), "{log}");
    assert!(log.contains("pciehp: Slot #33 AttnBtn+ PwrCtrl+"), "{log}");
    // A device on a bus that the guest has given a number.
    assert_eq!(guest.run("cat /sys/block/vda/size"), "32768\n");
    let device = guest.run("basename $(readlink /sys/block/vda/device)");
    let line = guest.run(&format!("grep '{}$' /proc/interrupts", device.trim()));
    assert!(line.contains("IO-APIC"), "{line}");

    let buses = guest.qmp().execute("query-pci");
    let devices = buses[0]["devices"].as_array().unwrap();
    let port = devices.iter().find(|device| device["qdev_id"] == "r2").unwrap();
    let below = &port["pci_bridge"];
    assert_eq!(below["devices"][0]["qdev_id"], "cold", "{port}");
    assert_eq!(below["devices"][0]["bus"], below["bus"]["secondary"]);
    let arguments = json!({"command-line": "info pci"});
    let text = guest.qmp().execute_with("human-monitor-command", arguments);
    let text = text.as_str().unwrap();
    assert!(text.contains("secondary bus 2.") && text.contains("id \"cold\""), "{text}");
}

/// A disk and a network device in slots of the root bus, and a disk behind the SCSI adapter.
pub fn by_acpi(guest: &mut LinuxGuest, directory: &Path, wire: &Wire) {
    add_node(guest, directory, "a", 8);
    add_node(guest, directory, "b", 24);
    let blk = json!({"driver": "virtio-blk-pci", "drive": "a", "id": "x", "addr": "1e.0"});
    let disk = json!({"driver": "scsi-hd", "drive": "b", "id": "y", "bus": "s.0"});
    for count in 1..=2 {
        plug(guest, &blk, "[vdb] 16384 512-byte logical blocks", count);
        write(guest, "vdb", &format!("round {count} on the block device"), &directory.join("a"));
        unplug(guest, "x");
        // The directory of a device that is gone ends with the last user of it.
        wait_gone(guest, "vdb");
        let left = guest.run("echo /sys/bus/pci/devices/0000:00:1e.*");
        assert_eq!(left, "/sys/bus/pci/devices/0000:00:1e.*\n");

        plug(guest, &disk, "[sdb] Attached SCSI disk", count);
        assert_eq!(guest.run("cat /sys/block/sdb/size"), "49152\n");
        unplug(guest, "y");
        // The same unit is found again only when the kernel has let go of the old one.
        wait_gone(guest, "sdb");
        guest.wait_kernel("[sdb] Synchronizing SCSI cache", count);

        guest.wait_kernel("pci 0000:00:1e.0: [1af4:1042]", count);
        net::cycle(guest, wire, &json!({"bus": "pci.0", "addr": "1d"}));
        guest.wait_kernel("pci 0000:00:1d.0: [1af4:1041]", count);
    }
}

/// A disk and a network device below a port; and a disk that the guest itself switches off.
pub fn below_root_ports(guest: &mut LinuxGuest, directory: &Path, wire: &Wire) {
    add_node(guest, directory, "c", 12);
    let blk = json!({"driver": "virtio-blk-pci", "drive": "c", "id": "z", "bus": "r1"});
    for count in 1..=2 {
        plug(guest, &blk, "[vdb] 24576 512-byte logical blocks", count);
        write(guest, "vdb", &format!("round {count} below a port"), &directory.join("c"));
        unplug(guest, "z");
        wait_gone(guest, "vdb");
        net::cycle(guest, wire, &json!({"bus": "r1"}));
    }
    guest.wait_kernel("pciehp: Slot(33): Card present", 4);
    guest.wait_kernel("pciehp: Slot(33): Link Up", 4);
    guest.wait_kernel("pciehp: Slot(33): Powering off due to button press", 4);
    guest.run("echo 0 >/sys/bus/pci/slots/34/power");
    let deleted = guest.qmp().wait_event("DEVICE_DELETED");
    assert_eq!(deleted["data"]["device"], "cold");
    wait_gone(guest, "vda");
}
