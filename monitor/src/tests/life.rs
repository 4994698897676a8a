//! How monitors and their sockets come and go.

use super::client::Client;
use super::stage::{FakeMachine, stage};
use crate::wire::Style;
use crate::{Endpoint, Machine, Monitor};
use devices::chardev::{Address, listener::ListenError};
use devices::fdset::FdSets;
use reactor::sync::oneshot;
use serde_json::json;
use std::io::Read;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn listen(monitor: &Monitor, path: &Path) -> Result<Address, ListenError> {
    monitor.listen_qmp(&Endpoint::unix(path), Style::Line)
}

#[test]
fn a_socket_is_for_its_owner_and_goes_with_the_monitor() {
    stage(|stage| {
        let path = stage.path.with_file_name("second");
        let monitor = Monitor::new(&stage.reactors);
        listen(&monitor, &path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Client::connect(&path).line().contains("QMP"));
        drop(monitor);
        assert!(!path.exists());
    });
}

#[test]
fn a_stale_socket_is_replaced() {
    stage(|stage| {
        let path = stage.path.with_file_name("stale");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let monitor = Monitor::new(&stage.reactors);
        listen(&monitor, &path).unwrap();
        assert!(Client::connect(&path).line().contains("QMP"));
    });
}

#[test]
fn a_live_socket_and_other_files_are_left_alone() {
    stage(|stage| {
        let monitor = Monitor::new(&stage.reactors);
        let error = listen(&monitor, &stage.path).unwrap_err();
        assert!(matches!(error, ListenError::Live(_)), "{error}");
        assert!(error.to_string().contains("another process is listening there"));
        assert_eq!(stage.client().run("x-where"), json!("iohandler"));

        let path = stage.path.with_file_name("file");
        std::fs::write(&path, "precious").unwrap();
        let error = listen(&monitor, &path).unwrap_err();
        assert!(matches!(error, ListenError::NotASocket(_)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");

        let error = listen(&monitor, Path::new("/no/such/directory/qmp")).unwrap_err();
        let text = "Failed to bind socket to /no/such/directory/qmp: No such file or directory";
        assert_eq!(error.to_string(), text);
        let long = stage.path.with_file_name("x".repeat(200));
        assert!(listen(&monitor, &long).unwrap_err().to_string().contains(": use the path: "));
    });
}

#[test]
fn a_socket_that_was_replaced_is_not_removed() {
    stage(|stage| {
        let path = stage.path.with_file_name("third");
        let monitor = Monitor::new(&stage.reactors);
        listen(&monitor, &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(monitor);
        assert!(path.exists());
    });
}

#[test]
fn tcp_is_served_too() {
    stage(|stage| {
        let endpoint = Endpoint::tcp("127.0.0.1:0".parse().unwrap());
        let Address::Tcp(address) = stage.monitor.listen_qmp(&endpoint, Style::Line).unwrap()
        else {
            panic!("a TCP endpoint has a TCP address");
        };
        assert!(address.ip().is_loopback());
        let mut stream = TcpStream::connect(address).unwrap();
        std::io::Write::write_all(
            &mut stream,
            b"{'execute': 'qmp_capabilities'}{'execute': 'query-name', 'id': 1}",
        )
        .unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("{\"return\": {\"name\": \"fake\"}, \"id\": 1}\r\n"), "{text}");
    });
}

#[test]
fn in_band_commands_wait_for_the_machine_and_nothing_else_does() {
    stage(|stage| {
        let path = stage.path.with_file_name("early");
        let monitor = Monitor::new(&stage.reactors);
        listen(&monitor, &path).unwrap();
        let mut client = Client::connect(&path);
        assert!(client.line().contains("QMP"));
        client.send("{'execute': 'qmp_capabilities'}{'execute': 'query-name'}");
        monitor.start(Arc::clone(&stage.machine) as Arc<dyn Machine>);
        assert_eq!(client.message(), json!({"return": {}}));
        assert_eq!(client.message(), json!({"return": {"name": "fake"}}));
    });
}

#[test]
fn lines_typed_before_the_machine_is_there_wait_for_it() {
    stage(|stage| {
        let path = stage.path.with_file_name("early-hmp");
        let monitor = Monitor::new(&stage.reactors);
        monitor.listen_hmp(&Endpoint::unix(&path)).unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        std::io::Write::write_all(&mut stream, b"info name\ninfo name\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        monitor.start(Arc::clone(&stage.machine) as Arc<dyn Machine>);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("fake").count(), 2, "{text}");
    });
}

#[test]
fn an_abstract_socket_leaves_no_file() {
    stage(|stage| {
        let name = format!("ringvisor-test-{}", std::process::id());
        let endpoint = Endpoint { address: Address::Abstract(name.clone()), ..Endpoint::unix("") };
        let monitor = Monitor::new(&stage.reactors);
        monitor.listen_qmp(&endpoint, Style::Line).unwrap();
        let error = stage.monitor.listen_qmp(&endpoint, Style::Line).unwrap_err();
        assert!(matches!(error, ListenError::Live(_)), "{error}");
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let mut stream = UnixStream::connect_addr(&address).unwrap();
        let mut greeting = [0; 6];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"{\"QMP\"");
    });
}

#[test]
fn sessions_are_listed() {
    stage(|stage| {
        let mut client = stage.client();
        let mut other = stage.connect();
        other.line();
        let listed = client.oob("query-monitors");
        let [own, silent] = listed.as_array().unwrap().as_slice() else { panic!("{listed}") };
        assert_eq!(own["peer"]["pid"], json!(std::process::id()));
        assert_eq!((&own["negotiated"], &own["oob"]), (&json!(true), &json!(true)));
        assert_eq!((&silent["negotiated"], &silent["oob"]), (&json!(false), &json!(false)));
        assert_eq!((&own["queued"], &own["events-dropped"]), (&json!(0), &json!(0)));
        assert!(silent["id"].as_u64().unwrap() > own["id"].as_u64().unwrap());
    });
}

#[test]
fn a_start_can_wait_for_clients() {
    stage(|stage| {
        let path = stage.path.with_file_name("wait");
        let monitor = Arc::new(Monitor::new(&stage.reactors));
        let endpoint = Endpoint { wait: true, ..Endpoint::unix(&path) };
        monitor.listen_qmp(&endpoint, Style::Line).unwrap();
        let (sender, receiver) = mpsc::channel();
        let waiting = Arc::clone(&monitor);
        let task = stage.reactors.main().spawn("waiting", async move {
            waiting.wait_for_clients().await;
            sender.send(()).unwrap();
        });
        assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Empty));
        let client = Client::connect(&path);
        receiver.recv().unwrap();
        drop(client);
        task.detach();
    });
}

#[test]
fn the_end_comes_after_the_last_reply() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    stage(move |stage| {
        let monitor = Arc::new(Monitor::new(&stage.reactors));
        listen(&monitor, &path).unwrap();
        monitor.start(Arc::new(FakeMachine::new(
            monitor.events(),
            &stage.reactors,
            FdSets::default(),
        )));
        let mut client = Client::connect(&path);
        client.line();
        client.run("qmp_capabilities");
        client.send(json!({"execute": "quit", "id": 1}).to_string());
        // As the program does when it has been asked to quit.
        let event = client.line();
        let ending = Arc::clone(&monitor);
        let (done, ended) = oneshot::channel();
        let task = stage.reactors.main().spawn("ending", async move {
            ending.shutdown(Duration::from_secs(10)).await;
            let _ = done.send(());
        });
        assert!(event.contains("SHUTDOWN"));
        assert_eq!(client.line(), r#"{"return": {}, "id": 1}"#);
        assert_eq!(client.finish(), "");
        let (sender, receiver) = mpsc::channel();
        let waiting = stage.reactors.main().spawn("waiting", async move {
            let _ = ended.await;
            sender.send(()).unwrap();
        });
        receiver.recv().unwrap();
        assert!(!path.exists());
        drop((task, waiting));
    });
}
