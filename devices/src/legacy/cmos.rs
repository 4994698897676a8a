//! The real-time clock and its CMOS memory at ports 0x70 and 0x71 (Motorola MC146818A).
//!
//! The time of day is the machine clock's, in UTC, moved by what the guest has set. Alarm and
//! periodic interrupts are not raised; the registers for them can be written and read.

use super::{ByteDevice, byte_device_on_bus};
use crate::clock::Clock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod civil;
use civil::Civil;

/// First port: the index register. The data register follows.
pub const RTC_PORT: u16 = 0x70;
/// Ports.
pub const RTC_LEN: u16 = 2;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
const EQUIPMENT: u8 = 0x14;
const BASE_MEMORY: u8 = 0x15;
const EXTENDED_MEMORY: u8 = 0x17;
const EXTENDED_MEMORY_COPY: u8 = 0x30;
const CENTURY: u8 = 0x32;
const MEMORY_ABOVE_16M: u8 = 0x34;
const MEMORY_ABOVE_4G: u8 = 0x5b;
const CPUS: u8 = 0x5f;

const A_UPDATE_IN_PROGRESS: u8 = 1 << 7;
const A_POWER_ON: u8 = 0x26; // 32,768 Hz time base, 1,024 Hz periodic rate
const B_SET: u8 = 1 << 7;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
const C_UPDATE_ENDED: u8 = 1 << 4;
const D_VALID: u8 = 1 << 7;
const PM: u8 = 1 << 7;

const CMOS_BYTES: usize = 128;
const NANOS_PER_SECOND: i128 = 1_000_000_000;
// The update cycle, with the 244 us that it is announced before.
const UPDATE_NS: i128 = 2_228_000;
const MIB: u64 = 1 << 20;

struct State {
    index: u8,
    memory: [u8; CMOS_BYTES],
    // What the guest's clock is ahead of the machine's.
    offset_ns: i128,
    // While the guest sets the clock (SET in register B): what it has put together so far.
    setting: Option<Civil>,
    // The second in which register C was last read.
    seen_second: i128,
}

/// The real-time clock.
pub struct Cmos {
    clock: Arc<dyn Clock>,
    power_on: [u8; CMOS_BYTES],
    state: Mutex<State>,
}

impl Cmos {
    /// A clock that runs with `clock`, and memory that tells of `ram_below_4g` and `ram_above_4g`
    /// bytes of RAM and `cpus` processors.
    pub fn new(
        clock: Arc<dyn Clock>,
        ram_below_4g: u64,
        ram_above_4g: u64,
        cpus: u32,
    ) -> Arc<Self> {
        let power_on = contents(ram_below_4g, ram_above_4g, cpus);
        let state =
            State { index: 0, memory: power_on, offset_ns: 0, setting: None, seen_second: 0 };
        Arc::new(Self { clock, power_on, state: Mutex::new(state) })
    }

    /// Power-on state of the registers; the battery keeps the time that the guest has set.
    pub fn reset(&self) {
        let mut state = self.lock();
        (state.index, state.memory, state.setting) = (0, self.power_on, None);
    }

    fn now_ns(&self, state: &State) -> i128 {
        let wall = i128::try_from(self.clock.wall().as_nanos()).unwrap_or(i128::MAX / 2);
        wall.saturating_add(state.offset_ns)
    }

    fn time(&self, state: &State) -> Civil {
        let now = self.now_ns(state).div_euclid(NANOS_PER_SECOND);
        state.setting.unwrap_or_else(|| Civil::from_unix(now as i64))
    }

    fn read_register(&self, state: &mut State, index: u8) -> u8 {
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY => {
                encode(self.time(state), index, state.memory[usize::from(REGISTER_B)])
            }
            REGISTER_A => {
                let left = NANOS_PER_SECOND - self.now_ns(state).rem_euclid(NANOS_PER_SECOND);
                let updating = state.setting.is_none() && left <= UPDATE_NS;
                let flag = if updating { A_UPDATE_IN_PROGRESS } else { 0 };
                state.memory[usize::from(REGISTER_A)] & !A_UPDATE_IN_PROGRESS | flag
            }
            REGISTER_C => {
                let second = self.now_ns(state).div_euclid(NANOS_PER_SECOND);
                let before = std::mem::replace(&mut state.seen_second, second);
                if before == second { 0 } else { C_UPDATE_ENDED }
            }
            REGISTER_D => D_VALID,
            _ => state.memory.get(usize::from(index)).copied().unwrap_or(0),
        }
    }

    fn write_register(&self, state: &mut State, index: u8, value: u8) {
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY => {
                let mut time = self.time(state);
                decode(&mut time, index, value, state.memory[usize::from(REGISTER_B)]);
                self.set_time(state, time);
            }
            REGISTER_B => {
                state.memory[usize::from(REGISTER_B)] = value;
                if value & B_SET != 0 {
                    state.setting = Some(self.time(state));
                } else if let Some(time) = state.setting.take() {
                    self.set_time(state, time);
                }
            }
            REGISTER_C | REGISTER_D => {}
            _ => {
                if let Some(byte) = state.memory.get_mut(usize::from(index)) {
                    *byte = value;
                }
            }
        }
    }

    fn set_time(&self, state: &mut State, time: Civil) {
        if state.setting.is_some() {
            state.setting = Some(time);
        } else {
            // The fraction of the second runs on.
            let was = self.now_ns(state).div_euclid(NANOS_PER_SECOND);
            state.offset_ns += (i128::from(time.to_unix()) - was) * NANOS_PER_SECOND;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What firmware of a PC leaves in the memory: sizes in units of 1 KiB or 64 KiB, low byte first.
fn contents(ram_below_4g: u64, ram_above_4g: u64, cpus: u32) -> [u8; CMOS_BYTES] {
    let mut memory = [0; CMOS_BYTES];
    let mut put = |at: u8, bytes: &[u8]| {
        for (slot, byte) in memory.iter_mut().skip(at.into()).zip(bytes) {
            *slot = *byte;
        }
    };
    let units = |bytes: u64, unit: u64| u16::try_from(bytes / unit).unwrap_or(u16::MAX);
    let extended = units(ram_below_4g.saturating_sub(MIB), 1 << 10);
    let high = (ram_above_4g >> 16).min(0xff_ffff) as u32;
    put(REGISTER_A, &[A_POWER_ON, B_24_HOURS]);
    put(EQUIPMENT, &[1 << 1]); // a floating-point unit
    put(BASE_MEMORY, &640u16.to_le_bytes());
    put(EXTENDED_MEMORY, &extended.to_le_bytes());
    put(EXTENDED_MEMORY_COPY, &extended.to_le_bytes());
    put(MEMORY_ABOVE_16M, &units(ram_below_4g.saturating_sub(16 * MIB), 1 << 16).to_le_bytes());
    put(MEMORY_ABOVE_4G, &high.to_le_bytes()[..3]);
    put(CPUS, &[u8::try_from(cpus.saturating_sub(1)).unwrap_or(u8::MAX)]);
    memory
}

fn to_bcd(value: u8, binary: bool) -> u8 {
    if binary { value } else { ((value / 10) << 4) | (value % 10) }
}

fn from_bcd(value: u8, binary: bool) -> u8 {
    if binary { value } else { (value >> 4) * 10 + (value & 0xf) }
}

/// Register `index` as `time` shows in it, in the format that register B selects.
fn encode(time: Civil, index: u8, register_b: u8) -> u8 {
    let binary = register_b & B_BINARY != 0;
    let value = match index {
        SECONDS => time.second,
        MINUTES => time.minute,
        HOURS if register_b & B_24_HOURS == 0 => {
            let hour = to_bcd((time.hour + 11) % 12 + 1, binary);
            return if time.hour >= 12 { hour | PM } else { hour };
        }
        HOURS => time.hour,
        WEEKDAY => time.weekday(),
        DAY => time.day,
        MONTH => time.month,
        YEAR => (time.year % 100) as u8,
        _ => (time.year / 100 % 100) as u8,
    };
    to_bcd(value, binary)
}

/// Changes the part of `time` that register `index` holds.
fn decode(time: &mut Civil, index: u8, value: u8, register_b: u8) {
    let binary = register_b & B_BINARY != 0;
    let number = from_bcd(value, binary);
    match index {
        SECONDS => time.second = number % 60,
        MINUTES => time.minute = number % 60,
        HOURS if register_b & B_24_HOURS == 0 => {
            let noon = if value & PM != 0 { 12 } else { 0 };
            time.hour = from_bcd(value & !PM, binary) % 12 + noon;
        }
        HOURS => time.hour = number % 24,
        DAY => time.day = number.clamp(1, 31),
        MONTH => time.month = number.clamp(1, 12),
        YEAR => time.year = time.year / 100 * 100 + u16::from(number) % 100,
        CENTURY => time.year = u16::from(number) % 100 * 100 + time.year % 100,
        // The day of the week follows from the date.
        _ => {}
    }
}

impl ByteDevice for Cmos {
    fn read_byte(&self, offset: u8) -> u8 {
        let mut state = self.lock();
        let index = state.index;
        if offset == 0 { index } else { self.read_register(&mut state, index) }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        let mut state = self.lock();
        if offset == 0 {
            // Bit 7 masks NMIs, of which there are none.
            state.index = value & 0x7f;
        } else {
            let index = state.index;
            self.write_register(&mut state, index, value);
        }
    }
}

byte_device_on_bus!(Cmos);

#[cfg(test)]
mod tests;
