//! The command line: QEMU's option names and value syntax, into a [`Config`].
//!
//! Parsed by hand: options with one dash and long names are not what argument crates speak.

mod absent;
mod accel;
mod action;
mod device;
mod drive;
mod help;
mod netdev;
mod object;
pub(crate) mod options;
mod streams;

use crate::config::{
    Accel, Config, DeviceConfig, MachineType, NodeConfig, ObjectConfig, Protocol, QtestConfig,
    ReactorConfig,
};
use accel::Accels;
use devices::keyval::{self, KeyVal};
use drive::Drives;
use monitor::wire::Style;
use monitor::{ActionSet, RebootAction, ShutdownAction, Uuid};
use netdev::Nets;
use std::ffi::OsString;
use std::path::PathBuf;
use streams::Streams;
use vcpu::cpuid::Topology;
use vcpu::memory::layout::DEFAULT_RAM;

/// What the user wants.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Print this and end with success.
    Print(String),
    /// Run a machine.
    Run(Box<Config>),
}

/// Options in the order of the help text, collected before they are judged together.
#[derive(Default)]
struct Raw {
    name: Option<String>,
    uuid: Uuid,
    memory: Option<u64>,
    topology: Option<Topology>,
    cpu: Option<String>,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    append: Option<String>,
    drives: Drives,
    nets: Nets,
    nodes: Vec<NodeConfig>,
    devices: Vec<DeviceConfig>,
    objects: Vec<ObjectConfig>,
    /// What to print instead of running.
    help: Option<String>,
    streams: Streams,
    nographic: bool,
    no_defaults: bool,
    start_paused: bool,
    preconfig: bool,
    actions: ActionSet,
    reactor: ReactorConfig,
    accels: Accels,
    machine_type: MachineType,
    memory_backend: Option<String>,
    qtest_log: Option<String>,
}

/// Parses the arguments after the program's name. The error is one line for the user.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    let mut raw = Raw::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = text(arg)?;
        let Some(option) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            return Err(format!(
                "'{arg}' is no option; a disk is given as -drive file={arg},format=raw,if=virtio"
            ));
        };
        match option {
            "h" | "help" | "?" => return Ok(Invocation::Print(help::text())),
            "version" => return Ok(Invocation::Print(help::version())),
            "S" => raw.start_paused = true,
            "preconfig" => raw.preconfig = true,
            "nographic" => raw.nographic = true,
            // No configuration file is ever read.
            "no-user-config" => {}
            "nodefaults" => raw.no_defaults = true,
            "no-reboot" => raw.actions.reboot = RebootAction::Shutdown,
            "no-shutdown" => raw.actions.shutdown = ShutdownAction::Pause,
            "enable-kvm" => raw.accels.add("kvm"),
            _ => {
                let takes_value = help::takes_value(option)
                    .then(|| args.next())
                    .ok_or_else(|| format!("there is no option -{option}; see: ringvisor -help"))?;
                let value = takes_value.ok_or_else(|| format!("-{option} needs a value"))?;
                let value = text(value)?;
                if option == "chardev" && matches!(value.as_str(), "help" | "?") {
                    return Ok(Invocation::Print(devices::chardev::parse::help()));
                }
                raw.take(option, value)?;
            }
        }
    }
    if let Some(text) = raw.help {
        return Ok(Invocation::Print(text));
    }
    raw.finish().map(|config| Invocation::Run(Box::new(config)))
}

fn text(arg: OsString) -> Result<String, String> {
    arg.into_string().map_err(|arg| format!("{} is not valid UTF-8", arg.display()))
}

impl Raw {
    fn take(&mut self, option: &str, value: String) -> Result<(), String> {
        match option {
            "name" => self.name = Some(name(&value)?),
            "m" => self.memory = Some(memory(&value)?),
            "smp" => self.topology = Some(smp(&value)?),
            "cpu" => self.cpu = Some(value),
            "kernel" => self.kernel = Some(value.into()),
            "initrd" => self.initrd = Some(value.into()),
            "append" => self.append = Some(value),
            "drive" => self.drives.drive(&value)?,
            "blockdev" => self.nodes.push(drive::node(&value)?),
            "device" => match device::parse(&value)? {
                device::Device::Help(text) => self.help = Some(text),
                device::Device::Plug(device) => self.devices.push(device),
            },
            "netdev" => {
                if let Some(help) = self.nets.netdev(&value)? {
                    self.help = Some(help);
                }
            }
            "nic" => self.nets.nic(&value)?,
            "net" => netdev::net(&value)?,
            "object" => self.objects.push(object::parse(&value)?),
            "chardev" => self.streams.chardev(&value)?,
            "mon" => self.streams.mon(&value)?,
            "qmp" => self.streams.monitor(option, &value, Protocol::Qmp(Style::Line))?,
            "qmp-pretty" => self.streams.monitor(option, &value, Protocol::Qmp(Style::Pretty))?,
            "monitor" => self.streams.monitor(option, &value, Protocol::Hmp)?,
            "serial" => self.streams.serial(&value)?,
            "add-fd" => self.streams.add_fd(&value)?,
            "uuid" => {
                self.uuid = value.parse().map_err(|error| format!("-uuid {value}: {error}"))?;
            }
            "audio" | "display" | "vga" => absent::check(option, &value)?,
            "machine" | "M" => self.machine(&value)?,
            "accel" => self.accels.option(&value)?,
            "qtest" => self.streams.qtest(&value)?,
            "qtest-log" => self.qtest_log = Some(value),
            "action" => action::parse(&mut self.actions, &value)?,
            "reactor" => self.reactor = reactor(&value)?,
            _ => return Err(format!("-{option} is not handled")),
        }
        Ok(())
    }

    fn machine(&mut self, value: &str) -> Result<(), String> {
        let mut kv = KeyVal::parse("machine", value, Some("type"))?;
        match kv.take("type").as_deref() {
            None => {}
            Some("pc") => self.machine_type = MachineType::Pc,
            Some("none") => self.machine_type = MachineType::None,
            Some(other) => {
                let text = format!("there is no machine '{other}'; there are pc and none");
                return Err(kv.error(&text));
            }
        }
        if let Some(list) = kv.take("accel") {
            self.accels.add(&list);
        }
        if let Some(id) = kv.take("memory-backend") {
            self.memory_backend = Some(id);
        }
        kv.finish("type, accel, memory-backend")
    }

    fn finish(mut self) -> Result<Config, String> {
        if self.kernel.is_none() && self.initrd.is_some() {
            return Err("-initrd needs a -kernel".to_owned());
        }
        let accels = self.accels.finish()?;
        // A machine under test has what its test asks for, and prints nothing.
        let tested = accels.contains(&Accel::Qtest);
        let bare = self.machine_type == MachineType::None;
        if bare && self.kernel.is_some() {
            return Err("-machine none has no processor that could run a -kernel".to_owned());
        }
        let embedded = self.kernel.is_none() && !tested && !bare;
        let (mut drives, of_drives) = self.drives.finish();
        let mut devices = self.devices;
        devices.extend(of_drives);
        devices.extend(self.nets.devices);
        if embedded && drives.is_empty() && devices.is_empty() && !self.no_defaults {
            let (drive, device) = drive::scratch();
            drives.push(drive);
            devices.push(device);
        }
        if embedded && !self.no_defaults {
            self.streams.default_qmp();
        }
        let console = (!self.no_defaults && !tested && !bare) || self.nographic;
        let serial = self.streams.finish(console)?;
        let Streams { chardevs, monitors, listen, add_fds, qtest, .. } = self.streams;
        let cpu = self.cpu.as_deref().unwrap_or("host");
        let usual = if bare { 0 } else { DEFAULT_RAM };
        let backend = self.memory_backend.as_deref();
        let memory = object::memory(self.memory, backend, &self.objects, usual)?;
        Ok(Config {
            name: self.name,
            uuid: self.uuid,
            machine: self.machine_type,
            memory,
            memory_backend: self.memory_backend,
            topology: self.topology.unwrap_or(Topology::cores(1)),
            cpu: cpu.parse().map_err(|error| format!("-cpu {cpu}: {error}"))?,
            kernel: self.kernel,
            initrd: self.initrd,
            append: self.append.unwrap_or_default(),
            nodes: self.nodes,
            drives,
            netdevs: self.nets.netdevs,
            objects: self.objects,
            devices,
            chardevs,
            monitors,
            listen,
            add_fds,
            serial,
            start_paused: self.start_paused,
            preconfig: self.preconfig,
            actions: self.actions,
            reactor: self.reactor,
            accels,
            qtest: qtest.map(|qtest| QtestConfig { log: self.qtest_log, ..qtest }),
        })
    }
}

fn name(value: &str) -> Result<String, String> {
    let mut kv = KeyVal::parse("name", value, Some("guest"))?;
    let name = kv.take("guest").unwrap_or_default();
    kv.finish("guest")?;
    Ok(name)
}

fn memory(value: &str) -> Result<u64, String> {
    let mut kv = KeyVal::parse("m", value, Some("size"))?;
    let text = kv.take("size").unwrap_or_default();
    let size = keyval::size(&text, 1 << 20).filter(|size| *size > 0);
    let size =
        size.ok_or_else(|| kv.error(&format!("'{text}' is no size; write 512 (MiB), 512M or 2G")))?;
    kv.finish("size")?;
    Ok(size)
}

fn smp(value: &str) -> Result<Topology, String> {
    let mut kv = KeyVal::parse("smp", value, Some("cpus"))?;
    let mut number = |key| kv.take_number(key, 1..=65_536);
    let (cpus, cpus_max) = (number("cpus")?, number("maxcpus")?);
    let (sockets, cores, threads) = (number("sockets")?, number("cores")?, number("threads")?);
    let (per_socket, per_core) = (cores.unwrap_or(1), threads.unwrap_or(1));
    let known = sockets.unwrap_or(1).saturating_mul(per_socket).saturating_mul(per_core);
    let count = cpus.unwrap_or(known);
    if cpus_max.is_some_and(|max| max != count) {
        return Err(kv.error("vCPUs cannot be hot-plugged: 'maxcpus' must equal 'cpus'"));
    }
    kv.finish("cpus, sockets, cores, threads, maxcpus")?;
    // What is left open is filled with cores, as QEMU's machines do today.
    let cores = match cores {
        None if count.is_multiple_of(known) => count / known,
        _ => per_socket,
    };
    let sockets = sockets.unwrap_or_else(|| (count / (cores * per_core)).max(1));
    if sockets.saturating_mul(cores).saturating_mul(per_core) != count {
        return Err(format!(
            "-smp: sockets * cores * threads is {}, not {count}",
            sockets * cores * per_core
        ));
    }
    let part = |n: u64| u32::try_from(n).map_err(|_| format!("-smp: {count} vCPUs are too many"));
    Ok(Topology { sockets: part(sockets)?, cores: part(cores)?, threads: part(per_core)? })
}

fn reactor(value: &str) -> Result<ReactorConfig, String> {
    let mut kv = KeyVal::parse("reactor", value, None)?;
    let cores = match kv.take("cores") {
        None => None,
        Some(text) => Some(cpu_list(&text).ok_or_else(|| {
            kv.error(&format!("cores={text}: write host CPUs as 0-3 or 0:2:5-7"))
        })?),
    };
    let poll_ns_max = kv.take_number("poll-max-ns", 0..=1_000_000_000)?.unwrap_or(0);
    kv.finish("cores, poll-max-ns")?;
    Ok(ReactorConfig { cores, poll_ns_max })
}

/// `0-3`, `5`, or several of these separated by colons (commas separate the keys).
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(':') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= 4096 {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests;
