//! The back ends by id, and what is attached to each.

use super::error::NetError;
use super::options::NetdevOptions;
use super::{NetBackend, RxFilter, dgram, stream, tap};
use crate::text::is_identifier;
use reactor::{Context, Fd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A network device that the guest sees, as far as its back end and the monitor go.
pub trait Nic: Send + Sync {
    /// What messages and `set_link` call it.
    fn name(&self) -> String;
    /// One line about it, as `info network` shows it.
    fn info(&self) -> String;
    /// Its hardware address.
    fn mac(&self) -> [u8; 6];
    /// The cable is plugged or pulled. Any thread.
    fn set_link(&self, up: bool);
    /// The back end is gone.
    fn backend_gone(&self);
    /// Its back end; also one that is gone.
    fn peer(&self) -> Option<Arc<Netdev>>;
    /// Which frames its driver wants. The next change is told again.
    fn rx_filter(&self) -> RxFilter;
}

/// What happens to a back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// A `stream` back end has a connection to this address.
    Connected {
        /// The back end.
        id: String,
        /// The other end.
        address: super::SocketAddress,
    },
    /// A `stream` back end has lost its connection.
    Disconnected {
        /// The back end.
        id: String,
    },
    /// A driver wants other frames. Told once until somebody looks ([`Nic::rx_filter`]).
    FilterChanged {
        /// The device.
        name: String,
        /// Its place in the object tree.
        path: String,
    },
}

/// Takes events; any thread, returns at once.
pub type NetEventSink = Arc<dyn Fn(NetEvent) + Send + Sync>;

/// What making a back end needs of the program.
pub struct NetReactors<'a> {
    /// Where connections are made and accepted.
    pub home: &'a Context,
    /// Finds a descriptor by its number or name, and takes it over.
    pub descriptor: &'a dyn Fn(&str) -> Result<Fd, String>,
    /// Who is told of connections.
    pub events: NetEventSink,
}

/// A back end, ready for use.
pub type Made = Arc<dyn NetBackend>;

/// A back end in the table.
pub struct Netdev {
    id: String,
    kind: &'static str,
    backend: Made,
    link_down: AtomicBool,
    nic: Mutex<Option<Weak<dyn Nic>>>,
}

impl Netdev {
    /// A back end that is in no table.
    pub fn new(id: impl Into<String>, kind: &'static str, backend: Made) -> Arc<Self> {
        let (link_down, nic) = (AtomicBool::new(false), Mutex::new(None));
        Arc::new(Self { id: id.into(), kind, backend, link_down, nic })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its control handle.
    pub fn backend(&self) -> &Made {
        &self.backend
    }

    /// Whether `set_link` has pulled its cable.
    pub fn link_down(&self) -> bool {
        self.link_down.load(Ordering::Acquire)
    }

    /// The device that uses it.
    pub fn nic(&self) -> Option<Arc<dyn Nic>> {
        lock(&self.nic).as_ref().and_then(Weak::upgrade)
    }

    /// Gives it to a device.
    pub fn attach(&self, nic: Weak<dyn Nic>) -> Result<(), NetError> {
        let mut place = lock(&self.nic);
        if place.as_ref().is_some_and(|nic| nic.strong_count() > 0) {
            return Err(NetError::InUse(self.id.clone()));
        }
        *place = Some(nic);
        Ok(())
    }

    /// The device does not use it any more.
    pub fn detach(&self) {
        *lock(&self.nic) = None;
    }

    /// One line about it.
    pub fn info(&self) -> String {
        format!("{}: index=0,type={},{}", self.id, self.kind, self.backend.info())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is in the table.
enum Client {
    Netdev(Arc<Netdev>),
    Nic(Weak<dyn Nic>),
}

/// The table, in the order of making. Changed in `main`; looked at on any thread.
#[derive(Default)]
pub struct Netdevs {
    clients: Mutex<Vec<Client>>,
}

impl Netdevs {
    /// Whether a back end could be called `id`.
    pub fn check_id(&self, id: &str) -> Result<(), NetError> {
        if !is_identifier(id) {
            return Err(NetError::BadId);
        }
        match self.find(id) {
            Ok(_) => Err(NetError::Duplicate(id.to_owned())),
            Err(_) => Ok(()),
        }
    }

    /// Makes a back end and adds it.
    pub fn add(
        &self,
        id: &str,
        options: NetdevOptions,
        reactors: &NetReactors<'_>,
    ) -> Result<Arc<Netdev>, NetError> {
        self.check_id(id)?;
        let kind = options.kind();
        let backend = make(id, options, reactors)?;
        let netdev = Netdev::new(id, kind, backend);
        lock(&self.clients).push(Client::Netdev(Arc::clone(&netdev)));
        Ok(netdev)
    }

    /// The back end of this id.
    pub fn find(&self, id: &str) -> Result<Arc<Netdev>, NetError> {
        let found = self.all().into_iter().find(|netdev| netdev.id == id);
        found.ok_or_else(|| NetError::NotFound(id.to_owned()))
    }

    /// All back ends, in the order in which they were added.
    pub fn all(&self) -> Vec<Arc<Netdev>> {
        let netdev = |client: &Client| match client {
            Client::Netdev(netdev) => Some(Arc::clone(netdev)),
            Client::Nic(_) => None,
        };
        lock(&self.clients).iter().filter_map(netdev).collect()
    }

    /// Removes a back end and closes it. A device that uses it finds its cable pulled.
    pub fn remove(&self, id: &str) -> Result<(), NetError> {
        let netdev = self.find(id)?;
        lock(&self.clients).retain(
            |client| !matches!(client, Client::Netdev(other) if Arc::ptr_eq(other, &netdev)),
        );
        netdev.backend.close();
        if let Some(nic) = netdev.nic() {
            nic.backend_gone();
        }
        Ok(())
    }

    /// A device is there.
    pub fn add_nic(&self, nic: Weak<dyn Nic>) {
        let mut clients = lock(&self.clients);
        clients.retain(|client| !matches!(client, Client::Nic(nic) if nic.strong_count() == 0));
        clients.push(Client::Nic(nic));
    }

    /// A device is gone, whoever may still hold it.
    pub fn remove_nic(&self, nic: &Weak<dyn Nic>) {
        lock(&self.clients)
            .retain(|client| !matches!(client, Client::Nic(other) if Weak::ptr_eq(other, nic)));
    }

    /// The devices, in the order of their making.
    pub fn nics(&self) -> Vec<Arc<dyn Nic>> {
        let nic = |client: &Client| match client {
            Client::Netdev(_) => None,
            Client::Nic(nic) => nic.upgrade(),
        };
        lock(&self.clients).iter().filter_map(nic).collect()
    }

    /// Which frames the drivers of all devices want, or that of one.
    pub fn rx_filters(&self, name: Option<&str>) -> Result<Vec<RxFilter>, NetError> {
        let nics = self.nics();
        let wanted = nics.iter().filter(|nic| name.is_none_or(|name| nic.name() == name));
        let found: Vec<_> = wanted.map(|nic| nic.rx_filter()).collect();
        match name {
            Some(name) if found.is_empty() => Err(NetError::Options(match self.find(name) {
                Ok(_) => format!("net client({name}) isn't a NIC"),
                Err(_) => format!("invalid net client name: {name}"),
            })),
            _ => Ok(found),
        }
    }

    /// What `info network` prints: back ends behind the devices that use them.
    pub fn info(&self) -> String {
        let lines = |client: &Client| match client {
            Client::Netdev(netdev) if netdev.nic().is_none() => format!("{}\n", netdev.info()),
            Client::Netdev(_) => String::new(),
            Client::Nic(nic) => nic.upgrade().map_or_else(String::new, |nic| {
                let peer = nic.peer().map(|peer| format!(" \\ {}\n", peer.info()));
                format!("{}\n{}", nic.info(), peer.unwrap_or_default())
            }),
        };
        lock(&self.clients).iter().map(lines).collect()
    }

    /// An address for a device that was given none: from 52:54:00:12:34:56 upwards, the first
    /// that no other device has.
    pub fn free_mac(&self) -> [u8; 6] {
        let taken: Vec<_> = self.nics().iter().map(|nic| nic.mac()).collect();
        let numbered = |n: u32| {
            let [_, high, middle, low] = (0x12_3456 + n).to_be_bytes();
            [0x52, 0x54, 0x00, high, middle, low]
        };
        (0..=u32::from(u16::MAX)).map(numbered).find(|mac| !taken.contains(mac)).unwrap_or_default()
    }

    /// `set_link`: pulls or plugs the cable of a device or of a back end.
    pub fn set_link(&self, name: &str, up: bool) -> Result<(), NetError> {
        if let Ok(netdev) = self.find(name) {
            netdev.link_down.store(!up, Ordering::Release);
            if let Some(nic) = netdev.nic() {
                nic.set_link(up);
            }
            return Ok(());
        }
        let nic = self.nics().into_iter().find(|nic| nic.name() == name);
        let nic = nic.ok_or_else(|| NetError::NotFound(name.to_owned()))?;
        nic.set_link(up);
        Ok(())
    }

    /// Closes all back ends.
    pub fn close(&self) {
        for netdev in self.all() {
            netdev.backend.close();
        }
    }
}

/// The back ends of a machine, and what they are made with.
pub struct Network {
    netdevs: Netdevs,
    home: Context,
    events: NetEventSink,
}

impl Network {
    /// No back ends. Connections are made and accepted in `home`; `events` hears of them.
    pub fn new(home: &Context, events: NetEventSink) -> Arc<Self> {
        Arc::new(Self { netdevs: Netdevs::default(), home: home.clone(), events })
    }

    /// The table.
    pub fn netdevs(&self) -> &Netdevs {
        &self.netdevs
    }

    /// Who hears of what happens.
    pub fn events(&self) -> &NetEventSink {
        &self.events
    }

    /// Makes a back end and adds it. `descriptor` finds a descriptor by its number or name, and takes
    /// it over. In `main`.
    pub fn add(
        &self,
        id: &str,
        options: NetdevOptions,
        descriptor: &dyn Fn(&str) -> Result<Fd, String>,
    ) -> Result<Arc<Netdev>, NetError> {
        let events = Arc::clone(&self.events);
        self.netdevs.add(id, options, &NetReactors { home: &self.home, descriptor, events })
    }
}

fn make(id: &str, options: NetdevOptions, reactors: &NetReactors<'_>) -> Result<Made, NetError> {
    match options {
        NetdevOptions::Stream { kind, options } => stream::open(id, kind, options, reactors),
        NetdevOptions::Dgram { kind, options } => dgram::open(kind, options, reactors),
        NetdevOptions::Tap(options) => tap::open(&options, reactors),
    }
}
