//! What a PCI function is beyond the registers that all functions have.

use super::config::ConfigSpace;

/// The device behind a function.
///
/// Calls come from vCPU threads and from `main`, several at once where nothing else is said, and
/// must not block. The accesses are 1, 2, 4 or 8 bytes, little endian.
pub trait PciDevice: Send + Sync {
    /// Fills `data` from `offset` into BAR `bar`. Never called for the MSI-X table or PBA.
    fn bar_read(&self, _bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    /// Takes `data` written at `offset` into BAR `bar`.
    fn bar_write(&self, _bar: usize, _offset: u64, _data: &[u8]) {}

    /// BAR `bar` decodes at `base` from now on, or (`None`) is about to stop decoding. Doorbells
    /// follow here. A move is a `None` and then a `Some`; calls for one function never overlap.
    fn bar_mapped(&self, _bar: usize, _base: Option<u64>) {}

    /// A guest reads `offset`, inside the range given to [`FunctionSpec::hook`]. Returns whether it
    /// filled `data`; if not, the registers answer.
    ///
    /// [`FunctionSpec::hook`]: super::FunctionSpec::hook
    fn config_read(&self, _regs: &ConfigSpace, _offset: u16, _data: &mut [u8]) -> bool {
        false
    }

    /// A guest wrote `data` at `offset`, reaching into the range given to [`FunctionSpec::hook`];
    /// the registers have taken it as their masks allow. Runs under the function's configuration
    /// lock: it may not write configuration space itself.
    ///
    /// [`FunctionSpec::hook`]: super::FunctionSpec::hook
    fn config_written(&self, _regs: &ConfigSpace, _offset: u16, _data: &[u8]) {}

    /// The Command register has a new value.
    fn command_changed(&self, _command: u16) {}

    /// MSI-X Enable has changed: from now on the function interrupts by message, or by INTx.
    fn msix_changed(&self, _enabled: bool) {}

    /// Ready when what accesses so far have begun is finished: a reset through a status register, say,
    /// that waits for requests in flight. A guest polls registers instead.
    fn poll_settled(&self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::task::Poll::Ready(())
    }

    /// Back to power-on state. The BARs no longer decode and MSI-X is off by now.
    fn reset(&self) {}
}
