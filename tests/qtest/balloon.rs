//! The memory balloon (Virtual I/O Device 1.2, section 5.5).

use crate::machine::Machine;
use crate::virtio::{Device, VERSION_1};
use serde_json::json;

const PAGE: u64 = 4096;
const RAM: u64 = 128 << 20;
const STATS_VQ: u64 = 1 << 1;
/// Offsets in the configuration: pages wanted, pages given.
const WANTED: u64 = 0;
const ACTUAL: u64 = 4;

fn balloon() -> (Machine, Device) {
    let mut m = Machine::start(&["-device", "virtio-balloon-pci,id=b0,addr=04.0"]);
    let device = Device::new(&mut m, 4);
    (m, device)
}

#[test]
fn a_target_reaches_the_driver_and_its_pages_go() {
    let (mut m, device) = balloon();
    let mut qmp = m.qmp();
    assert_eq!(qmp.execute("query-balloon"), json!({"actual": RAM}));
    assert!(device.negotiate(&mut m, VERSION_1));
    let mut inflate = device.queue(&mut m, 0, false);
    device.driver_ok(&mut m);
    qmp.execute_with("balloon", json!({"value": RAM - 2 * PAGE}));
    assert_eq!(m.readl(device.config + WANTED), 2);
    let pages = m.alloc(2 * PAGE);
    m.write(pages, &[0xaa; 2 * PAGE as usize]);
    let numbers = m.alloc(8);
    m.writel(numbers, (pages / PAGE) as u32);
    m.writel(numbers + 4, (pages / PAGE) as u32 + 1);
    let head = inflate.chain(&mut m, &[(numbers, 8, false)]);
    inflate.offer(&mut m, head);
    inflate.ring(&mut m);
    inflate.take(&mut m);
    assert_eq!(m.read(pages, 2 * PAGE as usize), [0; 2 * PAGE as usize], "given to the host");
    m.writel(device.config + ACTUAL, 2);
    let event = qmp.wait_event("BALLOON_CHANGE");
    assert_eq!(event["data"], json!({"actual": RAM - 2 * PAGE}));
    assert_eq!(qmp.execute("query-balloon"), json!({"actual": RAM - 2 * PAGE}));
}

#[test]
fn statistics_are_what_the_driver_says() {
    let (mut m, device) = balloon();
    let mut qmp = m.qmp();
    assert!(device.negotiate(&mut m, VERSION_1 | STATS_VQ));
    let mut stats = device.queue(&mut m, 2, false);
    device.driver_ok(&mut m);
    let entry = m.alloc(10);
    // Tag 4: free memory.
    m.writew(entry, 4);
    m.writeq(entry + 2, 0x1234_5000);
    let head = stats.chain(&mut m, &[(entry, 10, false)]);
    stats.offer(&mut m, head);
    stats.ring(&mut m);
    let path = json!({"path": "/machine/peripheral/b0", "property": "guest-stats"});
    m.until("statistics", |_| {
        let told = qmp.execute_with("qom-get", path.clone());
        told["stats"]["stat-free-memory"] == json!(0x1234_5000)
    });
    // Asked for again, the driver gets its buffer back.
    let set = json!({
        "path": "b0", "property": "guest-stats-polling-interval", "value": 1,
    });
    qmp.execute_with("qom-set", set);
    // Meanwhile it stays with the device, wherever that is served.
    qmp.execute_with("object-add", json!({"qom-type": "iothread", "id": "io0"}));
    let told = qmp.execute_with("qom-get", path.clone());
    m.step(500_000_000);
    crate::rehome::to(&mut qmp, "b0", 0);
    assert_eq!(qmp.execute_with("qom-get", path), told, "it is not read again");
    assert_eq!(stats.device_used(&mut m), stats.used_index);
    // A second from then, by the machine's clock.
    assert_eq!(m.next_deadline(), 1_500_000_000);
    assert_eq!(stats.take(&mut m).0, head);
}

#[test]
fn there_is_a_balloon_only_while_the_device_is_there() {
    let mut m = Machine::start(&[]);
    let mut qmp = m.qmp();
    let none = qmp.execute_raw("query-balloon", json!(null));
    assert_eq!(none["error"]["class"], "DeviceNotActive");
    qmp.execute_with(
        "device_add",
        json!({"driver": "virtio-balloon-pci", "id": "b0", "addr": "5"}),
    );
    assert_eq!(qmp.execute("query-balloon"), json!({"actual": RAM}));
    qmp.execute_with("device_del", json!({"id": "b0"}));
    m.outl(0xae08, 1 << 5);
    qmp.wait_event("DEVICE_DELETED");
    let none = qmp.execute_raw("query-balloon", json!(null));
    assert_eq!(none["error"]["class"], "DeviceNotActive");
}
