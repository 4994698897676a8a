//! Devices, in the option strings of the command line.

use super::args::{Args, Failure};
use crate::commands::qdev::{self, DeviceDel, DeviceSetIothread};
use crate::core::Env;
use crate::error::QmpError;
use devices::qdev::{Bus, Device, DeviceRequest};
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;

pub(super) async fn add(env: &Env, rest: &str) -> Result<String, Failure> {
    let help = env.devices()?.types().help_for(rest).map_err(QmpError::from)?;
    if let Some(help) = help {
        return Ok(help);
    }
    let request = DeviceRequest::keyval(rest).map_err(QmpError::from)?;
    qdev::add(env, request).await?;
    Ok(String::new())
}

pub(super) async fn del(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let id = args.word()?;
    args.end()?;
    qdev::device_del(env.clone(), DeviceDel { id }).await?;
    Ok(String::new())
}

/// `device_set_iothread`: all queues of a device to one I/O thread, or to all cores.
pub(super) async fn set_iothread(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let id = args.word()?;
    let iothread = if args.is_empty() { None } else { Some(args.word()?) };
    args.end()?;
    let arguments = DeviceSetIothread { id, iothread, mapping: None };
    qdev::device_set_iothread(env.clone(), arguments).await?;
    Ok(String::new())
}

/// `info qtree`: the buses and what is plugged in, the latest first; `-b`: without properties.
pub(super) fn tree(env: &Env, rest: &str) -> Result<String, Failure> {
    let brief = match rest {
        "" => false,
        "-b" => true,
        other => return Err(Failure::Syntax(format!("unsupported option {other}"))),
    };
    let mut text = String::new();
    show_bus(env.devices()?.root(), brief, 0, &mut text);
    Ok(text)
}

fn show_bus(bus: &Bus, brief: bool, indent: usize, text: &mut String) {
    let _ = writeln!(text, "{:indent$}bus: {}", "", bus.name());
    let _ = writeln!(text, "{:indent$}  type {}", "", bus.type_name());
    let children: Vec<Arc<Device>> = bus.children(&rcu::read()).cloned().collect();
    for device in children.iter().rev() {
        show_device(device, brief, indent + 2, text);
    }
}

fn show_device(device: &Device, brief: bool, indent: usize, text: &mut String) {
    let (ty, id) = (device.ty().name, device.id().unwrap_or_default());
    let _ = writeln!(text, "{:indent$}dev: {ty}, id \"{id}\"", "");
    let properties = device.properties();
    for property in properties.declared().filter(|_| !brief) {
        if let Some(value) = device.property(property.name) {
            // One that was chosen is shown as it came out.
            let value = match device.address() {
                Some(slot) if property.name == "addr" => {
                    format!("{:02x}.{:x}", slot >> 3, slot & 7)
                }
                _ => in_words(&value),
            };
            let _ = writeln!(text, "{:indent$}  {} = {value}", "", property.name);
        }
    }
    for bus in device.buses() {
        show_bus(bus, brief, indent + 2, text);
    }
}

/// A value as `info qtree` of QEMU shows it.
fn in_words(value: &Value) -> String {
    match (value, value.as_i64()) {
        (_, Some(number)) => format!("{number} ({number:#x})"),
        (Value::Null, _) => "<null>".to_owned(),
        (value, _) => value.to_string(),
    }
}
