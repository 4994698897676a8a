//! Network back ends and what drivers want of them.

use super::net_backend::{Netdev, SocketAddress};
use crate::core::Env;
use crate::error::QmpError;
use crate::event::{NetdevStreamConnected, NetdevStreamDisconnected, NicRxFilterChanged};
use crate::registry::{Command, Registry};
use crate::session::hub::EventSink;
use crate::{qapi_enum, qapi_struct};
use devices::chardev::inherited;
use devices::net::{NetEvent, NetEventSink, NetdevOptions, Network, RxFilter};
use reactor::Fd;
use std::sync::Arc;

qapi_struct! {
    /// A back end.
    pub struct NetdevDel {
        /// Its id.
        pub id: String = "id",
    }
}

qapi_struct! {
    /// A cable.
    pub struct SetLink {
        /// The name of the device or back end.
        pub name: String = "name",
        /// It is plugged.
        pub up: bool = "up",
    }
}

qapi_struct! {
    /// Which device.
    pub struct QueryRxFilter {
        /// Its name; all when absent.
        pub name: Option<String> = "name",
    }
}

qapi_enum! {
    /// How much of a kind passes.
    pub enum RxState {
        /// What is listed.
        Normal = "normal",
        /// Nothing.
        None = "none",
        /// Everything.
        All = "all",
    }
}

impl From<devices::net::RxState> for RxState {
    fn from(state: devices::net::RxState) -> Self {
        match state {
            devices::net::RxState::Normal => Self::Normal,
            devices::net::RxState::None => Self::None,
            devices::net::RxState::All => Self::All,
        }
    }
}

qapi_struct! {
    /// Which frames a driver wants.
    pub struct RxFilterInfo {
        /// The device.
        pub name: String = "name",
        /// All frames.
        pub promiscuous: bool = "promiscuous",
        /// Which group addresses.
        pub multicast: RxState = "multicast",
        /// Which addresses of single stations.
        pub unicast: RxState = "unicast",
        /// Which VLANs.
        pub vlan: RxState = "vlan",
        /// Broadcasts.
        pub broadcast_allowed: bool = "broadcast-allowed",
        /// There were more group addresses than are kept.
        pub multicast_overflow: bool = "multicast-overflow",
        /// There were more other addresses than are kept.
        pub unicast_overflow: bool = "unicast-overflow",
        /// The device's own address.
        pub main_mac: String = "main-mac",
        /// The VLANs that pass.
        pub vlan_table: Vec<i64> = "vlan-table",
        /// The addresses of single stations.
        pub unicast_table: Vec<String> = "unicast-table",
        /// The group addresses.
        pub multicast_table: Vec<String> = "multicast-table",
    }
}

impl From<RxFilter> for RxFilterInfo {
    fn from(filter: RxFilter) -> Self {
        Self {
            name: filter.name,
            promiscuous: filter.promiscuous,
            multicast: filter.multicast.into(),
            unicast: filter.unicast.into(),
            vlan: filter.vlan.into(),
            broadcast_allowed: filter.broadcast_allowed,
            multicast_overflow: filter.multicast_overflow,
            unicast_overflow: filter.unicast_overflow,
            main_mac: filter.main_mac,
            vlan_table: filter.vlan_table.into_iter().map(i64::from).collect(),
            unicast_table: filter.unicast_table,
            multicast_table: filter.multicast_table,
        }
    }
}

impl EventSink {
    /// Takes what network back ends and devices tell.
    pub fn network(&self) -> NetEventSink {
        let events = self.clone();
        Arc::new(move |event| match event {
            NetEvent::Connected { id, address } => {
                let addr = SocketAddress::of(address);
                events.emit(&NetdevStreamConnected { netdev_id: id, addr });
            }
            NetEvent::Disconnected { id } => {
                events.emit(&NetdevStreamDisconnected { netdev_id: id });
            }
            NetEvent::FilterChanged { name, path } => {
                events.emit(&NicRxFilterChanged { name: Some(name), path });
            }
        })
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let add = Command::plain("netdev_add", "Makes a network back end.", netdev_add);
    registry.add(add.allow_preconfig());
    let del = "Removes a network back end. A device that uses it finds its cable pulled.";
    registry.add(Command::plain("netdev_del", del, netdev_del).allow_preconfig());
    registry.add(Command::plain(
        "set_link",
        "Pulls or plugs the cable of a network device or back end.",
        set_link,
    ));
    registry.add(Command::plain(
        "query-rx-filter",
        "Which frames the drivers of network devices want. NIC_RX_FILTER_CHANGED tells of the next \
         change.",
        query_rx_filter,
    ));
}

pub(crate) fn network(env: &Env) -> Result<&Arc<Network>, QmpError> {
    let network = env.machine()?.network();
    network.ok_or_else(|| QmpError::generic("This machine has no network"))
}

/// Makes the back end that the arguments describe. In main.
pub(crate) fn netdev_add(env: &Env, Netdev { id, backend }: Netdev) -> Result<(), QmpError> {
    let network = network(env)?;
    // What is wrong with the id is said before what is wrong with the rest, and before descriptors are
    // taken.
    network.netdevs().check_id(&id).map_err(devices::CommandError::from)?;
    let options = backend.checked()?;
    let (socket, stream) = match &options {
        NetdevOptions::Stream { kind, .. } => (*kind == "socket", *kind == "stream"),
        NetdevOptions::Dgram { .. } | NetdevOptions::Tap(_) => (false, false),
    };
    let descriptor = |name: &str| match name.parse::<i32>() {
        Ok(number) => inherited(number).map_err(|_| match (socket, stream) {
            (true, _) => "can't get socket option SO_TYPE".to_owned(),
            (_, true) => format!("File descriptor '{number}' is not a socket"),
            _ => format!("{id}: Can't use file descriptor {number}: Bad file descriptor"),
        }),
        Err(_) => named(env, name),
    };
    let added = network.add(&id, options, &descriptor);
    Ok(added.map(drop).map_err(devices::CommandError::from)?)
}

/// A descriptor that the session has passed.
fn named(env: &Env, name: &str) -> Result<Fd, String> {
    let taken = env.session.as_ref().map(|session| session.descriptors().take_named(name));
    match taken {
        Some(Ok(fd)) => Ok(fd),
        Some(Err(error)) => Err(error.desc().to_owned()),
        None => Err(format!("File descriptor named '{name}' has not been found")),
    }
}

pub(crate) fn netdev_del(env: &Env, NetdevDel { id }: NetdevDel) -> Result<(), QmpError> {
    let removed = network(env)?.netdevs().remove(&id);
    Ok(removed.map_err(devices::CommandError::from)?)
}

pub(crate) fn set_link(env: &Env, SetLink { name, up }: SetLink) -> Result<(), QmpError> {
    let set = network(env)?.netdevs().set_link(&name, up);
    Ok(set.map_err(devices::CommandError::from)?)
}

fn query_rx_filter(
    env: &Env,
    QueryRxFilter { name }: QueryRxFilter,
) -> Result<Vec<RxFilterInfo>, QmpError> {
    let found = network(env)?.netdevs().rx_filters(name.as_deref());
    let found = found.map_err(devices::CommandError::from)?;
    Ok(found.into_iter().map(RxFilterInfo::from).collect())
}
