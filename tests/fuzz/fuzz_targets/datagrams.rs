//! libFuzzer's entry to [`fuzz::datagrams`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::datagrams(data));

#[cfg(not(fuzzing))]
fn main() -> Result<(), &'static str> {
    Err("this build can't fuzz; use `just fuzz datagrams SECONDS`")
}
