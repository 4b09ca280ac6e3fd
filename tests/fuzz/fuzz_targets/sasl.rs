#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sluice::fuzz::sasl::check(input));
