//! Devices that come and go while the machine is there.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use testkit::{Footprint, Qmp, Vmm};

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

/// A machine whose guest drives what comes and lets go of what shall leave, with I/O on a disk and on a
/// SCSI unit all the time.
struct Rig {
    vmm: Vmm,
    qmp: Qmp,
    images: PathBuf,
    cycles: usize,
}

impl Rig {
    fn start(images: &Path) -> Self {
        let [disk, unit] = ["disk", "unit"].map(|id| drive(images, id));
        let args = [
            ["-append", "hotplug;poweroff"],
            ["-drive", &disk],
            ["-device", "virtio-blk-pci,drive=disk,id=d"],
            ["-drive", &unit],
            ["-device", "virtio-scsi-pci,id=s"],
            ["-device", "scsi-hd,drive=unit,bus=s.0"],
            ["-device", "pcie-root-port,id=r1,chassis=1,addr=8"],
            ["-device", "pcie-root-port,id=r2,chassis=2,addr=9"],
        ];
        let iothreads = ["-object", "iothread,id=io0", "-object", "iothread,id=io1"];
        let mut vmm = Vmm::start(RINGVISOR, &[&iothreads[..], &args.concat()].concat());
        let mut qmp = vmm.qmp();
        // A guest that is never idle competes with the monitor for a busy machine's processors.
        qmp.set_patience(std::time::Duration::from_secs(300));
        vmm.wait_for("hotplug: a key ends it");
        for name in ["hot-disk", "hot-unit"] {
            std::fs::File::create(images.join(name)).unwrap().set_len(1 << 20).unwrap();
        }
        Self { vmm, qmp, images: images.to_owned(), cycles: 0 }
    }

    fn add_node(&mut self, name: &str) {
        let image = self.images.join(name);
        let node = json!({"driver": "file", "filename": image, "node-name": name});
        self.qmp.execute_with("blockdev-add", node);
    }

    /// A disk, a network device and a SCSI disk come, are used and go; the first two by turns on the root
    /// bus and below a root port.
    fn cycle(&mut self) {
        let places = [json!({"bus": "pci.0", "addr": "1e"}), json!({"bus": "r1"})];
        let [disk, net] = if self.cycles.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        let device = |driver: &str, id: &str, back_end: [&str; 2], place: &Value| {
            let mut device = place.clone();
            device["driver"] = driver.into();
            device["id"] = id.into();
            device[back_end[0]] = back_end[1].into();
            device
        };
        let [disk, net, unit] = [
            device("virtio-blk-pci", "x", ["drive", "hot-disk"], &places[disk]),
            device("virtio-net-pci", "y", ["netdev", "n0"], &places[net]),
            device("scsi-hd", "z", ["drive", "hot-unit"], &json!({"bus": "s.0"})),
        ];
        // A wire that ends where it begins.
        let wire = json!({"type": "unix", "path": self.images.join("wire")});
        let wire = json!({"type": "dgram", "id": "n0", "local": wire, "remote": wire});
        self.qmp.execute_with("netdev_add", wire);
        for node in ["hot-disk", "hot-unit"] {
            self.add_node(node);
        }
        for device in [disk, net, unit] {
            self.qmp.execute_with("device_add", device);
        }
        self.cycles += 1;
        self.vmm.wait_for_count("ok   plug ", 3 * self.cycles);
        let mut ids = BTreeSet::from(["x", "y", "z"]);
        for id in &ids {
            self.qmp.execute_with("device_del", json!({"id": id}));
        }
        while !ids.is_empty() {
            let deleted = self.qmp.wait_event("DEVICE_DELETED");
            let id = deleted["data"]["device"].as_str();
            assert!(id.is_some_and(|id| ids.remove(id)), "{deleted}");
        }
        self.vmm.wait_for_count("ok   unplug ", 3 * self.cycles);
        for node in ["hot-disk", "hot-unit"] {
            self.qmp.execute_with("blockdev-del", json!({"node-name": node}));
        }
        self.qmp.execute_with("netdev_del", json!({"id": "n0"}));
    }
}

#[test]
fn devices_come_and_go_200_times_while_others_are_used() {
    if !testkit::kvm("devices_come_and_go_200_times_while_others_are_used") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(directory.path());
    // Threads and pools come with the first ones.
    for _ in 0..20 {
        rig.cycle();
    }
    let before = Footprint::of(rig.vmm.pid());
    for _ in 0..200 {
        rig.cycle();
    }
    let after = Footprint::of(rig.vmm.pid());
    assert_eq!(after.files, before.files, "open files");
    // 20 KiB a cycle: less than the rings of one device.
    assert!(after.memory < before.memory + 200 * 20, "{before:?}, then {after:?}");
    rig.vmm.type_in("q");
    let finished = rig.vmm.finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let last = finished
        .console
        .lines()
        .find(|line| line.starts_with("hotplug: ") && line.contains("passed"));
    assert_eq!(last, Some("hotplug: 1321 passed, 0 failed"));
    for image in ["hot-disk", "hot-unit"] {
        let bytes = std::fs::read(directory.path().join(image)).unwrap();
        let mut blocks = bytes[..32 << 10].chunks(4096);
        assert!(blocks.all(|block| block.iter().any(|byte| *byte != 0)), "{image}");
    }
}

#[test]
fn disks_move_from_core_to_core_300_times_while_they_are_used() {
    if !testkit::kvm("disks_move_from_core_to_core_300_times_while_they_are_used") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(directory.path());
    for n in 0..300 {
        for id in ["d", "s"] {
            let place = json!({"id": id, "iothread": format!("io{}", n % 2)});
            rig.qmp.execute_with("x-device-set-iothread", place);
        }
    }
    rig.cycle();
    rig.vmm.type_in("q");
    let finished = rig.vmm.finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let passed = finished.console.lines().any(|line| line.ends_with(" passed, 0 failed"));
    assert!(passed, "{finished:#?}");
}
