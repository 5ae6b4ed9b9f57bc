//! One program for all targets: `KHO_FUZZ_TARGET` names the one to run; the rest are libFuzzer's options.

#![no_main]

use kho_fuzz::Target;
use std::sync::OnceLock;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("KHO_FUZZ_TARGET").unwrap_or_default();
        match Target::find(&name) {
            Some(target) => {
                let _ = TARGET.set(target);
            }
            None => {
                eprintln!("KHO_FUZZ_TARGET={name:?} is no target; fuzz-targets lists them");
                std::process::exit(2);
            }
        }
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
