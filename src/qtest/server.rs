//! The socket of the protocol, and who is served on it.

use super::lines::Lines;
use super::target::Target;
use crate::config::QtestConfig;
use reactor::net::{Listener, Stream};
use reactor::{Context, Fd};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes taken from the socket at a time.
const CHUNK: usize = 64 * 1024;

/// The other side of `-qtest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Who will be served.
pub(crate) enum Peer {
    /// The one connected to.
    Connected(Stream),
    /// Whoever connects, one after the other. The path is removed at the end.
    Listening(Listener),
}

/// Opens `-qtest-log`: stderr where it is not given. The error is one line.
pub(crate) async fn open_log(config: &QtestConfig) -> Result<Option<Fd>, String> {
    match config.log.as_deref() {
        None => std::os::fd::AsFd::as_fd(&std::io::stderr())
            .try_clone_to_owned()
            .map(|fd| Some(Fd::from(fd)))
            .map_err(|error| format!("stderr cannot be used: {error}")),
        // Nobody will read it.
        Some("none" | "/dev/null") => Ok(None),
        Some(path) => {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
            let fd = reactor::io::openat(Path::new(path), flags, 0o644).await;
            fd.map(Some).map_err(|error| format!("-qtest-log {path}: {error}"))
        }
    }
}

/// Connects, or begins to listen. The error is one line.
pub(crate) async fn connect(config: &QtestConfig) -> Result<Peer, String> {
    let (result, name) = match (&config.address, config.server) {
        (Address::Unix(path), false) => {
            (Stream::connect_unix(path).await.map(Peer::Connected), path.display().to_string())
        }
        (Address::Unix(path), true) => {
            (Listener::bind_unix(path).map(Peer::Listening), path.display().to_string())
        }
        (Address::Tcp(address), false) => {
            (Stream::connect_tcp(*address).await.map(Peer::Connected), address.to_string())
        }
        (Address::Tcp(address), true) => {
            (Listener::bind_tcp(*address).map(Peer::Listening), address.to_string())
        }
    };
    let tried = if config.server { "listen" } else { "connect" };
    result.map_err(|error| format!("-qtest {name}: cannot {tried}: {error}"))
}

impl Target {
    /// Serves `peer` in `iohandler`, until it goes. `settled` is as for [`Target::execute`].
    pub(crate) fn serve<S>(
        self: Arc<Self>,
        iohandler: &Context,
        peer: Peer,
        log: Option<Fd>,
        settled: S,
    ) where
        S: AsyncFn() + Send + 'static,
    {
        let context = iohandler.clone();
        iohandler
            .spawn_local_with("qtest", move || async move {
                match peer {
                    Peer::Connected(stream) => self.session(&context, stream, log, &settled).await,
                    Peer::Listening(listener) => loop {
                        match listener.accept().await {
                            Ok(stream) => {
                                self.session(&context, stream, log.clone(), &settled).await;
                            }
                            Err(error) => return tracing::error!(%error, "-qtest: no connection"),
                        }
                    },
                }
            })
            .detach();
    }

    /// One connection, to its end.
    async fn session(
        &self,
        context: &Context,
        stream: Stream,
        log: Option<Fd>,
        settled: &impl AsyncFn(),
    ) {
        self.outbox.open(log.is_some());
        let (outbox, peer) = (Arc::clone(&self.outbox), stream.clone());
        let sender = context.spawn("qtest replies", async move { outbox.send(peer, log).await });
        self.commands(&stream, settled).await;
        self.outbox.close();
        if let Err(error) = sender.await {
            tracing::debug!(%error, "the last qtest replies");
        }
    }

    async fn commands(&self, stream: &Stream, settled: &impl AsyncFn()) {
        let mut lines = Lines::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            let (result, back) = stream.recv(buffer).await;
            buffer = back;
            match result {
                Ok(0) => return,
                Ok(n) => lines.feed(&buffer[..n]),
                Err(error) => return tracing::debug!(%error, "the qtest peer has gone"),
            }
            while let Some(line) = lines.next() {
                let reply = match line {
                    Ok(line) => {
                        self.outbox.note_request(&line);
                        self.execute(&line, settled).await
                    }
                    Err(_) => "ERR the line is too long".to_owned(),
                };
                self.outbox.reply(&reply);
                self.outbox.room().await;
            }
        }
    }
}
