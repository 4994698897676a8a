//! A machine under test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::Qmp;

pub const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// How long anything may take; far above what it does take, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where tests put what devices shall find, above what a PC uses itself.
const FREE_MEMORY: u64 = 0x10_0000;

/// A line of the protocol as an unasked-for message: input and level.
pub type Irq = (u32, bool);

/// The process and the connection to it.
pub struct Machine {
    child: Child,
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    irqs: VecDeque<Irq>,
    next_free: u64,
    dir: TempDir,
}

/// Waits for the process to connect to `listener`.
fn accept(listener: &UnixListener, child: &mut Child) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none() && Instant::now() < deadline, "no connection: {ended:?}");
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Machine {
    /// Starts a machine with `args`.
    pub fn start(args: &[&str]) -> Self {
        Self::start_as(
            Path::new(RINGVISOR),
            &args.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
    }

    /// Starts `program`, which is ringvisor by some name.
    pub fn start_as(program: &Path, args: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qtest");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut child = Command::new(program)
            .args(["-qtest", &format!("unix:{}", socket.display())])
            .arg("-qtest-log")
            .arg(dir.path().join("log"))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", dir.path().join("qmp").display()))
            .args(["-display", "none"])
            .args(args)
            .args(["-accel", "qtest"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stream = accept(&listener, &mut child);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { child, stream, reader, irqs: VecDeque::new(), next_free: FREE_MEMORY, dir }
    }

    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log of the protocol.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// A negotiated session with the monitor.
    pub fn qmp(&self) -> Qmp {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Qmp::connect(&self.dir.path().join("qmp")) {
                Ok(qmp) => return qmp,
                Err(error) => assert!(Instant::now() < deadline, "no QMP session: {error}"),
            }
            std::thread::yield_now();
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the process answers");
        assert!(line.ends_with('\n'), "the session has ended after {line:?}");
        line.pop();
        line
    }

    /// The next reply; interrupt lines that come before it are kept.
    pub fn reply(&mut self) -> String {
        loop {
            let line = self.line();
            match irq(&line) {
                Some(irq) => self.irqs.push_back(irq),
                None => return line,
            }
        }
    }

    /// Sends a line and returns its reply.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes());
        self.reply()
    }

    /// Sends a line that must succeed; returns what follows `OK`.
    pub fn ok(&mut self, line: &str) -> String {
        let reply = self.ask(line);
        let rest = reply.strip_prefix("OK").unwrap_or_else(|| panic!("{line}: {reply}"));
        rest.trim_start().to_owned()
    }

    fn number(&mut self, line: &str) -> u64 {
        let text = self.ok(line);
        let hex = text.strip_prefix("0x").unwrap_or_else(|| panic!("{line}: {text}"));
        u64::from_str_radix(hex, 16).unwrap()
    }

    /// The next interrupt line.
    pub fn next_irq(&mut self) -> Irq {
        if let Some(irq) = self.irqs.pop_front() {
            return irq;
        }
        let line = self.line();
        irq(&line).unwrap_or_else(|| panic!("not an interrupt: {line}"))
    }

    /// Interrupt lines that have come by now.
    pub fn irqs(&mut self) -> Vec<Irq> {
        self.ok("endianness");
        self.irqs.drain(..).collect()
    }

    pub fn outb(&mut self, port: u16, value: u8) {
        self.ok(&format!("outb {port:#x} {value:#x}"));
    }

    pub fn outw(&mut self, port: u16, value: u16) {
        self.ok(&format!("outw {port:#x} {value:#x}"));
    }

    pub fn outl(&mut self, port: u16, value: u32) {
        self.ok(&format!("outl {port:#x} {value:#x}"));
    }

    pub fn inb(&mut self, port: u16) -> u8 {
        self.number(&format!("inb {port:#x}")) as u8
    }

    pub fn inw(&mut self, port: u16) -> u16 {
        self.number(&format!("inw {port:#x}")) as u16
    }

    pub fn inl(&mut self, port: u16) -> u32 {
        self.number(&format!("inl {port:#x}")) as u32
    }

    pub fn writeb(&mut self, address: u64, value: u8) {
        self.ok(&format!("writeb {address:#x} {value:#x}"));
    }

    pub fn writew(&mut self, address: u64, value: u16) {
        self.ok(&format!("writew {address:#x} {value:#x}"));
    }

    pub fn writel(&mut self, address: u64, value: u32) {
        self.ok(&format!("writel {address:#x} {value:#x}"));
    }

    pub fn writeq(&mut self, address: u64, value: u64) {
        self.ok(&format!("writeq {address:#x} {value:#x}"));
    }

    pub fn readb(&mut self, address: u64) -> u8 {
        self.number(&format!("readb {address:#x}")) as u8
    }

    pub fn readw(&mut self, address: u64) -> u16 {
        self.number(&format!("readw {address:#x}")) as u16
    }

    pub fn readl(&mut self, address: u64) -> u32 {
        self.number(&format!("readl {address:#x}")) as u32
    }

    pub fn readq(&mut self, address: u64) -> u64 {
        self.number(&format!("readq {address:#x}"))
    }

    /// `len` bytes of memory.
    pub fn read(&mut self, address: u64, len: usize) -> Vec<u8> {
        let text = self.ok(&format!("read {address:#x} {len:#x}"));
        let digits = text.as_bytes()[2..].chunks_exact(2);
        digits.map(|d| u8::from_str_radix(str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    /// Puts bytes into memory.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        self.ok(&format!("write {address:#x} {:#x} 0x{digits}", bytes.len()));
    }

    /// Steps the clock; the time it is then.
    pub fn step(&mut self, ns: u64) -> u64 {
        self.ok(&format!("clock_step {ns}")).parse().unwrap()
    }

    /// Waits until a device waits for a moment, and goes there; the time it is then.
    pub fn next_deadline(&mut self) -> u64 {
        let mut reply = String::new();
        self.until("a deadline", |m| {
            reply = m.ask("clock_step");
            reply.starts_with("OK")
        });
        reply["OK ".len()..].parse().unwrap()
    }

    /// `len` bytes of memory that nothing else uses, zeroed, at a multiple of 4096.
    pub fn alloc(&mut self, len: u64) -> u64 {
        let at = self.next_free;
        self.next_free = (at + len).next_multiple_of(4096);
        at
    }

    /// Reads until `done` says so.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "never: {what}");
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) takes no pointer; the child has not been waited for, so its number is its own.
        let result = unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        assert_eq!(result, 0, "the process is there");
    }

    /// Closes the connection.
    pub fn hang_up(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Waits for the end of the process, which must have printed nothing on stdout; its exit status.
    pub fn finish(mut self) -> i32 {
        let mut printed = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "");
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Gone already, at times.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn irq(line: &str) -> Option<Irq> {
    let (level, number) = line.strip_prefix("IRQ ")?.split_once(' ')?;
    Some((number.parse().ok()?, level == "raise"))
}
