//! Ways to end: power off, exit status, reset.

use crate::acpi::PowerBlocks;
use crate::cpu;
use crate::time::LIMIT_TICKS;

/// The debug-exit port: a byte written ends the VM with it as status.
pub(crate) const EXIT_PORT: u16 = 0xf4;
/// Status when checks have failed.
pub(crate) const STATUS_FAILED: u8 = 1;
/// Status after an exception nobody asked for; `boot/vectors.s` writes the same.
pub(crate) const STATUS_FAULT: u8 = 2;
/// Status after a panic.
pub(crate) const STATUS_PANIC: u8 = 3;

const SLEEP_ENABLE: u16 = 1 << 13;
const POWER_BUTTON: u16 = 1 << 8;

/// Ends the VM through the debug-exit port; halts where there is none.
pub(crate) fn exit(status: u8) -> ! {
    cpu::out8(EXIT_PORT, status);
    cpu::halt()
}

/// Enters ACPI S5. Returns when the machine goes on regardless, after some tenths of a second.
pub(crate) fn soft_off(blocks: PowerBlocks) {
    cpu::out16(blocks.control, (blocks.soft_off << 10) | SLEEP_ENABLE);
    linger();
}

/// Gives the machine time to do what ends it.
fn linger() {
    let start = cpu::tsc();
    while cpu::tsc() - start < LIMIT_TICKS / 20 {
        core::hint::spin_loop();
    }
}

/// Has the power button raise the ACPI interrupt.
pub(crate) fn enable_button(blocks: PowerBlocks) {
    cpu::out16(blocks.event, POWER_BUTTON);
    cpu::out16(blocks.event + 2, POWER_BUTTON);
}

/// Whether the power button has been pressed since the last call.
pub(crate) fn button_pressed(blocks: PowerBlocks) -> bool {
    let pressed = cpu::in16(blocks.event) & POWER_BUTTON != 0;
    if pressed {
        cpu::out16(blocks.event, POWER_BUTTON);
    }
    pressed
}

/// Pulses the reset line through the keyboard controller. Returns when nothing happens, after
/// some tenths of a second.
pub(crate) fn reset() {
    cpu::out8(0x64, 0xfe);
    linger();
}
