use super::*;
use crate::acpi::{GPE0_PORT, GpePorts};
use crate::qdev::Unplug;
use crate::test_platform::{TestClock, TestLine};

struct Bench {
    sci: Arc<TestLine>,
    gpe: Arc<GpePorts>,
    hotplug: Arc<PciHotplug>,
    ejected: Arc<Mutex<Vec<u32>>>,
}

impl Bench {
    fn new() -> Self {
        let (sci, clock) = (Arc::<TestLine>::default(), Arc::<TestClock>::default());
        let pm = AcpiPm::new(sci.clone(), clock, Arc::new(|_| ()));
        let hotplug = PciHotplug::new(Arc::clone(&pm));
        let ejected = Arc::<Mutex<Vec<u32>>>::default();
        let log = Arc::clone(&ejected);
        hotplug.connect(Box::new(move |slots| log.lock().unwrap().push(slots)));
        Self { sci, gpe: GpePorts::new(pm), hotplug, ejected }
    }

    fn inl(&self, port: u16) -> u32 {
        let mut data = [0; 4];
        self.hotplug.read(u64::from(port - HOTPLUG_PORT), &mut data);
        u32::from_le_bytes(data)
    }

    fn outl(&self, port: u16, value: u32) {
        self.hotplug.write(u64::from(port - HOTPLUG_PORT), &value.to_le_bytes());
    }

    fn gpe_status(&self) -> u16 {
        let mut data = [0; 2];
        self.gpe.read(0, &mut data);
        u16::from_le_bytes(data)
    }

    fn outb_gpe(&self, port: u16, value: u8) {
        self.gpe.write(u64::from(port - GPE0_PORT), &[value]);
    }
}

#[test]
fn a_device_that_comes_is_announced_until_it_was_read() {
    let bench = Bench::new();
    bench.outb_gpe(0xafe2, 0b10);
    bench.hotplug.added(4);
    assert!(bench.sci.high());
    assert_eq!(bench.gpe_status(), 0b10);
    bench.outb_gpe(0xafe0, 0b10);
    assert!(!bench.sci.high());
    bench.outl(0xae10, 0);
    assert_eq!((bench.inl(0xae00), bench.inl(0xae04)), (1 << 4, 0));
    assert_eq!(bench.inl(0xae00), 0);
}

#[test]
fn a_device_that_shall_go_is_shown_until_it_is_gone() {
    let bench = Bench::new();
    assert_eq!(bench.hotplug.remove_requested(6).unwrap(), Unplug::Asked);
    assert!(!bench.sci.high(), "the guest has not enabled the event");
    bench.outb_gpe(0xafe2, 0b10);
    assert!(bench.sci.high(), "it was not lost");
    assert_eq!((bench.inl(0xae04), bench.inl(0xae04)), (1 << 6, 1 << 6));
    bench.outl(0xae08, 1 << 6);
    assert_eq!(*bench.ejected.lock().unwrap(), [1 << 6]);
    bench.hotplug.removed(6);
    assert_eq!(bench.inl(0xae04), 0);
}

#[test]
fn the_host_bridge_stays_and_other_buses_have_nothing() {
    let bench = Bench::new();
    assert_eq!(bench.inl(0xae0c), !1);
    bench.hotplug.added(3);
    bench.outl(0xae10, 1);
    assert_eq!((bench.inl(0xae00), bench.inl(0xae0c), bench.inl(0xae10)), (0, 0, 1));
    bench.outl(0xae08, 1 << 3);
    bench.outl(0xae10, 0);
    bench.outl(0xae08, u32::MAX);
    assert_eq!(*bench.ejected.lock().unwrap(), [!1]);
    assert_eq!(bench.inl(0xae08), 0, "no feature bits");
    bench.hotplug.reset();
    assert_eq!(bench.inl(0xae00), 0);
}

#[test]
fn any_width_at_any_offset_is_safe() {
    let bench = Bench::new();
    for width in [1, 2, 4, 8] {
        for offset in 0..0x20 {
            let mut data = vec![0xff; width];
            bench.hotplug.read(offset, &mut data);
            bench.gpe.read(offset, &mut data);
            bench.hotplug.write(offset, &vec![0xff; width]);
            bench.gpe.write(offset, &vec![0xff; width]);
        }
    }
}
