//! Character devices, monitors and the serial port of a machine.

use crate::config::{AddFd, ChardevConfig, Config, Protocol};
use devices::chardev::{Address, BytePort, Chardevs, FrontEndKind};
use devices::fdset::FdSets;
use devices::legacy::Serial;
use monitor::Monitor;
use reactor::Reactors;
use std::path::PathBuf;
use std::sync::Arc;

/// Makes the character devices in their order.
pub(super) async fn open(chardevs: &Chardevs, asked: Vec<ChardevConfig>) -> Result<(), String> {
    for ChardevConfig { option, id, backend } in asked {
        let made = chardevs.add(&id, backend).await;
        if let Some(pty) = made.map_err(|error| format!("{option}: {error}"))? {
            eprintln!("ringvisor: char device redirected to {pty} (label {id})");
        }
    }
    Ok(())
}

/// Puts inherited descriptors into their sets.
pub(super) fn add_fds(sets: &FdSets, asked: Vec<AddFd>) -> Result<(), String> {
    for AddFd { fd, set, opaque } in asked {
        sets.add(Some(set), fd, opaque).map_err(|error| format!("-add-fd: {error}"))?;
    }
    Ok(())
}

/// Opens the sockets that serve many clients. Gives the paths that a user of the embedded guest is to be
/// told of.
pub(super) fn listen(monitor: &Monitor, config: &Config) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for asked in &config.listen {
        let listening = match asked.protocol {
            Protocol::Qmp(style) => monitor.listen_qmp(&asked.endpoint, style),
            Protocol::Hmp => monitor.listen_hmp(&asked.endpoint),
        };
        let address = listening.map_err(|error| format!("{}: {error}", asked.option))?;
        if let (None, Protocol::Qmp(_), Address::Unix(path)) =
            (&config.kernel, asked.protocol, address)
        {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Starts the monitors on character devices of their own, or those on multiplexed ones.
pub(super) fn serve(
    monitor: &Monitor,
    chardevs: &Chardevs,
    config: &Config,
    on_mux: bool,
) -> Result<(), String> {
    for asked in config.monitors.iter().filter(|asked| chardevs.is_mux(&asked.chardev) == on_mux) {
        let kind = match asked.protocol {
            Protocol::Qmp(_) => FrontEndKind::Control,
            Protocol::Hmp => FrontEndKind::Readline,
        };
        let frontend = chardevs.attach(&asked.chardev, kind);
        let frontend = frontend.map_err(|error| format!("{}: {error}", asked.option))?;
        match asked.protocol {
            Protocol::Qmp(style) => monitor.serve_qmp(frontend, style),
            Protocol::Hmp => monitor.serve_hmp(frontend),
        }
    }
    Ok(())
}

/// Connects COM1 with its character device.
pub(super) fn connect_serial(
    reactors: &Reactors,
    chardevs: &Chardevs,
    config: &Config,
    serial: &Arc<Serial>,
    port: &Arc<BytePort>,
) -> Result<(), String> {
    let Some(id) = &config.serial else {
        port.discard();
        return Ok(());
    };
    let frontend = chardevs.attach(id, FrontEndKind::Device);
    let frontend = frontend.map_err(|error| format!("-serial: {error}"))?;
    let serving = Arc::clone(port).serve(frontend, Arc::clone(serial));
    reactors.iohandler().spawn("serial", serving).detach();
    Ok(())
}
