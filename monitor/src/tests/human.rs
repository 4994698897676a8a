//! The human monitor, inside of QMP, as a session of bytes, and over a socket.

use super::stage::{Stage, stage};
use crate::{Echo, Endpoint, RunState};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Runs a line through `human-monitor-command`.
pub(super) fn hmp(client: &mut super::client::Client, line: &str) -> String {
    let arguments = json!({"command-line": line});
    let request = json!({"execute": "human-monitor-command", "arguments": arguments});
    client.send(request.to_string());
    loop {
        let message = client.message();
        if let Some(output) = message.get("return") {
            return output.as_str().unwrap().to_owned();
        }
        assert!(message.get("event").is_some(), "{message}");
    }
}

#[test]
fn lines_answer_as_those_of_qemu() {
    stage(|stage| {
        let mut client = stage.client();
        let cases = [
            ("info status", "VM status: running\r\n"),
            ("s", ""),
            ("  info   status  ", "VM status: paused\r\n"),
            ("c", ""),
            ("info status", "VM status: running\r\n"),
            ("", ""),
            ("foo bar", "unknown command: 'foo'\r\n"),
            ("info foo", "unknown command: 'info foo'\r\n"),
            ("inf", "unknown command: 'inf'\r\n"),
            (
                "stop x",
                "stop|s: extraneous characters at the end of line\r\nTry \"help stop\" for more information\r\n",
            ),
            (
                "info status x",
                "status: extraneous characters at the end of line\r\nTry \"help info status\" for more information\r\n",
            ),
            ("help stop", "stop|s  -- stop emulation\r\n"),
            ("? c", "cont|c  -- resume emulation\r\n"),
            ("help info status", "info status  -- show the current VM status (running|paused)\r\n"),
            ("help foo", "unknown command: 'foo'\r\n"),
            ("info kvm", "kvm support: enabled\r\n"),
            ("info name", "fake\r\n"),
            ("info cpus", "* CPU #0: thread_id=101\r\n  CPU #1: thread_id=102\r\n"),
            ("info memory_size_summary", "base memory: 67108864\r\nplugged memory: 0\r\n"),
            ("info iothreads", ""),
            ("info uuid", "00000000-0000-0000-0000-000000000000\r\n"),
            (
                "info pci",
                "  Bus  0, device   3, function 0:\r\n    SCSI controller: PCI device 1af4:1042\r\n      \
                 PCI subsystem 1af4:1100\r\n      IRQ 11, pin A\r\n      BAR0: I/O (not mapped)\r\n      \
                 BAR4: 64 bit prefetchable memory at 0xfebf0000 [0xfebf0fff].\r\n      id \"disk0\"\r\n",
            ),
            ("info chardev", ""),
            ("chardev-remove x", "Error: Chardev 'x' not found\r\n"),
            ("chardev-send-break x", "Error: Chardev 'x' not found\r\n"),
            ("ringbuf_read x 0", "Error: Device 'x' not found\r\n"),
            ("ringbuf_write x y", "Error: Device 'x' not found\r\n"),
            (
                "ringbuf_write x",
                "ringbuf_write: string expected\r\nTry \"help ringbuf_write\" for more information\r\n",
            ),
            ("getfd a", "Error: No file descriptor supplied via SCM_RIGHTS\r\n"),
            ("closefd a", "Error: File descriptor named 'a' not found\r\n"),
            ("system_wakeup", "Error: Unable to wake up: guest is not in suspended state\r\n"),
            (
                "exit_preconfig",
                "Error: The command is permitted only before machine initialization\r\n",
            ),
        ];
        for (line, output) in cases {
            assert_eq!(hmp(&mut client, line), output, "for {line:?}");
        }
        assert!(hmp(&mut client, "info version").contains("ringvisor-"));
        assert!(hmp(&mut client, "info reactors").contains("\r\niohandler "));
        assert!(hmp(&mut client, "info commands").contains("query-status "));
        assert!(hmp(&mut client, "info rcu").starts_with("callbacks: "));
        let help = hmp(&mut client, "help");
        assert!(help.contains("quit|q  -- quit the emulator\r\n"), "{help}");
        assert!(help.contains("info [subcommand] -- "), "{help}");
        assert_eq!(hmp(&mut client, "info"), hmp(&mut client, "help info"));
        stage.machine.set(RunState::InternalError);
        assert_eq!(hmp(&mut client, "info status"), "VM status: paused (internal-error)\r\n");
        assert_eq!(hmp(&mut client, "c"), "Error: Resetting the Virtual Machine is required\r\n");
    });
}

#[test]
fn human_monitor_command_checks_its_arguments() {
    stage(|stage| {
        let mut client = stage.client();
        let mut error = |arguments| {
            let request = json!({"execute": "human-monitor-command", "arguments": arguments});
            client.error(&request).1
        };
        assert_eq!(error(json!({})), "Parameter 'command-line' is missing");
        assert_eq!(
            error(json!({"command-line": 3})),
            "Invalid parameter type for 'command-line', expected: string"
        );
        assert_eq!(
            error(json!({"command-line": "info status", "cpu-index": 7})),
            "Parameter 'cpu-index' expects a CPU number"
        );
    });
}

/// Feeds a session in iohandler, as the program does.
fn typed(stage: &Stage, echo: Echo, input: &'static [u8]) -> String {
    let mut session = stage.monitor.hmp_session(echo);
    let (sender, receiver) = std::sync::mpsc::channel();
    let task = stage.reactors.iohandler().spawn("typing", async move {
        let output = session.input(input).await;
        assert_eq!(reactor::current().name(), "iohandler");
        sender.send(String::from_utf8(output).unwrap()).unwrap();
    });
    let output = receiver.recv().unwrap();
    task.detach();
    output
}

#[test]
fn a_session_takes_lines_and_prompts() {
    stage(|stage| {
        let banner = String::from_utf8(stage.monitor.hmp_session(Echo::On).banner()).unwrap();
        assert!(banner.ends_with(" monitor - type 'help' for more information\r\n(ringvisor) "));
        assert_eq!(
            typed(stage, Echo::Off, b"info status\nstop\r\nfo"),
            "VM status: running\r\n(ringvisor) (ringvisor) "
        );
        assert_eq!(
            typed(stage, Echo::On, b"info statx\x7f\t\r"),
            "info statx\x1b[1D\x1b[Jus \r\nVM status: paused\r\n(ringvisor) \x1b[J"
        );
        assert_eq!(typed(stage, Echo::On, b"ab\x03"), "ab^C\r\n(ringvisor) \x1b[J");
    });
}

#[test]
fn a_small_screen_is_filled_page_by_page() {
    stage(|stage| {
        let mut session = stage.monitor.hmp_session(Echo::On);
        session.set_screen(4, 200);
        let (sender, receiver) = std::sync::mpsc::channel();
        let typing = stage.reactors.iohandler().spawn("typing", async move {
            for input in ["help\r", " ", "\r", "q", "info name\r"] {
                sender.send(session.input(input.as_bytes()).await).unwrap();
            }
        });
        let shown = || String::from_utf8(receiver.recv().unwrap()).unwrap();
        let (lines, more) = (|text: &str| text.matches("\r\n").count(), "-- more -- ");
        let first = shown();
        assert!(first.contains(more) && !first.contains("(ringvisor)"), "{first}");
        assert_eq!(lines(&first), 1 + 3);
        assert_eq!(lines(&shown()), 3);
        assert_eq!(lines(&shown()), 1);
        assert!(shown().ends_with("(ringvisor) \x1b[J"));
        assert!(shown().contains("\r\nfake\r\n(ringvisor) "));
        typing.detach();
    });
}

#[test]
fn a_line_that_waits_holds_up_neither_main_nor_qmp() {
    stage(|stage| {
        let entered = stage.gate.watch();
        let mut client = stage.client();
        client.send(json!({"execute": "x-wait", "id": 1}).to_string());
        entered.recv().unwrap();
        // The lane of coroutine commands is taken: the line waits for it without a nested loop.
        let mut session = stage.monitor.hmp_session(Echo::Off);
        let (sender, receiver) = std::sync::mpsc::channel();
        let typing = stage.reactors.iohandler().spawn("typing", async move {
            sender.send(session.input(b"system_wakeup\n").await).unwrap();
        });
        let mut other = stage.client();
        assert_eq!(other.run("x-where"), json!("iohandler"));
        assert!(receiver.try_recv().is_err());
        stage.gate.open();
        assert_eq!(client.message(), json!({"return": "main", "id": 1}));
        assert!(receiver.recv().unwrap().starts_with(b"Error: Unable to wake up"));
        typing.detach();
    });
}

#[test]
fn hmp_is_served_on_a_socket() {
    stage(|stage| {
        let path = stage.path.with_file_name("hmp");
        stage.monitor.listen_hmp(&Endpoint::unix(&path)).unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"info name\nquit\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut output = String::new();
        stream.read_to_string(&mut output).unwrap();
        assert!(output.ends_with("(ringvisor) fake\r\n(ringvisor) (ringvisor) "), "{output}");
        assert_eq!(*stage.machine.quits.lock().unwrap(), 1);
    });
}
