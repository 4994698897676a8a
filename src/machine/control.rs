//! What monitors may do with the machine.

use super::Machine;
use monitor::event::{Powerdown, ShutdownCause};
use monitor::{BoxFuture, KvmInfo, QmpError, RunState};

impl monitor::Machine for Machine {
    fn name(&self) -> Option<String> {
        self.name.clone()
    }

    fn run_state(&self) -> RunState {
        self.run_state()
    }

    fn kvm(&self) -> KvmInfo {
        KvmInfo { present: true, enabled: true }
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.pause(RunState::Paused).await;
            Ok(())
        })
    }

    fn cont(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.resume().await;
            Ok(())
        })
    }

    fn system_reset(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.requests.reset(ShutdownCause::HostQmpSystemReset);
            Ok(())
        })
    }

    fn system_powerdown(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.board.pm.press_power_button();
            self.events.emit(&Powerdown {});
            Ok(())
        })
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.requests.exit(ShutdownCause::HostQmpQuit, 0);
            Ok(())
        })
    }
}
