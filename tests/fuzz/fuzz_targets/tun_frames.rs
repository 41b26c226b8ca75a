//! libFuzzer's entry to [`fuzz::tun_frames`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::tun_frames(data));

#[cfg(not(fuzzing))]
fn main() -> Result<(), &'static str> {
    Err("this build can't fuzz; use `just fuzz tun_frames SECONDS`")
}
