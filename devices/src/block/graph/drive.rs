//! `-drive` and `drive_add`: a node, and what its user shall do with it, in one option string.

use super::BlockGraph;
use super::errors::{ErrorPolicy, OnError};
use super::options::{DriverOptions, Options};
use super::throttle::Limits;
use crate::block::Cache;
use crate::error::CommandError;
use crate::keyval::size;
use crate::objects::LIMITS;
use crate::qdev::keyval;
use crate::text::{is_identifier, switch};
use serde_json::{Map, Value};

/// What a drive is made for, by QEMU's numbers.
const INTERFACES: [&str; 9] =
    ["none", "ide", "scsi", "floppy", "pflash", "mtd", "sd", "virtio", "xen"];

/// Whom a drive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// `if=none`: a device that names it.
    None,
    /// `if=virtio`: a virtio-blk device of its own.
    Virtio,
    /// Something that is not here; the number that QEMU gives it.
    Other(usize),
}

/// A drive to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct DriveOptions {
    /// `id=`.
    pub id: Option<String>,
    /// `if=`; `None` where nothing is said.
    pub interface: Option<Interface>,
    /// `serial=`, for the device that `if=virtio` makes.
    pub serial: Option<String>,
    /// The node; `None`: the drive is empty.
    pub image: Option<Options>,
    /// Writes may sit in a cache until a flush.
    pub writeback: bool,
    /// `throttling.`: the limits, where there are any.
    pub limits: Option<Limits>,
    /// `throttling.group=`: with whom it shares them.
    pub group: Option<String>,
    /// `werror=`, `rerror=`: what is done about requests that fail.
    pub on_error: ErrorPolicy,
}

fn generic(text: impl Into<String>) -> CommandError {
    CommandError::generic(text)
}

/// The members of an option string, all of them text.
struct Flat(Map<String, Value>);

impl Flat {
    fn text(&mut self, key: &str) -> Option<String> {
        match self.0.remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn switch(&mut self, key: &str) -> Result<Option<bool>, CommandError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let value = switch(&text);
        value.map(Some).ok_or_else(|| generic(format!("Parameter '{key}' expects 'on' or 'off'")))
    }

    fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn set_switch(&mut self, key: &str, on: bool) {
        self.set(key, if on { "on" } else { "off" });
    }
}

impl DriveOptions {
    /// Reads an option string: `file=PATH,format=raw,if=none,id=d0,...`. Members of `file.` are
    /// those of the node below; what a driver knows may be given as well.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let mut flat = Flat(keyval(text, "file")?);
        let id = flat.text("id");
        if id.as_deref().is_some_and(|id| !is_identifier(id)) {
            return Err(generic("Parameter 'id' expects an identifier"));
        }
        let interface = flat.text("if").map(|name| interface(&name)).transpose()?;
        let serial = flat.text("serial");
        let read_only_medium = match flat.text("media").as_deref() {
            None | Some("disk") => false,
            Some("cdrom") => true,
            Some(other) => return Err(generic(format!("'{other}' invalid media"))),
        };
        // Where drives without a device of their own went on old buses.
        for key in ["index", "bus", "unit"] {
            flat.text(key);
        }
        for key in ["snapshot", "copy-on-read"] {
            if flat.switch(key)? == Some(true) {
                return Err(generic(format!(
                    "{key}=on needs a driver with backing images; there is none"
                )));
            }
        }
        let writeback = cache(&mut flat)?;
        renamed(&mut flat, read_only_medium)?;
        let group = flat.text("throttling.group");
        let limits = throttling(&mut flat)?;
        let on_error = ErrorPolicy {
            write: error_action(&mut flat, "werror", "write")?,
            read: error_action(&mut flat, "rerror", "read")?,
        };
        let image = image(flat)?;
        Ok(Self { id, interface, serial, image, writeback, limits, group, on_error })
    }

    /// Makes the drive; it is called `id`.
    pub async fn open(&self, graph: &BlockGraph, id: &str) -> Result<(), CommandError> {
        let backend = graph.add_drive(id, self.image.clone(), self.writeback).await?;
        backend.set_on_error(self.on_error);
        if let Some(limits) = self.limits {
            graph.throttle(&backend, self.group.as_deref(), limits);
        }
        Ok(())
    }

    /// The image that a drive gets for a file name, by the rules of `file=` and `format=`.
    pub fn medium(
        filename: &str,
        format: Option<&str>,
        read_only: bool,
    ) -> Result<Options, CommandError> {
        let mut flat = Flat(Map::new());
        flat.set("file", filename);
        if let Some(format) = format {
            flat.set("format", format);
        }
        flat.set_switch("read-only", read_only);
        image(flat)?.ok_or_else(|| generic("Parameter 'filename' expects the name of an image"))
    }

    /// A drive on a file that goes with the process.
    pub fn scratch(id: &str, size: u64) -> Self {
        Self {
            id: Some(id.to_owned()),
            interface: Some(Interface::None),
            serial: None,
            image: Some(Options::new(DriverOptions::Scratch { size })),
            writeback: true,
            limits: None,
            group: None,
            on_error: ErrorPolicy::default(),
        }
    }
}

fn interface(name: &str) -> Result<Interface, CommandError> {
    match INTERFACES.iter().position(|known| *known == name) {
        Some(0) => Ok(Interface::None),
        Some(_) if name == "virtio" => Ok(Interface::Virtio),
        Some(number) => Ok(Interface::Other(number)),
        None => Err(generic(format!("unsupported bus type '{name}'"))),
    }
}

/// `cache=` and its parts; returns whether writes may sit in a cache.
fn cache(flat: &mut Flat) -> Result<bool, CommandError> {
    let mode = match flat.text("cache") {
        None => Cache::WRITEBACK,
        Some(text) => text.parse().map_err(|_| generic("invalid cache option"))?,
    };
    let writeback = flat.switch("cache.writeback")?.unwrap_or(mode.writeback);
    for (key, usual) in [("cache.direct", mode.direct), ("cache.no-flush", mode.no_flush)] {
        let on = flat.switch(key)?.unwrap_or(usual);
        flat.set_switch(key, on);
    }
    Ok(writeback)
}

/// `werror=` or `rerror=`.
fn error_action(flat: &mut Flat, key: &str, of: &str) -> Result<Option<OnError>, CommandError> {
    let Some(text) = flat.text(key) else { return Ok(None) };
    let known = OnError::named(&text).filter(|on| *on != OnError::Enospc || of == "write");
    known.map(Some).ok_or_else(|| generic(format!("'{text}' invalid {of} error action")))
}

/// The limits that `throttling.` gives.
fn throttling(flat: &mut Flat) -> Result<Option<Limits>, CommandError> {
    let mut members = Map::new();
    for name in LIMITS {
        let key = format!("throttling.{name}");
        if let Some(text) = flat.text(&key) {
            let number = size(&text, 1).and_then(|number| i64::try_from(number).ok());
            let number =
                number.ok_or_else(|| generic(format!("Parameter '{key}' expects a number")))?;
            members.insert(name.to_owned(), number.into());
        }
    }
    Ok(Some(Limits::parse(members)?).filter(Limits::any))
}

/// Gives options the names that nodes know them by.
fn renamed(flat: &mut Flat, read_only_medium: bool) -> Result<(), CommandError> {
    let aio = flat.text("aio");
    if aio.is_some_and(|aio| !["threads", "native", "io_uring"].contains(&aio.as_str())) {
        return Err(generic("invalid aio option"));
    }
    match flat.text("discard").as_deref() {
        None => {}
        Some("ignore" | "off") => flat.set("discard", "ignore"),
        Some("unmap" | "on") => flat.set("discard", "unmap"),
        Some(_) => return Err(generic("Invalid discard option")),
    }
    if let Some(read_only) = flat.text("readonly") {
        flat.set("read-only", &read_only);
    }
    let read_only = flat.switch("read-only")?;
    flat.set_switch("read-only", read_only.unwrap_or(read_only_medium));
    Ok(())
}

/// The node that is left over; `None` where nothing says what it is.
fn image(mut flat: Flat) -> Result<Option<Options>, CommandError> {
    let file = flat.text("file").filter(|file| !file.is_empty());
    let format = flat.text("format").or_else(|| flat.text("driver"));
    if let Some(file) = &file {
        protocol(&mut flat, file)?;
    }
    let below = flat.0.keys().any(|key| key.starts_with("file."));
    match (format, below) {
        // Nothing but what holds for whatever will be put in.
        (None, false) => return Ok(None),
        (Some(format), false) if format == "raw" => {
            return Err(generic("A block device must be specified for \"file\""));
        }
        (Some(format), _) => flat.set("driver", &format),
        // Its content tells.
        (None, true) => {}
    }
    if below && !flat.0.contains_key("file.driver") {
        flat.set("file.driver", "file");
    }
    Options::of_drive(flat.0).map(Some)
}

/// What a file name says about the driver below.
fn protocol(flat: &mut Flat, file: &str) -> Result<(), CommandError> {
    if flat.0.contains_key("file.driver") {
        flat.set("file.filename", file);
        return Ok(());
    }
    if file == "null-co://" {
        flat.set("file.driver", "null-co");
        return Ok(());
    }
    // A colon ahead of the first slash ends the name of a protocol.
    let name = file.split('/').next().unwrap_or_default();
    match name.split_once(':') {
        Some(("file", _)) => flat.set("file.filename", &file["file:".len()..]),
        Some((other, _)) => return Err(generic(format!("Unknown protocol '{other}'"))),
        None => flat.set("file.filename", file),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{DriveOptions, Interface};
    use crate::block::Discard;
    use crate::block::graph::options::{DriverOptions, Options, Reference};

    fn parse(text: &str) -> Result<DriveOptions, String> {
        DriveOptions::parse(text).map_err(|error| error.text)
    }

    fn below(options: &Options) -> &Options {
        match &options.driver {
            DriverOptions::Raw { file: Reference::New(file), .. } => file,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_drive_is_a_format_over_a_file() {
        let text = "file=/a,,b,if=none,id=d,format=raw,cache=none,discard=on,readonly,file.locking=off,size=1M";
        let drive = parse(text).unwrap();
        assert_eq!((drive.id.as_deref(), drive.interface), (Some("d"), Some(Interface::None)));
        assert!(drive.writeback);
        let image = drive.image.unwrap();
        assert_eq!(image.discard, Some(Discard::Unmap));
        assert_eq!((image.read_only, image.direct), (Some(true), Some(true)));
        assert!(matches!(image.driver, DriverOptions::Raw { size: Some(0x10_0000), .. }));
        let DriverOptions::File { filename, locking, .. } = &below(&image).driver else { panic!() };
        assert_eq!((filename.to_str().unwrap(), *locking), ("/a,b", false));
    }

    #[test]
    fn names_of_protocols_choose_drivers() {
        let drive = parse("file=null-co://,file.read-zeroes=on,format=raw,if=none").unwrap();
        let null = below(drive.image.as_ref().unwrap()).driver.clone();
        assert!(matches!(null, DriverOptions::NullCo { read_zeroes: true, .. }));
        let drive = parse("file=file:/x:y,if=none,format=raw").unwrap();
        let DriverOptions::File { filename, .. } = &below(drive.image.as_ref().unwrap()).driver
        else {
            panic!()
        };
        assert_eq!(filename.to_str(), Some("/x:y"));
        assert_eq!(parse("if=none,id=empty").unwrap().image, None);
        let drive = parse("driver=null-co,if=none,size=1M").unwrap();
        assert!(matches!(drive.image.unwrap().driver, DriverOptions::NullCo { .. }));
    }

    /// What `-drive` says in QEMU 10.0.
    #[test]
    fn texts_are_those_of_qemu() {
        for (text, expected) in [
            ("file=x,id=1x", "Parameter 'id' expects an identifier"),
            ("if=foo", "unsupported bus type 'foo'"),
            ("media=foo", "'foo' invalid media"),
            ("file=x,cache=foo", "invalid cache option"),
            ("file=x,cache.direct=maybe", "Parameter 'cache.direct' expects 'on' or 'off'"),
            ("file=x,aio=foo", "invalid aio option"),
            ("file=x,discard=foo", "Invalid discard option"),
            ("file=x,werror=foo", "'foo' invalid write error action"),
            ("file=x,rerror=enospc", "'enospc' invalid read error action"),
            ("file=x,readonly=maybe", "Parameter 'read-only' expects 'on' or 'off'"),
            ("file=x,snapshot=maybe", "Parameter 'snapshot' expects 'on' or 'off'"),
            ("file=x,format=foo", "Unknown driver 'foo'"),
            ("file=x,format=raw,bla=1", "Block format 'raw' does not support the option 'bla'"),
            (
                "file=x,format=raw,file.bla=1",
                "Block protocol 'file' doesn't support the option 'bla'",
            ),
            ("file=foo://x,format=raw", "Unknown protocol 'foo'"),
            ("format=raw", "A block device must be specified for \"file\""),
        ] {
            assert_eq!(parse(text).map(|_| ()), Err(expected.to_owned()), "{text}");
        }
    }
}
