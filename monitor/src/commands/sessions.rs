//! `query-monitors`: who is connected. Not in QEMU.

use super::reactors::TimeHistogram;
use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use hdrhistogram::Histogram;

qapi_struct! {
    /// A process at the other end of a UNIX socket, as it was when it connected.
    pub struct MonitorPeer {
        /// Process id.
        pub pid: i64 = "pid",
        /// User id.
        pub uid: i64 = "uid",
        /// Group id.
        pub gid: i64 = "gid",
    }
}

qapi_struct! {
    /// How long a command of a session took, from its arrival to its reply.
    pub struct CommandLatency {
        /// Its name; empty for all that the session used after its first 16 different ones.
        pub name: String = "name",
        /// The times.
        pub latency: TimeHistogram = "latency",
    }
}

qapi_struct! {
    /// A QMP session.
    pub struct MonitorInfo {
        /// Its number; none is given twice.
        pub id: u64 = "id",
        /// Who is connected; absent for TCP.
        pub peer: Option<MonitorPeer> = "peer",
        /// Since when, in milliseconds.
        pub connected_ms: u64 = "connected-ms",
        /// The capabilities have been negotiated.
        pub negotiated: bool = "negotiated",
        /// Commands may come out of band.
        pub oob: bool = "oob",
        /// Requests that wait for their turn.
        pub queued: u64 = "queued",
        /// Bytes that the client has not taken.
        pub unsent_bytes: u64 = "unsent-bytes",
        /// Events that were dropped because the client did not read.
        pub events_dropped: u64 = "events-dropped",
        /// The commands that it has used, in the order of their first use.
        pub commands: Vec<CommandLatency> = "commands",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let monitors = Command::plain("query-monitors", "The QMP sessions.", query_monitors);
    registry.add(monitors.allow_oob().allow_preconfig());
}

pub(crate) fn query_monitors(env: &Env, (): ()) -> Result<Vec<MonitorInfo>, QmpError> {
    let sessions = env.core.hub.sessions();
    let command = |(name, times): (&'static str, &Histogram<u32>)| CommandLatency {
        name: name.to_owned(),
        latency: TimeHistogram {
            count: times.len(),
            p50_ns: times.value_at_quantile(0.5),
            p99_ns: times.value_at_quantile(0.99),
            max_ns: times.max(),
        },
    };
    let info = |session: &std::sync::Arc<crate::session::Session>| {
        let (unsent, events_dropped) = session.waiting();
        let peer = session.peer().map(|peer| MonitorPeer {
            pid: peer.pid.into(),
            uid: peer.uid.into(),
            gid: peer.gid.into(),
        });
        MonitorInfo {
            id: session.id(),
            peer,
            connected_ms: u64::try_from(session.since().elapsed().as_millis()).unwrap_or(u64::MAX),
            negotiated: session.is_negotiated(),
            oob: session.has_oob(),
            queued: env.core.dispatcher.depth(session) as u64,
            unsent_bytes: unsent as u64,
            events_dropped,
            commands: session.latencies().iter().map(command).collect(),
        }
    };
    Ok(sessions.iter().map(info).collect())
}
