//! A port and its character device.

use super::{PortPipe, VirtioConsole};
use crate::chardev::{Connection, FrontEnd};
use futures_util::future::select;
use reactor::{Fd, io};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;

/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// Carries bytes between port `number` of `device`, behind which `pipe` is, and the character device,
/// one connection after the other, for ever. The guest hears of each, unless the port is a
/// `console`: that is always connected. A task of `iohandler`.
pub async fn connect(
    device: Arc<VirtioConsole>,
    number: u32,
    pipe: Arc<PortPipe>,
    frontend: Arc<FrontEnd>,
    console: bool,
) {
    device.set_pipe_open(number, &pipe, console);
    loop {
        let connection = {
            // What a console prints to nobody is thrown away.
            let waiting = pin!(frontend.connection());
            let dropping = pin!(drop_output(&pipe));
            match select(waiting, dropping).await {
                futures_util::future::Either::Left((connection, _)) => connection,
                futures_util::future::Either::Right((never, _)) => match never {},
            }
        };
        device.set_pipe_open(number, &pipe, true);
        select(pin!(connected(connection, &pipe)), pin!(frontend.replaced())).await;
        device.set_pipe_open(number, &pipe, console);
    }
}

async fn drop_output(pipe: &PortPipe) -> std::convert::Infallible {
    loop {
        let _dropped = pipe.read().await;
    }
}

/// Until the connection has ended.
async fn connected(connection: Connection, pipe: &PortPipe) {
    let output = pin!(write(&connection.output, pipe));
    let Some(input) = &connection.input else { return output.await };
    match select(output, pin!(feed(input, pipe))).await {
        // The end of what was typed is not the end of what is printed.
        futures_util::future::Either::Right((true, output)) if !connection.ends_with_input => {
            output.await;
        }
        _ => {}
    }
}

/// Writes what the guest sends until the descriptor fails.
async fn write(fd: &Fd, pipe: &PortPipe) {
    loop {
        let bytes = pipe.read().await;
        let (result, _) = io::write_all(fd, bytes).await;
        if let Err(error) = result {
            tracing::debug!(%error, "a character device does not take output any more");
            return;
        }
    }
}

/// Hands input to the guest; true: there is no more, false: the descriptor has failed.
async fn feed(fd: &Fd, pipe: &PortPipe) -> bool {
    let mut buffer = vec![0; CHUNK];
    loop {
        let (result, back) = io::read(fd, buffer).await;
        buffer = back;
        let mut bytes = match result {
            Ok(0) => return true,
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        while !bytes.is_empty() {
            let taken = pipe.write(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if !bytes.is_empty() {
                pipe.room().await;
            }
        }
    }
}
