//! Character devices.

use super::chardev_backend::ChardevBackend;
use super::descriptors::session;
use crate::ErrorClass;
use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{Command, Registry};
use crate::{qapi_enum, qapi_struct};
use devices::base64;
use devices::chardev::{self, Chardevs};

qapi_struct! {
    /// A character device.
    pub struct ChardevInfo {
        /// Its id.
        pub label: String = "label",
        /// What it is and whom it is connected to.
        pub filename: String = "filename",
        /// A front end uses it.
        pub frontend_open: bool = "frontend-open",
    }
}

qapi_struct! {
    /// A kind of character device.
    pub struct ChardevBackendInfo {
        /// Its name.
        pub name: String = "name",
    }
}

qapi_struct! {
    /// What to make.
    pub struct ChardevAdd {
        /// Its id.
        pub id: String = "id",
        /// What it is.
        pub backend: ChardevBackend = "backend",
    }
}

qapi_struct! {
    /// What to change into what.
    pub struct ChardevChange {
        /// Its id.
        pub id: String = "id",
        /// What it becomes.
        pub backend: ChardevBackend = "backend",
    }
}

qapi_struct! {
    /// What has come of it.
    pub struct ChardevReturn {
        /// The name of the pseudo terminal, where it is one.
        pub pty: Option<String> = "pty",
    }
}

qapi_struct! {
    /// Which one to remove.
    pub struct ChardevRemove {
        /// Its id.
        pub id: String = "id",
    }
}

qapi_struct! {
    /// Which one is to send a break condition.
    pub struct ChardevSendBreak {
        /// Its id.
        pub id: String = "id",
    }
}

qapi_enum! {
    /// How bytes are written as text.
    pub enum DataFormat {
        /// As they are.
        Utf8 = "utf8",
        /// Coded (RFC 3548).
        Base64 = "base64",
    }
}

qapi_struct! {
    /// What to add to a ring buffer.
    pub struct RingbufWrite {
        /// Its id.
        pub device: String = "device",
        /// The bytes.
        pub data: String = "data",
        /// How they are written; utf8 when absent.
        pub format: Option<DataFormat> = "format",
    }
}

qapi_struct! {
    /// What to take out of a ring buffer.
    pub struct RingbufRead {
        /// Its id.
        pub device: String = "device",
        /// Bytes at most.
        pub size: i64 = "size",
        /// How they are written; utf8 when absent.
        pub format: Option<DataFormat> = "format",
    }
}

qapi_struct! {
    /// A client that has connected elsewhere.
    pub struct AddClient {
        /// The id of a character device; displays have protocols of their own in QEMU.
        pub protocol: String = "protocol",
        /// The name of the descriptor (`getfd`).
        pub fdname: String = "fdname",
        /// For displays.
        pub skipauth: Option<bool> = "skipauth",
        /// For displays.
        pub tls: Option<bool> = "tls",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let query = Command::plain("query-chardev", "The character devices.", query_chardev);
    registry.add(query.allow_preconfig());
    registry.add(Command::plain(
        "query-chardev-backends",
        "The kinds of character devices.",
        |_: &Env, (): ()| Ok(query_chardev_backends()),
    ));
    registry.add(Command::coroutine("chardev-add", "Makes a character device.", chardev_add));
    registry.add(Command::coroutine(
        "chardev-change",
        "Gives a character device another back end. The old one stays when that fails.",
        chardev_change,
    ));
    registry.add(Command::plain(
        "chardev-remove",
        "Removes a character device that nothing uses.",
        chardev_remove,
    ));
    registry.add(Command::plain(
        "chardev-send-break",
        "Sends a break condition to a character device.",
        chardev_send_break,
    ));
    registry.add(Command::plain("ringbuf-write", "Adds bytes to a ring buffer.", ringbuf_write));
    registry.add(Command::plain(
        "ringbuf-read",
        "Takes bytes out of a ring buffer, the oldest first.",
        ringbuf_read,
    ));
    registry.add(Command::plain(
        "add_client",
        "Hands the descriptor of a connected client to a character device.",
        add_client,
    ));
}

fn chardevs(env: &Env) -> Result<&Chardevs, QmpError> {
    Ok(env.machine()?.chardevs())
}

pub(crate) fn query_chardev(env: &Env, (): ()) -> Result<Vec<ChardevInfo>, QmpError> {
    let info = |info: chardev::ChardevInfo| ChardevInfo {
        label: info.label,
        filename: info.filename,
        frontend_open: info.frontend_open,
    };
    Ok(chardevs(env)?.list().into_iter().map(info).collect())
}

pub(crate) fn query_chardev_backends() -> Vec<ChardevBackendInfo> {
    let info = |name: &&str| ChardevBackendInfo { name: (*name).to_owned() };
    chardev::BACKENDS.iter().map(info).collect()
}

pub(crate) async fn chardev_add(env: Env, asked: ChardevAdd) -> Result<ChardevReturn, QmpError> {
    let ChardevAdd { id, backend } = asked;
    let chardevs = chardevs(&env)?;
    // Before a descriptor is taken for it.
    if chardevs.contains(&id) {
        return Err(QmpError::generic(format!("Chardev with id '{id}' already exists")));
    }
    let backend = open(&env, &id, backend)?;
    let added = chardevs.add(&id, backend).await;
    Ok(ChardevReturn { pty: added.map_err(|error| failed(&id, &error.into()))? })
}

async fn chardev_change(env: Env, asked: ChardevChange) -> Result<ChardevReturn, QmpError> {
    let ChardevChange { id, backend } = asked;
    let chardevs = chardevs(&env)?;
    if !chardevs.contains(&id) {
        return Err(QmpError::generic(format!("Chardev '{id}' does not exist")));
    }
    let backend = open(&env, &id, backend)?;
    chardevs.check_change(&id, &backend)?;
    let changed = chardevs.change(&id, backend).await;
    Ok(ChardevReturn { pty: changed.map_err(|error| failed(&id, &error.into()))? })
}

fn failed(id: &str, error: &QmpError) -> QmpError {
    let text = format!("Failed to add chardev '{id}': {}", error.desc());
    QmpError::new(error.class(), text)
}

/// What was asked for, with the descriptors that it names.
fn open(env: &Env, id: &str, backend: ChardevBackend) -> Result<chardev::Backend, QmpError> {
    let take = |name: &str| {
        if let Some(session) = &env.session {
            return session.descriptors().take_named(name);
        }
        Err(QmpError::generic(format!("File descriptor named '{name}' has not been found")))
    };
    backend.checked(take).map_err(|error| failed(id, &error))
}

pub(crate) fn chardev_remove(
    env: &Env,
    ChardevRemove { id }: ChardevRemove,
) -> Result<(), QmpError> {
    Ok(chardevs(env)?.remove(&id)?)
}

pub(crate) fn chardev_send_break(
    env: &Env,
    ChardevSendBreak { id }: ChardevSendBreak,
) -> Result<(), QmpError> {
    Ok(chardevs(env)?.send_break(&id)?)
}

pub(crate) fn ringbuf_write(env: &Env, asked: RingbufWrite) -> Result<(), QmpError> {
    let chardevs = chardevs(env)?;
    // An unknown device is named before wrong data.
    chardevs.ring_read(&asked.device, 0)?;
    let bytes = match asked.format {
        Some(DataFormat::Base64) => base64::decode_lenient(asked.data.as_bytes())
            .ok_or_else(|| QmpError::generic("Base64 data contains invalid characters"))?,
        Some(DataFormat::Utf8) | None => asked.data.into_bytes(),
    };
    Ok(chardevs.ring_write(&asked.device, &bytes)?)
}

pub(crate) fn ringbuf_read(env: &Env, asked: RingbufRead) -> Result<String, QmpError> {
    let RingbufRead { device, size, format } = asked;
    let chardevs = chardevs(env)?;
    // An unknown device is named before a wrong size.
    chardevs.ring_read(&device, 0)?;
    let size = usize::try_from(size).ok().filter(|size| *size > 0);
    let size = size.ok_or_else(|| QmpError::generic("size must be greater than zero"))?;
    let bytes = chardevs.ring_read(&device, size)?;
    Ok(match format {
        Some(DataFormat::Base64) => base64::encode(&bytes),
        Some(DataFormat::Utf8) | None => String::from_utf8_lossy(&bytes).into_owned(),
    })
}

fn add_client(env: &Env, asked: AddClient) -> Result<(), QmpError> {
    let AddClient { protocol, fdname, .. } = asked;
    let fd = session(env)?.descriptors().take_named(&fdname)?;
    match protocol.as_str() {
        // The only display that QEMU knows of even where it was built without.
        "spice" => Err(QmpError::new(ErrorClass::DeviceNotActive, "SPICE is not in use")),
        id if chardevs(env)?.contains(id) => Ok(chardevs(env)?.add_client(id, fd)?),
        other => Err(QmpError::generic(format!("protocol '{other}' is invalid"))),
    }
}
