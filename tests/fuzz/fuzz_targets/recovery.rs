#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sluice_queue::fuzz::recovery::check(input));
