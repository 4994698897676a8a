//! The memory balloon, and the ports of consoles.

use crate::core::Env;
use crate::error::{ErrorClass, QmpError};
use crate::event::{BalloonChange, VserportChange};
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use crate::session::hub::EventSink;
use devices::qdev::PortSink;
use devices::virtio::balloon::{BalloonSink, BalloonSlot, VirtioBalloon};
use std::sync::Arc;

qapi_struct! {
    /// How much memory the guest shall have.
    pub struct Balloon {
        /// Bytes.
        pub value: i64 = "value",
    }
}

qapi_struct! {
    /// The state of the balloon.
    pub struct BalloonInfo {
        /// Bytes of memory that the guest has.
        pub actual: i64 = "actual",
    }
}

impl EventSink {
    /// Takes what the balloon tells.
    pub fn balloon(&self) -> BalloonSink {
        let events = self.clone();
        Arc::new(move |actual| {
            events.emit(&BalloonChange { actual: actual.try_into().unwrap_or(i64::MAX) });
        })
    }

    /// Takes what the ports of consoles tell.
    pub fn ports(&self) -> PortSink {
        let events = self.clone();
        Arc::new(move |id, open| events.emit(&VserportChange { id: id.to_owned(), open }))
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::plain(
        "balloon",
        "Asks the guest to make do with so much memory. BALLOON_CHANGE tells what it does.",
        balloon,
    ));
    registry.add(Command::plain("query-balloon", "The state of the balloon.", query_balloon));
}

fn device(env: &Env) -> Result<Arc<VirtioBalloon>, QmpError> {
    env.machine()?.balloon().and_then(BalloonSlot::get).ok_or_else(|| {
        QmpError::new(ErrorClass::DeviceNotActive, "No balloon device has been activated")
    })
}

pub(crate) fn balloon(env: &Env, Balloon { value }: Balloon) -> Result<(), QmpError> {
    let device = device(env)?;
    let bytes = u64::try_from(value).ok().filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or_else(|| QmpError::generic("Parameter 'value' expects a size"))?;
    device.set_target(bytes);
    Ok(())
}

pub(crate) fn query_balloon(env: &Env, (): ()) -> Result<BalloonInfo, QmpError> {
    let actual = device(env)?.actual();
    Ok(BalloonInfo { actual: actual.try_into().unwrap_or(i64::MAX) })
}
