//! Pseudo terminals.

use super::connection::Connection;
use super::slot::Slot;
use crate::text::system_error;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;
use reactor::{Fd, io};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A pseudo terminal of which this process has the controlling side.
pub(super) struct Pty {
    master: Fd,
    /// Hears of those who open the other side.
    opens: Fd,
    path: PathBuf,
    _link: Option<Link>,
}

/// A symbolic link; removed on drop if it still leads to the same.
struct Link {
    at: PathBuf,
    to: PathBuf,
}

impl Drop for Link {
    fn drop(&mut self) {
        if std::fs::read_link(&self.at).is_ok_and(|to| to == self.to)
            && let Err(error) = std::fs::remove_file(&self.at)
        {
            tracing::warn!(path = %self.at.display(), %error, "the link stays behind");
        }
    }
}

impl Pty {
    pub(super) fn open(link: Option<PathBuf>) -> Result<Self, String> {
        let failed = |error: nix::Error| format!("Failed to create PTY: {}", error.desc());
        // Other users' processes must not reach a slave that is not raw yet: the mode is the
        // kernel's for ptys, owner and group only.
        let OpenptyResult { master, slave } = openpty(None, None).map_err(failed)?;
        for fd in [&master, &slave] {
            let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
            nix::fcntl::fcntl(fd, flags).map_err(failed)?;
        }
        let mut mode = tcgetattr(&slave).map_err(failed)?;
        cfmakeraw(&mut mode);
        tcsetattr(&slave, SetArg::TCSANOW, &mode).map_err(failed)?;
        let path = ttyname(&slave).map_err(failed)?;
        let opens = Inotify::init(InitFlags::IN_CLOEXEC).map_err(failed)?;
        opens.add_watch(&path, AddWatchFlags::IN_OPEN).map_err(failed)?;
        let link = link.map(|at| make_link(at, &path)).transpose()?;
        let opens = Fd::from(OwnedFd::from(opens));
        // From here on the kernel reports a hang-up until somebody opens the other side.
        drop(slave);
        Ok(Self { master: master.into(), opens, path, _link: link })
    }

    /// The terminal's name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until somebody has opened the other side.
    async fn opened(&self) -> std::io::Result<()> {
        loop {
            let events = io::poll(&self.master, libc::POLLOUT as u32).await?;
            if events & libc::POLLHUP as u32 == 0 {
                return Ok(());
            }
            let (result, _) = io::read(&self.opens, vec![0; 1024]).await;
            result?;
        }
    }
}

fn make_link(at: PathBuf, to: &Path) -> Result<Link, String> {
    std::os::unix::fs::symlink(to, &at).map_err(|error| {
        format!("Failed to create PTY symlink '{}': {}", at.display(), system_error(&error))
    })?;
    Ok(Link { at, to: to.to_owned() })
}

/// Offers a connection each time that the other side is opened, for ever.
pub(super) async fn keep(pty: Pty, slot: Arc<Slot>, name: String) {
    loop {
        if let Err(error) = pty.opened().await {
            tracing::warn!(%error, path = %pty.path.display(), "the pseudo terminal is lost");
            return;
        }
        let connection = Connection::streams(Some(pty.master.clone()), pty.master.clone(), true);
        // An error means that the connection was dropped, which is its end.
        let _ = slot.offer(connection, name.clone()).await;
        slot.disconnected();
    }
}
