//! Linux finds devices that are plugged in, and lets go of those that are to leave.

use super::{RINGVISOR, drive, image, log};
use serde_json::{Value, json};
use std::path::Path;
use testkit::LinuxGuest;

/// Makes an image of so many MiB, and a block node of it. Unlike a drive, it outlives the device that uses it.
fn add_node(guest: &mut LinuxGuest, directory: &Path, name: &str, mib: u64) {
    let file = json!({"driver": "file", "filename": image(directory, name, mib)});
    let node = json!({"driver": "raw", "node-name": name, "file": file});
    guest.qmp().execute_with("blockdev-add", node);
}

/// Adds a device and waits until the guest's kernel has said `found` so many times.
fn plug(guest: &mut LinuxGuest, device: Value, found: &str, count: usize) {
    guest.qmp().execute_with("device_add", device);
    guest.wait_kernel(found, count);
}

/// Removes a device; it is gone when this returns.
fn unplug(guest: &mut LinuxGuest, id: &str) {
    guest.qmp().execute_with("device_del", json!({"id": id}));
    let deleted = guest.qmp().wait_event("DEVICE_DELETED");
    assert_eq!(deleted["data"]["device"], id);
}

#[test]
fn linux_takes_and_releases_devices_by_acpi() {
    const TEST: &str = "linux_takes_and_releases_devices_by_acpi";
    if !testkit::kvm(TEST) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let args = ["-device", "virtio-scsi-pci,id=s"];
    let mut guest = LinuxGuest::boot(RINGVISOR, log(TEST), &args);
    add_node(&mut guest, directory.path(), "a", 8);
    add_node(&mut guest, directory.path(), "b", 16);
    let log = guest.kernel_log();
    assert!(log.contains("acpiphp: Slot [31] registered"), "{log}");

    let blk = json!({"driver": "virtio-blk-pci", "drive": "a", "id": "x", "addr": "1e.0"});
    let disk = json!({"driver": "scsi-hd", "drive": "b", "id": "y"});
    for count in 1..=2 {
        plug(&mut guest, blk.clone(), "[vda] 16384 512-byte logical blocks", count);
        let sectors = guest.run("cat /sys/block/vda/size");
        assert_eq!(sectors, "16384\n");
        let text = format!("round {count} on the block device");
        guest.run(&format!("echo '{text}' | dd of=/dev/vda conv=sync,fsync 2>/dev/null"));
        unplug(&mut guest, "x");
        let left = guest.run("echo /sys/block/* /sys/bus/pci/devices/0000:00:1e.*");
        assert_eq!(left, "/sys/block/* /sys/bus/pci/devices/0000:00:1e.*\n");
        let image = std::fs::read(directory.path().join("a")).unwrap();
        assert!(image.starts_with(text.as_bytes()), "what was written is in the image");

        plug(&mut guest, disk.clone(), "[sda] Attached SCSI disk", count);
        assert_eq!(guest.run("cat /sys/block/sda/size"), "32768\n");
        unplug(&mut guest, "y");
        guest.wait_kernel("[sda] Synchronizing SCSI cache", count);
        // The same unit is found again only when the kernel has let go of the old one.
        guest.run("while [ -e /sys/block/sda ]; do sleep 0.1; done");
    }
    end(guest);
}

/// The guest has nothing to complain about, and powers off.
fn end(mut guest: LinuxGuest) {
    let log = guest.kernel_log();
    for wrong in ["BUG", "WARNING", "Oops", "Call Trace", "can't assign", "Timeout on hotplug"] {
        assert!(!log.contains(wrong), "{log}");
    }
    assert_eq!(guest.power_off().code(), 0);
}

#[test]
fn linux_takes_and_releases_devices_below_root_ports() {
    const TEST: &str = "linux_takes_and_releases_devices_below_root_ports";
    if !testkit::kvm(TEST) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let b = drive(directory.path(), "b", 16);
    let mut args = vec!["-drive", &b];
    args.extend(["-device", "pcie-root-port,id=r1,chassis=1,slot=33,addr=3"]);
    args.extend(["-device", "pcie-root-port,id=r2,chassis=2,slot=34,addr=4"]);
    args.extend(["-device", "virtio-blk-pci,drive=b,id=cold,bus=r2"]);
    let mut guest = LinuxGuest::boot(RINGVISOR, log(TEST), &args);
    let log = guest.kernel_log();
    assert!(log.contains("_OSC: OS now controls [PCIeHotplug"), "{log}");
    assert!(log.contains("pciehp: Slot #33 AttnBtn+ PwrCtrl+"), "{log}");
    // A device that was there from the start, on a bus that the guest has given a number.
    assert_eq!(guest.run("cat /sys/block/vda/size"), "32768\n");

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

    add_node(&mut guest, directory.path(), "a", 8);
    for count in 1..=2 {
        let blk = json!({"driver": "virtio-blk-pci", "drive": "a", "id": "x", "bus": "r1"});
        plug(&mut guest, blk, "[vdb] 16384 512-byte logical blocks", count);
        let text = format!("round {count} below a port");
        guest.run(&format!("echo '{text}' | dd of=/dev/vdb conv=sync,fsync 2>/dev/null"));
        unplug(&mut guest, "x");
        guest.wait_kernel("pciehp: Slot(33): Attention button pressed", 2 * count);
        guest.run("while [ -e /sys/block/vdb ]; do sleep 0.1; done");
        let image = std::fs::read(directory.path().join("a")).unwrap();
        assert!(image.starts_with(text.as_bytes()), "what was written is in the image");
    }
    // The guest lets go of a device by itself.
    guest.run("echo 0 >/sys/bus/pci/slots/34/power");
    let deleted = guest.qmp().wait_event("DEVICE_DELETED");
    assert_eq!(deleted["data"]["device"], "cold");
    guest.run("[ ! -e /sys/block/vda ]");
    end(guest);
}
