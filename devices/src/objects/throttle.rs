//! Limits of throughput: for each of six counts an average, a burst and the length of the burst.

use super::{Body, Objects};
use crate::block::graph::Limits;
use crate::error::CommandError;
use crate::qdev::value::{Properties, Syntax};
use serde_json::{Map, Value};

/// What no limit may exceed.
const VALUE_MAX: i64 = 1_000_000_000_000_000;

/// The members of `ThrottleLimits`.
pub const LIMITS: [&str; 19] = [
    "iops-total",
    "iops-total-max",
    "iops-total-max-length",
    "iops-read",
    "iops-read-max",
    "iops-read-max-length",
    "iops-write",
    "iops-write-max",
    "iops-write-max-length",
    "bps-total",
    "bps-total-max",
    "bps-total-max-length",
    "bps-read",
    "bps-read-max",
    "bps-read-max-length",
    "bps-write",
    "bps-write-max",
    "bps-write-max-length",
    "iops-size",
];

/// The value of a limit that is not given.
fn default(name: &str) -> i64 {
    i64::from(name.ends_with("-length"))
}

fn get(limits: &Map<String, Value>, name: &str) -> i64 {
    limits.get(name).and_then(Value::as_i64).unwrap_or_else(|| default(name))
}

/// Takes limits that are given one by one, as `x-iops-total`, out of the arguments of a group; `None`
/// where there are none.
pub(super) fn take_single(
    arguments: &mut Map<String, Value>,
    syntax: Syntax,
) -> Result<Option<Value>, CommandError> {
    let mut limits = Map::new();
    for name in LIMITS {
        let given = format!("x-{name}");
        let Some(value) = arguments.remove(&given) else { continue };
        let number = match (syntax, &value) {
            (Syntax::KeyVal, Value::String(text)) => text.parse().ok(),
            _ => value.as_i64(),
        };
        let number = number
            .ok_or_else(|| CommandError::generic(format!("Parameter '{given}' expects int64")))?;
        limits.insert(name.to_owned(), number.into());
    }
    Ok((!limits.is_empty()).then_some(Value::Object(limits)))
}

/// The group behind an object.
pub(super) fn make(
    objects: &Objects,
    id: &str,
    properties: &Properties,
) -> Result<Body, CommandError> {
    let limits = properties.json("limits").and_then(Value::as_object).cloned();
    let limits = Limits::parse(limits.unwrap_or_default())?;
    objects.throttle_groups.create(id, limits).map(Body::Throttle)
}

/// `limits` with what `wanted` says; what it does not say stays.
pub(super) fn change(limits: Limits, wanted: Option<&Value>) -> Result<Limits, CommandError> {
    let Value::Object(mut all) = limits.to_json() else { return Ok(limits) };
    if let Some(Value::Object(wanted)) = wanted {
        all.extend(wanted.clone());
    }
    Limits::parse(all)
}

/// Whether limits can be kept together. The errors are QEMU's.
pub(crate) fn check(limits: Option<&Value>) -> Result<(), CommandError> {
    let generic = |text: &str| Err(CommandError::generic(text));
    let Some(limits) = limits else { return Ok(()) };
    let Value::Object(limits) = limits else {
        return generic("Invalid parameter type for 'limits', expected: object");
    };
    for (name, value) in limits {
        if !LIMITS.contains(&name.as_str()) {
            return generic(&format!("Parameter 'limits.{name}' is unexpected"));
        }
        if value.as_i64().is_none() {
            let text = format!("Invalid parameter type for 'limits.{name}', expected: integer");
            return generic(&text);
        }
    }
    let value = |name: &str| get(limits, name);
    for count in ["bps", "iops"] {
        for suffix in ["", "-max"] {
            let of = |which: &str| value(&format!("{count}-{which}{suffix}")) != 0;
            if of("total") && (of("read") || of("write")) {
                return generic(
                    "bps/iops/max total values and read/write values cannot be used at the same time",
                );
            }
        }
    }
    let iops = ["iops-total", "iops-read", "iops-write"];
    if value("iops-size") != 0 && iops.iter().all(|name| value(name) == 0) {
        return generic("iops size requires an iops value to be set");
    }
    for name in LIMITS.iter().filter(|name| !name.contains("-max") && **name != "iops-size") {
        bucket(value(name), value(&format!("{name}-max")), value(&format!("{name}-max-length")))?;
    }
    Ok(())
}

fn bucket(average: i64, burst: i64, length: i64) -> Result<(), CommandError> {
    let sound = 0..=VALUE_MAX;
    let text = if !sound.contains(&average) || !sound.contains(&burst) {
        format!("bps/iops/max values must be within [0, {VALUE_MAX}]")
    } else if length == 0 {
        "the burst length cannot be 0".to_owned()
    } else if length > 1 && burst == 0 {
        "burst length set without burst rate".to_owned()
    } else if burst != 0 && average == 0 {
        "bps_max/iops_max require corresponding bps/iops values".to_owned()
    } else if burst != 0 && burst < average {
        "bps_max/iops_max cannot be lower than bps/iops".to_owned()
    } else {
        return Ok(());
    };
    Err(CommandError::generic(text))
}
