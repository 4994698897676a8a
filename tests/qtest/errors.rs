//! Requests that fail: what guests are told, and that a stopped one loses nothing.

use crate::blk::{DISCARD, Disk, FLUSH, IN, IO_ERROR, OK, OUT, WRITE_ZEROES};
use crate::machine::Machine;
use crate::virtio::{Device, VERSION_1};
use serde_json::{Value, json};
use std::path::Path;
use testkit::Qmp;

const SIZE: u64 = 1 << 20;
const FEATURES: u64 = VERSION_1 | 1 << 9 | 1 << 13 | 1 << 14;
const DATA: u32 = 4096;

/// A machine with a block device, whose node `b` has these rules (`event=none,...`).
fn faulty(rules: &[&str], device: &str) -> (Machine, Disk) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    let node = node(&path, rules);
    let device = format!("virtio-blk-pci,drive=b,addr=04.0,id=v0{device}");
    let mut m = Machine::start(&["-blockdev", &node, "-device", &device]);
    let device = Device::new(&mut m, 4);
    let mut disk = Disk::of(&mut m, device, &path).keeping(dir);
    disk.start(&mut m, FEATURES);
    (m, disk)
}

fn node(path: &Path, rules: &[&str]) -> String {
    let mut node = format!(
        "driver=blkdebug,node-name=b,discard=unmap,image.driver=file,image.filename={}",
        path.display()
    );
    for (n, rule) in rules.iter().enumerate() {
        for member in rule.split(',') {
            node.extend([",inject-error.", &n.to_string(), ".", member]);
        }
    }
    node
}

fn run_state(qmp: &mut Qmp) -> Value {
    qmp.execute("query-status")["status"].take()
}

fn io_status(qmp: &mut Qmp) -> Value {
    qmp.execute("query-block")[0]["io-status"].take()
}

#[test]
fn every_errno_of_every_operation_is_an_io_error_to_the_guest() {
    let errnos = 1..134;
    let rules: Vec<String> = ["read", "write", "flush", "discard", "write-zeroes"]
        .iter()
        .flat_map(|kind| {
            errnos
                .clone()
                .map(move |errno| format!("event=none,once=on,iotype={kind},errno={errno}"))
        })
        .collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let (mut m, mut disk) = faulty(&rules, ",werror=report,rerror=report");
    for kind in [IN, OUT, FLUSH, DISCARD, WRITE_ZEROES] {
        for errno in errnos.clone() {
            assert_eq!(disk.any(&mut m, kind), IO_ERROR, "{kind}: {errno}");
        }
        assert_eq!(disk.any(&mut m, kind), OK, "{kind}");
    }
    let qmp = &mut m.qmp();
    assert_eq!(run_state(qmp), "running");
    let stats = qmp.execute("query-blockstats")[0]["stats"].take();
    assert_eq!(
        ["rd", "wr", "flush", "unmap"]
            .map(|kind| stats[format!("failed_{kind}_operations")].clone()),
        [133, 266, 133, 133]
    );
    // No error stops it.
    assert_eq!(io_status(qmp), Value::Null);
}

#[test]
fn a_full_disk_stops_the_guest_which_goes_on_when_there_is_space() {
    let (mut m, mut disk) =
        faulty(&["event=write_aio,iotype=write,errno=28,once=on,x-bytes=1024"], "");
    let mut qmp = m.qmp();
    let data = vec![0x5a; DATA as usize];
    m.write(disk.data, &data);
    let (head, _) = disk.prepare(&mut m, OUT, 8, DATA, false);
    disk.queue.offer(&mut m, head);
    disk.queue.ring(&mut m);
    let event = qmp.wait_event("BLOCK_IO_ERROR");
    assert_eq!(
        event["data"],
        json!({
            "qom-path": "/machine/peripheral/v0/virtio-backend", "device": "", "node-name": "b",
            "operation": "write", "action": "stop", "nospace": true,
            "reason": "No space left on device"
        })
    );
    qmp.wait_event("STOP");
    assert_eq!((run_state(&mut qmp), io_status(&mut qmp)), (json!("io-error"), json!("nospace")));
    let info = qmp.execute_with("human-monitor-command", json!({"command-line": "info block"}));
    assert!(info.as_str().unwrap().contains("    I/O status:       nospace\r\n"), "{info}");
    assert_eq!(disk.queue.device_used(&mut m), 0);
    // A command that drains does not wait for the guest.
    qmp.execute_with("block_resize", json!({"node-name": "b", "size": 2 * SIZE}));
    // Each write lets the rule hold anew: it fails again.
    qmp.execute("cont");
    qmp.wait_event("STOP");
    assert_eq!(run_state(&mut qmp), "io-error");
    assert_eq!(disk.queue.device_used(&mut m), 0);
}

#[test]
fn a_stopped_guest_loses_no_request() {
    let rules: Vec<String> =
        (0..3).map(|_| "event=none,iotype=write,errno=5,once=on,x-bytes=512".to_owned()).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let (mut m, mut disk) = faulty(&rules, ",werror=stop,rerror=report");
    let mut qmp = m.qmp();
    let data: Vec<u8> = (0..DATA).map(|n| (n % 251) as u8).collect();
    m.write(disk.data, &data);
    let (head, _) = disk.prepare(&mut m, OUT, 8, DATA, false);
    disk.queue.offer(&mut m, head);
    disk.queue.ring(&mut m);
    for _ in 0..3 {
        qmp.wait_event("STOP");
        assert_eq!(
            (run_state(&mut qmp), io_status(&mut qmp)),
            (json!("io-error"), json!("failed"))
        );
        assert_eq!(disk.queue.device_used(&mut m), 0);
        qmp.execute("cont");
        qmp.wait_event("RESUME");
    }
    assert_eq!(disk.queue.take(&mut m).0, head);
    assert_eq!(disk.status(&mut m), OK);
    assert_eq!((run_state(&mut qmp), io_status(&mut qmp)), (json!("running"), json!("ok")));
    assert_eq!(std::fs::read(&disk.image).unwrap()[4096..8192], data[..]);
}

#[test]
fn a_reset_forgets_what_has_stopped_the_guest() {
    let (mut m, mut disk) = faulty(&["event=none,iotype=read,once=on"], ",rerror=stop");
    let mut qmp = m.qmp();
    let (head, _) = disk.prepare(&mut m, IN, 0, DATA, true);
    disk.queue.offer(&mut m, head);
    disk.queue.ring(&mut m);
    qmp.wait_event("STOP");
    disk.device.set_status(&mut m, 0);
    let status = disk.device.common + crate::virtio::STATUS;
    m.until("the reset is over", |m| m.readb(status) == 0);
    qmp.execute("cont");
    qmp.wait_event("RESUME");
    disk.start(&mut m, FEATURES);
    assert_eq!(disk.any(&mut m, IN), OK);
}

#[test]
fn drives_and_devices_have_a_say() {
    let drive = "file=null-co://,format=raw,if=none,id=";
    let first = format!("{drive}d1,werror=report,rerror=report");
    let second = format!("{drive}d2,werror=stop,rerror=ignore");
    let m = Machine::start(&[
        "-drive",
        &first,
        "-device",
        "virtio-blk-pci,drive=d1",
        "-drive",
        &second,
        "-device",
        "virtio-blk-pci,drive=d2,werror=report,rerror=auto,id=v2",
        "-device",
        "virtio-scsi-pci",
        "-drive",
        &format!("{drive}d3"),
        "-device",
        "scsi-hd,drive=d3",
    ]);
    let qmp = &mut m.qmp();
    let drives = qmp.execute("query-block");
    let status = [0, 1, 2].map(|n| drives[n]["io-status"].clone());
    assert_eq!(status, [Value::Null, Value::Null, json!("ok")]);
    let get = json!({"path": "/machine/peripheral/v2", "property": "werror"});
    assert_eq!(qmp.execute_with("qom-get", get), "report");
    let more = json!({"driver": "virtio-blk-pci", "drive": "d1", "werror": "maybe"});
    let refused = qmp.execute_raw("device_add", more)["error"]["desc"].take();
    assert_eq!(refused, "Parameter 'werror' does not accept value 'maybe'");
}
