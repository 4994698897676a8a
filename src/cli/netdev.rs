//! `-netdev`, `-nic` and `-net`.

use super::device::json;
use crate::config::{DeviceConfig, NetdevConfig};
use devices::chardev::inherited;
use devices::qdev::{DeviceRequest, keyval};
use monitor::Netdev;
use serde_json::Value;

/// What the options ask for.
#[derive(Default)]
pub(super) struct Nets {
    pub(super) netdevs: Vec<NetdevConfig>,
    pub(super) devices: Vec<DeviceConfig>,
    /// `-nic` options with an adapter.
    nics: usize,
}

/// The type of adapter that `-nic` makes.
const MODEL: &str = "virtio-net-pci";

impl Nets {
    /// `-netdev`; gives its help where that is asked for.
    pub(super) fn netdev(&mut self, text: &str) -> Result<Option<String>, String> {
        if matches!(text, "help" | "?") {
            return Ok(Some(Netdev::help()));
        }
        let option = format!("-netdev {text}");
        let netdev = if text.starts_with('{') {
            json(text).and_then(|members| Netdev::json(members).map_err(|error| error.to_string()))
        } else {
            Netdev::keyval(text).map_err(|error| error.to_string())
        };
        let netdev = netdev.map_err(|error| format!("{option}: {error}"))?;
        self.add(option, netdev).map(|()| None)
    }

    /// `-nic`: a back end and the adapter on it.
    pub(super) fn nic(&mut self, text: &str) -> Result<(), String> {
        if text == "none" {
            return Ok(());
        }
        let option = format!("-nic {text}");
        let failed = |error: String| format!("{option}: {error}");
        let mut pairs = keyval(text, "type").map_err(|error| failed(error.to_string()))?;
        let mut device = serde_json::Map::new();
        let mut take = |key: &str| pairs.remove(key);
        let model = take("model").unwrap_or_else(|| Value::from(MODEL));
        if !matches!(model.as_str(), Some(MODEL | "virtio" | "virtio-net")) {
            return Err(failed(format!("there is no model {model}; there is {MODEL}")));
        }
        device.insert("driver".to_owned(), Value::from(MODEL));
        for (key, property) in [("mac", "mac"), ("macaddr", "mac"), ("addr", "addr")] {
            if let Some(value) = take(key) {
                device.insert(property.to_owned(), value);
            }
        }
        let id = match take("id") {
            Some(Value::String(id)) => id,
            _ => format!("net{}", self.nics),
        };
        self.nics += 1;
        device.insert("netdev".to_owned(), Value::from(id.clone()));
        pairs.insert("id".to_owned(), Value::from(id));
        let netdev = Netdev::options(&pairs).map_err(|error| failed(error.to_string()))?;
        self.add(option.clone(), netdev)?;
        let request =
            DeviceRequest { arguments: device, syntax: devices::qdev::value::Syntax::KeyVal };
        self.devices.push(DeviceConfig { option, request });
        Ok(())
    }

    fn add(&mut self, option: String, netdev: Netdev) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{option}: {error}");
        let id = netdev.id;
        let options = netdev.backend.checked().map_err(|error| failed(&error))?;
        let mut descriptors = Vec::new();
        for name in options.descriptors() {
            let number: i32 = name.parse().map_err(|_| {
                failed(&format!("'{name}' is no number of an inherited descriptor"))
            })?;
            let fd = inherited(number).map_err(|error| failed(&format!("fd={number}: {error}")))?;
            descriptors.push((name.to_owned(), fd));
        }
        self.netdevs.push(NetdevConfig { option, id, options, descriptors });
        Ok(())
    }
}

/// `-net`: the older notation, of which only `none` is left.
pub(super) fn net(value: &str) -> Result<(), String> {
    if value == "none" {
        return Ok(());
    }
    Err(format!("-net {value}: write -nic {value}, or -netdev and -device"))
}
