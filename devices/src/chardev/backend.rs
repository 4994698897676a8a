//! A back end at work.

use super::connection::Connection;
use super::mux::{self, Exit, Gate, Mux};
use super::options::{Backend, SocketOptions};
use super::pty::Pty;
use super::ringbuf::Ring;
use super::slot::{FrontEnd, Slot};
use super::terminal::RawTerminal;
use super::{error_text, pty, ringbuf, socket};
use crate::fdset::{self, FdSets, OpenFailure, Opened};
use reactor::{CancelOnDrop, Context, Fd};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What kind it is, and what commands ask of that kind.
pub(super) enum Kind {
    /// Where it listens or connects.
    Socket(String),
    Pty(String),
    Ringbuf(Arc<Ring>),
    Mux(Arc<Mux>),
    /// Its name says everything.
    Other(&'static str),
}

/// A back end. Dropping it ends its task and its connections to be.
pub(super) struct Running {
    pub(super) kind: Kind,
    /// The machine waits for its first client.
    pub(super) wait: bool,
    _keeper: Option<CancelOnDrop<()>>,
    _stdio: Option<Stdio>,
    /// The sets that its files are from.
    _from: Vec<fdset::Use>,
}

impl Running {
    fn new(kind: Kind, keeper: Option<CancelOnDrop<()>>) -> Self {
        Self { kind, wait: false, _keeper: keeper, _stdio: None, _from: Vec::new() }
    }
}

/// The one use of standard input and output.
struct Stdio {
    used: Arc<AtomicBool>,
    _terminal: Option<RawTerminal>,
}

impl Stdio {
    fn new(used: &Arc<AtomicBool>, signal: bool) -> Result<Self, String> {
        if used.swap(true, Ordering::AcqRel) {
            return Err("cannot use stdio by multiple character devices".to_owned());
        }
        Ok(Self { used: Arc::clone(used), _terminal: RawTerminal::enter(signal) })
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        self.used.store(false, Ordering::Release);
    }
}

/// What back ends are made with.
pub(super) struct Maker<'a> {
    pub(super) id: &'a str,
    pub(super) slot: &'a Arc<Slot>,
    pub(super) iohandler: &'a Context,
    pub(super) stdio_used: &'a Arc<AtomicBool>,
    /// The use of the other character device; for a mux.
    pub(super) base: Option<FrontEnd>,
    pub(super) exit: &'a Exit,
    pub(super) gate: &'a Arc<Gate>,
    pub(super) fdsets: &'a FdSets,
}

impl Maker<'_> {
    /// Opens files and sockets and makes the first connection, where it is not others who make it.
    /// On a reactor.
    pub(super) async fn open(self, backend: Backend) -> Result<Running, String> {
        match backend {
            Backend::Socket(options) => self.socket(options).await,
            Backend::Stdio { signal } => self.stdio(signal),
            Backend::File { path, append, input } => {
                let flags = if append { libc::O_APPEND } else { libc::O_TRUNC };
                let flags = libc::O_WRONLY | libc::O_CREAT | flags;
                let mut files = vec![self.file(&path, flags).await?];
                if let Some(path) = input {
                    files.push(self.file(&path, libc::O_RDONLY).await?);
                }
                let input = files.get(1).map(|opened| opened.fd.clone());
                let connection = Connection::streams(input, files[0].fd.clone(), false);
                let from = files.into_iter().filter_map(|opened| opened.from).collect();
                Ok(Running { _from: from, ..self.once("file", connection) })
            }
            Backend::Null => Ok(Running::new(Kind::Other("null"), None)),
            Backend::Pty { link } => {
                let pty = Pty::open(link)?;
                let path = pty.path().display().to_string();
                let keeper = pty::keep(pty, Arc::clone(self.slot), format!("pty:{path}"));
                Ok(Running::new(Kind::Pty(path), Some(self.spawn("chardev-pty", keeper))))
            }
            Backend::Ringbuf { size } => {
                let ring = Ring::new(size)?;
                let keeper = ringbuf::keep(Arc::clone(&ring), Arc::clone(self.slot));
                Ok(Running::new(Kind::Ringbuf(ring), Some(self.spawn("chardev-ringbuf", keeper))))
            }
            Backend::Mux { .. } => {
                let mux = Arc::new(Mux::default());
                let keeper = self.base.map(|base| {
                    let (exit, gate) = (Arc::clone(self.exit), Arc::clone(self.gate));
                    let keeper = mux::keep(Arc::clone(&mux), base, exit, gate);
                    CancelOnDrop::new(self.iohandler.spawn("chardev-mux", keeper))
                });
                Ok(Running::new(Kind::Mux(mux), keeper))
            }
        }
    }

    fn spawn(
        &self,
        name: &'static str,
        keeper: impl Future<Output = ()> + Send + 'static,
    ) -> CancelOnDrop<()> {
        CancelOnDrop::new(self.iohandler.spawn(name, keeper))
    }

    async fn file(&self, path: &Path, flags: i32) -> Result<Opened, String> {
        let opened = self.fdsets.open(path, flags, 0o666).await;
        opened.map_err(|OpenFailure { source, .. }| {
            format!("Could not open '{}': {}", path.display(), error_text(&source))
        })
    }

    async fn socket(self, options: SocketOptions) -> Result<Running, String> {
        let wait = options.server && options.wait;
        let (source, first) = socket::Source::open(self.id, options).await?;
        let place = source.listens_at();
        let first = first.map(|connection| {
            let name = source.name(&connection);
            self.slot.offer(connection, name)
        });
        let keeper = socket::keep(source, Arc::clone(self.slot), first);
        let keeper = self.spawn("chardev-socket", keeper);
        Ok(Running { wait, ..Running::new(Kind::Socket(place), Some(keeper)) })
    }

    fn stdio(self, signal: bool) -> Result<Running, String> {
        let stdio = Stdio::new(self.stdio_used, signal)?;
        let input = standard(std::io::stdin().as_fd())?;
        let output = standard(std::io::stdout().as_fd())?;
        let running = self.once("stdio", Connection::streams(Some(input), output, false));
        Ok(Running { _stdio: Some(stdio), ..running })
    }

    /// There is one connection, for the first who takes it, until it ends.
    fn once(self, name: &'static str, connection: Connection) -> Running {
        let slot = Arc::clone(self.slot);
        let gone = slot.offer(connection, name.to_owned());
        let keeper = async move {
            // An error means that the connection was dropped, which is its end.
            let _ = gone.await;
            slot.disconnected();
        };
        let keeper = self.spawn("chardev-once", keeper);
        Running::new(Kind::Other(name), Some(keeper))
    }
}

fn standard(fd: BorrowedFd<'_>) -> Result<Fd, String> {
    let copy = fd.try_clone_to_owned();
    copy.map(Fd::from).map_err(|error| format!("stdio cannot be used: {}", error_text(&error)))
}
