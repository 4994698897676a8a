//! The protocol itself.

use crate::machine::{Machine, RINGVISOR};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn endianness_is_answered_before_any_monitor_speaks() {
    let mut m = Machine::start(&[]);
    assert_eq!(m.ask("endianness"), "OK little");
}

#[test]
fn endianness_is_answered_under_preconfig() {
    let mut m = Machine::start(&["-preconfig"]);
    assert_eq!(m.ask("endianness"), "OK little");
    let mut qmp = m.qmp();
    qmp.execute("x-exit-preconfig");
    assert_eq!(qmp.execute("query-status")["status"], "running");
}

#[test]
fn port_reads_have_four_digits_at_least() {
    let mut m = Machine::start(&[]);
    m.outb(0x70, 0x0f);
    assert_eq!(m.ask("inb 0x70"), "OK 0x000f");
    assert_eq!(m.ask("inl 0xcf8"), "OK 0x0000");
    m.outl(0xcf8, 0x8000_abcd);
    assert_eq!(m.ask("inl 0xcf8"), "OK 0x8000abcd");
}

#[test]
fn unclaimed_ports_read_all_ones() {
    let mut m = Machine::start(&[]);
    for (line, reply) in [
        ("inb 0x1234", "OK 0x00ff"),
        ("inw 0x1234", "OK 0xffff"),
        ("inl 0x1234", "OK 0xffffffff"),
        ("outl 0x1234 0", "OK"),
        ("inl 0xffff", "OK 0xffffffff"),
    ] {
        assert_eq!(m.ask(line), reply, "{line}");
    }
}

#[test]
fn unclaimed_memory_reads_zero_and_takes_writes() {
    let mut m = Machine::start(&[]);
    m.writeq(0xe000_0000, u64::MAX);
    assert_eq!(m.readq(0xe000_0000), 0);
    assert_eq!(m.ask("read 0xe0000000 6"), "OK 0x000000000000");
    assert_eq!(m.readl(0xffff_ffff_ffff_fffe), 0);
}

#[test]
fn memory_reads_have_sixteen_digits() {
    let mut m = Machine::start(&[]);
    m.writeq(0x10_0000, 0x1234_5678_9abc_def0);
    assert_eq!(m.ask("readb 0x100000"), "OK 0x00000000000000f0");
    assert_eq!(m.ask("readw 0x100000"), "OK 0x000000000000def0");
    assert_eq!(m.ask("readl 0x100000"), "OK 0x000000009abcdef0");
    assert_eq!(m.ask("readq 0x100000"), "OK 0x123456789abcdef0");
}

#[test]
fn stores_take_the_low_bytes_of_their_value() {
    let mut m = Machine::start(&[]);
    m.writeq(0x10_0000, 0);
    m.ok("writeb 0x100000 0x1ff");
    m.ok("writew 0x100002 0x12345");
    m.ok("writel 0x100004 0x123456789");
    assert_eq!(m.readq(0x10_0000), 0x2345_6789_2345_00ff);
}

#[test]
fn block_reads_and_writes_are_bytes_in_order() {
    let mut m = Machine::start(&[]);
    m.write(0x10_0001, &[1, 2, 0xab]);
    assert_eq!(m.ask("read 0x100000 5"), "OK 0x000102ab00");
    m.ok("write 0x100000 4 0x0102");
    assert_eq!(m.ask("read 0x100000 5"), "OK 0x0102000000", "what is missing is zero");
    m.ok("write 0x100000 1 0x0a0b0c");
    assert_eq!(m.ask("read 0x100000 3"), "OK 0x0a0200", "what is too much is left out");
}

#[test]
fn base64_reads_and_writes() {
    let mut m = Machine::start(&[]);
    m.ok("b64write 0x100000 4 AQIDBA==");
    assert_eq!(m.ask("read 0x100000 5"), "OK 0x0102030400");
    assert_eq!(m.ask("b64read 0x100000 4"), "OK AQIDBA==");
    assert_eq!(m.ask("b64read 0x100000 3"), "OK AQID");
}

#[test]
fn memset_fills_any_length() {
    let mut m = Machine::start(&[]);
    m.ok("memset 0x100000 0 0x11");
    m.ok("memset 0x100000 0x300001 0x1a5");
    assert_eq!(m.readw(0x40_0000), 0x00a5);
    assert_eq!(m.readw(0x10_0000), 0xa5a5);
    m.ok("memset 0x100000 0x300001 0");
    assert_eq!(m.readq(0x3f_fffc), 0);
}

#[test]
fn a_megabyte_goes_in_one_command() {
    let mut m = Machine::start(&[]);
    let bytes: Vec<u8> = (0..1u32 << 20).map(|n| ((n * 7) >> 3) as u8).collect();
    m.write(0x20_0000, &bytes);
    assert!(m.read(0x20_0000, bytes.len()) == bytes);
}

#[test]
fn an_access_across_the_end_of_ram_is_split_there() {
    let mut m = Machine::start(&["-m", "64"]);
    m.write((64 << 20) - 2, &[1, 2, 3, 4]);
    assert_eq!(m.read((64 << 20) - 2, 4), [1, 2, 0, 0]);
}

#[test]
fn malformed_lines_get_an_error_and_the_session_goes_on() {
    let mut m = Machine::start(&[]);
    for line in [
        "outb",
        "outb 0x70",
        "outb zz 1",
        "inb 0x10000",
        "readb",
        "readb 0x1fffffffffffffffff",
        "read 0x1000",
        "read 0x1000 0",
        "read 0 0x7fffffffffffffff",
        "write 0 4",
        "write 0 4 0x",
        "b64write 0 4 A!!A",
        "b64read 0 x",
        "memset 0 4",
        "memset 0 0xffffffffffffffff 1",
        "clock_set",
        "clock_step soon",
        "irq_intercept_in",
        "set_irq_in ioapic",
        "set_irq_in ioapic unnamed-gpio-in 24 1",
        "set_irq_in ioapic other 1 1",
        "module_load x",
    ] {
        let reply = m.ask(line);
        assert!(reply.starts_with("ERR "), "{line}: {reply}");
    }
    assert_eq!(m.ask("endianness"), "OK little");
}

#[test]
fn unknown_commands_fail_by_name() {
    let mut m = Machine::start(&[]);
    assert_eq!(m.ask("fly"), "FAIL Unknown command 'fly'");
    assert_eq!(m.ask("OUTB 1 2"), "FAIL Unknown command 'OUTB'");
    assert_eq!(m.ask(""), "FAIL Unknown command ''");
    assert_eq!(m.ask(" endianness"), "FAIL Unknown command ''");
    assert_eq!(m.ask("module_load hw- x"), "FAIL");
}

#[test]
fn bytes_that_are_no_text_are_an_unknown_command() {
    let mut m = Machine::start(&[]);
    m.send(b"\xff\xfe\0\n");
    assert!(m.reply().starts_with("FAIL Unknown command"));
    assert_eq!(m.ask("endianness"), "OK little");
}

#[test]
fn a_line_that_never_ends_is_dropped() {
    let mut m = Machine::start(&[]);
    let chunk = vec![b'7'; 1 << 20];
    for _ in 0..20 {
        m.send(&chunk);
    }
    assert_eq!(m.ask(""), "ERR the line is too long");
    assert_eq!(m.ask("endianness"), "OK little");
}

#[test]
fn commands_may_be_sent_ahead() {
    let mut m = Machine::start(&[]);
    let pair = |n| format!("writel 0x100000 {n}\nreadl 0x100000\n");
    let lines = (0..5000).map(pair).collect::<Vec<_>>().concat();
    m.send(lines.as_bytes());
    for n in 0..5000 {
        assert_eq!(m.reply(), "OK");
        assert_eq!(m.reply(), format!("OK 0x{n:016x}"));
    }
}

#[test]
fn time_stands_still_until_it_is_stepped() {
    let mut m = Machine::start(&[]);
    assert_eq!(m.ask("clock_step 1000"), "OK 1000");
    assert_eq!(m.ask("clock_step 0x10"), "OK 1016");
    assert_eq!(m.ask("clock_set 5000000000"), "OK 5000000000");
    assert_eq!(m.ask("clock_step 1"), "OK 5000000001");
}

#[test]
fn time_does_not_go_back() {
    let mut m = Machine::start(&[]);
    m.step(1000);
    assert_eq!(m.ask("clock_set 100"), "FAIL 1000");
    assert_eq!(m.ask("clock_step -5"), "FAIL could not advance time");
    assert_eq!(m.ask("clock_step 0"), "FAIL could not advance time");
    assert_eq!(m.ask("clock_step 1"), "OK 1001");
}

#[test]
fn stepping_to_a_deadline_needs_one() {
    let mut m = Machine::start(&[]);
    let reply =
        "FAIL cannot advance clock to the next deadline because there is no pending deadline";
    assert_eq!(m.ask("clock_step"), reply);
}

#[test]
fn interrupt_inputs_are_told_once_they_are_watched() {
    let mut m = Machine::start(&[]);
    m.ok("set_irq_in ioapic unnamed-gpio-in 3 1");
    assert_eq!(m.irqs(), []);
    m.ok("irq_intercept_in ioapic");
    m.ok("irq_intercept_in ioapic");
    m.ok("set_irq_in ioapic unnamed-gpio-in 5 1");
    m.ok("set_irq_in ioapic unnamed-gpio-in 5 1");
    m.ok("set_irq_in ioapic unnamed-gpio-in 5 0");
    m.ok("set_irq_in ioapic unnamed-gpio-in 3 0");
    assert_eq!(m.irqs(), [(5, true), (5, false)]);
}

#[test]
fn the_line_of_an_interrupt_comes_before_the_reply_of_its_cause() {
    let mut m = Machine::start(&[]);
    m.ok("irq_intercept_in ioapic");
    m.send(b"set_irq_in ioapic unnamed-gpio-in 11 1\n");
    assert_eq!(m.line(), "IRQ raise 11");
    assert_eq!(m.line(), "OK");
}

#[test]
fn only_devices_that_are_there_can_be_watched() {
    let mut m = Machine::start(&[]);
    assert_eq!(m.ask("irq_intercept_in /machine/other"), "FAIL Unknown device");
    assert_eq!(m.ask("irq_intercept_out /machine/other"), "FAIL Unknown device");
    assert_eq!(m.ask("irq_intercept_out ioapic"), "FAIL No intercepts installed");
    assert_eq!(m.ask("set_irq_in /machine/other unnamed-gpio-in 1 1"), "FAIL Unknown device");
}

#[test]
fn the_log_tells_requests_and_replies() {
    let mut m = Machine::start(&[]);
    m.outb(0x70, 1);
    m.ask("fly");
    let log = m.log();
    m.until("a complete log", |_| {
        std::fs::read_to_string(&log).unwrap().contains("FAIL Unknown command 'fly'")
    });
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(lines, ["OPENED", "outb 0x70 0x1", "OK", "fly", "FAIL Unknown command 'fly'"]);
    assert!(text.starts_with("[I +0.0") && text.contains("\n[R +") && text.contains("\n[S +"));
}

#[test]
fn the_machine_stays_when_its_program_goes() {
    let mut m = Machine::start(&[]);
    m.ok("endianness");
    m.hang_up();
    assert_eq!(m.qmp().execute("query-status")["running"], true);
    m.signal(libc::SIGTERM);
    assert_eq!(m.finish(), 0);
}

#[test]
fn sigterm_and_quit_end_with_success() {
    let m = Machine::start(&[]);
    let mut qmp = m.qmp();
    m.signal(libc::SIGTERM);
    assert_eq!(qmp.wait_event("SHUTDOWN")["data"]["reason"], "host-signal");
    assert_eq!(m.finish(), 0);
    let m = Machine::start(&[]);
    m.qmp().execute("quit");
    assert_eq!(m.finish(), 0);
}

#[test]
fn it_may_be_started_by_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("qemu-system-x86_64");
    std::os::unix::fs::symlink(RINGVISOR, &link).unwrap();
    let mut m = Machine::start_as(&link, &[]);
    assert_eq!(m.ask("endianness"), "OK little");
}

#[test]
fn it_listens_where_it_is_told_to_and_serves_one_after_the_other() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = Command::new(RINGVISOR)
        .args(["-qtest", &format!("tcp:127.0.0.1:{port},server=on"), "-qtest-log", "none"])
        .args(["-accel", "qtest"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut m = Machine::start(&[]);
    for _ in 0..3 {
        let mut stream = None;
        m.until("a listening socket", |_| {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.write_all(b"endianness\n").unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "OK little\n");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_socket_that_nobody_listens_on_is_one_line() {
    let output = Command::new(RINGVISOR)
        .args(["-accel", "qtest", "-qtest", "unix:/nonexistent/socket"])
        // Without warnings of a host that was slow for a moment.
        .env("RINGVISOR_LOG", "error")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("-qtest unix:/nonexistent/socket: "), "{errors}");
    assert!(errors.contains("No such file or directory"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn it_is_spoken_on_a_character_device() {
    let mut child = Command::new(RINGVISOR)
        .args(["-chardev", "stdio,id=c", "-qtest", "chardev:c", "-qtest-log", "none"])
        .args(["-nodefaults", "-accel", "qtest"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"endianness\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "OK little\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn it_is_spoken_beside_processors_too() {
    if !testkit::kvm("it_is_spoken_beside_processors_too") {
        return;
    }
    let mut m = Machine::start(&["-accel", "kvm", "-nodefaults", "-S"]);
    assert_eq!(m.ask("endianness"), "OK little");
    assert_eq!(m.qmp().execute("query-kvm"), json!({"enabled": true, "present": true}));
    assert_eq!(crate::pci::Slot(0).read32(&mut m, 0), 0x1237_8086);
    m.writeq(0x70_0000, 0x0123_4567_89ab_cdef);
    assert_eq!(m.read(0x70_0000, 4), [0xef, 0xcd, 0xab, 0x89]);
    // Time is the host's.
    let reply = m.ask("clock_step 1");
    assert!(!reply.starts_with("OK"), "{reply}");
    assert_eq!(m.ask("endianness"), "OK little");
}

#[test]
fn accelerators_that_are_not_there_are_passed_over() {
    let mut m = Machine::start(&["-accel", "tcg"]);
    assert_eq!(m.ask("endianness"), "OK little");
    let mut m = Machine::start(&["-machine", "pc,accel=qtest"]);
    assert_eq!(m.ask("endianness"), "OK little");
}

#[test]
fn the_monitor_tells_of_a_running_machine_without_kvm() {
    let m = Machine::start(&["-smp", "2"]);
    let mut qmp = m.qmp();
    assert_eq!(qmp.execute("query-status"), json!({"running": true, "status": "running"}));
    assert_eq!(qmp.execute("query-kvm")["enabled"], false);
    let cpus = qmp.execute("query-cpus-fast");
    assert_eq!(cpus.as_array().unwrap().len(), 2);
    assert!(cpus[0]["thread-id"].as_i64().unwrap() > 0, "{cpus}");
    qmp.execute("stop");
    assert_eq!(qmp.execute("query-status")["status"], "paused");
    qmp.execute("cont");
    assert_eq!(qmp.execute("query-status")["status"], "running");
    qmp.execute("inject-nmi");
}

#[test]
fn paused_start_waits_for_cont() {
    let mut m = Machine::start(&["-S"]);
    let mut qmp = m.qmp();
    assert_eq!(qmp.execute("query-status")["status"], "prelaunch");
    assert_eq!(m.ask("endianness"), "OK little");
    qmp.execute("cont");
    assert_eq!(qmp.execute("query-status")["status"], "running");
}

#[test]
fn it_holds_no_kvm() {
    // What it does not hold open it does not need.
    let mut m = Machine::start(&[]);
    let maps = std::fs::read_dir(format!("/proc/{}/fd", m.pid())).unwrap();
    let open: Vec<_> = maps.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).collect();
    assert!(open.iter().all(|path| path != Path::new("/dev/kvm")), "{open:?}");
    assert_eq!(m.ask("endianness"), "OK little");
}

#[test]
fn both_sides_of_a_unix_socket_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let mut child = Command::new(RINGVISOR)
        .args(["-qtest", &format!("unix:{},server=on", path.display()), "-qtest-log", "none"])
        .args(["-accel", "qtest"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + crate::machine::PATIENCE;
    let stream = loop {
        match UnixStream::connect(&path) {
            Ok(stream) => break stream,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    };
    (&stream).write_all(b"inb 0x1234\n").unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "OK 0x00ff\n");
    child.kill().unwrap();
    child.wait().unwrap();
}
