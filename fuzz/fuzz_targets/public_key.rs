//! See `nightshift::fuzz`. As it is, and with its digests mended.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    nightshift::fuzz::run("public_key", data);
    let mut sealed = data.to_vec();
    nightshift::fuzz::reseal(&mut sealed);
    nightshift::fuzz::run("public_key", &sealed);
});
