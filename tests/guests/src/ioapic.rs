//! The I/O APIC at its standard address: routes of the serial port and of ACPI events.

use crate::mem::Region;

/// Where the I/O APIC is on a PC.
pub(crate) const ADDRESS: u64 = 0xfec0_0000;
/// Length of its register window.
pub(crate) const LEN: usize = 0x20;

/// Sends `pin` to `vector` of the processor with APIC identifier `apic_id`: edge triggered, active
/// high, unmasked.
pub(crate) fn route(registers: Region, pin: u8, vector: u8, apic_id: u32) {
    let index = 0x10 + 2 * u32::from(pin);
    write(registers, index + 1, apic_id << 24);
    write(registers, index, vector.into());
}

fn write(registers: Region, index: u32, value: u32) {
    registers.store(0, index);
    registers.store(0x10, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::test_memory;

    #[test]
    fn the_low_half_is_written_last() {
        let registers = test_memory::region(LEN);
        route(registers, 4, 0x24, 0);
        assert_eq!((registers.load::<u32>(0), registers.load::<u32>(0x10)), (0x18, 0x24));
    }
}
