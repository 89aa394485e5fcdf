//! See `nightshift::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    nightshift::fuzz::run("signature", data);
});
