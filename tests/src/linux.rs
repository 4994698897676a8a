//! The Linux guest of `tests/linux`, driven over its console and QMP.

use crate::{Finished, Qmp, Vmm};
use std::path::PathBuf;
use std::time::Duration;

/// What the guest's kernel has to leave alone on hosts without VMX/SVM; harmless elsewhere. Kernel
/// messages stay in the kernel's log, so that they do not cut into the output of commands.
const ARGUMENTS: &str = "console=ttyS0 quiet no_timer_check noxsave tsc=reliable clearcpuid=smap,smep,popcnt,fsgsbase,\
    rdrand,rdseed,rdpid,rdtscp,umip,clwb,clflushopt,fsrm,erms";

/// What the guest's init prints ahead of the first command.
const READY: &str = "ringvisor-linux: commands\r\n";

/// What the guest's init puts behind each command.
const STATUS: &str = "ringvisor-linux: status ";
const END: &str = "ringvisor-linux: end\r\n";

/// Where `tests/linux/run.sh` has put the guest.
#[derive(Debug)]
pub struct LinuxImages {
    /// The kernel, an ELF file.
    pub kernel: String,
    /// The initramfs.
    pub initrd: String,
}

impl LinuxImages {
    /// Those that the environment names.
    ///
    /// # Panics
    /// Where it names none.
    pub fn from_environment() -> Self {
        let variable = |name| {
            std::env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set; run tests/linux/run.sh"))
        };
        Self {
            kernel: variable("RINGVISOR_LINUX_KERNEL"),
            initrd: variable("RINGVISOR_LINUX_INITRD"),
        }
    }

    /// The arguments that boot it; `word` says what its init does.
    pub fn arguments(&self, word: &str) -> Vec<String> {
        let append = format!("{ARGUMENTS} {word}");
        ["-kernel", &self.kernel, "-initrd", &self.initrd, "-append", &append, "-nographic"]
            .map(str::to_owned)
            .to_vec()
    }
}

/// A Linux guest that waits for commands on its console.
pub struct LinuxGuest {
    vmm: Vmm,
    qmp: Qmp,
    commands: usize,
    boots: usize,
}

impl LinuxGuest {
    /// How long anything in a guest may take. Where its kernel is interpreted, a boot takes more than a
    /// minute of a core that may be shared by many.
    pub const PATIENCE: Duration = Duration::from_secs(1800);

    /// Boots the guest with `args` besides, and waits until it takes commands. What its console
    /// prints is in `log` at the end, however the test ends.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn boot(program: &str, log: PathBuf, args: &[&str]) -> Self {
        let images = LinuxImages::from_environment();
        let own = images.arguments("rv.commands");
        let mut all: Vec<&str> = own.iter().map(String::as_str).collect();
        all.extend(["-m", "256"]);
        all.extend(args);
        let mut vmm = Vmm::start(program, &all);
        vmm.keep_console(log);
        vmm.set_patience(Self::PATIENCE);
        let mut qmp = vmm.qmp();
        qmp.set_patience(Self::PATIENCE);
        vmm.wait_for(READY);
        Self { vmm, qmp, commands: 0, boots: 1 }
    }

    /// The monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The process.
    pub fn vmm(&self) -> &Vmm {
        &self.vmm
    }

    /// Starts a line of shell in the guest, without waiting for its end; [`LinuxGuest::finish_line`] does.
    pub fn start_line(&mut self, line: &str) {
        self.vmm.type_in(&format!("{line}\n"));
        self.commands += 1;
    }

    /// Waits for the line that was started last; returns its exit status and its output.
    ///
    /// # Panics
    /// When it does not end.
    pub fn finish_line(&mut self) -> (i32, String) {
        self.vmm.wait_for_count(END, self.commands);
        let console = self.vmm.console();
        let text = console.split(END).nth(self.commands - 1).unwrap_or_default();
        // What the guest has printed ahead of the first command is not its output.
        let text = text.rsplit(READY).next().unwrap_or_default();
        let (output, status) = text.rsplit_once(STATUS).unwrap_or((text, ""));
        (status.trim().parse().unwrap_or(-1), output.replace('\r', ""))
    }

    /// Runs a line of shell in the guest; returns its exit status and its output.
    ///
    /// # Panics
    /// When it does not end.
    pub fn try_run(&mut self, line: &str) -> (i32, String) {
        self.start_line(line);
        self.finish_line()
    }

    /// Runs a line that must succeed; returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&mut self, line: &str) -> String {
        let (status, output) = self.try_run(line);
        if status != 0 {
            self.vmm.fail(&format!("{line:?} in the guest: exit status {status}\n{output}"));
        }
        output
    }

    /// Waits until the guest's kernel has said `text` so many times since it was booted. The guest
    /// sleeps until its kernel says something.
    ///
    /// # Panics
    /// When it never does.
    pub fn wait_kernel(&mut self, text: &str, count: usize) {
        self.run(&format!("grep -F -m {count} '{text}' /dev/kmsg >/dev/null"));
    }

    /// What the kernel has said since the last call, or since it was booted.
    ///
    /// # Panics
    /// When the guest does not answer.
    pub fn kernel_log(&mut self) -> String {
        self.run("dmesg -c")
    }

    /// Has the guest reboot, and waits until it takes commands again.
    ///
    /// # Panics
    /// When it does not.
    pub fn reboot(&mut self) {
        self.vmm.type_in("finish reboot\n");
        let reset = self.qmp.wait_event("RESET");
        assert_eq!(reset["data"]["reason"], "guest-reset", "{reset}");
        self.boots += 1;
        self.vmm.wait_for_count(READY, self.boots);
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it does not end.
    pub fn finish(self) -> Finished {
        self.vmm.finish()
    }

    /// Ends the guest by its own power-off.
    ///
    /// # Panics
    /// When the process does not end.
    pub fn power_off(mut self) -> Finished {
        self.vmm.type_in("finish poweroff\n");
        self.vmm.finish()
    }
}
