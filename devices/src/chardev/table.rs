//! The character devices of a machine.

use super::backend::{Kind, Maker, Running};
use super::connection::Bridges;
use super::mux::{Exit, FRONT_ENDS_MAX, Gate};
use super::options::Backend;
use super::ringbuf::Ring;
use super::slot::{FrontEnd, FrontEndKind, Slot};
use crate::error::CommandError;
use crate::fdset::FdSets;
use reactor::{Context, Fd};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A character device as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChardevInfo {
    /// Its id.
    pub label: String,
    /// What it is and whom it is connected to, in QEMU's words.
    pub filename: String,
    /// A front end uses it.
    pub frontend_open: bool,
}

struct Chardev {
    slot: Arc<Slot>,
    running: Running,
}

impl Chardev {
    /// What is in use has its front end open, unless that says otherwise.
    fn frontend_open(&self) -> bool {
        match &self.running.kind {
            Kind::Mux(mux) => mux.in_use(),
            _ => self.slot.frontend_open(),
        }
    }

    fn in_use(&self) -> bool {
        match &self.running.kind {
            Kind::Mux(mux) => mux.in_use(),
            _ => self.slot.frontend().is_some(),
        }
    }

    fn filename(&self) -> String {
        match &self.running.kind {
            Kind::Socket(place) => {
                self.slot.connected().unwrap_or_else(|| format!("disconnected:{place}"))
            }
            Kind::Pty(path) => format!("pty:{path}"),
            Kind::Ringbuf(_) => "ringbuf".to_owned(),
            Kind::Mux(_) => "mux".to_owned(),
            Kind::Other(name) => (*name).to_owned(),
        }
    }
}

/// The table of character devices. Clones share it. Any thread; its lock is held for moments.
#[derive(Clone)]
pub struct Chardevs {
    inner: Arc<Inner>,
}

struct Inner {
    table: Mutex<BTreeMap<String, Chardev>>,
    iohandler: Context,
    bridges: Arc<Bridges>,
    stdio_used: Arc<AtomicBool>,
    exit: Exit,
    gate: Arc<Gate>,
    fdsets: FdSets,
}

impl Chardevs {
    /// An empty table. Back ends run in `iohandler`; `exit` is called there when somebody types
    /// Ctrl-A X on a shared terminal.
    pub fn new(iohandler: &Context, exit: impl Fn() + Send + Sync + 'static) -> Self {
        Self::with_fdsets(iohandler, FdSets::default(), exit)
    }

    /// The same; paths of files may mean `fdsets`.
    pub fn with_fdsets(
        iohandler: &Context,
        fdsets: FdSets,
        exit: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner {
            table: Mutex::default(),
            iohandler: iohandler.clone(),
            bridges: Arc::default(),
            stdio_used: Arc::default(),
            exit: Arc::new(exit),
            gate: Arc::default(),
            fdsets,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What paths of files may mean beside files.
    pub fn fdsets(&self) -> &FdSets {
        &self.inner.fdsets
    }

    /// The context that back ends run in, `iohandler`.
    pub fn home(&self) -> &Context {
        &self.inner.iohandler
    }

    /// Reads nothing for front ends that share a device until [`pass_input`](Self::pass_input), while
    /// they are being attached.
    pub fn hold_input(&self) {
        self.inner.gate.close();
    }

    /// The front ends are there: what is typed reaches them from now on.
    pub fn pass_input(&self) {
        self.inner.gate.open();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Chardev>> {
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a character device. On a reactor; waits for files and for a client socket to connect.
    /// Gives the name of the pseudo terminal, where it is one.
    pub async fn add(&self, id: &str, backend: Backend) -> Result<Option<String>, CommandError> {
        if self.contains(id) {
            return Err(duplicate(id));
        }
        let slot = Slot::new(&self.inner.bridges);
        let running = self.open(id, &slot, backend).await?;
        let pty = pty(&running);
        // While it was being opened another one may have come.
        let mut table = self.lock();
        if table.contains_key(id) {
            drop(table);
            return Err(duplicate(id));
        }
        table.insert(id.to_owned(), Chardev { slot, running });
        Ok(pty)
    }

    async fn open(
        &self,
        id: &str,
        slot: &Arc<Slot>,
        backend: Backend,
    ) -> Result<Running, CommandError> {
        let base = match &backend {
            Backend::Mux { base } => Some(self.attach(base, FrontEndKind::Device)?),
            _ => None,
        };
        let Inner { iohandler, stdio_used, exit, gate, fdsets, .. } = &*self.inner;
        let maker = Maker { id, slot, iohandler, stdio_used, base, exit, gate, fdsets };
        maker.open(backend).await.map_err(CommandError::generic)
    }

    /// Removes one that nothing uses.
    pub fn remove(&self, id: &str) -> Result<(), CommandError> {
        let mut table = self.lock();
        let Some(chardev) = table.get(id) else { return Err(not_found(id)) };
        if chardev.in_use() {
            return Err(CommandError::generic(format!("Chardev '{id}' is busy")));
        }
        let chardev = table.remove(id);
        drop(table);
        drop(chardev);
        Ok(())
    }

    /// Gives one another back end; a device that uses it goes on with that. The old one stays when
    /// the new one cannot be opened. On a reactor.
    pub async fn change(&self, id: &str, backend: Backend) -> Result<Option<String>, CommandError> {
        let slot = self.changeable(id, &backend)?;
        // The front end goes over to it only when it is open.
        let trial = Slot::new(&self.inner.bridges);
        let running = self.open(id, &trial, backend).await?;
        let pty = pty(&running);
        let mut table = self.lock();
        let Some(chardev) = table.get_mut(id).filter(|now| Arc::ptr_eq(&now.slot, &slot)) else {
            return Err(missing(id));
        };
        let new = Chardev { slot: Arc::clone(&trial), running };
        let old = std::mem::replace(chardev, new);
        // Under the lock, so that nobody attaches to either meanwhile.
        slot.replace(&trial);
        drop(table);
        drop(old);
        Ok(pty)
    }

    /// Whether [`change`](Self::change) may give `id` the back end.
    pub fn check_change(&self, id: &str, backend: &Backend) -> Result<(), CommandError> {
        self.changeable(id, backend).map(drop)
    }

    fn changeable(&self, id: &str, backend: &Backend) -> Result<Arc<Slot>, CommandError> {
        let table = self.lock();
        let Some(chardev) = table.get(id) else { return Err(missing(id)) };
        let is_mux = |kind: &Kind| matches!(kind, Kind::Mux(_));
        if is_mux(&chardev.running.kind) || matches!(backend, Backend::Mux { .. }) {
            return Err(CommandError::generic("Mux device hotswap not supported yet"));
        }
        if chardev.slot.frontend().is_some_and(|kind| kind != FrontEndKind::Device) {
            let text = "Chardev user does not support chardev hotswap";
            return Err(CommandError::generic(text));
        }
        Ok(Arc::clone(&chardev.slot))
    }

    /// Takes one into use.
    pub fn attach(&self, id: &str, kind: FrontEndKind) -> Result<FrontEnd, CommandError> {
        let table = self.lock();
        let Some(chardev) = table.get(id) else {
            return Err(CommandError::generic(format!("chardev \"{id}\" not found")));
        };
        if let Kind::Mux(mux) = &chardev.running.kind {
            let slot = Slot::new(&self.inner.bridges);
            if mux.attach(Arc::clone(&slot), kind) {
                return Ok(FrontEnd::new(slot, id));
            }
            return Err(CommandError::generic(format!(
                "too many uses of multiplexed chardev '{id}' (maximum is {FRONT_ENDS_MAX})"
            )));
        }
        if !chardev.slot.attach(kind) {
            return Err(CommandError::generic(format!("chardev '{id}' is already in use")));
        }
        Ok(FrontEnd::new(Arc::clone(&chardev.slot), id))
    }

    /// All of them, by id.
    pub fn list(&self) -> Vec<ChardevInfo> {
        let info = |(id, chardev): (&String, &Chardev)| ChardevInfo {
            label: id.clone(),
            filename: chardev.filename(),
            frontend_open: chardev.frontend_open(),
        };
        self.lock().iter().map(info).collect()
    }

    /// Whether there is one of this id.
    pub fn contains(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// Whether it is a multiplexed one, which has several uses.
    pub fn is_mux(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|chardev| matches!(chardev.running.kind, Kind::Mux(_)))
    }

    /// Adds bytes to a ring buffer.
    pub fn ring_write(&self, id: &str, bytes: &[u8]) -> Result<(), CommandError> {
        self.ring(id)?.write(bytes);
        Ok(())
    }

    /// Takes up to `most` bytes out of a ring buffer.
    pub fn ring_read(&self, id: &str, most: usize) -> Result<Vec<u8>, CommandError> {
        Ok(self.ring(id)?.read(most))
    }

    fn ring(&self, id: &str) -> Result<Arc<Ring>, CommandError> {
        let table = self.lock();
        match table.get(id).map(|chardev| &chardev.running.kind) {
            Some(Kind::Ringbuf(ring)) => Ok(Arc::clone(ring)),
            Some(_) => Err(CommandError::generic(format!("{id} is not a ringbuf device"))),
            None => Err(CommandError::generic(format!("Device '{id}' not found"))),
        }
    }

    /// Sends a break condition to the front end; one that knows none ignores it, as in QEMU. Any thread.
    pub fn send_break(&self, id: &str) -> Result<(), CommandError> {
        let table = self.lock();
        let chardev = table.get(id).ok_or_else(|| not_found(id))?;
        let (slot, mux) = match &chardev.running.kind {
            Kind::Mux(mux) => (None, Some(Arc::clone(mux))),
            _ => (Some(Arc::clone(&chardev.slot)), None),
        };
        drop(table);
        if let Some(slot) = slot {
            slot.send_break();
        }
        if let Some(mux) = mux {
            mux.send_break();
        }
        Ok(())
    }

    /// Gives a socket that has no connection the connected socket `fd`.
    pub fn add_client(&self, id: &str, fd: Fd) -> Result<(), CommandError> {
        let table = self.lock();
        let added = table.get(id).is_some_and(|chardev| {
            matches!(chardev.running.kind, Kind::Socket(_)) && chardev.slot.add(fd)
        });
        if added { Ok(()) } else { Err(CommandError::generic("failed to add client")) }
    }

    /// Waits until each server with `wait` has had a client.
    pub async fn wait_for_clients(&self) {
        let waiting: Vec<_> = {
            let table = self.lock();
            let chardevs = table.values().filter(|chardev| chardev.running.wait);
            chardevs.map(|chardev| Arc::clone(&chardev.slot)).collect()
        };
        for slot in waiting {
            slot.came().await;
        }
    }

    /// Waits until what monitors have sent through back ends that are no sockets is written.
    pub async fn settled(&self) {
        self.inner.bridges.settled().await;
    }

    /// Removes all, in use or not: sockets close, their files go, the terminal gets its mode back.
    pub fn clear(&self) {
        let table = std::mem::take(&mut *self.lock());
        drop(table);
    }
}

fn pty(running: &Running) -> Option<String> {
    match &running.kind {
        Kind::Pty(path) => Some(path.clone()),
        _ => None,
    }
}

fn duplicate(id: &str) -> CommandError {
    CommandError::generic(format!("Chardev with id '{id}' already exists"))
}

fn missing(id: &str) -> CommandError {
    CommandError::generic(format!("Chardev '{id}' does not exist"))
}

fn not_found(id: &str) -> CommandError {
    CommandError::generic(format!("Chardev '{id}' not found"))
}
