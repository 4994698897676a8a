//! How a node is to be made: the members of QAPI's `BlockdevOptions` that there are here, with
//! QEMU's texts for what is missing, mistyped or unknown.

use super::drivers::blkdebug::InjectError;
use crate::block::Discard;
use crate::error::CommandError;
use crate::keyval;
use crate::text::switch;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// With their types.
    Json,
    /// As text: `-blockdev driver=raw,...`.
    KeyVal,
    /// As text, by the older rules of `-drive`: numbers may have a suffix, and what is unknown is
    /// the fault of a driver.
    Drive,
}

/// Members of an object, taken out one by one; what is left over is refused.
pub(super) struct Members {
    map: Map<String, Value>,
    /// What stands before their names in messages: `file.`, or nothing.
    prefix: String,
    syntax: Syntax,
    /// What they belong to.
    driver: &'static str,
}

impl Members {
    pub(super) fn new(map: Map<String, Value>, prefix: String, syntax: Syntax) -> Self {
        Self { map, prefix, syntax, driver: "" }
    }

    fn at(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn mistyped(&self, name: &str, expected: &str) -> CommandError {
        let at = self.at(name);
        CommandError::generic(format!("Invalid parameter type for '{at}', expected: {expected}"))
    }

    fn expects(&self, name: &str, what: &str) -> CommandError {
        CommandError::generic(format!("Parameter '{}' expects {what}", self.at(name)))
    }

    pub(super) fn missing(&self, name: &str) -> CommandError {
        CommandError::generic(format!("Parameter '{}' is missing", self.at(name)))
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, CommandError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.mistyped(name, "string")),
        }
    }

    pub(super) fn bool(&mut self, name: &str) -> Result<Option<bool>, CommandError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(Value::String(text)) if self.syntax != Syntax::Json => {
                let value = switch(&text).ok_or_else(|| self.expects(name, "'on' or 'off'"))?;
                Ok(Some(value))
            }
            Some(_) => Err(self.mistyped(name, "boolean")),
        }
    }

    /// A number that is not negative.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, CommandError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) if self.syntax != Syntax::Json => {
                let value = match self.syntax {
                    Syntax::Drive => keyval::size(&text, 1),
                    _ => text.parse().ok(),
                };
                value.map(Some).ok_or_else(|| self.expects(name, "integer"))
            }
            Some(value) => value.as_u64().map(Some).ok_or_else(|| self.mistyped(name, "integer")),
        }
    }

    /// The place of the driver's name in [`DRIVERS`].
    fn driver(&mut self) -> Result<usize, CommandError> {
        if self.syntax != Syntax::Drive {
            let driver = self.word("driver", DRIVERS)?;
            return driver.ok_or_else(|| self.missing("driver"));
        }
        let name = self.string("driver")?.unwrap_or_default();
        let place = DRIVERS.iter().position(|known| *known == name);
        place.ok_or_else(|| CommandError::generic(format!("Unknown driver '{name}'")))
    }

    /// One of `words`, by its place among them.
    pub(super) fn word(
        &mut self,
        name: &str,
        words: &[&str],
    ) -> Result<Option<usize>, CommandError> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        let place = words.iter().position(|word| *word == text);
        place.map(Some).ok_or_else(|| {
            let text = format!("Parameter '{name}' does not accept value '{text}'");
            CommandError::generic(text)
        })
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, CommandError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self::new(map, self.at(name) + ".", self.syntax))),
            Some(_) => Err(self.mistyped(name, "object")),
        }
    }

    /// A node: its name, or the options of a new one.
    fn reference(&mut self, name: &str) -> Result<Option<Reference>, CommandError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Reference::Name(text))),
            Some(Value::Object(map)) => {
                let members = Self::new(map, self.at(name) + ".", self.syntax);
                Ok(Some(Reference::New(Box::new(Options::take(members)?))))
            }
            Some(_) => Err(self.mistyped(name, "BlockdevRef")),
        }
    }

    /// A list of objects; written as text it is an object whose members are `0`, `1`, ...
    pub(super) fn objects(&mut self, name: &str) -> Result<Vec<Self>, CommandError> {
        let mistyped = || self.mistyped(name, "array");
        let list = match self.map.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.clone(),
            Some(Value::Object(map)) if self.syntax != Syntax::Json => {
                let numbered = (0..map.len()).map(|n| map.get(&n.to_string()).cloned());
                let list: Option<Vec<_>> = numbered.collect();
                list.ok_or_else(mistyped)?
            }
            Some(_) => return Err(mistyped()),
        };
        self.map.remove(name);
        let objects = list.into_iter().enumerate().map(|(n, value)| match value {
            Value::Object(map) => {
                let prefix = format!("{}.{n}.", self.at(name));
                Ok(Self { driver: self.driver, ..Self::new(map, prefix, self.syntax) })
            }
            _ => Err(self.mistyped(&format!("{name}[{n}]"), "object")),
        });
        objects.collect()
    }

    /// What is behind an image: a node, nothing (`null`), or what the image says.
    fn backing(&mut self) -> Result<Backing, CommandError> {
        if self.map.get("backing") == Some(&Value::Null) {
            self.map.remove("backing");
            return Ok(Backing::None);
        }
        match self.map.get("backing") {
            None => Ok(Backing::Implied),
            Some(Value::String(_) | Value::Object(_)) => {
                let backing = self.reference("backing")?;
                Ok(backing.map_or(Backing::Implied, Backing::Node))
            }
            Some(_) => Err(self.mistyped("backing", "BlockdevRefOrNull")),
        }
    }

    pub(super) fn finish(self) -> Result<(), CommandError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) if self.syntax == Syntax::Drive && !self.driver.is_empty() => {
                let kind = match self.driver {
                    "raw" | "qcow2" | "throttle" | "vmdk" => {
                        &format!("format '{}' does not", self.driver)
                    }
                    driver => &format!("protocol '{driver}' doesn't"),
                };
                Err(CommandError::generic(format!("Block {kind} support the option '{name}'")))
            }
            Some(name) => {
                let text = format!("Parameter '{}' is unexpected", self.at(name));
                Err(CommandError::generic(text))
            }
        }
    }
}

/// Makes objects of dotted names: `file.driver=x` is `x` in `file`.
pub(super) fn nest(flat: Map<String, Value>) -> Result<Map<String, Value>, CommandError> {
    let mut root = Map::new();
    for (key, value) in flat {
        let mixed = || {
            let first = key.split('.').next().unwrap_or_default();
            CommandError::generic(format!("Parameters '{first}.*' used inconsistently"))
        };
        let mut at = &mut root;
        let mut parts = key.split('.').peekable();
        let mut value = Some(value);
        while let Some(part) = parts.next() {
            if part.is_empty() {
                return Err(CommandError::generic(format!("Invalid parameter '{key}'")));
            }
            if parts.peek().is_none() {
                if let Some(value) = value.take()
                    && at.insert(part.to_owned(), value).is_some()
                {
                    return Err(mixed());
                }
                break;
            }
            let next = at.entry(part).or_insert_with(|| Value::Object(Map::new()));
            at = next.as_object_mut().ok_or_else(mixed)?;
        }
    }
    Ok(root)
}

/// A node that another one uses.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// One that exists.
    Name(String),
    /// One to be made, that lives as long as its user.
    New(Box<Options>),
}

/// What is behind an image.
#[derive(Clone, Debug, PartialEq)]
pub enum Backing {
    /// What the image's header names.
    Implied,
    /// Nothing, whatever the header names.
    None,
    /// This node.
    Node(Reference),
}

/// What is particular to a driver.
#[derive(Clone, Debug, PartialEq)]
pub enum DriverOptions {
    /// A regular file, or (`device`) a block device.
    File {
        /// Its path.
        filename: PathBuf,
        /// Lock it against other writers.
        locking: bool,
        /// The kind of asynchronous I/O asked for, by its place among [`AIO`]; one engine serves all.
        aio: Option<usize>,
        /// `host_device`.
        device: bool,
    },
    /// Another node, with errors where rules say so.
    Blkdebug {
        /// The node.
        image: Reference,
        /// `inject-error`.
        rules: Vec<InjectError>,
    },
    /// A part of another node, or all of it, as it is.
    Raw {
        /// The node.
        file: Reference,
        /// First byte.
        offset: u64,
        /// Bytes; to the end when absent.
        size: Option<u64>,
        /// Nobody has said that it is raw: it only looks so.
        probed: bool,
    },
    /// An image whose format is told by its content.
    Probed {
        /// The node that holds it.
        file: Reference,
        /// What its driver will be given.
        rest: Map<String, Value>,
        /// It may not name other files.
        alone: bool,
    },
    /// A disk of extents that a descriptor names.
    Vmdk {
        /// The node of the descriptor.
        file: Reference,
    },
    /// A file that goes with the process and that others cannot see.
    Scratch {
        /// Bytes.
        size: u64,
    },
    /// An image of clusters in another node.
    Qcow2 {
        /// The node that holds it.
        file: Reference,
        /// What its unallocated clusters read as.
        backing: Backing,
    },
    /// Another node, with the limits of a group.
    Throttle {
        /// The node.
        file: Reference,
        /// The group.
        group: String,
    },
    /// Nothing: reads give zeroes or garbage, writes go nowhere.
    NullCo {
        /// Bytes.
        size: u64,
        /// What each request takes.
        latency_ns: u64,
        /// Reads give zeroes.
        read_zeroes: bool,
    },
}

impl DriverOptions {
    /// The driver's name.
    pub fn driver(&self) -> &'static str {
        match self {
            Self::File { device: false, .. } | Self::Scratch { .. } => "file",
            Self::File { device: true, .. } => "host_device",
            Self::Raw { .. } => "raw",
            Self::Blkdebug { .. } => "blkdebug",
            Self::Probed { .. } => "",
            Self::Qcow2 { .. } => "qcow2",
            Self::Vmdk { .. } => "vmdk",
            Self::NullCo { .. } => "null-co",
            Self::Throttle { .. } => "throttle",
        }
    }

    /// The nodes that it uses, by their roles.
    pub fn children(&self) -> Vec<(&'static str, &Reference)> {
        match self {
            Self::File { .. } | Self::Scratch { .. } | Self::NullCo { .. } => Vec::new(),
            Self::Qcow2 { file, backing: Backing::Node(backing) } => {
                vec![("file", file), ("backing", backing)]
            }
            Self::Raw { file, .. }
            | Self::Probed { file, .. }
            | Self::Qcow2 { file, .. }
            | Self::Throttle { file, .. }
            | Self::Vmdk { file } => vec![("file", file)],
            Self::Blkdebug { image, .. } => vec![("image", image)],
        }
    }

    /// The regular file at `filename`.
    pub(super) fn file(filename: PathBuf) -> Self {
        Self::File { filename, locking: true, aio: None, device: false }
    }

    /// All of a node as it is.
    pub(super) fn raw(file: Reference) -> Self {
        Self::Raw { file, offset: 0, size: None, probed: false }
    }

    /// An image that does not say what it is, and that names no others.
    pub(super) fn of_any_format(file: Reference) -> Self {
        Self::Probed { file, rest: Map::new(), alone: true }
    }

    /// What an image turns out to be whose format was to be told by its content.
    pub(super) fn settled(
        format: &str,
        file: &Reference,
        rest: &Map<String, Value>,
    ) -> Result<Self, CommandError> {
        let driver = DRIVERS.iter().position(|known| *known == format);
        let driver = driver.ok_or_else(|| {
            let text = format!(
                "it looks like {format}, which cannot be read here; format=raw takes it as it is"
            );
            CommandError::generic(text)
        })?;
        let mut map = rest.clone();
        // Its node is there already.
        map.insert("file".to_owned(), "".into());
        let mut members = Members::new(map, String::new(), Syntax::Drive);
        members.driver = DRIVERS[driver];
        let mut options = Self::take(driver, &mut members)?;
        members.finish()?;
        match &mut options {
            Self::Raw { file: below, probed, .. } => {
                *probed = true;
                below.clone_from(file);
            }
            Self::Qcow2 { file: below, .. } | Self::Vmdk { file: below } => below.clone_from(file),
            _ => {}
        }
        Ok(options)
    }

    /// Says another thing of the child that has this role.
    pub(super) fn set_child(&mut self, role: &str, reference: Reference) {
        let child = match (role, self) {
            (
                "file",
                Self::Raw { file, .. }
                | Self::Throttle { file, .. }
                | Self::Qcow2 { file, .. }
                | Self::Vmdk { file },
            ) => file,
            ("backing", Self::Qcow2 { backing: Backing::Node(backing), .. }) => backing,
            ("image", Self::Blkdebug { image, .. }) => image,
            _ => return,
        };
        *child = reference;
    }

    fn take(driver: usize, members: &mut Members) -> Result<Self, CommandError> {
        Ok(match DRIVERS[driver] {
            "blkdebug" => Self::Blkdebug {
                rules: InjectError::take_all(members)?,
                image: members.reference("image")?.ok_or_else(|| members.missing("image"))?,
            },
            name @ ("file" | "host_device") => {
                let filename = members.string("filename")?;
                let filename = filename.ok_or_else(|| members.missing("filename"))?;
                let aio = members.word("aio", AIO)?;
                let locking = members.word("locking", &["auto", "on", "off"])?;
                Self::File {
                    filename: filename.into(),
                    locking: locking != Some(2),
                    aio,
                    device: name == "host_device",
                }
            }
            "raw" => Self::Raw {
                offset: members.number("offset")?.unwrap_or(0),
                size: members.number("size")?,
                file: members.reference("file")?.ok_or_else(|| members.missing("file"))?,
                probed: false,
            },
            "qcow2" => Self::Qcow2 {
                backing: members.backing()?,
                file: members.reference("file")?.ok_or_else(|| members.missing("file"))?,
            },
            "vmdk" => Self::Vmdk {
                file: members.reference("file")?.ok_or_else(|| members.missing("file"))?,
            },
            "throttle" => {
                let group = members.string("throttle-group")?;
                Self::Throttle {
                    group: group.ok_or_else(|| members.missing("throttle-group"))?,
                    file: members.reference("file")?.ok_or_else(|| members.missing("file"))?,
                }
            }
            _ => Self::NullCo {
                size: members.number("size")?.unwrap_or(1 << 30),
                latency_ns: members.number("latency-ns")?.unwrap_or(0),
                read_zeroes: members.bool("read-zeroes")?.unwrap_or(false),
            },
        })
    }
}

/// The drivers there are.
pub const DRIVERS: &[&str] =
    &["blkdebug", "file", "host_device", "null-co", "qcow2", "raw", "throttle", "vmdk"];

/// The kinds of asynchronous I/O that files know.
const AIO: &[&str] = &["threads", "native", "io_uring"];

/// What becomes of writes of zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// They are writes.
    #[default]
    Off,
    /// They become writes of zeroes without data.
    On,
    /// These may free space, where discards may.
    Unmap,
}

impl DetectZeroes {
    const ALL: [Self; 3] = [Self::Off, Self::On, Self::Unmap];
}

/// A node to be made. What is `None` is inherited from the node that it is made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Generated when absent.
    pub node_name: Option<String>,
    /// No writes.
    pub read_only: Option<bool>,
    /// No writes where they are not allowed, instead of an error.
    pub auto_read_only: bool,
    /// Bypass the host's page cache.
    pub direct: Option<bool>,
    /// Ignore flushes.
    pub no_flush: Option<bool>,
    /// What becomes of discards.
    pub discard: Option<Discard>,
    /// What becomes of writes of zeroes by devices that use the node.
    pub detect_zeroes: DetectZeroes,
    /// The rest.
    pub driver: DriverOptions,
}

impl Options {
    /// A node with the defaults of QEMU.
    pub fn new(driver: DriverOptions) -> Self {
        Self {
            node_name: None,
            read_only: None,
            auto_read_only: false,
            direct: None,
            no_flush: None,
            discard: None,
            detect_zeroes: DetectZeroes::Off,
            driver,
        }
    }

    /// Reads options as `blockdev-add` takes them.
    pub fn parse(map: Map<String, Value>) -> Result<Self, CommandError> {
        Self::take(Members::new(map, String::new(), Syntax::Json))
    }

    /// Reads options as a member of a list, called `at` in messages.
    pub fn parse_at(map: Map<String, Value>, at: &str) -> Result<Self, CommandError> {
        Self::take(Members::new(map, format!("{at}."), Syntax::Json))
    }

    /// Reads options as `-blockdev` takes them: `driver=raw,node-name=x,file.driver=file,...`.
    pub fn keyval(text: &str) -> Result<Self, CommandError> {
        let map = nest(crate::qdev::keyval(text, "driver")?)?;
        Self::take(Members::new(map, String::new(), Syntax::KeyVal))
    }

    /// Reads options as `-drive` takes them.
    pub(super) fn of_drive(flat: Map<String, Value>) -> Result<Self, CommandError> {
        Self::take(Members::new(nest(flat)?, String::new(), Syntax::Drive))
    }

    fn take(mut members: Members) -> Result<Self, CommandError> {
        let unsaid = members.syntax == Syntax::Drive && !members.map.contains_key("driver");
        let driver = if unsaid { None } else { Some(members.driver()?) };
        members.driver = driver.map_or("", |driver| DRIVERS[driver]);
        let node_name = members.string("node-name")?;
        let discard = members.word("discard", &["ignore", "unmap"])?;
        let detect_zeroes = members.word("detect-zeroes", &["off", "on", "unmap"])?;
        let (mut direct, mut no_flush) = (None, None);
        if let Some(mut cache) = members.object("cache")? {
            direct = cache.bool("direct")?;
            no_flush = cache.bool("no-flush")?;
            cache.finish()?;
        }
        let read_only = members.bool("read-only")?;
        let auto_read_only = members.bool("auto-read-only")?.unwrap_or(false);
        let driver = match driver {
            Some(driver) => DriverOptions::take(driver, &mut members)?,
            None => DriverOptions::Probed {
                file: members.reference("file")?.ok_or_else(|| members.missing("file"))?,
                rest: std::mem::take(&mut members.map),
                alone: false,
            },
        };
        members.finish()?;
        let discard = discard.map(|n| [Discard::Ignore, Discard::Unmap][n]);
        let detect_zeroes = DetectZeroes::ALL[detect_zeroes.unwrap_or(0)];
        if detect_zeroes == DetectZeroes::Unmap && discard != Some(Discard::Unmap) {
            let text = "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap";
            return Err(CommandError::generic(text));
        }
        Ok(Self {
            node_name,
            read_only,
            auto_read_only,
            direct,
            no_flush,
            discard,
            detect_zeroes,
            driver,
        })
    }

    /// With what a node inherits from the one it is made for.
    #[must_use]
    pub(super) fn for_parent(&self, parent: &Self) -> Self {
        Self {
            read_only: self.read_only.or(parent.read_only),
            auto_read_only: self.auto_read_only || parent.auto_read_only,
            direct: self.direct.or(parent.direct),
            no_flush: self.no_flush.or(parent.no_flush),
            discard: self.discard.or(parent.discard),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DriverOptions, Options, Reference};
    use serde_json::{Value, json};

    fn parse(value: Value) -> Result<Options, String> {
        let Value::Object(map) = value else { panic!("an object") };
        Options::parse(map).map_err(|error| error.text)
    }

    #[test]
    fn texts_are_those_of_qemu() {
        for (options, text) in [
            (json!({"node-name": "x"}), "Parameter 'driver' is missing"),
            (
                json!({"driver": "foo", "node-name": "x"}),
                "Parameter 'driver' does not accept value 'foo'",
            ),
            (json!({"driver": "file"}), "Parameter 'filename' is missing"),
            (
                json!({"driver": "file", "filename": "/x", "bla": 1}),
                "Parameter 'bla' is unexpected",
            ),
            (json!({"driver": "raw"}), "Parameter 'file' is missing"),
            (
                json!({"driver": "raw", "file": 7}),
                "Invalid parameter type for 'file', expected: BlockdevRef",
            ),
            (
                json!({"driver": "raw", "file": {"driver": "null-co", "size": "x"}}),
                "Invalid parameter type for 'file.size', expected: integer",
            ),
            (
                json!({"driver": "null-co", "cache": {"foo": 1}}),
                "Parameter 'cache.foo' is unexpected",
            ),
        ] {
            assert_eq!(parse(options), Err(text.to_owned()));
        }
    }

    #[test]
    fn children_inherit_what_they_do_not_say() {
        let options = parse(json!({
            "driver": "raw", "node-name": "r", "read-only": true, "cache": {"direct": true},
            "file": {"driver": "file", "filename": "/x", "cache": {"no-flush": true}}
        }))
        .unwrap();
        let DriverOptions::Raw { file: Reference::New(file), .. } = &options.driver else {
            panic!("raw");
        };
        let file = file.for_parent(&options);
        assert_eq!(
            (file.read_only, file.direct, file.no_flush),
            (Some(true), Some(true), Some(true))
        );
        assert_eq!(file.node_name, None);
    }
}
