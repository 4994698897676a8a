use super::*;
use crate::test_platform::TestClock;
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use vcpu::bus::BusDevice;

const SECOND: u64 = 1_000_000_000;
// Thursday, 29 February 2024, 23:59:58 UTC.
const LEAP_DAY: u64 = 1_709_251_198;

struct Bench {
    cmos: Arc<Cmos>,
    clock: Arc<TestClock>,
}

impl Bench {
    fn at(unix: u64) -> Self {
        let clock = Arc::<TestClock>::default();
        clock.wall_ns.store(unix * SECOND, Ordering::Relaxed);
        let cmos = Cmos::new(clock.clone(), 3 << 30, 5 << 30, 4);
        Self { cmos, clock }
    }

    fn get(&self, index: u8) -> u8 {
        self.cmos.write(0, &[index]);
        let mut data = [0xff];
        self.cmos.read(1, &mut data);
        data[0]
    }

    fn set(&self, index: u8, value: u8) {
        self.cmos.write(0, &[index]);
        self.cmos.write(1, &[value]);
    }

    /// Century, year, month, day, hour, minute, second as they stand in the registers.
    fn time(&self) -> [u8; 7] {
        [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS].map(|index| self.get(index))
    }

    fn pass(&self, ns: u64) {
        self.clock.wall_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

#[test]
fn it_tells_the_time_in_bcd() {
    let bench = Bench::at(LEAP_DAY);
    assert_eq!(bench.time(), [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58]);
    assert_eq!(bench.get(WEEKDAY), 5, "Thursday");
    bench.pass(2 * SECOND);
    assert_eq!(bench.time(), [0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00]);
}

#[test]
fn binary_and_twelve_hours_when_asked() {
    let bench = Bench::at(LEAP_DAY);
    bench.set(REGISTER_B, B_BINARY | B_24_HOURS);
    assert_eq!(bench.time(), [20, 24, 2, 29, 23, 59, 58]);
    bench.set(REGISTER_B, 0);
    assert_eq!(bench.get(HOURS), 0x11 | PM);
    bench.pass(2 * SECOND);
    assert_eq!(bench.get(HOURS), 0x12, "midnight");
    bench.set(HOURS, 0x12 | PM);
    assert_eq!(bench.get(HOURS), 0x12 | PM, "noon");
    bench.set(REGISTER_B, B_24_HOURS);
    assert_eq!(bench.get(HOURS), 0x12);
}

#[test]
fn a_guest_sets_the_clock_and_it_runs_on() {
    let bench = Bench::at(LEAP_DAY);
    bench.set(REGISTER_B, B_SET | B_24_HOURS);
    bench.pass(10 * SECOND);
    assert_eq!(bench.get(SECONDS), 0x58, "stopped while it is set");
    let wanted = [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59];
    for (index, value) in
        [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS].into_iter().zip(wanted)
    {
        bench.set(index, value);
    }
    assert_eq!(bench.time(), wanted);
    bench.set(REGISTER_B, B_24_HOURS);
    bench.pass(SECOND);
    assert_eq!(bench.time(), [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00]);
    bench.cmos.reset();
    assert_eq!(bench.time()[..2], [0x20, 0x00], "the battery keeps it");
}

#[test]
fn an_update_is_announced_at_the_end_of_a_second_and_reported_once() {
    let bench = Bench::at(LEAP_DAY);
    assert_eq!(bench.get(REGISTER_A), A_POWER_ON);
    bench.get(REGISTER_C);
    bench.pass(SECOND - 1_000_000);
    assert_eq!(bench.get(REGISTER_A), A_POWER_ON | A_UPDATE_IN_PROGRESS);
    assert_eq!(bench.get(REGISTER_C), 0);
    bench.set(REGISTER_B, B_SET | B_24_HOURS);
    assert_eq!(bench.get(REGISTER_A), A_POWER_ON, "no updates while it is set");
    bench.set(REGISTER_B, B_24_HOURS);
    bench.pass(1_000_000);
    assert_eq!(bench.get(REGISTER_A), A_POWER_ON);
    assert_eq!(bench.get(REGISTER_C), C_UPDATE_ENDED);
    assert_eq!(bench.get(REGISTER_C), 0);
    assert_eq!(bench.get(REGISTER_D), D_VALID);
}

#[test]
fn memory_sizes_are_where_firmware_puts_them() {
    let bench = Bench::at(0);
    let word = |at| u16::from_le_bytes([bench.get(at), bench.get(at + 1)]);
    assert_eq!(word(BASE_MEMORY), 640);
    assert_eq!(word(EXTENDED_MEMORY), u16::MAX);
    assert_eq!(word(EXTENDED_MEMORY_COPY), u16::MAX);
    assert_eq!(word(MEMORY_ABOVE_16M), ((3u64 << 30) / 65536 - 256) as u16);
    assert_eq!(u32::from(word(MEMORY_ABOVE_4G)) | u32::from(bench.get(0x5d)) << 16, 5 << 14);
    assert_eq!(bench.get(CPUS), 3);
    let small = Cmos::new(Arc::<TestClock>::default(), 8 << 20, 0, 1);
    small.write(0, &[EXTENDED_MEMORY]);
    let mut data = [0; 1];
    small.read(1, &mut data);
    assert_eq!(data[0], (7 * 1024u16).to_le_bytes()[0]);
}

#[test]
fn nothing_floats() {
    let bench = Bench::at(LEAP_DAY);
    let float: Vec<u8> = (0..128)
        .filter(|index| bench.get(*index) == 0xff)
        .filter(|index| ![0x17, 0x18, 0x30, 0x31].contains(index))
        .collect();
    assert_eq!(float, [0u8; 0], "only the memory sizes above are at their limit");
    assert_eq!(bench.get(0xff), bench.get(0x7f), "bit 7 is not part of the index");
    let mut index = [0];
    bench.cmos.read(0, &mut index);
    assert_eq!(index, [0x7f]);
    bench.set(0x0f, 0xa5);
    assert_eq!(bench.get(0x0f), 0xa5, "shutdown status");
    bench.cmos.reset();
    assert_eq!(bench.get(0x0f), 0);
}

proptest! {
    #[test]
    fn dates_and_seconds_are_each_others_inverse(seconds in -62_135_596_800i64..253_402_300_800) {
        let date = Civil::from_unix(seconds);
        prop_assert_eq!(date.to_unix(), seconds);
        prop_assert!((1..=12).contains(&date.month) && (1..=31).contains(&date.day));
        let next = Civil::from_unix(seconds + 86_400);
        prop_assert_eq!(next.weekday(), date.weekday() % 7 + 1);
    }

    #[test]
    fn whatever_is_written_the_clock_goes_on(
        writes in prop::collection::vec((any::<u8>(), any::<u8>()), 0..60),
        unix in 0u64..4_102_444_800,
    ) {
        let bench = Bench::at(unix);
        for (index, value) in writes {
            bench.set(index, value);
            bench.get(index);
        }
        bench.set(REGISTER_B, B_24_HOURS);
        let before = bench.get(SECONDS);
        bench.pass(SECOND);
        prop_assert_ne!(bench.get(SECONDS), before);
    }
}
