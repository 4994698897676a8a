//! What there is: `info` and `lspci`.

use super::{Args, CommandError, Session};
use crate::pci::{Bus, name_of};
use crate::text::Bytes;
use crate::{cpu, outln, time};

type Result<'a> = core::result::Result<(), CommandError<'a>>;

pub(super) fn info<'a>(session: &mut Session, args: &Args<'a>) -> Result<'a> {
    args.allow(&[], &[])?;
    let frequency = session.machine.frequency();
    let start = &session.machine.start;
    outln!("command line: {}", start.command_line());
    let [leaf_max, b, c, d] = cpu::cpuid(0, 0);
    let mut vendor = [0u8; 12];
    for (to, register) in vendor.chunks_exact_mut(4).zip([b, d, c]) {
        to.copy_from_slice(&register.to_le_bytes());
    }
    let hypervisor = time::hypervisor_signature();
    outln!("cpu: {}, cpuid leaf {leaf_max:#x}, hypervisor {}", ascii(&vendor), ascii(&hypervisor));
    match frequency {
        Some(it) => outln!("tsc: {} kHz by {}", it.khz, it.source.name()),
        None => outln!("tsc: frequency unknown"),
    }
    let power = session.machine.power;
    outln!("acpi: pm1a event {:#x} control {:#x}", power.event, power.control);
    outln!("ram: {} KiB", start.ram_bytes() / 1024);
    for range in start.ranges() {
        let last = range.end().saturating_sub(1);
        outln!("  {:#014x}-{last:#014x} {}", range.start, range.kind_name());
    }
    Ok(())
}

/// The printable beginning of an identifying text.
fn ascii(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| !byte.is_ascii_graphic()).unwrap_or(bytes.len());
    match core::str::from_utf8(&bytes[..end]) {
        Ok("") | Err(_) => "none",
        Ok(text) => text,
    }
}

pub(super) fn lspci<'a>(_session: &mut Session, args: &Args<'a>) -> Result<'a> {
    args.allow(&[], &[])?;
    for function in Bus::scan().functions() {
        let name = name_of(function.vendor, function.device, function.class);
        outln!(
            "{} {:04x}:{:04x} class {:06x} rev {:02x} {name}",
            function.location,
            function.vendor,
            function.device,
            function.class,
            function.revision
        );
        for bar in function.bars.iter().flatten() {
            let (space, size) = (bar.space.name(), Bytes(bar.size));
            outln!("    bar{} {space} {:#x} size {size}", bar.index, bar.address);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::ascii;

    #[test]
    fn signatures_end_at_the_first_odd_byte() {
        assert_eq!(ascii(b"KVMKVMKVM\0\0\0"), "KVMKVMKVM");
        assert_eq!(ascii(&[0; 12]), "none");
    }
}
