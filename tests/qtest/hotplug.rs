//! PCI hot-plug with the ACPI handshake driven from here, as a guest's AML does it.

use crate::blk::Disk;
use crate::machine::Machine;
use crate::pc::with_disk;
use crate::pci::Slot;
use crate::virtio::{Device, VERSION_1};
use serde_json::{Value, json};
use std::path::PathBuf;
use testkit::Qmp;

const UP: u16 = 0xae00;
const DOWN: u16 = 0xae04;
const EJECT: u16 = 0xae08;
const REMOVABLE: u16 = 0xae0c;
const SELECT: u16 = 0xae10;
/// Status and enable bits of general-purpose event block 0.
const GPE_STATUS: u16 = 0xafe0;
const GPE_ENABLE: u16 = 0xafe2;
const PCI_HOTPLUG: u8 = 1 << 1;
/// The system control interrupt.
const SCI: u32 = 9;
/// Configuration space in memory.
const ECAM: u64 = 0xc000_0000;

/// A machine with a disk `v0` in slot 4, a monitor session, and a node `n1` to plug in.
struct Rig {
    m: Machine,
    qmp: Qmp,
    image: PathBuf,
    dir: tempfile::TempDir,
}

fn rig() -> Rig {
    let (mut m, image, dir) = with_disk(1 << 20, &[]);
    let mut qmp = m.qmp();
    let new = dir.path().join("new");
    std::fs::File::create(&new).unwrap().set_len(2 << 20).unwrap();
    let node = json!({"driver": "file", "filename": new, "node-name": "n1"});
    qmp.execute_with("blockdev-add", node);
    m.ok("irq_intercept_in ioapic");
    Rig { m, qmp, image, dir }
}

fn blk(id: &str, slot: &str) -> Value {
    json!({"driver": "virtio-blk-pci", "drive": "n1", "id": id, "addr": slot})
}

impl Rig {
    fn refused(&mut self, command: &str, arguments: Value) -> String {
        let reply = self.qmp.execute_raw(command, arguments);
        reply["error"]["desc"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    /// What the guest's handler does first: takes the event.
    fn acknowledge(&mut self) {
        assert_eq!(self.m.inb(GPE_STATUS) & PCI_HOTPLUG, PCI_HOTPLUG);
        self.m.outb(GPE_STATUS, PCI_HOTPLUG);
    }
}

#[test]
fn at_power_on_nothing_is_pending() {
    let Rig { mut m, .. } = rig();
    assert_eq!((m.inl(UP), m.inl(DOWN), m.inl(SELECT)), (0, 0, 0));
    assert_eq!(m.inl(REMOVABLE), 0xffff_fffe, "all but the host bridge");
    assert_eq!(m.inb(GPE_STATUS), 0);
}

#[test]
fn a_device_that_is_plugged_in_is_announced_once() {
    let mut rig = rig();
    rig.m.outb(GPE_ENABLE, PCI_HOTPLUG);
    rig.qmp.execute_with("device_add", blk("v1", "0x06"));
    assert_eq!(rig.m.next_irq(), (SCI, true));
    rig.acknowledge();
    assert_eq!(rig.m.next_irq(), (SCI, false));
    assert_eq!((rig.m.inl(UP), rig.m.inl(UP)), (1 << 6, 0), "cleared by reading");
    assert_eq!(Slot(6).read32(&mut rig.m, 0), 0x1042_1af4);
    let device = Device::new(&mut rig.m, 6);
    assert!(device.negotiate(&mut rig.m, VERSION_1));
    assert_eq!(rig.m.readq(device.config), (2 << 20) / 512);
}

#[test]
fn without_the_enable_bit_the_event_waits() {
    let mut rig = rig();
    rig.qmp.execute_with("device_add", blk("v1", "6"));
    assert_eq!(rig.m.irqs(), []);
    rig.m.outb(GPE_ENABLE, PCI_HOTPLUG);
    assert_eq!(rig.m.next_irq(), (SCI, true));
    rig.acknowledge();
}

#[test]
fn device_del_answers_at_once_and_ends_with_the_eject() {
    let mut rig = rig();
    rig.qmp.execute_with("device_del", json!({"id": "v0"}));
    rig.acknowledge();
    assert_eq!((rig.m.inl(DOWN), rig.m.inl(DOWN)), (1 << 4, 1 << 4), "until it is gone");
    assert_eq!(Slot(4).read32(&mut rig.m, 0), 0x1042_1af4, "still there");
    rig.m.outl(EJECT, 1 << 4);
    let deleted = rig.qmp.wait_event("DEVICE_DELETED");
    assert_eq!(deleted["data"], json!({"device": "v0", "path": "/machine/peripheral/v0"}));
    assert_eq!(Slot(4).read32(&mut rig.m, 0), u32::MAX);
    assert_eq!(rig.m.inl(DOWN), 0);
}

#[test]
fn a_second_request_meanwhile_is_an_error() {
    let mut rig = rig();
    rig.qmp.execute_with("device_del", json!({"id": "v0"}));
    let text = rig.refused("device_del", json!({"id": "v0"}));
    assert_eq!(text, "Device v0 is already in the process of unplug");
    rig.m.outl(EJECT, 1 << 4);
    rig.qmp.wait_event("DEVICE_DELETED");
    assert_eq!(rig.refused("device_del", json!({"id": "v0"})), "Device 'v0' not found");
}

#[test]
fn a_reset_completes_what_the_guest_has_not() {
    let mut rig = rig();
    rig.qmp.execute_with("device_del", json!({"id": "v0"}));
    rig.qmp.execute("system_reset");
    rig.qmp.wait_event("RESET");
    rig.qmp.wait_event("DEVICE_DELETED");
    assert_eq!(Slot(4).read32(&mut rig.m, 0), u32::MAX);
    assert_eq!((rig.m.inl(DOWN), rig.m.inb(GPE_STATUS)), (0, 0));
}

#[test]
fn the_guest_may_eject_without_being_asked() {
    let mut rig = rig();
    rig.m.outl(EJECT, 1 << 4);
    rig.qmp.wait_event("DEVICE_DELETED");
    assert_eq!(Slot(4).read32(&mut rig.m, 0), u32::MAX);
}

#[test]
fn ejecting_empty_slots_and_the_bridge_does_nothing() {
    let mut rig = rig();
    rig.m.outl(EJECT, !(1 << 4));
    assert_eq!(Slot(0).read32(&mut rig.m, 0), 0x1237_8086);
    assert_eq!(Slot(4).read32(&mut rig.m, 0), 0x1042_1af4);
    // Of a bus that is not there.
    rig.m.outl(SELECT, 7);
    assert_eq!((rig.m.inl(SELECT), rig.m.inl(REMOVABLE)), (7, 0));
    rig.m.outl(EJECT, 1 << 4);
    rig.m.outl(SELECT, 0);
    assert_eq!(Slot(4).read32(&mut rig.m, 0), 0x1042_1af4);
}

#[test]
fn a_slot_is_free_again_after_the_eject() {
    let mut rig = rig();
    let text = rig.refused("device_add", blk("v1", "4"));
    assert!(text.contains("in use"), "{text}");
    for _ in 0..3 {
        rig.qmp.execute_with("device_add", blk("v1", "05.0"));
        assert_eq!(rig.m.inl(UP), 1 << 5);
        rig.qmp.execute_with("device_del", json!({"id": "v1"}));
        rig.m.outl(EJECT, 1 << 5);
        rig.qmp.wait_event("DEVICE_DELETED");
    }
    rig.qmp.execute_with("blockdev-del", json!({"node-name": "n1"}));
    drop(rig.dir);
}

/// Vendor and device of function `function` in slot 6.
fn function(m: &mut Machine, function: u64) -> u32 {
    m.readl(ECAM + (6 << 15) + (function << 12))
}

#[test]
fn functions_of_a_slot_come_together_and_go_together() {
    let mut rig = rig();
    rig.m.outb(GPE_ENABLE, PCI_HOTPLUG);
    rig.qmp.execute_with("device_add", blk("f1", "6.1"));
    assert_eq!((rig.m.inl(UP), rig.m.irqs()), (0, vec![]), "nobody would look at function 1");
    let mut zero = json!({"driver": "virtio-rng-pci", "id": "f0", "addr": "6.0"});
    let text = rig.refused("device_add", zero.clone());
    assert_eq!(text, "PCI: 6.0 indicates single function, but 6.1 is already populated.");
    zero["multifunction"] = true.into();
    rig.qmp.execute_with("device_add", zero);
    assert_eq!(rig.m.next_irq(), (SCI, true));
    rig.acknowledge();
    assert_eq!(rig.m.inl(UP), 1 << 6);
    assert_eq!([0, 1].map(|n| function(&mut rig.m, n)), [0x1044_1af4, 0x1042_1af4]);
    let late = json!({"driver": "virtio-rng-pci", "id": "f2", "addr": "6.2"});
    let text = rig.refused("device_add", late);
    assert!(text.contains("function 0 already occupied by virtio-rng-pci"), "{text}");

    rig.qmp.execute_with("device_del", json!({"id": "f1"}));
    assert_eq!(rig.m.inl(DOWN), 1 << 6);
    rig.m.outl(EJECT, 1 << 6);
    let mut gone = [(); 2].map(|()| rig.qmp.wait_event("DEVICE_DELETED")["data"]["device"].take());
    gone.sort_by_key(|id| id.as_str().map(str::to_owned));
    assert_eq!(gone, ["f0", "f1"]);
    assert_eq!([0, 1].map(|n| function(&mut rig.m, n)), [u32::MAX; 2]);
}

#[test]
fn a_device_goes_with_requests_in_flight() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.qmp.execute_with("device_add", blk("v1", "5"));
        let device = Device::new(&mut rig.m, 5);
        let mut disk = Disk::of(&mut rig.m, device, &rig.image);
        disk.start(&mut rig.m, VERSION_1);
        for _ in 0..8 {
            disk.submit_flush(&mut rig.m);
        }
        rig.qmp.execute_with("device_del", json!({"id": "v1"}));
        rig.m.outl(EJECT, 1 << 5);
        rig.qmp.wait_event("DEVICE_DELETED");
        // The image is closed: it can be opened again at once.
        rig.qmp.execute_with("blockdev-del", json!({"node-name": "n1"}));
        let new = rig.dir.path().join("new");
        let node = json!({"driver": "file", "filename": new, "node-name": "n1"});
        rig.qmp.execute_with("blockdev-add", node);
    }
}

#[test]
fn a_failed_device_add_leaves_nothing_behind() {
    let mut rig = rig();
    rig.m.outb(GPE_ENABLE, PCI_HOTPLUG);
    let before = rig.qmp.execute_with("qom-list", json!({"path": "/machine/peripheral"}));
    for arguments in [
        json!({"driver": "virtio-blk-pci", "drive": "nowhere", "id": "v1"}),
        json!({"driver": "virtio-blk-pci", "id": "v1"}),
        json!({"driver": "virtio-blk-pci", "drive": "n1", "id": "v1", "num-queues": 0}),
        json!({"driver": "virtio-blk-pci", "drive": "n1", "id": "v1", "addr": "32"}),
        json!({"driver": "virtio-blk-pci", "drive": "n1", "id": "v1", "bus": "nowhere"}),
        json!({"driver": "nothing", "id": "v1"}),
    ] {
        rig.refused("device_add", arguments);
    }
    let after = rig.qmp.execute_with("qom-list", json!({"path": "/machine/peripheral"}));
    assert_eq!(before, after);
    assert_eq!((rig.m.inl(UP), rig.m.irqs().len()), (0, 0));
    rig.qmp.execute_with("device_add", blk("v1", "5"));
}
