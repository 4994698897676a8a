//! Devices: plugging and unplugging them while the machine runs.

use crate::core::Env;
use crate::error::QmpError;
use crate::event::{DeviceDeleted, DeviceUnplugGuestError};
use crate::qapi_struct;
use crate::registry::{
    At, Command, MemberInfo, Members, Qapi, QapiStruct, Registry, StructInfo, Type, Value, mistyped,
};
use crate::session::hub::EventSink;
use crate::wire::Writer;
use devices::qdev::{DeviceRequest, TreeEvents};

/// The arguments of `device_add`: what every device takes, and the properties of its type, which only the
/// type can tell.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceAdd(pub Members);

impl Qapi for DeviceAdd {
    const TYPE: Type = Type::Struct(Self::INFO);

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            _ => Err(mistyped(at, "object")),
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.begin_object();
        self.write_members(writer);
        writer.end_object();
    }
}

impl QapiStruct for DeviceAdd {
    const INFO: &'static StructInfo = &StructInfo {
        name: "DeviceAdd",
        doc: "A device; its properties are further members.",
        members: &[
            MemberInfo {
                name: "driver",
                doc: "The type: see qom-list-types.",
                ty: Type::String,
                optional: false,
            },
            MemberInfo {
                name: "bus",
                doc: "The bus; one that is free when absent.",
                ty: Type::String,
                optional: true,
            },
            MemberInfo {
                name: "id",
                doc: "The name to give it, which must be free.",
                ty: Type::String,
                optional: true,
            },
        ],
        variants: None,
    };

    fn take_members(members: &mut Members, _: At<'_>) -> Result<Self, QmpError> {
        Ok(Self(std::mem::take(members)))
    }

    fn write_members(&self, writer: &mut Writer) {
        for (name, value) in &self.0 {
            value.write_member(name, writer);
        }
    }
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
