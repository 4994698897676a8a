//! `virtio-net-pci`.

use super::virtio_pci::{IOTHREAD_PROPERTIES, VIRTIO_PCI_PROPERTIES, function, queue_contexts};
use super::{DeviceType, PCI_PROPERTIES};
use crate::error::CommandError;
use crate::net::{NetError, NetEvent, Netdev, Netdevs, Nic};
use crate::qdev::property::{Kind, Property};
use crate::qdev::setup::Setup;
use crate::qdev::value::parse_mac;
use crate::qdev::{BoxFuture, Realized};
use crate::virtio::net::{FEATURES, NetOptions, VirtioNet, VirtioNetError, mac_text};
use serde_json::Value;
use std::sync::{Arc, Weak};

/// The type that QEMU's errors name: there the PCI device has this one inside.
const BACKEND: &str = "virtio-net-device";

const PROPERTIES: &[Property] = &[
    Property::new("netdev", Kind::Netdev).help("ID of a netdev to use as a backend"),
    Property::new("mac", Kind::MacAddress)
        .help("Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56"),
    Property::uint("rx_queue_size", Kind::U16, 256),
    Property::uint("tx_queue_size", Kind::U16, 256),
    Property::uint("host_mtu", Kind::U16, 0),
    Property::new("bootindex", Kind::I32).live(),
    Property::bool("csum", true),
    Property::bool("guest_csum", true),
    Property::bool("guest_tso4", true),
    Property::bool("guest_tso6", true),
    Property::bool("guest_ecn", true),
    Property::bool("guest_ufo", true),
    Property::bool("guest_announce", true),
    Property::bool("host_tso4", true),
    Property::bool("host_tso6", true),
    Property::bool("host_ecn", true),
    Property::bool("host_ufo", true),
    Property::bool("mrg_rxbuf", true),
    Property::bool("status", true),
    Property::bool("ctrl_vq", true),
    Property::bool("ctrl_rx", true),
    Property::bool("ctrl_vlan", true),
    Property::bool("ctrl_rx_extra", true),
    Property::bool("ctrl_mac_addr", true),
    Property::bool("ctrl_guest_offloads", true),
    Property::bool("mq", false),
];

pub(super) const VIRTIO_NET_PCI: DeviceType = DeviceType {
    name: "virtio-net-pci",
    alias: Some("virtio-net"),
    parent: "virtio-net-pci-base",
    category: "Network",
    bus: "PCI",
    description: None,
    properties: &[PROPERTIES, IOTHREAD_PROPERTIES, VIRTIO_PCI_PROPERTIES, PCI_PROPERTIES],
    realize: |setup| Box::pin(realize(setup)) as BoxFuture<'_, _>,
};

#[expect(clippy::unused_async, reason = "other types wait")]
async fn realize(setup: Setup<'_>) -> Result<Arc<dyn Realized>, CommandError> {
    let network = Arc::clone(&setup.resources.network);
    setup.step("netdev")?;
    let netdev = netdev(&setup)?;
    let name = nic_name(&setup);
    let options = options(&setup);
    let mac = options.mac;
    setup.step("device")?;
    let net = VirtioNet::new(&name, netdev, &options).map_err(refused)?;
    setup.step("queues")?;
    let cores = queue_contexts(setup.resources, setup.properties, net.queues())?;
    let (path, told) = (format!("{}/virtio-backend", setup.path), Arc::clone(network.events()));
    net.on_filter_change(move || {
        told(NetEvent::FilterChanged { name: name.clone(), path: path.clone() });
    });
    let function = function(&setup, Arc::clone(&net) as _, cores, None, move |name| {
        (name == "mac").then(|| Value::from(mac_text(mac)))
    })?;
    let nic: Arc<dyn Nic> = Arc::clone(&net) as _;
    network.netdevs().add_nic(Arc::downgrade(&nic));
    Ok(Arc::new(function.at_end(move || {
        network.netdevs().remove_nic(&(Arc::downgrade(&net) as Weak<dyn Nic>));
        net.detach();
    })))
}

fn netdev(setup: &Setup<'_>) -> Result<Option<Arc<Netdev>>, CommandError> {
    let Some(id) = setup.properties.text("netdev").filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let found = setup.resources.network.netdevs().find(id);
    found.map(Some).map_err(|_| {
        CommandError::generic(format!("Property '{BACKEND}.netdev' can't find value '{id}'"))
    })
}

fn refused(error: VirtioNetError) -> CommandError {
    CommandError::generic(match error {
        VirtioNetError::Netdev(NetError::InUse(id)) => {
            format!("Property '{BACKEND}.netdev' can't take value '{id}', it's in use")
        }
        error => error.to_string(),
    })
}

/// The id; without one, the type and a number.
fn nic_name(setup: &Setup<'_>) -> String {
    let anonymous = setup.path.starts_with("/machine/peripheral-anon/");
    if !anonymous {
        return setup.name.to_owned();
    }
    let nics = setup.resources.network.netdevs().nics();
    let names = (0..=nics.len()).map(|n| format!("{}.{n}", setup.type_name));
    let free = |name: &String| !nics.iter().any(|nic| nic.name() == *name);
    names.into_iter().find(free).unwrap_or_default()
}

fn options(setup: &Setup<'_>) -> NetOptions {
    let properties = setup.properties;
    let netdevs: &Netdevs = setup.resources.network.netdevs();
    let given = properties.text("mac").and_then(parse_mac);
    let off = FEATURES.iter().filter(|(name, _)| !properties.bool(name));
    let unwanted = off.fold(0, |bits, (_, feature)| bits | feature);
    NetOptions {
        mac: given.unwrap_or_else(|| netdevs.free_mac()),
        mtu: Some(properties.uint("host_mtu") as u16).filter(|mtu| *mtu != 0),
        rx_queue_size: properties.uint("rx_queue_size") as u16,
        tx_queue_size: properties.uint("tx_queue_size") as u16,
        features: !unwanted,
    }
}
