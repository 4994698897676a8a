//! Devices: plugging and unplugging them while the machine runs.

use crate::core::Env;
use crate::error::QmpError;
use crate::event::{DeviceDeleted, DeviceUnplugGuestError};
use crate::registry::{Command, Registry, StructInfo, Type, members, optional, required};
use crate::session::hub::EventSink;
use crate::{qapi_open_struct, qapi_struct};
use devices::qdev::{DeviceRequest, TreeEvents};

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
