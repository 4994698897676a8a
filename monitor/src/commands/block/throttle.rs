//! `block_set_io_throttle`.

use super::graph;
use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry, Value};
use devices::block::graph::Limits;
use serde_json::Map;

qapi_struct! {
    /// Limits of the throughput of a device; 0: none.
    pub struct BlockIOThrottle {
        /// The drive.
        pub device: Option<String> = "device",
        /// The id or path of the device.
        pub id: Option<String> = "id",
        /// Bytes a second.
        pub bps: i64 = "bps",
        /// Bytes read a second.
        pub bps_rd: i64 = "bps_rd",
        /// Bytes written a second.
        pub bps_wr: i64 = "bps_wr",
        /// Requests a second.
        pub iops: i64 = "iops",
        /// Reads a second.
        pub iops_rd: i64 = "iops_rd",
        /// Writes a second.
        pub iops_wr: i64 = "iops_wr",
        /// Bytes a second in a burst.
        pub bps_max: Option<i64> = "bps_max",
        /// Bytes read a second in a burst.
        pub bps_rd_max: Option<i64> = "bps_rd_max",
        /// Bytes written a second in a burst.
        pub bps_wr_max: Option<i64> = "bps_wr_max",
        /// Requests a second in a burst.
        pub iops_max: Option<i64> = "iops_max",
        /// Reads a second in a burst.
        pub iops_rd_max: Option<i64> = "iops_rd_max",
        /// Writes a second in a burst.
        pub iops_wr_max: Option<i64> = "iops_wr_max",
        /// Seconds that a burst of bytes may last.
        pub bps_max_length: Option<i64> = "bps_max_length",
        /// Seconds that a burst of bytes read may last.
        pub bps_rd_max_length: Option<i64> = "bps_rd_max_length",
        /// Seconds that a burst of bytes written may last.
        pub bps_wr_max_length: Option<i64> = "bps_wr_max_length",
        /// Seconds that a burst of requests may last.
        pub iops_max_length: Option<i64> = "iops_max_length",
        /// Seconds that a burst of reads may last.
        pub iops_rd_max_length: Option<i64> = "iops_rd_max_length",
        /// Seconds that a burst of writes may last.
        pub iops_wr_max_length: Option<i64> = "iops_wr_max_length",
        /// Bytes of a request that counts as one.
        pub iops_size: Option<i64> = "iops_size",
        /// With whom it shares the limits; alone when absent.
        pub group: Option<String> = "group",
    }
}

impl BlockIOThrottle {
    /// Averages only, in the order of the members.
    pub(crate) fn averages(
        device: String,
        [bps, bps_rd, bps_wr, iops, iops_rd, iops_wr]: [i64; 6],
    ) -> Self {
        Self {
            device: Some(device),
            id: None,
            bps,
            bps_rd,
            bps_wr,
            iops,
            iops_rd,
            iops_wr,
            bps_max: None,
            bps_rd_max: None,
            bps_wr_max: None,
            iops_max: None,
            iops_rd_max: None,
            iops_wr_max: None,
            bps_max_length: None,
            bps_rd_max_length: None,
            bps_wr_max_length: None,
            iops_max_length: None,
            iops_rd_max_length: None,
            iops_wr_max_length: None,
            iops_size: None,
            group: None,
        }
    }

    /// As the graph takes them.
    fn limits(&self) -> Result<Limits, QmpError> {
        let counts = [
            ("bps-total", self.bps, self.bps_max, self.bps_max_length),
            ("bps-read", self.bps_rd, self.bps_rd_max, self.bps_rd_max_length),
            ("bps-write", self.bps_wr, self.bps_wr_max, self.bps_wr_max_length),
            ("iops-total", self.iops, self.iops_max, self.iops_max_length),
            ("iops-read", self.iops_rd, self.iops_rd_max, self.iops_rd_max_length),
            ("iops-write", self.iops_wr, self.iops_wr_max, self.iops_wr_max_length),
        ];
        let mut members = Map::new();
        let mut set = |name: String, value: Option<i64>| {
            if let Some(value) = value {
                members.insert(name, Value::from(value));
            }
        };
        for (name, average, burst, length) in counts {
            set(name.to_owned(), Some(average));
            set(format!("{name}-max"), burst);
            set(format!("{name}-max-length"), length);
        }
        set("iops-size".to_owned(), self.iops_size);
        Ok(Limits::parse(members)?)
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::coroutine(
        "block_set_io_throttle",
        "Limits the throughput of a device that stores.",
        set_io_throttle,
    ));
}

pub(crate) async fn set_io_throttle(env: Env, asked: BlockIOThrottle) -> Result<(), QmpError> {
    let graph = graph(&env)?;
    let device = graph.contents().device(asked.device.as_deref(), asked.id.as_deref())?;
    let backend = &device.backend;
    if backend.root().is_none() {
        return Err(QmpError::generic("Device has no medium"));
    }
    graph.throttle(backend, asked.group.as_deref(), asked.limits()?);
    Ok(())
}
