//! The control queue: task management functions and asynchronous notifications
//! (section 5.6.6.2).

use super::VirtioScsi;
use super::order::{Deed, Order, Scope};
use super::request::{Response, address};
use crate::block::Segments;
use crate::scsi::{Address, Attention, Found};
use crate::virtio::chain::Chains;
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::{ChainFault, Gathered};
use crate::virtio::serve::{QueueWork, Ring};
use reactor::sync::oneshot;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

const TMF: u32 = 0;
const AN_QUERY: u32 = 1;
const AN_SUBSCRIBE: u32 = 2;
/// Bytes of a task management request, and of one about notifications.
const TMF_BYTES: usize = 24;
const AN_BYTES: usize = 16;
/// Bytes of the answers.
const TMF_ANSWER: u64 = 1;
const AN_ANSWER: u64 = 5;

/// Task management functions (SAM-5, section 7).
mod function {
    pub(super) const ABORT_TASK: u32 = 0;
    pub(super) const ABORT_TASK_SET: u32 = 1;
    pub(super) const CLEAR_TASK_SET: u32 = 3;
    pub(super) const I_T_NEXUS_RESET: u32 = 4;
    pub(super) const LOGICAL_UNIT_RESET: u32 = 5;
    pub(super) const QUERY_TASK: u32 = 6;
    pub(super) const QUERY_TASK_SET: u32 = 7;
}

/// A function that the request queues carry out.
struct Running {
    head: u16,
    slot: usize,
    answer_at: u64,
    deed: Deed,
    /// What is reset when the tasks have ended, and how that is told.
    reset: Option<(Scope, Attention)>,
    done: oneshot::Receiver<bool>,
}

/// See the module.
pub(super) struct Control {
    device: Arc<VirtioScsi>,
    chains: Chains,
    running: Vec<Running>,
}

/// What becomes of a control request.
enum Action {
    /// It is answered with these bytes.
    Answer([u8; 5], u64),
    Order {
        scope: Scope,
        deed: Deed,
        reset: Option<Attention>,
    },
}

fn responds(response: Response) -> Action {
    Action::Answer([response as u8, 0, 0, 0, 0], TMF_ANSWER)
}

impl Control {
    pub(super) fn new(device: Arc<VirtioScsi>, setup: &QueueSetup) -> Self {
        Self { chains: Chains::new(setup), running: Vec::new(), device }
    }
}

impl VirtioScsi {
    /// What a control request asks for.
    fn control_action(&self, found: &Gathered, list: &Segments<'_>) -> Result<Action, ChainFault> {
        let mut bytes = [0; TMF_BYTES];
        let n = list.copy_to(&mut bytes[..(found.readable as usize).min(TMF_BYTES)]);
        let [t0, t1, t2, t3, rest @ ..] = bytes;
        let (needed, answer) = match u32::from_le_bytes([t0, t1, t2, t3]) {
            TMF => (TMF_BYTES, TMF_ANSWER),
            AN_QUERY | AN_SUBSCRIBE => (AN_BYTES, AN_ANSWER),
            // Of a later version of the specification: given back with nothing in it.
            _ if n >= 4 => return Ok(Action::Answer([0; 5], 0)),
            _ => return Err(ChainFault::Incomplete),
        };
        if n < needed || found.writable < answer || found.overflow {
            return Err(ChainFault::Incomplete);
        }
        if answer == AN_ANSWER {
            let [lun @ .., _, _, _, _, _, _, _, _, _, _, _, _] = rest;
            return Ok(self.notification(lun));
        }
        let [s0, s1, s2, s3, rest @ ..] = rest;
        let [l0, l1, l2, l3, l4, l5, l6, l7, id @ ..] = rest;
        let function = u32::from_le_bytes([s0, s1, s2, s3]);
        let lun = [l0, l1, l2, l3, l4, l5, l6, l7];
        Ok(self.manage(function, lun, u64::from_le_bytes(id)))
    }

    /// Whether there is such a unit.
    fn check_address(&self, address: Option<Address>) -> Result<Address, Response> {
        let address = address.ok_or(Response::BadTarget)?;
        match self.bus.find(address) {
            Found::Unit(_) => Ok(address),
            Found::Target => Err(Response::IncorrectLun),
            Found::Nothing => Err(Response::BadTarget),
        }
    }

    /// No unit notifies by itself of events; media events are polled for.
    fn notification(&self, lun: [u8; 8]) -> Action {
        let response = self.check_address(address(lun)).err().unwrap_or(Response::Ok);
        Action::Answer([0, 0, 0, 0, response as u8], AN_ANSWER)
    }

    fn manage(&self, function: u32, lun: [u8; 8], id: u64) -> Action {
        let address = match (self.check_address(address(lun)), function) {
            (Ok(address), _) => address,
            // Of the target, whatever unit is named.
            (Err(Response::IncorrectLun), function::I_T_NEXUS_RESET) => {
                Address { target: lun[1], lun: 0 }
            }
            (Err(response), _) => return responds(response),
        };
        let unit = Scope::Unit(address);
        let order = |scope, deed| Action::Order { scope, deed, reset: None };
        let reset = |scope, attention| {
            let deed = Deed::End(Response::Reset);
            Action::Order { scope, deed, reset: Some(attention) }
        };
        match function {
            function::ABORT_TASK => order(Scope::Task(address, id), Deed::End(Response::Aborted)),
            function::ABORT_TASK_SET | function::CLEAR_TASK_SET => {
                order(unit, Deed::End(Response::Aborted))
            }
            function::QUERY_TASK => order(Scope::Task(address, id), Deed::Query),
            function::QUERY_TASK_SET => order(unit, Deed::Query),
            function::LOGICAL_UNIT_RESET => reset(unit, Attention::DeviceReset),
            function::I_T_NEXUS_RESET => reset(Scope::Target(address.target), Attention::NexusLoss),
            // CLEAR ACA: there is no ACA.
            _ => responds(Response::FunctionRejected),
        }
    }
}

impl Control {
    /// The request queues have done what `running` asks for.
    fn finish(&mut self, ring: &mut Ring, running: &Running, found: bool) {
        if let Some((scope, attention)) = running.reset {
            for member in self.device.bus.select(|address| scope.has_unit(address)) {
                member.unit.reset(attention);
            }
        }
        let succeeded = running.deed == Deed::Query && found;
        let response = if succeeded { Response::FunctionSucceeded } else { Response::Ok };
        let answer = [response as u8];
        self.chains.list(running.slot).write_at(running.answer_at, &answer);
        self.chains.free(running.slot);
        ring.metrics.request(true);
        if let Err(fault) = ring.queue.push_used(running.head, answer.len() as u32) {
            ring.fail(&fault);
        }
    }
}

impl QueueWork for Control {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some((slot, found)) = self.chains.take(ring)? else { return Ok(false) };
        match self.device.control_action(&found, &self.chains.list(slot))? {
            Action::Answer(bytes, n) => {
                let bytes = &bytes[..n as usize];
                self.chains.list(slot).write_at(found.readable, bytes);
                self.chains.free(slot);
                ring.metrics.request(true);
                ring.queue.push_used(found.head, bytes.len() as u32)?;
            }
            Action::Order { scope, deed, reset } => {
                let (order, done) = Order::new(scope, deed);
                self.device.orders.post(&order);
                drop(order);
                self.running.push(Running {
                    head: found.head,
                    slot,
                    answer_at: found.readable,
                    deed,
                    reset: reset.map(|attention| (scope, attention)),
                    done,
                });
            }
        }
        Ok(true)
    }

    fn poll_finished(&mut self, ring: &mut Ring, cx: &mut Context<'_>) {
        let mut at = 0;
        while let Some(running) = self.running.get_mut(at) {
            match Pin::new(&mut running.done).poll(cx) {
                Poll::Ready(found) => {
                    let running = self.running.swap_remove(at);
                    self.finish(ring, &running, found.unwrap_or(false));
                }
                Poll::Pending => at += 1,
            }
        }
    }

    fn poll_paused(&mut self, ring: &mut Ring, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_finished(ring, cx);
        if self.running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_stopped(&mut self, _: &mut Context<'_>) -> Poll<()> {
        self.running.clear();
        Poll::Ready(())
    }
}
