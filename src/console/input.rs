//! From the terminal to the guest or the monitor.

use super::escape::{Escape, HELP, Typed};
use super::output::Output;
use super::terminal;
use devices::legacy::Serial;
use monitor::{Echo, HmpSession, Monitor};
use reactor::sync::Notify;
use reactor::{Fd, io};
use std::io::IsTerminal;
use std::sync::Arc;

/// Where the terminal's input goes.
pub(crate) struct Stdin {
    pub(crate) serial: Arc<Serial>,
    pub(crate) output: Arc<Output>,
    /// `None`: no monitor behind Ctrl-A C, and no Ctrl-A at all.
    pub(crate) monitor: Option<Arc<Monitor>>,
    /// Ctrl-A X.
    pub(crate) exit: Box<dyn Fn() + Send + Sync>,
}

/// Reads stdin until its end. A task in `iohandler`.
pub(crate) async fn serve_stdin(stdin: Stdin) {
    let room = Arc::new(Notify::new());
    let has_room = Arc::clone(&room);
    stdin.serial.on_room(Box::new(move || has_room.notify_one()));
    let fd = match std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned() {
        Ok(fd) => Fd::from(fd),
        Err(error) => {
            tracing::warn!(%error, "stdin cannot be read");
            return;
        }
    };
    let mut mux = Mux { stdin, room, escape: Escape::default(), hmp: None, in_monitor: false };
    let mut buffer = vec![0; 256];
    loop {
        let (result, bytes) = io::read(&fd, buffer).await;
        buffer = bytes;
        match result {
            // The end of the input is not the end of the guest.
            Ok(0) => return,
            Ok(n) => mux.typed(&buffer[..n]).await,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::debug!(%error, "stdin ended");
                return;
            }
        }
    }
}

struct Mux {
    stdin: Stdin,
    room: Arc<Notify>,
    escape: Escape,
    hmp: Option<HmpSession>,
    in_monitor: bool,
}

impl Mux {
    async fn typed(&mut self, bytes: &[u8]) {
        if self.stdin.monitor.is_none() {
            return self.feed_guest(bytes).await;
        }
        for typed in self.escape.split(bytes) {
            match typed {
                Typed::Bytes(bytes) if self.in_monitor => self.feed_monitor(&bytes).await,
                Typed::Bytes(bytes) => self.feed_guest(&bytes).await,
                Typed::Help => self.stdin.output.print(HELP.as_bytes()),
                Typed::Exit => (self.stdin.exit)(),
                Typed::Switch => self.switch().await,
            }
        }
    }

    async fn switch(&mut self) {
        self.in_monitor = !self.in_monitor;
        let Some(monitor) = &self.stdin.monitor else { return };
        if !self.in_monitor {
            self.stdin.output.print(b"\r\n");
            return;
        }
        let echo = if std::io::stdin().is_terminal() { Echo::On } else { Echo::Off };
        match &mut self.hmp {
            // An empty line shows the prompt again.
            Some(hmp) => {
                let prompt = hmp.input(b"\r").await;
                self.stdin.output.print(&prompt);
            }
            none => {
                let hmp = none.insert(monitor.hmp_session(echo));
                self.stdin.output.print(&hmp.banner());
            }
        }
    }

    async fn feed_monitor(&mut self, bytes: &[u8]) {
        let Some(hmp) = &mut self.hmp else { return };
        // It may have been resized.
        let (rows, columns) = terminal::screen();
        hmp.set_screen(rows, columns);
        let answer = hmp.input(bytes).await;
        self.stdin.output.print(&answer);
    }

    async fn feed_guest(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.stdin.serial.input(bytes);
            bytes = &bytes[taken.min(bytes.len())..];
            if !bytes.is_empty() {
                self.room.notified().await;
            }
        }
    }
}
