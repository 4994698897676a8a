//! A QMP session of any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| monitor_fuzz::check(bytes));
