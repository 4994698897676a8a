//! Network back ends and the balloon over QMP and HMP, in QEMU's words.

use super::client::Client;
use super::stage::{RAM_BYTES, Stage, stage};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// A client that keeps events for those who wait for them.
struct Talk {
    client: Client,
    events: VecDeque<Value>,
}

impl Talk {
    fn new(stage: &Stage) -> Self {
        Self { client: stage.client(), events: VecDeque::new() }
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let mut answer = self.client.ask(&json!({"execute": command, "arguments": arguments}));
        while answer.get("event").is_some() {
            self.events.push_back(answer);
            answer = self.client.message();
        }
        answer
    }

    fn run(&mut self, command: &str, arguments: &Value) -> Value {
        let mut answer = self.execute(command, arguments);
        assert!(answer.get("return").is_some(), "{command}: {answer}");
        answer["return"].take()
    }

    fn error(&mut self, command: &str, arguments: &Value) -> (String, String) {
        let answer = self.execute(command, arguments);
        let text = |member: &str| answer["error"][member].as_str().unwrap_or_default().to_owned();
        (text("class"), text("desc"))
    }

    fn hmp(&mut self, line: &str) -> String {
        let answer = self.run("human-monitor-command", &json!({"command-line": line}));
        answer.as_str().unwrap().replace("\r\n", "\n")
    }

    /// The data of the next event, which is of this name.
    fn event(&mut self, name: &str) -> Value {
        let mut event = self.events.pop_front().unwrap_or_else(|| self.client.message());
        assert_eq!(event["event"], name);
        event["data"].take()
    }
}

#[test]
fn back_ends_are_refused_in_the_words_of_qemu() {
    stage(|stage| {
        let mut client = Talk::new(stage);
        let unix = json!({"type": "unix", "path": "/nonexistent/x"});
        for (arguments, text) in [
            (json!({}), "Parameter 'id' is missing"),
            (json!({"type": "socket", "id": "1x"}), "Parameter 'id' expects an identifier"),
            (json!({"type": "nope", "id": "a"}), "Parameter 'type' does not accept value 'nope'"),
            (
                json!({"type": "socket", "id": "a"}),
                "exactly one of listen=, connect=, mcast= or udp= is required",
            ),
            (
                json!({"type": "socket", "id": "a", "fd": "5", "listen": ":1"}),
                "exactly one of listen=, connect=, mcast= or udp= is required",
            ),
            (json!({"type": "socket", "id": "a", "fd": "7777"}), "can't get socket option SO_TYPE"),
            (
                json!({"type": "socket", "id": "a", "fd": "foo"}),
                "File descriptor named 'foo' has not been found",
            ),
            (
                json!({"type": "socket", "id": "a", "listen": "nonsense"}),
                "host address 'nonsense' doesn't contain ':' separating host from port",
            ),
            (
                json!({"type": "socket", "id": "a", "udp": "127.0.0.1:1"}),
                "localaddr= is mandatory with udp=",
            ),
            (json!({"type": "stream", "id": "a"}), "Parameter 'addr' is missing"),
            (
                json!({"type": "stream", "id": "a", "addr": unix, "server": true, "reconnect-ms": 5}),
                "'reconnect' and 'reconnect-ms' options are incompatible with socket in server mode",
            ),
            (
                json!({"type": "stream", "id": "a", "addr": unix, "reconnect": 1, "reconnect-ms": 5}),
                "'reconnect' and 'reconnect-ms' are mutually exclusive",
            ),
        ] {
            let found = client.error("netdev_add", &arguments);
            assert_eq!(found, ("GenericError".to_owned(), text.to_owned()), "{arguments}");
        }
        let missing = ("DeviceNotFound".to_owned(), "Device 'n' not found".to_owned());
        assert_eq!(client.error("netdev_del", &json!({"id": "n"})), missing);
        assert_eq!(client.error("set_link", &json!({"name": "n", "up": true})), missing);
        let filter = client.error("query-rx-filter", &json!({"name": "n"}));
        assert_eq!(filter.1, "invalid net client name: n");
        assert_eq!(client.hmp("info network"), "");
    });
}

#[test]
fn datagrams_and_taps_are_refused_in_the_words_of_qemu() {
    stage(|stage| {
        let mut client = Talk::new(stage);
        let unix = json!({"type": "unix", "path": "/nonexistent/x"});
        let inet = json!({"type": "inet", "host": "127.0.0.1", "port": "0"});
        for (arguments, text) in [
            (json!({"type": "dgram", "id": "a"}), "dgram requires local= parameter"),
            (
                json!({"type": "dgram", "id": "a", "local": inet}),
                "type=inet or type=unix requires remote parameter",
            ),
            (
                json!({"type": "dgram", "id": "a", "local": inet, "remote": unix}),
                "remote and local types must be the same",
            ),
            (
                json!({"type": "dgram", "id": "a", "local": {"type": "fd", "str": "9999"}}),
                "a: Can't use file descriptor 9999: Bad file descriptor",
            ),
            (
                json!({"type": "tap", "id": "a", "fd": "9999", "ifname": "x"}),
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= \
                 are invalid with fd=",
            ),
            (
                json!({"type": "tap", "id": "a", "fds": "1:2", "ifname": "x"}),
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= \
                 are invalid with fds=",
            ),
            (
                json!({"type": "tap", "id": "a", "fd": "9999"}),
                "a: Can't use file descriptor 9999: Bad file descriptor",
            ),
            (json!({"type": "tap", "id": "a", "vhost": true}), "vhost=on is not supported"),
        ] {
            let found = client.error("netdev_add", &arguments);
            assert_eq!(found, ("GenericError".to_owned(), text.to_owned()), "{arguments}");
        }
    });
}

#[test]
fn back_ends_come_and_go_over_both_monitors() {
    stage(|stage| {
        let mut client = Talk::new(stage);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a").display().to_string();
        let addr = json!({"type": "unix", "path": path});
        let add = json!({"type": "stream", "id": "a", "server": true, "addr": addr});
        client.run("netdev_add", &add);
        assert_eq!(client.error("netdev_add", &add).1, "Duplicate ID 'a'");
        let filter = client.error("query-rx-filter", &json!({"name": "a"}));
        assert_eq!(filter.1, "net client(a) isn't a NIC");
        assert_eq!(client.hmp("info network"), "a: index=0,type=stream,listening\n");
        let line = format!("netdev_add stream,id=b,addr.type=unix,addr.path={path}");
        assert_eq!(client.hmp(&line), "");
        for _ in 0..2 {
            let event = client.event("NETDEV_STREAM_CONNECTED");
            assert_eq!(event["addr"]["path"], json!(path));
        }
        assert_eq!(client.hmp("set_link a off"), "");
        assert_eq!(
            client.hmp("set_link a maybe"),
            "Expected 'on' or 'off'\nTry \"help set_link\" for more information\n"
        );
        assert_eq!(
            client.hmp("netdev_add socket,id=c,listen=:1,foo=3"),
            "Error: Invalid parameter 'foo'\n"
        );
        assert_eq!(
            client.hmp("netdev_add stream,id=c,addr.type=unix,addr.path=x,server=maybe"),
            "Error: Parameter 'server' expects 'on' or 'off'\n"
        );
        assert_eq!(
            client.hmp("netdev_add stream,id=c,addr.type=unix"),
            "Error: Parameter 'addr.path' is missing\n"
        );
        assert_eq!(client.hmp("netdev_del b"), "");
        let event = client.event("NETDEV_STREAM_DISCONNECTED");
        assert_eq!(event, json!({"netdev-id": "a"}));
        client.run("netdev_del", &json!({"id": "a"}));
        assert_eq!(client.hmp("netdev_del a"), "Error: Device 'a' not found\n");
    });
}

#[test]
fn the_balloon_is_asked_and_looked_at() {
    stage(|stage| {
        let mut client = Talk::new(stage);
        let none =
            ("DeviceNotActive".to_owned(), "No balloon device has been activated".to_owned());
        assert_eq!(client.error("query-balloon", &json!({})), none);
        assert_eq!(client.error("balloon", &json!({"value": 0})), none);
        assert_eq!(client.hmp("info balloon"), format!("Error: {}\n", none.1));
        let balloon = stage.machine.balloon.make(false, false).unwrap();
        assert!(stage.machine.balloon.make(false, false).is_none());
        assert_eq!(client.run("query-balloon", &json!({})), json!({"actual": RAM_BYTES}));
        let wrong = client.error("balloon", &json!({"value": 0}));
        assert_eq!(wrong.1, "Parameter 'value' expects a size");
        client.run("balloon", &json!({"value": RAM_BYTES / 2}));
        assert_eq!(client.hmp("balloon 1"), "");
        assert_eq!(client.hmp("info balloon"), "balloon: actual=1\n");
        drop(balloon);
        assert_eq!(client.error("query-balloon", &json!({})), none);
    });
}
