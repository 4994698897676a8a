//! The socket of the protocol, and who is served on it.

use super::lines::Lines;
use super::target::Target;
use devices::chardev::FrontEnd;
use reactor::{Context, Fd};
use std::path::Path;
use std::sync::Arc;

/// Bytes taken from the socket at a time.
const CHUNK: usize = 64 * 1024;

/// Opens `-qtest-log`: stderr where it is not given. The error is one line.
pub(crate) async fn open_log(log: Option<&str>) -> Result<Option<Fd>, String> {
    match log {
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

impl Target {
    /// Serves the programs that connect to `frontend`, one after the other, in `iohandler`.
    /// `settled` is as for [`Target::execute`].
    pub(crate) fn serve<S>(
        self: Arc<Self>,
        iohandler: &Context,
        frontend: FrontEnd,
        log: Option<Fd>,
        settled: S,
    ) where
        S: AsyncFn() + Send + 'static,
    {
        let context = iohandler.clone();
        iohandler
            .spawn_local_with("qtest", move || async move {
                loop {
                    match frontend.connection().await.into_socket() {
                        Ok((peer, _, held)) => {
                            self.session(&context, peer, log.clone(), &settled).await;
                            drop(held);
                        }
                        Err(error) => tracing::warn!(%error, "a qtest program cannot be served"),
                    }
                }
            })
            .detach();
    }

    /// One connection, to its end.
    async fn session(
        &self,
        context: &Context,
        peer: Fd,
        log: Option<Fd>,
        settled: &impl AsyncFn(),
    ) {
        self.outbox.open(log.is_some());
        let (outbox, to) = (Arc::clone(&self.outbox), peer.clone());
        let sender = context.spawn("qtest replies", async move { outbox.send(to, log).await });
        self.commands(&peer, settled).await;
        self.outbox.close();
        if let Err(error) = sender.await {
            tracing::debug!(%error, "the last qtest replies");
        }
    }

    async fn commands(&self, peer: &Fd, settled: &impl AsyncFn()) {
        let mut lines = Lines::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            let (result, back) = reactor::io::recv(peer, buffer).await;
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
