//! Devices that come and go while the machine is there.

use serde_json::{Value, json};
use std::path::Path;
use testkit::{Qmp, Vmm};

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// An image of 4 MiB, and the `-drive` option for it.
fn drive(directory: &Path, id: &str) -> String {
    let path = directory.join(id);
    std::fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
    format!("file={},format=raw,if=none,id={id}", path.display())
}

fn add(qmp: &mut Qmp, arguments: Value) -> Result<(), String> {
    let reply = qmp.execute_raw("device_add", arguments);
    match reply["error"]["desc"].as_str() {
        Some(text) => Err(text.to_owned()),
        None => Ok(()),
    }
}

fn blk(drive: &str, id: &str) -> Value {
    json!({"driver": "virtio-blk-pci", "drive": drive, "id": id})
}

/// The ids of the devices that `query-pci` shows.
fn ids(qmp: &mut Qmp) -> Vec<String> {
    let buses = qmp.execute("query-pci");
    let devices = buses[0]["devices"].as_array().unwrap();
    let ids = devices.iter().map(|device| device["qdev_id"].as_str().unwrap().to_owned());
    ids.filter(|id| !id.is_empty()).collect()
}

#[test]
fn devices_of_the_command_line_and_of_qmp_are_alike() {
    if !testkit::kvm("devices_of_the_command_line_and_of_qmp_are_alike") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let drives = ["a", "b", "c"].map(|id| drive(directory.path(), id));
    let mut vmm = Vmm::start(
        RINGVISOR,
        &[
            "-S",
            "-device",
            "virtio-blk-pci,drive=a,id=one,addr=04.0",
            "-device",
            "{'driver': 'virtio-blk-pci', 'drive': 'b', 'id': 'two'}",
            "-drive",
            &drives[0],
            "-drive",
            &drives[1],
            "-drive",
            &drives[2],
        ],
    );
    let mut qmp = vmm.qmp();
    assert_eq!(ids(&mut qmp), ["two", "one"], "by slot");
    assert_eq!(add(&mut qmp, blk("c", "one")).unwrap_err(), "Duplicate device ID 'one'");
    add(&mut qmp, blk("c", "three")).unwrap();
    assert_eq!(ids(&mut qmp), ["two", "three", "one"]);

    // Without a guest that answers they stay until the reset, which answers for it.
    qmp.execute_with("device_del", json!({"id": "three"}));
    let error = qmp.execute_raw("device_del", json!({"id": "three"}));
    assert_eq!(
        error["error"],
        json!({"class": "GenericError", "desc": "Device three is already in the process of unplug"})
    );
    assert_eq!(ids(&mut qmp), ["two", "three", "one"]);
    qmp.execute("system_reset");
    qmp.wait_event("RESET");
    let deleted = qmp.wait_event("DEVICE_DELETED");
    assert_eq!(deleted["data"], json!({"device": "three", "path": "/machine/peripheral/three"}));
    assert_eq!(ids(&mut qmp), ["two", "one"]);
    let error = qmp.execute_raw("device_del", json!({"id": "three"}));
    assert_eq!(
        error["error"],
        json!({"class": "DeviceNotFound", "desc": "Device 'three' not found"})
    );
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn a_running_guest_lets_a_pci_disk_go() {
    if !testkit::kvm("a_running_guest_lets_a_pci_disk_go") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &[]);
    let mut qmp = vmm.qmp();
    vmm.wait_for("guest> ");
    let node = json!({"driver": "null-co", "node-name": "n", "size": 1 << 20});
    for _ in 0..3 {
        qmp.execute_with("blockdev-add", node.clone());
        add(&mut qmp, blk("n", "h")).unwrap();
        qmp.execute_with("device_del", json!({"id": "h"}));
        while qmp.wait_event("DEVICE_DELETED")["data"]["device"] != "h" {}
        qmp.execute_with("blockdev-del", json!({"node-name": "n"}));
    }
    assert!(ids(&mut qmp).is_empty());
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn the_human_monitor_plugs_devices_in_as_well() {
    if !testkit::kvm("the_human_monitor_plugs_devices_in_as_well") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let drive = drive(directory.path(), "a");
    let mut vmm = Vmm::start(RINGVISOR, &["-S", "-drive", &drive]);
    let mut qmp = vmm.qmp();
    let mut hmp = |line: &str| {
        let output = qmp.execute_with("human-monitor-command", json!({"command-line": line}));
        output.as_str().unwrap().to_owned()
    };
    assert_eq!(hmp("device_add"), "Error: Parameter 'driver' is missing\r\n");
    assert_eq!(hmp("device_add foo"), "Error: 'foo' is not a valid device model name\r\n");
    assert_eq!(hmp("device_add virtio-blk-pci"), "Error: drive property not set\r\n");
    assert!(
        hmp("device_add virtio-blk-pci,help").starts_with("virtio-blk-pci options:\r\n  addr=")
    );
    assert_eq!(hmp("device_add virtio-blk-pci,drive=a,id=x"), "");
    let brief = hmp("info qtree -b");
    assert!(brief.contains("  dev: virtio-blk-pci, id \"x\"\r\n"), "{brief}");
    assert!(brief.starts_with("bus: pci.0\r\n  type PCI\r\n  dev: "), "{brief}");
    let tree = hmp("info qtree");
    assert!(tree.contains("\r\n    drive = \"a\"\r\n") && tree.contains("    addr = 0"), "{tree}");
    assert!(hmp("info qtree -x").starts_with("unsupported option -x\r\n"));
    assert_eq!(hmp("device_del y"), "Error: Device 'y' not found\r\n");
    assert_eq!(hmp("device_del x"), "");
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}
