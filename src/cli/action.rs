//! `-action`: what is done when the guest reboots, shuts down or panics.

use devices::keyval::KeyVal;
use monitor::registry::{At, Members, QapiStruct, Value};
use monitor::{ActionSet, SetAction};

/// Changes what `value` names. The words are those of `set-action`.
pub(super) fn parse(actions: &mut ActionSet, value: &str) -> Result<(), String> {
    let mut kv = KeyVal::parse("action", value, None)?;
    let mut members = Members::new();
    for member in SetAction::INFO.members {
        if let Some(word) = kv.take(member.name) {
            members.insert(member.name.to_owned(), Value::String(word));
        }
    }
    let changes = SetAction::read_members(members, At::Root)
        .map_err(|error| kv.error(&format!("{}; see: ringvisor -help", error.desc())))?;
    kv.finish("reboot, shutdown, panic, watchdog")?;
    actions.apply(&changes);
    Ok(())
}
