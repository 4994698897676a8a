//! Raw mode of the terminal.

use nix::sys::termios::{
    InputFlags, LocalFlags, OutputFlags, SetArg, Termios, tcgetattr, tcsetattr,
};
use std::io::IsTerminal;
use std::os::fd::AsRawFd;

/// Rows and columns of the terminal `fd`; zeros where it is none or does not say.
pub fn screen(fd: &impl AsRawFd) -> (u16, u16) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize`, which is ours and lives over the call (ioctl_tty(2)).
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 { (size.ws_row, size.ws_col) } else { (0, 0) }
}

/// The terminal is in raw mode while this lives: each key goes to who reads it.
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Switches stdin, where it is a terminal. `None` where it is none, or refuses. With `signal`
    /// Ctrl-C still interrupts the program.
    pub(super) fn enter(signal: bool) -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.input_flags.remove(
            InputFlags::IGNBRK
                | InputFlags::BRKINT
                | InputFlags::PARMRK
                | InputFlags::ISTRIP
                | InputFlags::INLCR
                | InputFlags::IGNCR
                | InputFlags::ICRNL
                | InputFlags::IXON,
        );
        // Lines of ours and of the kernel's log still begin at the left.
        raw.output_flags.insert(OutputFlags::OPOST);
        let cooked =
            LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::IEXTEN;
        raw.local_flags.remove(cooked);
        raw.local_flags.set(LocalFlags::ISIG, signal);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone by now, and with it the need.
        if let Err(error) = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.before) {
            tracing::debug!(%error, "the terminal keeps its mode");
        }
    }
}
