//! Devices of every kind that move from one core to another, and what waits in them meanwhile.

use crate::blk::{IN, OK, disk};
use crate::machine::Machine;
use crate::virtio::VERSION_1;
use serde_json::{Value, json};
use testkit::Qmp;

/// I/O threads for [`to`].
pub const IO_THREADS: [&str; 4] = ["-object", "iothread,id=io0", "-object", "iothread,id=io1"];

/// Moves a device to I/O thread `n` of [`IO_THREADS`].
pub fn to(qmp: &mut Qmp, id: &str, n: usize) {
    let iothread = format!("io{n}");
    qmp.execute_with("x-device-set-iothread", json!({"id": id, "iothread": iothread}));
    let path = format!("/machine/peripheral/{id}");
    let known = qmp.execute_with("qom-get", json!({"path": path, "property": "iothread"}));
    assert_eq!(known, format!("/objects/{iothread}"));
}

#[test]
fn a_disk_goes_on_where_it_was() {
    let (mut m, mut disk) = disk(1 << 20, &IO_THREADS, VERSION_1);
    let mut qmp = m.qmp();
    for n in 0..20 {
        assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
        to(&mut qmp, "v0", n % 2);
        assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    }
    qmp.execute_with("x-device-set-iothread", json!({"id": "v0"}));
    let parts = json!([{"iothread": "io1", "vqs": [0]}]);
    let mapping = json!({"id": "v0", "iothread-vq-mapping": parts});
    qmp.execute_with("x-device-set-iothread", mapping);
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    let line = json!({"command-line": "device_set_iothread v0 io0"});
    assert_eq!(qmp.execute_with("human-monitor-command", line), "");
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
}

#[test]
fn refusals_say_what_is_wrong_and_move_nothing() {
    let args = [&IO_THREADS[..], &["-device", "virtio-rng-pci,id=r,addr=6"]].concat();
    let (mut m, mut disk) = disk(1 << 20, &args, VERSION_1);
    let mut qmp = m.qmp();
    to(&mut qmp, "v0", 1);
    for (arguments, text) in [
        (json!({"id": "x"}), "Device 'x' not found"),
        (json!({"id": "v0", "iothread": "x"}), "Device 'x' not found"),
        (
            json!({"id": "r", "iothread-vq-mapping": []}),
            "Property 'virtio-rng-pci.iothread-vq-mapping' not found",
        ),
        (
            json!({"id": "v0", "iothread": "io0", "iothread-vq-mapping": [{"iothread": "io0"}]}),
            "iothread and iothread-vq-mapping properties cannot be set at the same time",
        ),
    ] {
        let reply = qmp.execute_raw("x-device-set-iothread", arguments);
        assert_eq!(reply["error"]["desc"], text);
    }
    let path = json!({"path": "/machine/peripheral/v0", "property": "iothread"});
    assert_eq!(qmp.execute_with("qom-get", path), Value::from("/objects/io1"));
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
}

#[test]
fn what_has_limits_keeps_them() {
    let args =
        [&IO_THREADS[..], &["-device", "virtio-rng-pci,id=r0,addr=5,max-bytes=16,period=250"]];
    let mut m = Machine::start(&args.concat());
    let mut qmp = m.qmp();
    let device = crate::virtio::Device::new(&mut m, 5);
    assert!(device.negotiate(&mut m, VERSION_1));
    let mut queue = device.queue(&mut m, 0, false);
    device.driver_ok(&mut m);
    let mut offer = |m: &mut Machine| {
        let at = m.alloc(64);
        let head = queue.chain(m, &[(at, 64, true)]);
        queue.offer(m, head);
        queue.ring(m);
    };
    // The bytes of the period are used up; two more buffers wait.
    for _ in 0..3 {
        offer(&mut m);
    }
    assert_eq!(queue.take(&mut m).1, 16);
    for period in 1..3 {
        m.step(1);
        to(&mut qmp, "r0", period as usize % 2);
        let before = queue.device_used(&mut m);
        assert_eq!(m.next_deadline(), period * 250_000_000);
        assert_eq!(queue.take(&mut m).1, 16);
        assert_eq!(before.wrapping_add(1), queue.used_index);
    }
}
