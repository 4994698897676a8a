//! Devices: plugging and unplugging them while the machine runs.

use crate::core::Env;
use crate::error::QmpError;
use crate::event::{DeviceDeleted, DeviceUnplugGuestError};
use crate::registry::{Command, Registry, StructInfo, Type, members, optional, required};
use crate::session::hub::EventSink;
use crate::{qapi_open_struct, qapi_struct};
use devices::CommandError;
use devices::qdev::{DeviceRequest, TreeEvents};
use serde_json::{Value, json};

static DEVICE_ADD: StructInfo = members(
    "DeviceAdd",
    "A device; its properties are further members.",
    &[
        required("driver", "The type: see qom-list-types.", Type::String),
        optional("bus", "The bus; one that is free when absent.", Type::String),
        optional("id", "The name to give it, which must be free.", Type::String),
    ],
);

qapi_open_struct! {
    /// The arguments of `device_add`: what every device takes, and the properties of its type,
    /// which only the type can tell.
    pub struct DeviceAdd = DEVICE_ADD;
}

qapi_struct! {
    /// A device.
    pub struct DeviceDel {
        /// Its id, or its path in the object tree.
        pub id: String = "id",
    }
}

qapi_struct! {
    /// Queues of an I/O thread.
    pub struct IoThreadVirtQueueMapping {
        /// The id of the I/O thread.
        pub iothread: String = "iothread",
        /// Its queues; all are shared out in turn when absent.
        pub vqs: Option<Vec<i64>> = "vqs",
    }
}

qapi_struct! {
    /// Where the queues of a device shall be served: on all cores when neither member says more.
    pub struct DeviceSetIothread {
        /// The device's id, or its path in the object tree.
        pub id: String = "id",
        /// The id of the I/O thread for all queues.
        pub iothread: Option<String> = "iothread",
        /// Several I/O threads, and their queues.
        pub mapping: Option<Vec<IoThreadVirtQueueMapping>> = "iothread-vq-mapping",
    }
}

impl TreeEvents for EventSink {
    fn deleted(&self, id: Option<&str>, path: &str) {
        self.emit(&DeviceDeleted { device: id.map(str::to_owned), path: path.to_owned() });
    }

    fn unplug_refused(&self, id: Option<&str>, path: &str) {
        self.emit(&DeviceUnplugGuestError { device: id.map(str::to_owned), path: path.to_owned() });
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let add = Command::coroutine(
        "device_add",
        "Adds a device. When it fails, nothing of the attempt is left by the time of the reply.",
        device_add,
    );
    registry.add(add.features(&["json-cli", "json-cli-hotplug"]));
    registry.add(Command::coroutine(
        "device_del",
        "Removes a device, or asks the guest to let go of it; DEVICE_DELETED says when it is gone.",
        device_del,
    ));
    registry.add(Command::coroutine(
        "x-device-set-iothread",
        "Moves the queues of a running device to other cores. What is in flight is finished where it \
         was begun, the rest goes on there; no request is lost.",
        device_set_iothread,
    ));
}

/// Makes what a request asks for. In main.
pub(crate) async fn add(env: &Env, request: DeviceRequest) -> Result<(), QmpError> {
    let tree = env.devices()?.clone();
    tree.add(&request, true).await?;
    Ok(())
}

async fn device_add(env: Env, DeviceAdd(arguments): DeviceAdd) -> Result<(), QmpError> {
    add(&env, DeviceRequest::json(arguments)).await
}

pub(crate) async fn device_del(env: Env, DeviceDel { id }: DeviceDel) -> Result<(), QmpError> {
    let tree = env.devices()?.clone();
    // A client that plugs and unplugs in a loop waits for what it has left behind.
    rcu::throttle_call_rcu_co().await;
    Ok(tree.request_unplug(&id)?)
}

pub(crate) async fn device_set_iothread(
    env: Env,
    arguments: DeviceSetIothread,
) -> Result<(), QmpError> {
    let tree = env.devices()?.clone();
    let DeviceSetIothread { id, iothread, mapping } = arguments;
    let device = tree.find(&id).ok_or_else(|| CommandError::device_not_found(&id))?;
    let mapping = mapping.map(|parts| {
        let part = |part: IoThreadVirtQueueMapping| match part.vqs {
            Some(vqs) => json!({"iothread": part.iothread, "vqs": vqs}),
            None => json!({"iothread": part.iothread}),
        };
        parts.into_iter().map(part).collect::<Value>()
    });
    Ok(device.set_iothread(tree.resources(), iothread.as_deref(), mapping.as_ref()).await?)
}
