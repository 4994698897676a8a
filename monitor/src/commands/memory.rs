//! Guest memory into files, and the non-maskable interrupt.

use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use reactor::io;
use std::path::Path;
use std::sync::Arc;
use vcpu::linear::Linear;
use vcpu::memory::Ram;
use vm_memory::{Bytes, GuestAddress};

/// Written at once; the context does other things in between.
const PIECE_BYTES: u64 = 64 << 10;
const PAGE_BYTES: u64 = 4096;

qapi_struct! {
    /// Memory as a vCPU addresses it.
    pub struct MemSave {
        /// Its first byte, a virtual address.
        pub val: u64 = "val",
        /// Bytes.
        pub size: u64 = "size",
        /// The file to write, which is made or emptied first.
        pub filename: String = "filename",
        /// The vCPU; the first when absent.
        pub cpu_index: Option<i64> = "cpu-index",
    }
}

qapi_struct! {
    /// Memory by its physical address.
    pub struct PMemSave {
        /// Its first byte.
        pub val: u64 = "val",
        /// Bytes.
        pub size: u64 = "size",
        /// The file to write, which is made or emptied first.
        pub filename: String = "filename",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::coroutine(
        "memsave",
        "Writes a part of virtual memory to a file. The guest's page tables are taken as they are \
         when the command begins; a page that is not present is an error.",
        memsave,
    ));
    registry.add(Command::coroutine(
        "pmemsave",
        "Writes a part of physical memory to a file; zeros where there is no RAM. A guest that runs \
         may change it meanwhile.",
        pmemsave,
    ));
    registry.add(Command::coroutine(
        "inject-nmi",
        "Gives every vCPU a non-maskable interrupt.",
        inject_nmi,
    ));
}

pub(crate) async fn inject_nmi(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.inject_nmi().await
}

pub(crate) async fn memsave(env: Env, asked: MemSave) -> Result<(), QmpError> {
    let MemSave { val, size, filename, cpu_index } = asked;
    let machine = Arc::clone(env.machine()?);
    let index = usize::try_from(cpu_index.unwrap_or(0)).ok();
    let index = index.filter(|index| *index < machine.cpus().len());
    let index =
        index.ok_or_else(|| QmpError::generic("Parameter 'cpu-index' expects a CPU number"))?;
    let linear = machine.linear(index as u32).await?;
    save(&filename, size, |offset, buffer| {
        let address = val.wrapping_add(offset);
        if machine.ram().is_some_and(|ram| read_linear(ram, &linear, address, buffer)) {
            return Ok(());
        }
        let text = format!("Invalid addr 0x{val:016x}/size {size} specified");
        Err(QmpError::generic(text))
    })
    .await
}

pub(crate) async fn pmemsave(env: Env, asked: PMemSave) -> Result<(), QmpError> {
    let PMemSave { val, size, filename } = asked;
    let machine = Arc::clone(env.machine()?);
    save(&filename, size, |offset, buffer| {
        buffer.fill(0);
        if let Some(ram) = machine.ram() {
            by_page(val.wrapping_add(offset), buffer, |address, piece| {
                read_ram(ram, address, piece);
                true
            });
        }
        Ok(())
    })
    .await
}

/// Writes `size` bytes to a file, piece by piece as `fill` gives them for an offset. In a task.
async fn save(
    filename: &str,
    size: u64,
    mut fill: impl FnMut(u64, &mut [u8]) -> Result<(), QmpError>,
) -> Result<(), QmpError> {
    // O_NONBLOCK: a FIFO that nobody reads is refused.
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = io::openat(Path::new(filename), flags, 0o666).await.map_err(|error| {
        let reason = reason(&error);
        QmpError::generic(format!("Could not open '{filename}': {reason}"))
    })?;
    let (mut done, mut buffer) = (0, Vec::new());
    while done < size {
        let bytes = (size - done).min(PIECE_BYTES);
        buffer.resize(bytes as usize, 0);
        fill(done, &mut buffer)?;
        let (written, back) = io::write_all(&file, buffer).await;
        buffer = back;
        written.map_err(|_| QmpError::generic(format!("writing memory to '{filename}' failed")))?;
        done += bytes;
    }
    Ok(())
}

/// What strerror(3) says.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

/// Reads RAM. False, and nothing read, where a part of it is none.
pub(crate) fn read_ram(ram: &Ram, address: u64, buffer: &mut [u8]) -> bool {
    ram.read_slice(buffer, GuestAddress(address)).is_ok()
}

/// Reads memory by its linear address. False where a page is not present or not RAM.
pub(crate) fn read_linear(ram: &Ram, linear: &Linear, address: u64, buffer: &mut [u8]) -> bool {
    by_page(address, buffer, |address, piece| {
        let physical = linear.translate(ram, address);
        physical.is_some_and(|physical| read_ram(ram, physical, piece))
    })
}

/// Calls `read` for each page that the buffer's memory touches, until one is false.
fn by_page(address: u64, buffer: &mut [u8], mut read: impl FnMut(u64, &mut [u8]) -> bool) -> bool {
    let mut done = 0;
    while done < buffer.len() {
        let at = address.wrapping_add(done as u64);
        let in_page = (PAGE_BYTES - at % PAGE_BYTES) as usize;
        let end = buffer.len().min(done + in_page);
        if !buffer.get_mut(done..end).is_some_and(|piece| read(at, piece)) {
            return false;
        }
        done = end;
    }
    true
}
