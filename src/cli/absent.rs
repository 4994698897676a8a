//! Options that name kinds of device of which there are none here.

/// Takes `value` where it asks for nothing.
pub(super) fn check(option: &str, value: &str) -> Result<(), String> {
    if value == "none" || (option == "audio" && value == "driver=none") {
        return Ok(());
    }
    let instead = match option {
        "display" => "; the console is the serial port",
        _ => "",
    };
    Err(format!("-{option} {value}: only none is there{instead}"))
}
