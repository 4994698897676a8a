//! A device on a tap interface of its own network namespace.

use super::*;
use crate::net::{NetEvent, NetReactors, NetdevOptions, Netdevs, TapOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// EtherType for experiments (IEEE 802), so that no protocol of the host's answers.
const EXPERIMENT: u16 = 0x88b5;

/// A thread with a network namespace of its own, in which `f` runs. Needs `CAP_SYS_ADMIN`.
fn in_namespace<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
        made.expect("root makes a network namespace for the tap interface");
        f()
    });
    thread.join().unwrap()
}

fn ip(arguments: &str) {
    let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A packet socket on interface `name`: what the host sees there.
fn packet_socket(name: &str) -> Fd {
    let protocol = i32::from(EXPERIMENT.to_be());
    // SAFETY: socket(2) takes no pointer.
    let fd =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just made.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    // SAFETY: consists of integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = EXPERIMENT.to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: a whole address and its length.
    let bound = unsafe {
        let len = size_of::<libc::sockaddr_ll>() as u32;
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len)
    };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    Fd::from(fd)
}

/// An interface that is up, as a back end, and a packet socket on it.
fn interface(options: TapOptions) -> (Arc<Netdevs>, Fd) {
    in_namespace(move || {
        let netdevs = Arc::new(Netdevs::default());
        // Tap interfaces need nothing of the program.
        on_reactors(1, {
            let netdevs = Arc::clone(&netdevs);
            move |reactors| async move {
                let home = NetReactors {
                    home: reactors.main(),
                    descriptor: &|_| Err("none".to_owned()),
                    events: Arc::new(|_: NetEvent| ()),
                };
                let options = NetdevOptions::Tap(options);
                netdevs.add("n0", options, &home).unwrap();
            }
        });
        ip("link set rvtest0 up");
        (netdevs, packet_socket("rvtest0"))
    })
}

fn experiment(len: usize, seed: u8) -> Vec<u8> {
    let mut frame = frame(len, seed);
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&EXPERIMENT.to_be_bytes());
    frame
}

/// The next frame that is ours: the host's own protocols may say something as well.
async fn from_host(rig: &mut Rig) -> (Vec<u8>, Vec<u8>) {
    loop {
        let (header, frame) = rig.receive().await;
        if frame[12..14] == EXPERIMENT.to_be_bytes() {
            return (header, frame);
        }
    }
}

fn options(header: bool) -> TapOptions {
    let ifname = Some("rvtest0".to_owned());
    TapOptions { ifname, virtio_header: Some(header), ..TapOptions::default() }
}

#[test]
fn frames_pass_between_a_guest_and_the_host() {
    for header in [true, false] {
        let (netdevs, host) = interface(options(header));
        on_reactors(2, move |reactors| async move {
            let netdev = netdevs.find("n0").unwrap();
            assert_eq!(
                netdev.info(),
                "n0: index=0,type=tap,ifname=rvtest0,script=no,downscript=no"
            );
            let mut rig = Rig::new(&reactors, Some(netdev), &NetOptions::default());
            let offloads = rig.port.driver.offered() & config::GUEST_OFFLOADS;
            assert_eq!(offloads, if header { config::GUEST_OFFLOADS } else { 0 });
            rig.start(USUAL | offloads);
            rig.post(60, 1536);
            for (n, len) in [60, 61, 1000, 1514].into_iter().enumerate() {
                let sent = experiment(len, n as u8);
                rig.send(&sent).await;
                let (received, bytes) = reactor::io::recv(&host, vec![0; 2048]).await;
                assert!(bytes[..received.unwrap()] == sent, "{len} bytes to the host");
                let (answered, _) = reactor::io::send(&host, sent.clone()).await;
                assert_eq!(answered.unwrap(), len);
                let (received_header, received) = from_host(&mut rig).await;
                assert!(received == sent, "{len} bytes from the host");
                assert_eq!(received_header[10..], [1, 0]);
            }
            // Too short for the interface: lost, and nothing breaks.
            rig.send(&[1, 2, 3, 4, 5]).await;
            rig.port.driver.reset().await;
            rig.close().await;
        });
    }
}

#[test]
fn checksums_and_segments_are_left_to_the_host() {
    let (netdevs, host) = interface(options(true));
    on_reactors(1, move |reactors| async move {
        let netdev = netdevs.find("n0").unwrap();
        let mut rig = Rig::new(&reactors, Some(netdev), &NetOptions::default());
        rig.start(USUAL | config::CSUM);
        // VIRTIO_NET_HDR_F_NEEDS_CSUM: sum from byte 34 on, at 4 bytes further.
        let mut header = [0; HEADER];
        header[0] = 1;
        header[6..8].copy_from_slice(&34u16.to_le_bytes());
        header[8..10].copy_from_slice(&4u16.to_le_bytes());
        let mut sent = experiment(60, 1);
        sent[38..40].fill(0);
        rig.send_with(&header, &sent).await;
        let (received, bytes) = reactor::io::recv(&host, vec![0; 2048]).await;
        assert_eq!(received.unwrap(), 60);
        // A packet socket shows the frame as it is passed on, which is without the sum: that the
        // host knows it has to fill it in is seen from its accepting the frame.
        assert_eq!(bytes[..38], sent[..38]);
        // An offset outside of the frame is refused by the interface, and lost.
        header[6..8].copy_from_slice(&1000u16.to_le_bytes());
        rig.send_with(&header, &sent).await;
        let next = experiment(70, 2);
        rig.send(&next).await;
        let (received, bytes) = reactor::io::recv(&host, vec![0; 2048]).await;
        assert!(bytes[..received.unwrap()] == next);
        rig.close().await;
    });
}

#[test]
fn several_queues_are_used_as_the_driver_says() {
    let options = TapOptions { queues: Some(2), ..options(true) };
    let (netdevs, host) = interface(options);
    on_reactors(2, move |reactors| async move {
        let netdev = netdevs.find("n0").unwrap();
        let mut rig = Rig::new(&reactors, Some(netdev), &NetOptions::default());
        assert_eq!(rig.port.driver.device_config::<2>(8), [2, 0]);
        rig.port.start(USUAL, 5, 64);
        rig.posted = vec![(0, 0); 64];
        let at = rig.port.machine.alloc(4096);
        rig.port.write(at, &[4, 0, 2, 0]);
        rig.port.queues[4].add(&[Buffer::readable(at, 4), Buffer::writable(at + 16, 1)]);
        rig.port.queues[4].kick();
        rig.port.queues[4].wait_used(1).await;
        assert_eq!(rig.port.read(at + 16, 1), [0]);
        for queue in [1, 3] {
            let sent = experiment(100, queue as u8);
            rig.port.write(at + 512, &sent);
            rig.port.write(at + 256, &[0; HEADER]);
            rig.port.queues[queue]
                .add(&[Buffer::readable(at + 256, HEADER as u32), Buffer::readable(at + 512, 100)]);
            rig.port.queues[queue].kick();
            rig.port.queues[queue].wait_used(1).await;
            let (received, bytes) = reactor::io::recv(&host, vec![0; 2048]).await;
            assert!(bytes[..received.unwrap()] == sent, "queue {queue}");
        }
        rig.close().await;
    });
}
