//! The types of objects.

use super::{Body, Objects, memory, secret, throttle};
use crate::error::CommandError;
use crate::fdset::OpenFailure;
use crate::qdev::BoxFuture;
use crate::qdev::property::{Kind, Property, Words};
use crate::qdev::value::Properties;
use crate::text::system_error;

/// Makes what is behind an object. In `main`.
pub(super) type Make =
    for<'a> fn(&'a Objects, &'a str, &'a Properties) -> BoxFuture<'a, Result<Body, CommandError>>;

/// A type of object that users can make.
pub struct ObjectType {
    /// Its name.
    pub name: &'static str,
    /// The type that it derives from.
    pub parent: &'static str,
    /// Its properties, in groups.
    pub properties: &'static [&'static [Property]],
    /// Whether properties agree, at creation and when one is set.
    pub(super) check: fn(&Properties) -> Result<(), CommandError>,
    pub(super) make: Make,
}

impl ObjectType {
    /// Its properties.
    pub fn properties(&self) -> impl Iterator<Item = &'static Property> + use<> {
        self.properties.iter().copied().flatten()
    }
}

const SECRET_FORMAT: Words = Words { name: "QCryptoSecretFormat", words: &["raw", "base64"] };

/// What an iothread polls for at most unless it is told: as in QEMU.
const POLL_MAX_NS: i64 = 32_768;

const IOTHREAD: &[Property] = &[
    Property::int("poll-max-ns", Kind::Int, POLL_MAX_NS).live(),
    Property::int("poll-grow", Kind::Int, 0).live(),
    Property::int("poll-shrink", Kind::Int, 0).live(),
    Property::int("aio-max-batch", Kind::Int, 0).live(),
    Property::int("thread-pool-min", Kind::Int, 0).live(),
    Property::int("thread-pool-max", Kind::Int, 64).live(),
];

const RNG_RANDOM: &[Property] = &[Property {
    default: crate::qdev::property::DefaultValue::Text("/dev/urandom"),
    ..Property::new("filename", Kind::Str).typed("string")
}];

const SECRET: &[Property] = &[
    Property::new("data", Kind::Str).typed("string"),
    Property::new("file", Kind::Str).typed("string"),
    Property::words("format", &SECRET_FORMAT, "raw"),
    Property::new("keyid", Kind::Str).typed("string"),
    Property::new("iv", Kind::Str).typed("string"),
];

const THROTTLE_GROUP: &[Property] = &[Property::new("limits", Kind::Json("ThrottleLimits")).live()];

/// All of them.
pub static OBJECT_TYPES: &[ObjectType] = &[
    ObjectType {
        name: "iothread",
        parent: "event-loop-base",
        properties: &[IOTHREAD],
        check: check_iothread,
        make: |objects, _, _| Box::pin(io_thread(objects)),
    },
    memory::FILE_TYPE,
    memory::MEMFD_TYPE,
    memory::RAM_TYPE,
    ObjectType {
        name: "rng-builtin",
        parent: "rng-backend",
        properties: &[],
        check: |_| Ok(()),
        make: |_, _, _| Box::pin(async { Ok(Body::Plain) }),
    },
    ObjectType {
        name: "rng-random",
        parent: "rng-backend",
        properties: &[RNG_RANDOM],
        check: |_| Ok(()),
        make: |objects, _, properties| Box::pin(open_random(objects, properties)),
    },
    ObjectType {
        name: "secret",
        parent: "secret_common",
        properties: &[SECRET],
        check: |_| Ok(()),
        make: |_, _, properties| Box::pin(secret::load(properties)),
    },
    ObjectType {
        name: "throttle-group",
        parent: "object",
        properties: &[THROTTLE_GROUP],
        check: |properties| throttle::check(properties.json("limits")),
        make: |objects, id, properties| {
            let made = throttle::make(objects, id, properties);
            Box::pin(std::future::ready(made))
        },
    },
];

async fn io_thread(objects: &Objects) -> Result<Body, CommandError> {
    let context = objects.next_core()?;
    let thread_id = context.spawn("iothread", async { nix::unistd::gettid().as_raw() }).await;
    let thread_id = thread_id.map_err(|error| CommandError::generic(error.to_string()))?;
    Ok(Body::IoThread { context, thread_id })
}

fn check_iothread(properties: &Properties) -> Result<(), CommandError> {
    for property in IOTHREAD {
        if properties.int(property.name) < 0 {
            let (name, most) = (property.name, i64::MAX);
            let text = format!("{name} value must be in range [0, {most}]");
            return Err(CommandError::generic(text));
        }
    }
    Ok(())
}

async fn open_random(objects: &Objects, properties: &Properties) -> Result<Body, CommandError> {
    let name = properties.text("filename").unwrap_or_default();
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let opened = objects.fdsets.open(name.as_ref(), flags, 0).await;
    opened.map(Body::Random).map_err(|OpenFailure { source, text }| {
        let text =
            text.unwrap_or_else(|| format!("Could not open '{name}': {}", system_error(&source)));
        CommandError::generic(text)
    })
}
