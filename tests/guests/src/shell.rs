//! The console: commands are typed, and nothing is executed while nobody types.

use crate::commands::{self, Session};
use crate::cpu::{self, vector};
use crate::line::{Echo, Line};
use crate::{console, out, outln, power, slots};

/// Reads and runs commands for ever. Sleeps until the serial port or the power button interrupts.
pub(crate) fn interact(session: &mut Session) -> ! {
    let power_blocks = session.machine.power;
    session.machine.route_interrupts();
    power::enable_button(power_blocks);
    slots::listen();
    console::enable_receive_interrupt();
    let mut line = Line::new();
    let mut events = cpu::interrupts(vector::ACPI);
    commands::prompt();
    loop {
        let seen = cpu::interrupts(0);
        while let Some(byte) = console::read_byte() {
            key(session, &mut line, byte);
        }
        let events_now = cpu::interrupts(vector::ACPI);
        if events_now != events {
            slots::let_go();
            if power::button_pressed(power_blocks) {
                outln!("\npower button");
                commands::power_off(session);
            }
        }
        events = events_now;
        cpu::wait(seen);
    }
}

fn key(session: &mut Session, line: &mut Line, byte: u8) {
    match line.key(byte) {
        Echo::Nothing => {}
        Echo::Byte(byte) => out!("{}", char::from(byte)),
        Echo::Erase => out!("\x08 \x08"),
        Echo::Cancel => {
            outln!("^C");
            commands::prompt();
        }
        Echo::Enter => {
            outln!("");
            if !line.text().trim().is_empty() {
                for command in commands::commands_of(line.text()) {
                    commands::run(session, command);
                }
            }
            line.clear();
            commands::prompt();
        }
    }
}
