//! Properties of devices and objects: one declaration for parsing, introspection and help.

use super::value::PropValue;
use serde_json::Value;

/// What a property holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On or off.
    Bool,
    /// On, off, or left to the device.
    OnOffAuto,
    /// An unsigned number of 8 bits.
    U8,
    /// An unsigned number of 16 bits.
    U16,
    /// An unsigned number of 32 bits.
    U32,
    /// An unsigned number of 64 bits.
    U64,
    /// A signed number of 32 bits.
    I32,
    /// A signed number of 64 bits.
    Int,
    /// Bytes; in option strings with a suffix.
    Size,
    /// Text.
    Str,
    /// One of these words.
    Enum(&'static Words),
    /// Slot and function on a PCI bus: `4`, `04.0`, `0x4`, or the number of both.
    PciAddress,
    /// The id of a drive or the name of a block node.
    Drive,
    /// The id of a character device.
    Chardev,
    /// The id of a network back end.
    Netdev,
    /// The id or the path of an object of this type.
    Link(&'static str),
    /// An Ethernet address.
    MacAddress,
    /// A list or an object of this type, checked by the device.
    Json(&'static str),
}

/// A set of words.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// QAPI's name of the type.
    pub name: &'static str,
    /// The words.
    pub words: &'static [&'static str],
}

pub(super) const ON_OFF_AUTO: Words = Words { name: "OnOffAuto", words: &["auto", "on", "off"] };

/// What a property holds where nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DefaultValue {
    /// Nothing.
    Unset,
    /// A switch.
    Bool(bool),
    /// An unsigned number.
    Uint(u64),
    /// A signed number.
    Int(i64),
    /// A word or a text.
    Text(&'static str),
}

/// The declaration of a property.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it holds where nobody sets it.
    pub default: DefaultValue,
    /// What it is for.
    pub help: Option<&'static str>,
    /// Whether it may be set while the device or object lives.
    pub live: bool,
    /// Whether only the device sets it.
    pub read_only: bool,
    /// The name of the type in introspection, where it is not that of the kind.
    pub type_name: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
}

impl Property {
    /// A property without a default.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        let default = DefaultValue::Unset;
        Self {
            name,
            kind,
            default,
            help: None,
            live: false,
            read_only: false,
            type_name: None,
            required: false,
        }
    }

    /// A switch.
    pub const fn bool(name: &'static str, default: bool) -> Self {
        let mut property = Self::new(name, Kind::Bool).help("on/off");
        property.default = DefaultValue::Bool(default);
        property
    }

    /// A switch that the device may decide on, which is the default.
    pub const fn on_off_auto(name: &'static str) -> Self {
        let mut property = Self::new(name, Kind::OnOffAuto).help("on/off/auto");
        property.default = DefaultValue::Text("auto");
        property
    }

    /// An unsigned number.
    pub const fn uint(name: &'static str, kind: Kind, default: u64) -> Self {
        let mut property = Self::new(name, kind);
        property.default = DefaultValue::Uint(default);
        property
    }

    /// A signed number.
    pub const fn int(name: &'static str, kind: Kind, default: i64) -> Self {
        let mut property = Self::new(name, kind);
        property.default = DefaultValue::Int(default);
        property
    }

    /// One of some words.
    pub const fn words(name: &'static str, words: &'static Words, default: &'static str) -> Self {
        let mut property = Self::new(name, Kind::Enum(words));
        property.default = DefaultValue::Text(default);
        property
    }

    /// What it is for, for the help.
    #[must_use]
    pub const fn help(mut self, help: &'static str) -> Self {
        self.help = Some(help);
        self
    }

    /// It may be set while the device or object lives.
    #[must_use]
    pub const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    /// Only the device sets it.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Introspection calls its type so.
    #[must_use]
    pub const fn typed(mut self, name: &'static str) -> Self {
        self.type_name = Some(name);
        self
    }

    /// It must be given.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The name of its type in introspection.
    pub fn type_name(&self) -> String {
        if let Some(name) = self.type_name {
            return name.to_owned();
        }
        match self.kind {
            Kind::Bool => "bool",
            Kind::OnOffAuto => ON_OFF_AUTO.name,
            Kind::U8 => "uint8",
            Kind::U16 => "uint16",
            Kind::U32 => "uint32",
            Kind::U64 => "uint64",
            Kind::I32 => "int32",
            Kind::Int => "int",
            Kind::Size => "size",
            Kind::Enum(words) => words.name,
            Kind::Str
            | Kind::PciAddress
            | Kind::Drive
            | Kind::Chardev
            | Kind::Netdev
            | Kind::MacAddress => "str",
            Kind::Link(target) => return format!("link<{target}>"),
            Kind::Json(name) => name,
        }
        .to_owned()
    }

    /// Its default, as a management client sees it.
    pub fn default_json(&self) -> Option<Value> {
        Some(match self.default {
            DefaultValue::Unset => return None,
            DefaultValue::Bool(on) => on.into(),
            DefaultValue::Uint(n) => n.into(),
            DefaultValue::Int(n) => n.into(),
            DefaultValue::Text(text) => text.into(),
        })
    }

    /// The value that it has where nobody sets it.
    pub(super) fn initial(&self) -> PropValue {
        match self.default {
            DefaultValue::Unset => PropValue::Unset,
            DefaultValue::Bool(on) => PropValue::Bool(on),
            DefaultValue::Uint(n) => PropValue::Uint(n),
            DefaultValue::Int(n) => PropValue::Int(n),
            DefaultValue::Text(text) => PropValue::Text(text.to_owned()),
        }
    }

    /// Its line of the help.
    pub(super) fn help_line(&self) -> String {
        let left = format!("  {}=<{}>", self.name, self.type_name());
        let default = match self.default {
            DefaultValue::Unset => String::new(),
            DefaultValue::Bool(on) => format!(" (default: {})", if on { "on" } else { "off" }),
            DefaultValue::Uint(n) => format!(" (default: {n})"),
            DefaultValue::Int(n) => format!(" (default: {n})"),
            DefaultValue::Text(text) => format!(" (default: {text})"),
        };
        match self.help {
            None if default.is_empty() => left,
            help => format!("{left:24} - {}{default}", help.unwrap_or_default()),
        }
    }
}
