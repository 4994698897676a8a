//! A connection from its greeting to its end. In the monitor context.

use super::descriptors::FDS_PER_MESSAGE_MAX;
use super::latency::Timing;
use super::{Session, outbox};
use crate::commands::greeting;
use crate::core::{Core, Env};
use crate::dispatch::{BadRequest, Request, qmp_dispatch};
use crate::error::QmpError;
use crate::registry::{Command, Value};
use crate::wire::{Reader, Style, SyntaxError};
use devices::chardev::Peer;
use futures_util::future::{Either, select};
use reactor::{Fd, io};
use std::pin::pin;
use std::sync::Arc;

/// Received at once; a request is rarely longer.
const RECEIVE_BYTES: usize = 4096;

/// How a connection ends.
enum End {
    /// The peer is gone: what waits is dropped.
    Gone,
    /// The peer sends no more, but still reads: what it has asked is answered.
    HalfClosed,
}

/// Serves a connection until its end.
pub(crate) async fn serve(core: Arc<Core>, fd: Fd, peer: Option<Peer>, style: Style) {
    let session = Session::new(fd, peer, style, core.reactors.monitor().clone());
    let registered = Registered::new(&core, &session);
    session.send_reply(&greeting(style));
    match read(&core, &session).await {
        End::Gone => {}
        End::HalfClosed => finish(&core, &session).await,
    }
    drop(registered);
}

/// The session in the lists of the others; dropping it is the end of the session.
struct Registered<'a> {
    core: &'a Core,
    session: &'a Arc<Session>,
}

impl<'a> Registered<'a> {
    fn new(core: &'a Core, session: &'a Arc<Session>) -> Self {
        core.dispatcher.add(session);
        core.hub.add(Arc::clone(session));
        Self { core, session }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.core.dispatcher.remove(self.session);
        self.core.hub.remove(self.session);
        self.session.outbox.close();
        self.core.forget_fdsets();
    }
}

async fn read(core: &Arc<Core>, session: &Arc<Session>) -> End {
    let mut reader = Reader::default();
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut fds = Vec::new();
    loop {
        let (result, back) = receive(session, buffer).await;
        buffer = back;
        let received = match result {
            Ok((0, _)) => return how_closed(session).await,
            Ok((n, came)) => {
                // The kernel gives descriptors with the bytes that they were sent with, and no byte
                // of a later message: they belong to the message that ends next.
                if !came.is_empty() {
                    fds = came;
                }
                n
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return End::Gone,
        };
        let mut input = buffer.get(..received).unwrap_or_default();
        while let Some(message) = reader.next(&mut input) {
            take(core, session, message, std::mem::take(&mut fds));
            if let Some(end) = wait_to_read(core, session).await {
                return end;
            }
        }
    }
}

/// Receives bytes and, over a UNIX socket, descriptors.
async fn receive(
    session: &Session,
    buffer: Vec<u8>,
) -> (std::io::Result<(usize, Vec<Fd>)>, Vec<u8>) {
    if session.peer.is_none() {
        let (result, buffer) = io::recv(&session.fd, buffer).await;
        return (result.map(|n| (n, Vec::new())), buffer);
    }
    let (result, buffer) = io::recv_with_fds(&session.fd, buffer, FDS_PER_MESSAGE_MAX).await;
    if result.as_ref().is_ok_and(|received| received.truncated) {
        tracing::warn!("a monitor client passed too many descriptors at once; the rest is closed");
    }
    (result.map(|received| (received.bytes, received.fds)), buffer)
}

/// Files a message: out-of-band requests run here and now.
fn take(
    core: &Arc<Core>,
    session: &Arc<Session>,
    message: Result<Value, SyntaxError>,
    fds: Vec<Fd>,
) {
    let oob = session.oob.load(std::sync::atomic::Ordering::Acquire);
    let request = match message {
        Ok(value) => Request::parse(value, oob),
        Err(error) => Err(BadRequest::from(QmpError::generic(error.to_string()))),
    };
    match request {
        Ok(request) if request.oob => {
            session.hand_over(fds);
            let env = Env::of_session(core, session);
            let command = core.registry.find(&request.command);
            let timing = Timing::begin(command.map(Command::name));
            let reply = qmp_dispatch(&core.registry, &env, request, session.style());
            session.count(timing);
            core.hub.reply(session, reply);
        }
        request => core.dispatcher.push(core, session, request, fds),
    }
}

/// Waits until the client's requests have gone down or it has read its replies. Ends early when it
/// hangs up.
async fn wait_to_read(core: &Core, session: &Session) -> Option<End> {
    let unsent_max = outbox::READ_UNSENT_MAX;
    if core.dispatcher.has_room(session) && session.outbox.unsent() <= unsent_max {
        return None;
    }
    let mut half_closed = false;
    while !core.dispatcher.has_room_again(session) || session.outbox.unsent() > unsent_max {
        if session.outbox.is_closed() {
            return Some(End::Gone);
        }
        let progress = pin!(async {
            if core.dispatcher.has_room_again(session) {
                session.outbox.drained_to(unsent_max).await;
            } else {
                session.changed.notified().await;
            }
        });
        if half_closed {
            // Polling would report that again and again.
            progress.await;
            continue;
        }
        match select(progress, pin!(io::poll(&session.fd, 0))).await {
            Either::Left(_) => {}
            Either::Right((Ok(events), _)) if !is_gone(events) => half_closed = true,
            Either::Right(_) => return Some(End::Gone),
        }
    }
    None
}

/// After the end of the input: is anybody still listening?
async fn how_closed(session: &Session) -> End {
    match io::poll(&session.fd, 0).await {
        Ok(events) if !is_gone(events) => End::HalfClosed,
        _ => End::Gone,
    }
}

fn is_gone(events: u32) -> bool {
    events & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) as u32 != 0
}

/// Answers what was asked before the peer closed its sending side.
async fn finish(core: &Core, session: &Session) {
    while !core.dispatcher.is_idle(session) && !session.outbox.is_closed() {
        session.changed.notified().await;
    }
    session.outbox.drained_to(0).await;
}
