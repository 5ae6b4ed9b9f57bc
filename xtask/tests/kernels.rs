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

/// A module cannot export a name that the kernel exports: modpost refuses to build it. These are the names of
/// `include/linux/kexec_handover.h` and `include/linux/kho_radix_tree.h` of 7.3, up to the word that tells them apart.
#[test]
fn no_module_exports_a_name_of_a_kernel_with_kho_of_its_own() {
    const KERNELS: [&str; 13] = [
        "kho_add_subtree",
        "kho_alloc_preserve",
        "kho_is_enabled",
        "kho_memory_init",
        "kho_populate",
        "kho_preserve_",
        "kho_radix_",
        "kho_remove_subtree",
        "kho_restore_",
        "kho_retrieve_subtree",
        "kho_scratch",
        "kho_unpreserve_",
        "is_kho_boot",
    ];
    let glue = Path::new(env!("CARGO_MANIFEST_DIR")).join("../module/glue.c");
    let text = std::fs::read_to_string(glue).unwrap();
    let exports = text.split("EXPORT_SYMBOL_GPL(").skip(1);
    let names: Vec<_> = exports.filter_map(|rest| rest.split(')').next()).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let theirs = KERNELS.iter().any(|kernel| name.starts_with(kernel));
        assert!(!theirs, "kho.ko exports {name}");
    }
}
