//! Drives and block nodes behind devices: they come, go, and change their size, in QEMU's words.

use crate::blk::{Disk, IN, IO_ERROR, OK, OUT, disk};
use crate::machine::Machine;
use crate::virtio::VERSION_1;
use serde_json::{Value, json};
use testkit::Qmp;

const SIZE: u64 = 1 << 20;

/// What a line of the human monitor prints.
fn hmp(qmp: &mut Qmp, line: &str) -> String {
    let arguments = json!({"command-line": line});
    let text = qmp.execute_with("human-monitor-command", arguments);
    text.as_str().unwrap().replace('\r', "")
}

fn error(qmp: &mut Qmp, command: &str, arguments: Value) -> String {
    qmp.execute_raw(command, arguments)["error"]["desc"].as_str().unwrap_or("none").to_owned()
}

/// Drives by their ids.
fn drives(qmp: &mut Qmp) -> Vec<String> {
    let drives = qmp.execute("query-block");
    let id = |drive: &Value| drive["device"].as_str().unwrap().to_owned();
    drives.as_array().unwrap().iter().map(id).collect()
}

fn blk(drive: &str, id: &str) -> Value {
    json!({"driver": "virtio-blk-pci", "drive": drive, "id": id, "addr": "05.0"})
}

const NULL: &str = "drive_add 0 if=none,id=d1,file=null-co://,file.read-zeroes=on,format=raw";

#[test]
fn drives_are_added_and_deleted_by_hand() {
    let m = Machine::start(&[]);
    let qmp = &mut m.qmp();
    assert_eq!(hmp(qmp, NULL), "OK\n");
    assert_eq!(hmp(qmp, NULL), "Duplicate ID 'd1' for drive\n");
    assert_eq!(hmp(qmp, "drive_add 0 if=none,id=e1"), "OK\n");
    let node = qmp.execute("query-block")[0]["inserted"]["node-name"].as_str().unwrap().to_owned();
    let listed = hmp(qmp, "info block");
    assert!(listed.starts_with(&format!("d1 ({node}): json:")), "{listed}");
    let rest = "    Removable device: not locked, tray closed\n    Cache mode:       writeback\n\n\
                e1: [not inserted]\n    Removable device: not locked, tray closed\n";
    assert!(listed.ends_with(&format!(" (raw)\n{rest}")), "{listed}");
    for (line, expected) in [
        ("drive_del d1", ""),
        ("drive_del d1", "Device 'd1' not found\n"),
        ("drive_del e1", ""),
        ("info block", ""),
        ("drive_add 0 file=null-co://", "Can't hot-add drive to type 1\n"),
        ("drive_add 0 if=none,file=/nope", "Could not open '/nope': No such file or directory\n"),
        (
            "drive_add 0",
            "drive_add: string expected\nTry \"help drive_add\" for more information\n",
        ),
        (
            "drive_del",
            "drive_del: block device name expected\nTry \"help drive_del\" for more information\n",
        ),
        ("drive_add -n 0 driver=null-co,node-name=n0", ""),
        ("drive_add -n 0 driver=null-co,node-name=n0", "Duplicate nodes with node-name='n0'\n"),
        ("drive_del n0", ""),
    ] {
        assert_eq!(hmp(qmp, line), expected, "{line}");
    }
    assert_eq!(qmp.execute("query-named-block-nodes"), json!([]));
    assert_eq!(hmp(qmp, NULL), "OK\n", "the id is free");
}

#[test]
fn a_device_on_an_empty_drive_leaves_nothing_behind() {
    let m = Machine::start(&[]);
    let qmp = &mut m.qmp();
    assert_eq!(hmp(qmp, "drive_add 0 if=none,id=d1"), "OK\n");
    let text = "Device needs media, but drive is empty";
    for id in ["v1", "v1"] {
        assert_eq!(error(qmp, "device_add", blk("d1", id)), text);
    }
    assert_eq!(hmp(qmp, "drive_del d1"), "");
    assert!(drives(qmp).is_empty());
    assert_eq!(hmp(qmp, NULL), "OK\n");
    qmp.execute_with("device_add", blk("d1", "v1"));
}

#[test]
fn a_drive_that_is_in_use_is_hidden_at_once() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let qmp = &mut m.qmp();
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    assert_eq!(hmp(qmp, "drive_del d0"), "");
    assert_eq!(drives(qmp), [""]);
    let left = "/machine/peripheral/v0/virtio-backend: [not inserted]\n    \
                Attached to:      /machine/peripheral/v0/virtio-backend\n";
    assert_eq!(hmp(qmp, "info block"), left);
    assert_eq!(hmp(qmp, "drive_del d0"), "Device 'd0' not found\n");
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, IO_ERROR);
    assert_eq!(disk.request(&mut m, OUT, 0, 512).0, IO_ERROR);
    // The id is free, and so is the image.
    let drive = format!("drive_add 0 if=none,id=d0,format=raw,file={}", disk.image.display());
    assert_eq!(hmp(qmp, &drive), "OK\n");
    qmp.execute_with("device_add", blk("d0", "v1"));
    qmp.execute_with("device_del", json!({"id": "v0"}));
    qmp.execute("system_reset");
    assert_eq!(qmp.wait_event("DEVICE_DELETED")["data"]["device"], "v0");
    assert_eq!(drives(qmp), ["d0"]);
}

#[test]
fn a_drive_goes_with_its_device_and_a_node_stays() {
    let node = "driver=raw,node-name=n0,file.driver=null-co,file.size=1048576";
    let drive = "file=null-co://,format=raw,if=none,id=d0";
    let args = ["virtio-blk-pci,drive=n0,id=v0", "virtio-blk-pci,drive=d0,id=v1"];
    // Devices first: the order of the command line does not matter.
    let m = Machine::start(&[
        "-device",
        args[0],
        "-device",
        args[1],
        "-drive",
        drive,
        "-blockdev",
        node,
    ]);
    let qmp = &mut m.qmp();
    for id in ["v0", "v1"] {
        qmp.execute_with("device_del", json!({"id": id}));
    }
    qmp.execute("system_reset");
    for _ in 0..2 {
        while qmp.wait_event("DEVICE_DELETED")["data"]["device"].is_null() {}
    }
    assert!(drives(qmp).is_empty());
    let nodes = qmp.execute("query-named-block-nodes");
    assert_eq!(nodes.as_array().unwrap().len(), 2, "{nodes}");
    qmp.execute_with("blockdev-del", json!({"node-name": "n0"}));
}

#[test]
fn nodes_of_the_command_line_come_in_both_forms() {
    let below = "{'driver': 'null-co', 'node-name': 'below', 'size': 1048576}";
    let above = "driver=raw,node-name=above,file=below,read-only=on";
    let m = Machine::start(&["-blockdev", below, "-blockdev", above]);
    let qmp = &mut m.qmp();
    let nodes = qmp.execute("query-named-block-nodes");
    let told: Vec<_> =
        nodes.as_array().unwrap().iter().map(|n| (&n["node-name"], &n["ro"])).collect();
    assert_eq!(told, [(&json!("above"), &json!(true)), (&json!("below"), &json!(false))]);
}

fn capacity(m: &mut Machine, disk: &Disk) -> u64 {
    m.readq(disk.device.config)
}

#[test]
fn a_size_change_is_told_and_seen() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let qmp = &mut m.qmp();
    let isr = disk.device.isr;
    assert_eq!(m.readb(isr), 0);
    for size in [4 * SIZE, SIZE / 2] {
        qmp.execute_with("block_resize", json!({"device": "d0", "size": size}));
        m.until("a configuration change, with both bits", |m| m.readb(isr) == 3);
        assert_eq!(capacity(&mut m, &disk), size / 512);
        let last = size / 512 - 1;
        assert_eq!(disk.request(&mut m, OUT, last, 512).0, OK);
        assert_eq!(disk.request(&mut m, IN, last + 1, 512).0, IO_ERROR);
        m.until("the interrupts of the requests", |m| m.readb(isr) == 0);
        assert_eq!(std::fs::metadata(&disk.image).unwrap().len(), size);
    }
    // The same size is no change.
    qmp.execute_with("block_resize", json!({"device": "d0", "size": SIZE / 2}));
    assert_eq!(m.readb(isr), 0);
}

#[test]
fn zeroes_that_are_written_may_free_space() {
    use std::os::unix::fs::MetadataExt;
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let qmp = &mut m.qmp();
    m.ok(&format!("memset {:#x} 65536 0xff", disk.data));
    assert_eq!(disk.request(&mut m, OUT, 0, 65536).0, OK);
    qmp.execute_with("device_del", json!({"id": "v0"}));
    qmp.execute("system_reset");
    while qmp.wait_event("DEVICE_DELETED")["data"]["device"].is_null() {}
    let full = std::fs::metadata(&disk.image).unwrap().blocks();
    let path = disk.image.display();
    let drive = format!(
        "drive_add 0 if=none,id=d0,format=raw,discard=unmap,detect-zeroes=unmap,file={path}"
    );
    assert_eq!(hmp(qmp, &drive), "OK\n");
    assert!(hmp(qmp, "info block d0").contains("Detect zeroes:    unmap"));
    let device = json!({"driver": "virtio-blk-pci", "drive": "d0", "id": "v0", "addr": "04.0"});
    qmp.execute_with("device_add", device);
    disk.restart(&mut m, 4, VERSION_1);
    m.ok(&format!("memset {:#x} 65536 0", disk.data));
    assert_eq!(disk.request(&mut m, OUT, 0, 65536).0, OK);
    assert!(std::fs::metadata(&disk.image).unwrap().blocks() < full);
    assert!(std::fs::read(&disk.image).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn latencies_are_counted_in_bins() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let qmp = &mut m.qmp();
    let set = "block-latency-histogram-set";
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    let stats = qmp.execute("query-blockstats")[0]["stats"].clone();
    assert_eq!(stats["rd_latency_histogram"], Value::Null);
    qmp.execute_with(set, json!({"id": "v0", "boundaries": [1, 1u64 << 60]}));
    for _ in 0..3 {
        assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    }
    assert_eq!(disk.flush(&mut m), OK);
    let stats = qmp.execute("query-blockstats")[0]["stats"].clone();
    let of = |kind: &str| stats[format!("{kind}_latency_histogram")].clone();
    assert_eq!(of("rd"), json!({"boundaries": [1, 1u64 << 60], "bins": [0, 3, 0]}));
    assert_eq!((&of("wr")["bins"], &of("flush")["bins"]), (&json!([0, 0, 0]), &json!([0, 1, 0])));
    for (arguments, expected) in [
        (json!({"id": "nope", "boundaries": [1]}), "Device 'nope' not found"),
        (json!({"id": "v0", "boundaries": [0]}), "Device 'v0' set read boundaries fail"),
        (json!({"id": "v0", "boundaries-write": [2, 1]}), "Device 'v0' set write boundaries fail"),
        (json!({"id": "v0", "boundaries-flush": [2, 2]}), "Device 'v0' set flush boundaries fail"),
    ] {
        assert_eq!(error(qmp, set, arguments), expected);
    }
    // Other bins count anew; none named, there are none.
    qmp.execute_with(set, json!({"id": "v0", "boundaries-read": []}));
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    let stats = qmp.execute("query-blockstats")[0]["stats"].clone();
    assert_eq!(stats["rd_latency_histogram"], json!({"boundaries": [], "bins": [1]}));
    qmp.execute_with(set, json!({"id": "v0"}));
    let stats = qmp.execute("query-blockstats")[0]["stats"].clone();
    assert_eq!(stats["flush_latency_histogram"], Value::Null);
}

/// What a guest reads comes from elsewhere after a reopen, and it goes on.
#[test]
fn nodes_get_other_options_while_their_guest_runs() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [1u8, 2].map(|byte| {
        let path = dir.path().join(byte.to_string());
        std::fs::write(&path, vec![byte; SIZE as usize]).unwrap();
        path.display().to_string()
    });
    let nodes = [0, 1].map(|n| format!("driver=file,node-name=f{n},filename={}", paths[n]));
    let mut m = Machine::start(&[
        "-blockdev",
        &nodes[0],
        "-blockdev",
        &nodes[1],
        "-blockdev",
        "driver=raw,node-name=r,file=f0",
        "-device",
        "virtio-blk-pci,drive=r,id=v0,addr=04.0",
    ]);
    let device = crate::virtio::Device::new(&mut m, 4);
    let mut disk = Disk::of(&mut m, device, paths[0].as_ref());
    disk.start(&mut m, VERSION_1);
    let qmp = &mut m.qmp();
    let mut reads = |m: &mut Machine, sector: u64, expected: (u8, u8)| {
        assert_eq!(disk.request(m, IN, sector, 512).0, expected.0);
        if expected.0 == OK {
            assert_eq!(m.readb(disk.data), expected.1);
        }
    };
    reads(&mut m, 0, (OK, 1));
    let reopen = |options: Value| json!({"options": [options]});
    let other = json!({"driver": "raw", "node-name": "r", "file": "f1", "size": SIZE / 2});
    qmp.execute_with("blockdev-reopen", reopen(other));
    reads(&mut m, 0, (OK, 2));
    reads(&mut m, SIZE / 512 - 1, (IO_ERROR, 0));
    qmp.execute_with("blockdev-del", json!({"node-name": "f0"}));
    let read_only = json!({"driver": "raw", "node-name": "r", "file": "f1", "read-only": true});
    let text = "Read-only block node 'r' cannot support read-write users";
    assert_eq!(error(qmp, "blockdev-reopen", reopen(read_only)), text);
    let missing = json!({"driver": "raw", "node-name": "r"});
    let text = "Parameter 'options[0].file' is missing";
    assert_eq!(error(qmp, "blockdev-reopen", reopen(missing)), text);
    let direct = json!({"driver": "file", "node-name": "f1", "filename": paths[1],
        "cache": {"no-flush": true}, "discard": "unmap"});
    qmp.execute_with("blockdev-reopen", reopen(direct));
    reads(&mut m, 1, (OK, 2));
}
