//! Limits of throughput by the virtual clock: exact to the nanosecond.

use crate::blk::{Disk, IN, OK, OUT, disk};
use crate::machine::Machine;
use crate::virtio::{Device, VERSION_1};
use serde_json::{Value, json};
use testkit::Qmp;

const SIZE: u64 = 1 << 20;

/// Sets limits of `d0`; those that are not named there are none.
fn limit(qmp: &mut Qmp, limits: &Value) {
    let mut arguments = json!({
        "device": "d0", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0
    });
    for (name, value) in limits.as_object().unwrap() {
        arguments[name] = value.clone();
    }
    qmp.execute_with("block_set_io_throttle", arguments);
}

fn limited(limits: &Value) -> (Machine, Disk, Qmp) {
    let (m, disk) = disk(SIZE, &[], VERSION_1);
    let mut qmp = m.qmp();
    limit(&mut qmp, limits);
    (m, disk, qmp)
}

/// Offers a request.
fn submit(m: &mut Machine, disk: &mut Disk, kind: u32, len: u32) {
    let (head, _) = disk.prepare(m, kind, 0, len, kind == IN);
    disk.queue.offer(m, head);
    disk.queue.ring(m);
}

/// The request that was offered ends `wait` nanoseconds from now, and not before.
fn ends_after(m: &mut Machine, disk: &mut Disk, wait: u64) {
    let before = disk.queue.device_used(m);
    m.step(wait - 1);
    assert_eq!(disk.queue.device_used(m), before, "a nanosecond early");
    m.step(1);
    disk.queue.take(m);
}

#[test]
fn bytes_wait_until_enough_has_leaked_out() {
    let (mut m, mut disk, _qmp) = limited(&json!({"bps": 1000}));
    // A tenth of a second's worth is free; 412 bytes over it take 412 ms.
    assert_eq!(disk.request(&mut m, OUT, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    ends_after(&mut m, &mut disk, 412_000_000);
    submit(&mut m, &mut disk, IN, 512);
    ends_after(&mut m, &mut disk, 512_000_000);
}

#[test]
fn requests_are_counted_as_well() {
    let (mut m, mut disk, _qmp) = limited(&json!({"iops": 3}));
    assert_eq!(disk.request(&mut m, OUT, 0, 512).0, OK);
    submit(&mut m, &mut disk, OUT, 512);
    // 0.7 of a request at 3 a second, truncated.
    ends_after(&mut m, &mut disk, 233_333_333);
}

#[test]
fn a_burst_goes_at_once() {
    let (mut m, mut disk, _qmp) = limited(&json!({"iops": 10, "iops_max": 20}));
    for _ in 0..21 {
        assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    }
    submit(&mut m, &mut disk, IN, 512);
    ends_after(&mut m, &mut disk, 100_000_000);
}

#[test]
fn each_direction_has_its_limits() {
    let (mut m, mut disk, _qmp) = limited(&json!({"iops_rd": 1}));
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    for _ in 0..5 {
        assert_eq!(disk.request(&mut m, OUT, 0, 512).0, OK);
        assert_eq!(disk.flush(&mut m), OK);
    }
    submit(&mut m, &mut disk, IN, 512);
    ends_after(&mut m, &mut disk, 900_000_000);
}

#[test]
fn large_requests_count_more_where_they_are_to() {
    let (mut m, mut disk, _qmp) = limited(&json!({"iops": 10, "iops_size": 4096}));
    assert_eq!(disk.request(&mut m, OUT, 0, 8192).0, OK);
    submit(&mut m, &mut disk, OUT, 512);
    ends_after(&mut m, &mut disk, 100_000_000);
}

#[test]
fn requests_go_on_when_limits_are_lifted() {
    let (mut m, mut disk, mut qmp) = limited(&json!({"iops": 1}));
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    limit(&mut qmp, &json!({}));
    disk.queue.take(&mut m);
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
}

#[test]
fn a_device_with_waiting_requests_can_be_reset_and_goes_on() {
    let (mut m, mut disk, _qmp) = limited(&json!({"iops": 1}));
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    disk.device.set_status(&mut m, 0);
    let status = disk.device.common + crate::virtio::STATUS;
    m.until("the reset is over", |m| m.readb(status) == 0);
    m.step(1_000_000_000);
    disk.start(&mut m, VERSION_1);
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
}

#[test]
fn a_waiting_request_does_not_hold_up_a_resize_or_a_removal() {
    let (mut m, mut disk, mut qmp) = limited(&json!({"iops": 1}));
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    qmp.execute_with("block_resize", json!({"device": "d0", "size": 2 * SIZE}));
    let gone = json!({"command-line": "drive_del d0"});
    assert_eq!(qmp.execute_with("human-monitor-command", gone), "");
    assert_eq!(qmp.execute("query-block")[0]["inserted"], Value::Null);
}

#[test]
fn drives_have_limits_from_the_start_and_share_them_in_groups() {
    let drive = "file=null-co://,format=raw,if=none,throttling.group=g,id=";
    let first = format!("{drive}d1,throttling.bps-total=1k");
    let second = format!(
        "{drive}d2,throttling.iops-read=20,throttling.iops-read-max=50,throttling.iops-size=512"
    );
    let m = Machine::start(&["-drive", &first, "-drive", &second]);
    let qmp = &mut m.qmp();
    let drives = qmp.execute("query-block");
    for n in [0, 1] {
        let told = &drives[n]["inserted"];
        let names = ["bps", "iops_rd", "iops_rd_max", "iops_rd_max_length", "iops_size", "group"];
        assert_eq!(
            names.map(|name| told[name].clone()),
            [json!(0), json!(20), json!(50), json!(1), json!(512), json!("g")]
        );
        assert_eq!(told["bps_max"], Value::Null);
    }
    let line = "    I/O throttling:   bps=0 bps_rd=0 bps_wr=0 bps_max=0 bps_rd_max=0 bps_wr_max=0 \
                iops=0 iops_rd=20 iops_wr=0 iops_max=0 iops_rd_max=50 iops_wr_max=0 iops_size=512 \
                group=g\r\n";
    let info = qmp.execute_with("human-monitor-command", json!({"command-line": "info block d2"}));
    assert!(info.as_str().unwrap().ends_with(line), "{info}");
}

/// A virtio-blk device on a `throttle` node of the group `g`, an object.
fn by_node(limits: &str) -> (Machine, Disk, Qmp) {
    let group = format!("throttle-group,id=g,{limits}");
    let node = "driver=throttle,node-name=t,throttle-group=g,file.driver=null-co,file.size=1M";
    let node = node.replace("1M", "1048576");
    let args = ["-object", &group, "-blockdev", &node];
    let device = ["-device", "virtio-blk-pci,id=v0,addr=04.0,drive=t"];
    let mut m = Machine::start(&[&args[..], &device[..]].concat());
    let device = Device::new(&mut m, 4);
    let mut disk = Disk::of(&mut m, device, "".as_ref());
    disk.start(&mut m, VERSION_1);
    let qmp = m.qmp();
    (m, disk, qmp)
}

#[test]
fn a_node_limits_what_goes_through_it() {
    let (mut m, mut disk, mut qmp) = by_node("x-iops-total=1");
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    ends_after(&mut m, &mut disk, 900_000_000);
    let set = json!({"path": "/objects/g", "property": "limits", "value": {"iops-total": 2}});
    qmp.execute_with("qom-set", set);
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    ends_after(&mut m, &mut disk, 400_000_000);
    let get = json!({"path": "/objects/g", "property": "limits"});
    assert_eq!(qmp.execute_with("qom-get", get)["iops-total"], 2);
    let refused = qmp.execute_raw("object-del", json!({"id": "g"}));
    assert_eq!(refused["error"]["desc"], "object 'g' is in use, can not be deleted");
    let node =
        json!({"driver": "throttle", "node-name": "x", "throttle-group": "nope", "file": "t"});
    let refused = qmp.execute_raw("blockdev-add", node);
    assert_eq!(refused["error"]["desc"], "Throttle group 'nope' does not exist");
}

/// The clock stands still: only the drain lets the request go.
#[test]
fn a_drain_does_not_wait_for_the_budget() {
    let (mut m, mut disk, mut qmp) = by_node("x-iops-total=1");
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    let below = json!({"driver": "null-co", "size": SIZE});
    let group = json!({"qom-type": "throttle-group", "id": "h", "limits": {"iops-total": 4}});
    qmp.execute_with("object-add", group);
    let reopen = json!({"options": [
        {"driver": "throttle", "node-name": "t", "throttle-group": "h", "file": below}
    ]});
    qmp.execute_with("blockdev-reopen", reopen);
    disk.queue.take(&mut m);
    // It has gone over to the other group, whose bucket is empty.
    qmp.execute_with("object-del", json!({"id": "g"}));
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    ends_after(&mut m, &mut disk, 150_000_000);
}

#[test]
fn limits_and_sizes_are_set_by_hand() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let mut qmp = m.qmp();
    let mut hmp = |line: &str| {
        let text = qmp.execute_with("human-monitor-command", json!({"command-line": line}));
        text.as_str().unwrap().replace('\r', "")
    };
    assert_eq!(hmp("block_set_io_throttle d0 0 0 0 1 0 0"), "");
    assert!(hmp("info block d0").contains("iops=1 iops_rd=0"));
    for (line, expected) in [
        ("block_set_io_throttle nope 1 0 0 0 0 0", "Error: Device 'nope' not found\n"),
        ("block_resize nope 2M", "Error: Cannot find device='nope' nor node-name=''\n"),
        ("block_resize d0", "invalid size\nTry \"help block_resize\" for more information\n"),
        ("block_resize d0 2", ""),
    ] {
        assert_eq!(hmp(line), expected, "{line}");
    }
    assert_eq!(std::fs::metadata(&disk.image).unwrap().len(), 2 << 20);
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    submit(&mut m, &mut disk, IN, 512);
    ends_after(&mut m, &mut disk, 900_000_000);
}

#[test]
fn refusals_are_those_of_qemu() {
    let (m, _disk) = disk(SIZE, &["-drive", "if=none,id=e"], VERSION_1);
    let qmp = &mut m.qmp();
    let none = json!({"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0});
    for (more, expected) in [
        (json!({"device": "x"}), "Device 'x' not found"),
        (json!({}), "Need exactly one of 'device' and 'id'"),
        (json!({"device": "d0", "id": "v0"}), "Need exactly one of 'device' and 'id'"),
        (json!({"device": "e", "bps": 1}), "Device has no medium"),
        (
            json!({"device": "d0", "bps": -1}),
            "bps/iops/max values must be within [0, 1000000000000000]",
        ),
        (
            json!({"device": "d0", "bps": 1, "bps_rd": 1}),
            "bps/iops/max total values and read/write values cannot be used at the same time",
        ),
    ] {
        let mut arguments = none.clone();
        for (name, value) in more.as_object().unwrap() {
            arguments[name] = value.clone();
        }
        let reply = qmp.execute_raw("block_set_io_throttle", arguments);
        assert_eq!(reply["error"]["desc"], expected, "{more}");
    }
}
