//! The table, and back ends on real sockets.

use super::*;
use crate::virtio::testing::{on_reactors, until};
use futures_util::future::{Either, select};
use reactor::{Fd, Reactors};
use std::future::Future;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

type Events = Arc<Mutex<Vec<NetEvent>>>;

/// A table, and what its back ends tell.
struct Rig {
    reactors: Reactors,
    netdevs: Netdevs,
    events: Events,
}

impl Rig {
    fn new(reactors: Reactors) -> Self {
        Self { reactors, netdevs: Netdevs::default(), events: Arc::default() }
    }

    fn add(&self, id: &str, options: NetdevOptions) -> Result<Arc<Netdev>, NetError> {
        let events = Arc::clone(&self.events);
        let reactors = NetReactors {
            home: self.reactors.iohandler(),
            descriptor: &|name| Err(format!("there is no descriptor '{name}'")),
            events: Arc::new(move |event| events.lock().unwrap().push(event)),
        };
        self.netdevs.add(id, options, &reactors)
    }

    fn told(&self) -> usize {
        self.events.lock().unwrap().len()
    }
}

fn stream(path: &Path, server: bool, reconnect: Option<Duration>) -> NetdevOptions {
    let address = SocketAddress::Unix(path.to_owned());
    NetdevOptions::Stream { kind: "stream", options: StreamOptions { address, server, reconnect } }
}

fn socket_path() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.sock");
    (dir, path)
}

/// Memory of a device that is not there: a packet goes at 0, one comes at 64 KiB.
const INTO: u64 = 0x1_0000;

fn ram() -> Arc<Ram> {
    Arc::new(Ram::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap())
}

/// Sends one frame. On the calling context.
async fn send(netdev: &Netdev, frame: &[u8]) {
    let ram = ram();
    ram.write_slice(frame, GuestAddress(HEADER as u64)).unwrap();
    let mut sender = netdev.backend().sender(0, &ram, 1, 1).unwrap();
    sender.packet(0).push(GuestAddress(0), (HEADER + frame.len()) as u32).unwrap();
    sender.submit(0);
    std::future::poll_fn(|cx| sender.poll_sent(cx)).await;
    // Not before it is out of the device's hands.
    std::future::poll_fn(|cx| {
        let _ = sender.poll_sent(cx);
        if sender.in_flight() == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Receives one frame.
async fn receive(netdev: &Netdev) -> Vec<u8> {
    let ram = ram();
    let mut receiver = netdev.backend().receiver(0, &ram, 1).unwrap();
    receiver.buffers().push(GuestAddress(INTO), 0x1_0000).unwrap();
    receiver.start();
    loop {
        let packet = std::future::poll_fn(|cx| receiver.poll_received(cx)).await;
        let Some(len) = packet else {
            receiver.start();
            continue;
        };
        let mut bytes = vec![0; len as usize];
        ram.read_slice(&mut bytes, GuestAddress(INTO)).unwrap();
        assert_eq!(bytes[..HEADER], [0; HEADER]);
        return bytes.split_off(HEADER);
    }
}

/// Runs `test` on a core, where data handles live.
fn with_rig<Fut: Future<Output = ()> + 'static>(test: impl FnOnce(Rig) -> Fut + Send + 'static) {
    crate::virtio::testing::on_core(|reactors| test(Rig::new(reactors)));
}

#[test]
fn two_programs_meet_at_a_path() {
    with_rig(|rig| async move {
        let (_dir, path) = socket_path();
        let server = rig.add("a", stream(&path, true, None)).unwrap();
        assert_eq!(server.info(), "a: index=0,type=stream,listening");
        let client = rig.add("b", stream(&path, false, None)).unwrap();
        until(|| rig.told() == 2).await;
        let shown = format!("b: index=0,type=stream,unix:{}", path.display());
        assert_eq!(client.info(), shown);
        for n in 0..3 {
            let (ping, pong) = (vec![n; 60], vec![n + 100; 1514]);
            send(&client, &ping).await;
            assert_eq!(receive(&server).await, ping);
            send(&server, &pong).await;
            assert_eq!(receive(&client).await, pong);
        }
        rig.netdevs.remove("b").unwrap();
        until(|| rig.told() == 3).await;
        let last = rig.events.lock().unwrap().last().cloned();
        assert_eq!(last, Some(NetEvent::Disconnected { id: "a".to_owned() }));
        assert_eq!(server.info(), "a: index=0,type=stream,listening");
        // The next one is served as well, and the name is free again.
        let client = rig.add("b", stream(&path, false, None)).unwrap();
        until(|| rig.told() == 5).await;
        send(&client, b"once more").await;
        assert_eq!(receive(&server).await, b"once more");
        rig.netdevs.close();
        until(|| !path.exists()).await;
    });
}

#[test]
fn a_lost_server_is_connected_to_again() {
    with_rig(|rig| async move {
        let (_dir, path) = socket_path();
        let pause = Duration::from_millis(5);
        let client = rig.add("a", stream(&path, false, Some(pause))).unwrap();
        until(|| client.info().contains("error: ")).await;
        // Without a connection, what is sent is lost, and nothing waits for it.
        send(&client, b"lost").await;
        for round in 0..3u8 {
            let listener = UnixListener::bind(&path).unwrap();
            let listener = reactor::net::Listener::from_fd(Fd::from(listener));
            let stream = listener.accept().await.unwrap();
            until(|| rig.told() == 2 * usize::from(round) + 1).await;
            let (sent, _) = stream.send_all(vec![0, 0, 0, 2, round, round]).await;
            sent.unwrap();
            assert_eq!(receive(&client).await, [round, round]);
            send(&client, b"found").await;
            let (n, bytes) = stream.recv(vec![0; 64]).await;
            assert_eq!(bytes[..n.unwrap()], *b"\0\0\0\x05found");
            std::fs::remove_file(&path).unwrap();
            drop((stream, listener));
            // Who receives, or sends, finds it gone.
            let told = 2 * usize::from(round) + 2;
            let gone = until(|| rig.told() == told);
            match select(pin!(receive(&client)), pin!(gone)).await {
                Either::Left(_) => panic!("there is nothing to receive"),
                Either::Right(_) => {}
            }
        }
        rig.netdevs.close();
    });
}

#[test]
fn datagrams_go_from_path_to_path() {
    with_rig(|rig| async move {
        let dir = tempfile::tempdir().unwrap();
        let at = |name| Some(SocketAddress::Unix(dir.path().join(name)));
        let dgram = |local, remote| NetdevOptions::Dgram {
            kind: "dgram",
            options: DgramOptions { local, remote },
        };
        let left = rig.add("a", dgram(at("a"), at("b"))).unwrap();
        // Nobody is there yet: lost.
        send(&left, b"lost").await;
        let right = rig.add("b", dgram(at("b"), at("a"))).unwrap();
        for n in 0..3 {
            let frame = vec![n; 5 + 700 * usize::from(n)];
            send(&left, &frame).await;
            assert_eq!(receive(&right).await, frame);
            send(&right, &frame).await;
            assert_eq!(receive(&left).await, frame);
        }
        rig.netdevs.close();
        assert!(!dir.path().join("a").exists(), "nothing is left behind");
    });
}

#[test]
fn what_cannot_be_made_is_refused_and_leaves_nothing() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(reactors);
        let dgram = |local, remote| NetdevOptions::Dgram {
            kind: "dgram",
            options: DgramOptions { local, remote },
        };
        let fd = || Some(SocketAddress::Fd("7".to_owned()));
        let inet =
            |host: &str| Some(SocketAddress::Inet(InetAddress { host: host.to_owned(), port: 1 }));
        let connect = |address| NetdevOptions::Stream {
            kind: "socket",
            options: StreamOptions { address, server: false, reconnect: None },
        };
        let nowhere = stream(Path::new("/nonexistent/a"), true, None);
        for (id, options, text) in [
            ("9", dgram(None, None), "Parameter 'id' expects an identifier"),
            ("a", dgram(None, None), "dgram requires local= parameter"),
            ("a", dgram(inet("127.0.0.1"), None), "requires remote parameter"),
            ("a", dgram(fd(), inet("127.0.0.1")), "don't set remote with local.fd"),
            ("a", dgram(fd(), None), "there is no descriptor '7'"),
            ("a", connect(fd().unwrap()), "there is no descriptor '7'"),
            (
                "a",
                connect(inet("example.org").unwrap()),
                "can't resolve host address 'example.org'",
            ),
            ("a", nowhere, "Failed to bind socket to /nonexistent/a: No such file or directory"),
            (
                "a",
                NetdevOptions::Tap(TapOptions { queues: Some(0), ..TapOptions::default() }),
                "queues=0",
            ),
        ] {
            let error = rig.add(id, options).err().unwrap().to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(rig.netdevs.all().is_empty());
        let (_dir, path) = socket_path();
        rig.add("a", stream(&path, true, None)).unwrap();
        let error = rig.add("a", dgram(None, None)).err().unwrap();
        assert_eq!(error.to_string(), "Duplicate ID 'a'");
        let error = rig.netdevs.remove("b").unwrap_err();
        assert_eq!(error.to_string(), "Device 'b' not found");
        assert!(rig.netdevs.set_link("b", true).is_err());
        rig.netdevs.set_link("a", false).unwrap();
        assert!(rig.netdevs.find("a").unwrap().link_down());
        rig.netdevs.close();
    });
}
