//! khofs: a RAM file system whose files survive.

use super::Scenario;

/// Shell functions that the scripts of this file have.
const PRELUDE: &str = include_str!("khofs/prelude.sh");

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    KERNELS.into_iter().map(as_tmpfs).collect()
}

/// A test with khofs loaded in every kernel.
fn khofs(name: String, about: &str) -> Scenario {
    Scenario::new(name, about).kho_modules(&["kho", "khofs"])
}

fn script(text: &str) -> String {
    format!("{PRELUDE}\n{text}")
}

fn as_tmpfs(kernel: &'static str) -> Scenario {
    khofs(
        format!("khofs-behaves-{kernel}"),
        "the same operations on khofs and on tmpfs leave the same; limits, options, instances, memory given back",
    )
    .kernels(&[kernel])
    .first(&script(include_str!("khofs/behaves.sh")))
}
