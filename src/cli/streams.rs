//! Which character devices, monitors and serial port the options add up to.

use super::chardev::{self, Short};
use super::keyval::KeyVal;
use crate::config::{AddFd, ChardevConfig, ListenConfig, MonitorConfig, Protocol, QtestConfig};
use devices::chardev::{Backend, SocketFrom, inherited};
use monitor::Endpoint;
use monitor::wire::Style;
use std::path::PathBuf;

/// The id of the serial port's character device, where it has one of its own; QEMU's name.
const SERIAL: &str = "serial0";
/// The id of the character device that `-qtest` makes; QEMU's name.
const QTEST: &str = "qtest";

/// What the options seen so far ask for.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) chardevs: Vec<ChardevConfig>,
    pub(super) monitors: Vec<MonitorConfig>,
    pub(super) listen: Vec<ListenConfig>,
    pub(super) add_fds: Vec<AddFd>,
    pub(super) qtest: Option<QtestConfig>,
    /// `None`: nobody has said anything about it.
    serial: Option<SerialPort>,
    /// Monitors without a character device of a name.
    unnamed: usize,
    /// `-monitor stdio`
    hmp_on_stdio: bool,
}

enum SerialPort {
    None,
    On(String),
}

impl Streams {
    fn add(&mut self, option: String, id: &str, backend: Backend, mux: bool) -> Result<(), String> {
        if self.chardevs.iter().any(|other| other.id == id) {
            return Err(format!("{option}: Duplicate ID '{id}' for chardev"));
        }
        if !mux {
            self.chardevs.push(ChardevConfig { option, id: id.to_owned(), backend });
            return Ok(());
        }
        let base = format!("{id}-base");
        self.add(option.clone(), &base, backend, false)?;
        let backend = Backend::Mux { base };
        self.chardevs.push(ChardevConfig { option, id: id.to_owned(), backend });
        Ok(())
    }

    pub(super) fn chardev(&mut self, value: &str) -> Result<(), String> {
        let (id, backend, mux) = chardev::parse(value)?;
        self.add(format!("-chardev {value}"), &id, backend, mux)
    }

    pub(super) fn mon(&mut self, value: &str) -> Result<(), String> {
        let mut kv = KeyVal::parse("mon", value, Some("chardev"))?;
        let chardev = kv.take("chardev").filter(|id| !id.is_empty());
        let chardev = chardev.ok_or_else(|| kv.error("a monitor needs chardev=ID"))?;
        let pretty = kv.take_bool("pretty")?;
        let style = if pretty == Some(true) { Style::Pretty } else { Style::Line };
        let protocol = match kv.take("mode").as_deref() {
            None | Some("readline") if pretty.is_some() => {
                return Err(kv.error("'pretty' is for mode=control"));
            }
            None | Some("readline") => Protocol::Hmp,
            Some("control") => Protocol::Qmp(style),
            Some(mode) => {
                return Err(kv.error(&format!(
                    "Parameter 'mode' does not accept value '{mode}'; it takes readline or control"
                )));
            }
        };
        kv.finish("chardev, mode, pretty")?;
        self.monitors.push(MonitorConfig { option: format!("-mon {value}"), chardev, protocol });
        Ok(())
    }

    /// `-monitor`, `-qmp` and `-qmp-pretty`.
    pub(super) fn monitor(
        &mut self,
        option: &str,
        value: &str,
        protocol: Protocol,
    ) -> Result<(), String> {
        let short = chardev::short(option, value)?;
        let option = format!("-{option} {value}");
        let chardev = match short {
            Short::None => return Ok(()),
            Short::Id(id) => id,
            Short::New { backend: Backend::Stdio { .. }, .. } if protocol == Protocol::Hmp => {
                self.hmp_on_stdio = true;
                return Ok(());
            }
            // A socket that listens serves any number of clients.
            Short::New { backend: Backend::Socket(socket), mux: false }
                if socket.server && matches!(socket.from, SocketFrom::Address(_)) =>
            {
                if let SocketFrom::Address(address) = socket.from {
                    let endpoint = Endpoint { address, wait: socket.wait, allow: socket.allow };
                    self.listen.push(ListenConfig { option, endpoint, protocol });
                }
                return Ok(());
            }
            Short::New { backend, mux } => {
                let id = format!("compat_monitor{}", self.unnamed);
                self.unnamed += 1;
                self.add(option.clone(), &id, backend, mux)?;
                id
            }
        };
        self.monitors.push(MonitorConfig { option, chardev, protocol });
        Ok(())
    }

    pub(super) fn serial(&mut self, value: &str) -> Result<(), String> {
        let short = chardev::short("serial", value)?;
        if matches!(self.serial, Some(SerialPort::On(_))) {
            return if matches!(short, Short::None) {
                Ok(())
            } else {
                Err(format!("-serial {value}: there is one serial port, and it is taken"))
            };
        }
        self.serial = Some(match short {
            Short::None => SerialPort::None,
            Short::Id(id) => SerialPort::On(id),
            Short::New { backend, mux } => {
                self.serial_on(format!("-serial {value}"), backend, mux)?;
                SerialPort::On(SERIAL.to_owned())
            }
        });
        Ok(())
    }

    fn serial_on(&mut self, option: String, backend: Backend, mux: bool) -> Result<(), String> {
        self.add(option.clone(), SERIAL, backend, mux)?;
        if mux {
            let (chardev, protocol) = (SERIAL.to_owned(), Protocol::Hmp);
            self.monitors.push(MonitorConfig { option, chardev, protocol });
        }
        Ok(())
    }

    /// The last one counts.
    pub(super) fn qtest(&mut self, value: &str) -> Result<(), String> {
        let option = format!("-qtest {value}");
        if self.qtest.take().is_some_and(|before| before.chardev == QTEST) {
            self.chardevs.retain(|chardev| chardev.id != QTEST);
        }
        let chardev = match chardev::short("qtest", value)? {
            Short::None => return Ok(()),
            Short::Id(id) => id,
            Short::New { backend, mux } => {
                self.add(option.clone(), QTEST, backend, mux)?;
                QTEST.to_owned()
            }
        };
        self.qtest = Some(QtestConfig { option, chardev, log: None });
        Ok(())
    }

    pub(super) fn add_fd(&mut self, value: &str) -> Result<(), String> {
        let mut kv = KeyVal::parse("add-fd", value, None)?;
        let most = i32::MAX.unsigned_abs().into();
        let number = kv.take_number("fd", 0..=most)?;
        let number = number.ok_or_else(|| kv.error("it needs fd=N,set=M"))?;
        let set = kv.take_number("set", 0..=i64::MAX.unsigned_abs())?;
        let set = set.ok_or_else(|| kv.error("it needs fd=N,set=M"))?;
        let opaque = kv.take("opaque");
        kv.nothing_left("fd, set, opaque")?;
        let fd = inherited(number as i32).map_err(|error| kv.error(error))?;
        self.add_fds.push(AddFd { fd, set: set.cast_signed(), opaque });
        Ok(())
    }

    /// A QMP socket for a machine that was given none: it is how the machine is managed at all.
    pub(super) fn default_qmp(&mut self) {
        let is_qmp = |protocol: &Protocol| matches!(protocol, Protocol::Qmp(_));
        if self.listen.iter().any(|listen| is_qmp(&listen.protocol))
            || self.monitors.iter().any(|monitor| is_qmp(&monitor.protocol))
        {
            return;
        }
        let dir =
            std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let endpoint = Endpoint::unix(dir.join(format!("ringvisor-{}.qmp", std::process::id())));
        let (option, protocol) = ("-qmp".to_owned(), Protocol::Qmp(Style::Line));
        self.listen.push(ListenConfig { option, endpoint, protocol });
    }

    /// Settles where the serial port goes. Unless told otherwise it shares the terminal with a
    /// monitor, if `on_terminal` and nothing else uses the terminal. Gives its character device.
    pub(super) fn finish(&mut self, on_terminal: bool) -> Result<Option<String>, String> {
        let stdio = Backend::Stdio { signal: false };
        let is_stdio = |chardev: &ChardevConfig| matches!(chardev.backend, Backend::Stdio { .. });
        let taken = self.chardevs.iter().any(is_stdio);
        match (self.serial.take(), self.hmp_on_stdio) {
            (Some(SerialPort::On(id)), false) => return Ok(Some(id)),
            (None, true) => self.serial_on("-monitor stdio".to_owned(), stdio, true)?,
            (None, false) if on_terminal && !taken => {
                self.serial_on("-serial mon:stdio".to_owned(), stdio, true)?;
            }
            (Some(SerialPort::None) | None, false) => return Ok(None),
            (serial, true) => {
                let option = "-monitor stdio".to_owned();
                let id = format!("compat_monitor{}", self.unnamed);
                self.add(option.clone(), &id, Backend::Stdio { signal: true }, false)?;
                let protocol = Protocol::Hmp;
                self.monitors.push(MonitorConfig { option, chardev: id, protocol });
                return Ok(match serial {
                    Some(SerialPort::On(id)) => Some(id),
                    Some(SerialPort::None) | None => None,
                });
            }
        }
        Ok(Some(SERIAL.to_owned()))
    }
}
