use super::*;
use crate::test_platform::{TestClock, TestLine};
use std::sync::atomic::Ordering;

struct Bench {
    pm: Arc<AcpiPm>,
    sci: Arc<TestLine>,
    clock: Arc<TestClock>,
    asked: Arc<Mutex<Vec<GuestRequest>>>,
}

impl Bench {
    fn new() -> Self {
        let (sci, clock) = (Arc::<TestLine>::default(), Arc::<TestClock>::default());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let requests: RequestSink = Arc::new(move |request| log.lock().unwrap().push(request));
        let pm = AcpiPm::new(sci.clone(), clock.clone(), requests);
        Self { pm, sci, clock, asked }
    }

    fn inw(&self, port: u16) -> u16 {
        let mut data = [0; 2];
        self.pm.read(u64::from(port - PM1_EVENT_PORT), &mut data);
        u16::from_le_bytes(data)
    }

    fn outw(&self, port: u16, value: u16) {
        self.pm.write(u64::from(port - PM1_EVENT_PORT), &value.to_le_bytes());
    }

    fn timer(&self) -> u32 {
        let mut data = [0; 4];
        self.pm.read(u64::from(PM_TIMER_PORT - PM1_EVENT_PORT), &mut data);
        u32::from_le_bytes(data)
    }

    fn asked(&self) -> Vec<GuestRequest> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

const ENABLE_PORT: u16 = PM1_EVENT_PORT + 2;

#[test]
fn the_power_button_interrupts_until_its_status_is_cleared() {
    let bench = Bench::new();
    bench.outw(ENABLE_PORT, POWER_BUTTON);
    assert!(!bench.sci.high());
    bench.pm.press_power_button();
    bench.pm.press_power_button();
    assert!(bench.sci.high());
    assert_eq!(bench.inw(PM1_EVENT_PORT), POWER_BUTTON);
    bench.outw(PM1_EVENT_PORT, 0);
    assert!(bench.sci.high(), "zeroes clear nothing");
    bench.outw(PM1_EVENT_PORT, POWER_BUTTON);
    assert!(!bench.sci.high());
    assert_eq!(bench.inw(PM1_EVENT_PORT), 0);
}

#[test]
fn a_press_before_the_guest_listens_is_kept() {
    let bench = Bench::new();
    bench.pm.press_power_button();
    assert!(!bench.sci.high());
    // ACPICA writes the enable register in bytes on some paths.
    bench.pm.write(3, &[(POWER_BUTTON >> 8) as u8]);
    assert!(bench.sci.high());
    assert_eq!(bench.inw(ENABLE_PORT), POWER_BUTTON);
    bench.pm.reset();
    assert!(!bench.sci.high());
    assert_eq!((bench.inw(PM1_EVENT_PORT), bench.inw(ENABLE_PORT)), (0, 0));
}

#[test]
fn one_write_may_clear_and_enable() {
    let bench = Bench::new();
    bench.pm.press_power_button();
    let both = u32::from(POWER_BUTTON) << 16 | u32::from(POWER_BUTTON);
    bench.pm.write(0, &both.to_le_bytes());
    assert_eq!((bench.inw(PM1_EVENT_PORT), bench.inw(ENABLE_PORT)), (0, POWER_BUTTON));
    assert!(!bench.sci.high());
}

#[test]
fn only_defined_events_can_be_enabled() {
    let bench = Bench::new();
    bench.outw(ENABLE_PORT, u16::MAX);
    assert_eq!(bench.inw(ENABLE_PORT), 0x0721);
}

#[test]
fn soft_off_is_asked_for_by_sleep_enable_with_type_zero() {
    let bench = Bench::new();
    assert_eq!(bench.inw(PM1_CONTROL_PORT), CONTROL_SCI_ENABLE, "always in ACPI mode");
    bench.outw(PM1_CONTROL_PORT, CONTROL_SCI_ENABLE);
    assert_eq!(bench.asked(), []);
    bench.outw(PM1_CONTROL_PORT, CONTROL_SLEEP_ENABLE | CONTROL_SCI_ENABLE);
    assert_eq!(bench.asked(), [GuestRequest::PowerOff]);
    assert_eq!(bench.inw(PM1_CONTROL_PORT) & CONTROL_SLEEP_ENABLE, 0, "reads as zero");
    // The high byte alone, as a byte-wide driver does.
    bench.pm.write(5, &[(CONTROL_SLEEP_ENABLE >> 8) as u8]);
    assert_eq!(bench.asked(), [GuestRequest::PowerOff]);
    let other = CONTROL_SLEEP_ENABLE | 5 << CONTROL_SLEEP_TYPE_SHIFT;
    bench.outw(PM1_CONTROL_PORT, other);
    assert_eq!(bench.asked(), [], "a sleep state that the tables do not announce");
    // A write elsewhere does not repeat it.
    bench.outw(PM1_EVENT_PORT, 0);
    assert_eq!(bench.asked(), []);
}

#[test]
fn the_timer_counts_the_clock_and_wraps() {
    let bench = Bench::new();
    assert_eq!(bench.timer(), 0);
    bench.clock.monotonic_ns.store(1_000_000_000, Ordering::Relaxed);
    assert_eq!(bench.timer(), 3_579_545);
    bench.clock.monotonic_ns.store(3_600 * 1_000_000_000, Ordering::Relaxed);
    assert_eq!(bench.timer(), (3_579_545u64 * 3600) as u32);
    bench.clock.monotonic_ns.store(u64::MAX, Ordering::Relaxed);
    bench.timer();
    bench.pm.write(8, &[0xff; 4]);
}

#[test]
fn any_width_at_any_offset_is_safe() {
    let bench = Bench::new();
    for width in [1, 2, 4, 8] {
        for offset in 0..16 {
            let mut data = vec![0xff; width];
            bench.pm.read(offset, &mut data);
            bench.pm.write(offset, &vec![0; width]);
        }
    }
    assert_eq!(bench.asked(), []);
}
