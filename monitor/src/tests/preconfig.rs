//! The state before the machine is configured.

use super::client::Client;
use super::stage::stage;
use crate::machine::RunState;
use crate::wire::Style;
use crate::{Endpoint, Machine, Monitor};
use serde_json::json;
use std::sync::{Arc, mpsc};

#[test]
fn before_the_end_of_preconfig_few_commands_run() {
    stage(|stage| {
        let path = stage.path.with_file_name("preconfig");
        let monitor = Arc::new(Monitor::new(&stage.reactors));
        monitor.listen_qmp(&Endpoint::unix(&path), Style::Line).unwrap();
        stage.machine.set(RunState::Prelaunch);
        monitor.start_preconfig(Arc::clone(&stage.machine) as Arc<dyn Machine>);
        let (sender, receiver) = mpsc::channel();
        let (waiting, machine) = (Arc::clone(&monitor), Arc::clone(&stage.machine));
        let task = stage.reactors.main().spawn("waiting", async move {
            let leaving = waiting.preconfig_ended().await;
            machine.set(RunState::Running);
            sender.send(()).unwrap();
            drop(leaving);
        });
        let mut client = Client::negotiated(&path);
        for command in ["query-kvm", "stop", "query-cpus-fast", "human-monitor-command"] {
            let when = "is permitted only after machine initialization has completed";
            let error = client.error(&json!({"execute": command}));
            assert_eq!(error, ("GenericError".into(), format!("The command '{command}' {when}")));
        }
        assert_eq!(client.error(&json!({"execute": "none"})).0, "CommandNotFound");
        assert_eq!(client.run("query-status"), json!({"status": "prelaunch", "running": false}));
        assert!(client.run("query-qmp-schema").is_array());
        assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Empty));
        assert_eq!(client.run("x-exit-preconfig"), json!({}));
        receiver.recv().unwrap();
        assert_eq!(client.run("query-status"), json!({"status": "running", "running": true}));
        assert_eq!(client.run("query-kvm"), json!({"enabled": true, "present": true}));
        let error = client.error(&json!({"execute": "x-exit-preconfig"}));
        assert_eq!(error.1, "The command is permitted only before machine initialization");
        task.detach();
    });
}
