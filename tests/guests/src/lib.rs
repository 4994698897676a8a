//! The embedded guest: a bare-metal program that tests and measures a VMM from the inside.
//!
//! It boots by the PVH protocol (32-bit entry named by an ELF note), sets the processor up in a
//! few dozen instructions and spends its life in CPL3, because hosts without VMX or SVM interpret
//! CPL0. It finds PCI devices, drives virtio disks and networks, lets them come and go, and takes commands from its command line
//! and its serial console; `help` lists them. `commands/mod.rs`
//! holds their table, `boot/` all that runs in CPL0.
//!
//! This one crate is compiled twice. Cargo builds it for the host, where it exports the finished
//! program as [`EMBEDDED`] and where the unit tests run; `build.rs` builds it as the program
//! itself, with `cfg(guest_image)`, without the standard library.

#![cfg_attr(guest_image, no_std, no_main)]
#![cfg_attr(
    not(guest_image),
    allow(dead_code, reason = "the program runs in the guest; on the host only its tests use it")
)]

mod acpi;
#[cfg(guest_image)]
mod boot;
mod commands;
mod console;
mod cpu;
mod histogram;
mod ioapic;
mod line;
mod machine;
mod mem;
mod pattern;
mod pci;
mod power;
mod shell;
mod slots;
mod start_info;
mod text;
mod time;
mod virtio;

use commands::Session;
use machine::{Layout, Machine};

/// The program: an ELF executable with a PVH entry note, for a guest of 32 MiB or more.
#[cfg(not(guest_image))]
pub static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// The program, from its first Rust function on: commands of the command line, then the console.
///
/// # Safety
/// `layout` must be true, `start_info` what the loader passed, and this called once.
unsafe fn run(layout: Layout, start_info: u64) -> ! {
    console::init();
    // SAFETY: the caller's duty.
    let machine = match unsafe { Machine::take(layout, start_info) } {
        Ok(machine) => machine,
        Err(error) => {
            outln!("guest: {error}");
            power::exit(power::STATUS_PANIC)
        }
    };
    let mut session = Session { machine, failed: false };
    let ram = session.machine.start.ram_bytes() / 1024;
    outln!("ringvisor guest {}: {ram} KiB RAM, help lists commands", env!("CARGO_PKG_VERSION"));
    let start = session.machine.start.clone();
    for command in commands::commands_of(start.command_line()) {
        outln!("+ {command}");
        let done = commands::run(&mut session, command);
        session.failed |= !done;
    }
    shell::interact(&mut session)
}

#[cfg(test)]
mod tests;
