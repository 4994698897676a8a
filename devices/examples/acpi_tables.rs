//! Writes the ACPI tables of a machine to files, for `iasl -d`.
//!
//! Usage: `cargo run -p devices --example acpi_tables DIRECTORY [CPUS]`

use devices::acpi::{self, AcpiConfig};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let cpus: u32 = arguments.next().map_or(Ok(2), |cpus| cpus.parse())?;
    let pci64 = vcpu::memory::layout::pci64_window(1 << 30, 46);
    let tables =
        acpi::build(&AcpiConfig { apic_ids: (0..cpus).collect(), pci64, bridges: 1 << 8 })?;
    for table in &tables.tables {
        let name = table.signature.to_lowercase().replace(' ', "_");
        std::fs::write(directory.join(format!("{name}.dat")), &table.bytes)?;
        println!("{} at {:#x}, {} bytes", table.signature, table.address, table.bytes.len());
    }
    Ok(())
}
