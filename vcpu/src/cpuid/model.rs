//! The `-cpu` option.

use super::features::{self, Feature};
use std::str::FromStr;

/// Why a `-cpu` argument cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// Only the host's own processor is modelled.
    #[error("-cpu: there is no model '{0}'; the models are 'host' and 'max' (the same)")]
    UnknownModel(String),
    /// A feature that has no name here.
    #[error(
        "-cpu: '{0}' is not a CPU feature that can be switched; names are those of QEMU and /proc/cpuinfo"
    )]
    UnknownFeature(String),
    /// Neither on nor off.
    #[error("-cpu: '{0}' must be on or off, not '{1}'")]
    BadValue(String, String),
    /// A comma with nothing behind it.
    #[error("-cpu: an empty item in '{0}'; remove the extra comma")]
    EmptyItem(String),
    /// `enforce` was given and the host lacks features.
    #[error("-cpu: this host's KVM does not offer {0}; drop it, or drop 'enforce' to go without")]
    NotOffered(String),
}

/// The processor that a guest sees: the host's, with features switched on or off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuModel {
    switches: Vec<(Feature, bool)>,
    /// Whether KVM shows its signature; `None` leaves that to the kind of host.
    pub(super) kvm: Option<bool>,
    pub(super) enforce: bool,
}

impl CpuModel {
    /// The names of models. Both are the same: there is nothing beyond the host's.
    pub const NAMES: [&str; 2] = ["max", "host"];

    /// The host's processor with all that KVM can pass on.
    pub fn host() -> Self {
        Self::default()
    }

    /// Whether a feature that the host lacks is an error rather than a warning.
    pub fn enforces(&self) -> bool {
        self.enforce
    }

    pub(super) fn switches(&self) -> impl Iterator<Item = (&Feature, bool)> {
        self.switches.iter().map(|(feature, on)| (feature, *on))
    }

    fn apply(&mut self, name: &str, on: bool) -> Result<(), CpuError> {
        match name {
            "kvm" => self.kvm = Some(on),
            "enforce" => self.enforce = on,
            _ => {
                let feature = features::find(name)
                    .ok_or_else(|| CpuError::UnknownFeature(name.to_owned()))?;
                self.switches.push((feature, on));
            }
        }
        Ok(())
    }
}

/// Reads `host[,+NAME|-NAME|NAME|NAME=on|off]...`; later items override earlier ones.
impl FromStr for CpuModel {
    type Err = CpuError;

    fn from_str(text: &str) -> Result<Self, CpuError> {
        let mut items = text.split(',');
        let name = items.next().unwrap_or_default();
        if !Self::NAMES.contains(&name) {
            return Err(CpuError::UnknownModel(name.to_owned()));
        }
        let mut model = Self::host();
        for item in items {
            if item.is_empty() {
                return Err(CpuError::EmptyItem(text.to_owned()));
            }
            if let Some(name) = item.strip_prefix('+') {
                model.apply(name, true)?;
            } else if let Some(name) = item.strip_prefix('-') {
                model.apply(name, false)?;
            } else if let Some((name, value)) = item.split_once('=') {
                model.apply(name, on_off(name, value)?)?;
            } else {
                model.apply(item, true)?;
            }
        }
        Ok(model)
    }
}

fn on_off(name: &str, value: &str) -> Result<bool, CpuError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(CpuError::BadValue(name.to_owned(), value.to_owned())),
    }
}
