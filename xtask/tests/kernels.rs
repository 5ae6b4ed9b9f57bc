//! The modules are not built for kernels in which they cannot work, and the build says why.

use std::path::Path;
use std::process::{Command, Output};

/// Asks make what it would do for a kernel with this configuration.
fn make(config: &str) -> Output {
    let kernel = tempfile::tempdir().unwrap();
    let folder = kernel.path().join("include/config");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("auto.conf"), config).unwrap();
    Command::new("make")
        .arg("-C")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../module"))
        .args(["-n", "rust"])
        .arg(format!("KDIR={}", kernel.path().display()))
        .arg(format!("OUT={}", kernel.path().join("out").display()))
        .output()
        .unwrap()
}

#[test]
fn a_kernel_that_checks_indirect_calls_is_refused() {
    assert!(make("CONFIG_X86_64=y\n").status.success());
    for option in ["CONFIG_CFI", "CONFIG_CFI_CLANG"] {
        let output = make(&format!("CONFIG_X86_64=y\n{option}=y\n"));
        assert!(!output.status.success(), "{option}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("checks indirect calls"), "{said}");
    }
}
