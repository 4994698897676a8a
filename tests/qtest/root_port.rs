//! A root port, with its slot driven from here as a guest's driver of native hot-plug does
//! (PCI Express Base 3.0, section 6.7).

use crate::machine::Machine;
use crate::pci::Slot;
use serde_json::{Value, json};
use testkit::{Footprint, Qmp};

const PORT: Slot = Slot(3);
/// The interrupt input of pin A of the port's slot.
const PORT_GSI: u32 = 19;
/// The bus number that is given to what is below.
const BUS: u8 = 5;
const ECAM: u64 = 0xc000_0000;
const BUSES: u8 = 0x18;
const EXPRESS: u8 = 0x10;

// Offsets in the PCI Express capability.
const LINK_STATUS: u8 = 0x12;
const SLOT_CAPABILITIES: u8 = 0x14;
const SLOT_CONTROL: u8 = 0x18;
const SLOT_STATUS: u8 = 0x1a;

const LINK_ACTIVE: u16 = 1 << 13;
// Slot Status.
const BUTTON: u16 = 1 << 0;
const CHANGED: u16 = 1 << 3;
const COMPLETED: u16 = 1 << 4;
const PRESENT: u16 = 1 << 6;
/// Slot Control: interrupts by the button and by cards that come or go; the attention indicator is off.
const LISTEN: u16 = 1 << 5 | BUTTON | CHANGED | 0b11 << 6;
const ON: u16 = LISTEN | 0b01 << 8;
const BLINKS: u16 = LISTEN | 0b10 << 8;
const OFF: u16 = LISTEN | 0b11 << 8 | 1 << 10;

/// A machine with a port, an adapter for SCSI, and a node for each.
struct Rig {
    m: Machine,
    qmp: Qmp,
    express: u8,
    _images: tempfile::TempDir,
}

fn rig() -> Rig {
    let port = "pcie-root-port,id=r1,chassis=1,slot=33,addr=3";
    let mut m = Machine::start(&["-device", port, "-device", "virtio-scsi-pci,id=s,addr=4"]);
    let mut qmp = m.qmp();
    let images = tempfile::tempdir().unwrap();
    for name in ["n1", "n2"] {
        let path = images.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let node = json!({"driver": "file", "filename": path, "node-name": name});
        qmp.execute_with("blockdev-add", node);
    }
    m.ok("irq_intercept_in ioapic");
    let express = PORT.capabilities(&mut m, EXPRESS)[0];
    // As firmware does: a number for the bus below.
    PORT.write32(&mut m, BUSES, u32::from(BUS) << 16 | u32::from(BUS) << 8);
    Rig { m, qmp, express, _images: images }
}

impl Rig {
    fn register(&mut self, register: u8) -> u16 {
        PORT.read16(&mut self.m, self.express + register)
    }

    fn control(&mut self, value: u16) {
        PORT.write16(&mut self.m, self.express + SLOT_CONTROL, value);
    }

    /// Takes the events of the slot, which have to be these.
    fn take(&mut self, events: u16) {
        let status = self.register(SLOT_STATUS);
        assert_eq!(status & !PRESENT, events, "{status:#x}");
        PORT.write16(&mut self.m, self.express + SLOT_STATUS, status);
    }

    /// Vendor and device of what is in the slot.
    fn card(&mut self) -> u32 {
        self.m.readl(ECAM + (u64::from(BUS) << 20))
    }

    fn plug(&mut self) {
        let card = json!({"driver": "virtio-blk-pci", "drive": "n1", "id": "x", "bus": "r1"});
        self.qmp.execute_with("device_add", card);
    }

    fn unplug(&mut self, id: &str) {
        self.qmp.execute_with("device_del", json!({"id": id}));
    }

    fn wait_deleted(&mut self, id: &str) {
        let deleted = self.qmp.wait_event("DEVICE_DELETED");
        assert_eq!(deleted["data"]["device"], id);
    }

    /// A card that the guest has switched on.
    fn plug_and_switch_on(&mut self) {
        self.control(OFF);
        self.plug();
        assert_eq!(self.m.next_irq(), (PORT_GSI, true));
        self.take(BUTTON | CHANGED | COMPLETED);
        assert_eq!(self.m.next_irq(), (PORT_GSI, false));
        self.control(ON);
        self.take(COMPLETED);
    }

    /// What `query-pci` says of the port.
    fn bridge(&mut self) -> Value {
        let buses = self.qmp.execute("query-pci");
        let devices = buses[0]["devices"].as_array().unwrap();
        let port = devices.iter().find(|device| device["qdev_id"] == "r1").unwrap();
        port["pci_bridge"].clone()
    }
}

#[test]
fn a_port_is_a_bridge_with_an_empty_slot() {
    let mut rig = rig();
    assert_eq!(PORT.read32(&mut rig.m, 0), 0x000c_1b36);
    assert_eq!(PORT.read32(&mut rig.m, 0x08) >> 16, 0x0604);
    assert_eq!(PORT.read8(&mut rig.m, 0x0e), 1);
    let slot = rig.express + SLOT_CAPABILITIES;
    assert_eq!(PORT.read32(&mut rig.m, slot) >> 19, 33, "the slot's number");
    assert_eq!(rig.register(SLOT_STATUS), 0);
    assert_eq!(rig.register(LINK_STATUS) & LINK_ACTIVE, 0);
    assert_eq!(rig.card(), u32::MAX);
    let bridge = rig.bridge();
    assert_eq!(bridge["bus"]["secondary"], BUS);
    assert_eq!(bridge["devices"], json!([]));
}

#[test]
fn a_card_that_comes_is_announced_and_found() {
    let mut rig = rig();
    rig.plug_and_switch_on();
    assert_eq!(rig.register(SLOT_STATUS), PRESENT);
    assert_ne!(rig.register(LINK_STATUS) & LINK_ACTIVE, 0);
    assert_eq!(rig.card(), 0x1042_1af4);
    let bridge = rig.bridge();
    assert_eq!(bridge["devices"][0]["qdev_id"], "x", "{bridge}");
    assert_eq!(bridge["devices"][0]["bus"], BUS);
}

#[test]
fn the_button_asks_and_switching_off_lets_go() {
    let mut rig = rig();
    rig.plug_and_switch_on();
    rig.unplug("x");
    assert_eq!(rig.m.next_irq(), (PORT_GSI, true));
    rig.take(BUTTON);
    assert_eq!(rig.m.next_irq(), (PORT_GSI, false));
    rig.control(BLINKS);
    assert_eq!(rig.card(), 0x1042_1af4, "still there");
    rig.control(OFF);
    rig.wait_deleted("x");
    assert_eq!(rig.card(), u32::MAX);
    assert_eq!(rig.m.next_irq(), (PORT_GSI, true));
    rig.take(CHANGED | COMPLETED);
    assert_eq!(rig.register(SLOT_STATUS), 0);
}

#[test]
fn a_guest_that_cancels_is_an_event_and_can_be_asked_again() {
    let mut rig = rig();
    rig.plug_and_switch_on();
    rig.unplug("x");
    rig.control(BLINKS);
    rig.control(ON);
    let refused = rig.qmp.wait_event("DEVICE_UNPLUG_GUEST_ERROR");
    assert_eq!(refused["data"], json!({"device": "x", "path": "/machine/peripheral/x"}));
    assert_eq!(rig.card(), 0x1042_1af4, "it stays");
    rig.unplug("x");
    rig.control(OFF);
    rig.wait_deleted("x");
}

#[test]
fn a_reset_completes_a_removal_and_leaves_the_slot_off() {
    let mut rig = rig();
    let at_power_on = (rig.register(SLOT_CONTROL), rig.register(SLOT_STATUS));
    rig.plug_and_switch_on();
    rig.unplug("x");
    rig.qmp.execute("system_reset");
    rig.qmp.wait_event("RESET");
    rig.wait_deleted("x");
    rig.m.irqs();
    assert_eq!((rig.register(SLOT_CONTROL), rig.register(SLOT_STATUS)), at_power_on);
    assert_eq!(rig.register(LINK_STATUS) & LINK_ACTIVE, 0);
    // One that nobody was asked for stays, with power.
    rig.plug_and_switch_on();
    rig.qmp.execute("system_reset");
    rig.qmp.wait_event("RESET");
    assert_eq!(rig.register(SLOT_STATUS), PRESENT);
    assert_eq!(rig.bridge()["devices"], Value::Null, "the bus has no number yet");
    rig.unplug("x");
    rig.control(OFF);
    rig.wait_deleted("x");
}

#[test]
fn a_card_without_power_goes_at_once() {
    let mut rig = rig();
    rig.plug();
    assert_eq!(rig.card(), 0x1042_1af4);
    rig.unplug("x");
    rig.wait_deleted("x");
    assert_eq!(rig.card(), u32::MAX);
}

#[test]
fn a_blinking_slot_refuses_requests() {
    let mut rig = rig();
    rig.plug_and_switch_on();
    rig.control(BLINKS);
    let reply = rig.qmp.execute_raw("device_del", json!({"id": "x"}));
    let text = "Hot-unplug failed: guest is busy (power indicator blinking)";
    assert_eq!(reply["error"]["desc"], text);
    rig.control(ON);
    rig.unplug("x");
}

#[test]
fn functions_of_a_card_come_together_and_go_together() {
    let mut rig = rig();
    let one =
        json!({"driver": "virtio-blk-pci", "drive": "n1", "id": "x", "bus": "r1", "addr": "0.1"});
    rig.qmp.execute_with("device_add", one.clone());
    assert_eq!(rig.register(SLOT_STATUS), 0, "nobody would look at function 1");
    // It goes without the guest, which does not know of it.
    rig.unplug("x");
    rig.wait_deleted("x");
    rig.qmp.execute_with("device_add", one);
    let zero = json!({"driver": "virtio-rng-pci", "id": "f0", "bus": "r1", "multifunction": true});
    rig.qmp.execute_with("device_add", zero);
    rig.take(BUTTON | CHANGED);
    rig.control(ON);
    rig.take(COMPLETED);
    assert_eq!(rig.card(), 0x1044_1af4);
    let second = ECAM + (u64::from(BUS) << 20) + (1 << 12);
    assert_eq!(rig.m.readl(second), 0x1042_1af4);
    rig.unplug("x");
    rig.take(BUTTON);
    rig.control(OFF);
    let mut gone = [(); 2].map(|()| rig.qmp.wait_event("DEVICE_DELETED")["data"]["device"].take());
    gone.sort_by_key(|id| id.as_str().map(str::to_owned));
    assert_eq!(gone, ["f0", "x"]);
    assert_eq!((rig.card(), rig.m.readl(second)), (u32::MAX, u32::MAX));
}

#[test]
fn two_hundred_cycles_leave_nothing_behind() {
    let mut rig = rig();
    let unit = json!({"driver": "scsi-hd", "drive": "n2", "id": "y", "bus": "s.0"});
    let cycle = |rig: &mut Rig| {
        rig.plug();
        rig.qmp.execute_with("device_add", unit.clone());
        rig.control(ON);
        assert_eq!(rig.card(), 0x1042_1af4);
        rig.unplug("y");
        rig.wait_deleted("y");
        rig.unplug("x");
        rig.control(OFF);
        rig.wait_deleted("x");
        assert_eq!(rig.card(), u32::MAX);
        rig.m.irqs();
    };
    // Threads and pools come with the first ones.
    for _ in 0..20 {
        cycle(&mut rig);
    }
    let before = Footprint::of(rig.m.pid());
    for _ in 0..200 {
        cycle(&mut rig);
    }
    let after = Footprint::of(rig.m.pid());
    assert_eq!(after.files, before.files, "open files");
    // 20 KiB a cycle: less than the rings of one device.
    assert!(after.memory < before.memory + 200 * 20, "{before:?}, then {after:?}");
}
