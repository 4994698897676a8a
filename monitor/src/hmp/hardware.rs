//! `info` about the hardware that the guest sees, in the layouts of QEMU.

use super::args::{Args, Failure};
use crate::commands::balloon::{self, Balloon};
use crate::commands::guest::{self, PciBridgeInfo, PciBusInfo, PciDeviceInfo, PciMemoryRegion};
use crate::commands::objects;
use crate::core::Env;
use crate::error::QmpError;
use std::fmt::Write as _;

pub(super) fn cpus(env: &Env) -> Result<String, QmpError> {
    let mut text = String::new();
    for cpu in guest::query_cpus_fast(env, ())? {
        // The monitor's own CPU is the first one.
        let mark = if cpu.cpu_index == 0 { '*' } else { ' ' };
        let _ = writeln!(text, "{mark} CPU #{}: thread_id={}", cpu.cpu_index, cpu.thread_id);
    }
    Ok(text)
}

pub(super) fn hotpluggable_cpus(env: &Env) -> Result<String, QmpError> {
    let mut text = String::from("Hotpluggable CPUs:\n");
    for place in guest::query_hotpluggable_cpus(env, ())? {
        let _ = writeln!(text, "  type: \"{}\"", place.ty);
        let _ = writeln!(text, "  vcpus_count: \"{}\"", place.vcpus_count);
        if let Some(path) = place.qom_path {
            let _ = writeln!(text, "  qom_path: \"{path}\"");
        }
        text += "  CPUInstance Properties:\n";
        let props = place.props;
        let ids =
            [("socket", props.socket_id), ("core", props.core_id), ("thread", props.thread_id)];
        for (name, id) in ids {
            if let Some(id) = id {
                let _ = writeln!(text, "    {name}-id: \"{id}\"");
            }
        }
    }
    Ok(text)
}

pub(super) fn iothreads(env: &Env) -> Result<String, QmpError> {
    let mut text = String::new();
    for thread in guest::query_iothreads(env, ())? {
        let _ = writeln!(
            text,
            "{}:\n  thread_id={}\n  poll-max-ns={}\n  poll-grow={}\n  poll-shrink={}\n  \
             aio-max-batch={}",
            thread.id,
            thread.thread_id,
            thread.poll_max_ns,
            thread.poll_grow,
            thread.poll_shrink,
            thread.aio_max_batch
        );
    }
    Ok(text)
}

pub(super) fn memory_backends(env: &Env) -> Result<String, QmpError> {
    let mut text = String::new();
    for memory in objects::query_memdev(env, ())? {
        let _ = writeln!(
            text,
            "memory backend: {}\n  size:  {}\n  merge: {}\n  dump: {}\n  prealloc: {}\n  \
             share: {}\n  reserve: {}\n  policy: default\n  host nodes: ",
            memory.id.unwrap_or_default(),
            memory.size,
            memory.merge,
            memory.dump,
            memory.prealloc,
            memory.share,
            memory.reserve.unwrap_or_default()
        );
    }
    Ok(text + "\n")
}

pub(super) fn memory(env: &Env) -> Result<String, QmpError> {
    let size = guest::query_memory_size_summary(env, ())?;
    let mut text = format!("base memory: {}\n", size.base_memory);
    if let Some(plugged) = size.plugged_memory {
        let _ = writeln!(text, "plugged memory: {plugged}");
    }
    Ok(text)
}

pub(super) fn uuid(env: &Env) -> Result<String, QmpError> {
    Ok(format!("{}\n", guest::query_uuid(env, ())?.uuid))
}

pub(super) fn pci(env: &Env) -> Result<String, QmpError> {
    let mut text = String::new();
    for device in guest::query_pci(env, ())?.iter().flat_map(|bus| &bus.devices) {
        function(&mut text, device);
    }
    Ok(text)
}

fn bridge(text: &mut String, bus: &PciBusInfo) {
    let _ = writeln!(text, "      BUS {}.", bus.number);
    let _ = writeln!(text, "      secondary bus {}.", bus.secondary);
    let _ = writeln!(text, "      subordinate bus {}.", bus.subordinate);
    for (what, digits, range) in [
        ("IO", 4, &bus.io_range),
        ("memory", 8, &bus.memory_range),
        ("prefetchable memory", 8, &bus.prefetchable_range),
    ] {
        let (base, limit) = (range.base, range.limit);
        let _ = writeln!(text, "      {what} range [0x{base:0digits$x}, 0x{limit:0digits$x}]");
    }
}

fn function(text: &mut String, device: &PciDeviceInfo) {
    let _ = writeln!(
        text,
        "  Bus {:2}, device {:3}, function {}:",
        device.bus, device.slot, device.function
    );
    let _ = match &device.class_info.desc {
        Some(desc) => write!(text, "    {desc}"),
        None => write!(text, "    Class {:04}", device.class_info.class),
    };
    let id = &device.id;
    let _ = writeln!(text, ": PCI device {:04x}:{:04x}", id.vendor, id.device);
    if let (Some(vendor), Some(subsystem)) = (id.subsystem_vendor, id.subsystem) {
        let _ = writeln!(text, "      PCI subsystem {vendor:04x}:{subsystem:04x}");
    }
    let pin = usize::try_from(device.irq_pin).ok().and_then(|pin| pin.checked_sub(1));
    if let (Some(irq), Some(pin)) = (device.irq, pin.and_then(|pin| b"ABCD".get(pin))) {
        let _ = writeln!(text, "      IRQ {irq}, pin {}", char::from(*pin));
    }
    if let Some(PciBridgeInfo { bus, .. }) = &device.pci_bridge {
        bridge(text, bus);
    }
    for bar in &device.regions {
        region(text, bar);
    }
    let _ = writeln!(text, "      id \"{}\"", device.qdev_id);
    let below = device.pci_bridge.as_ref().and_then(|bridge| bridge.devices.as_ref());
    for device in below.iter().flat_map(|below| &below.0) {
        function(text, device);
    }
}

fn region(text: &mut String, bar: &PciMemoryRegion) {
    let _ = write!(text, "      BAR{}: ", bar.bar);
    let _ = match (bar.mem_type_64, bar.prefetch) {
        (Some(wide), prefetch) => {
            let bits = if wide { 64 } else { 32 };
            let prefetch = if prefetch == Some(true) { " prefetchable" } else { "" };
            write!(text, "{bits} bit{prefetch} memory")
        }
        (None, _) => write!(text, "I/O"),
    };
    let _ = match bar.address {
        -1 => writeln!(text, " (not mapped)"),
        base => {
            let last = base.saturating_add(bar.size - 1);
            let digits = if bar.mem_type_64.is_some() { 8 } else { 4 };
            writeln!(text, " at 0x{base:0digits$x} [0x{last:0digits$x}].")
        }
    };
}

/// `balloon`: a target in MiB.
pub(super) fn balloon(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let value = args.expression()?.saturating_mul(1 << 20);
    args.end()?;
    balloon::balloon(env, Balloon { value })?;
    Ok(String::new())
}

pub(super) fn info_balloon(env: &Env) -> Result<String, QmpError> {
    let info = balloon::query_balloon(env, ())?;
    Ok(format!("balloon: actual={}\n", info.actual >> 20))
}
