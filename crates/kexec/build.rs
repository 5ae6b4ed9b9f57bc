//! Compiles the arrival program, a static executable without libc, so that it can be embedded.
//!
//! The compiler and linker that build this crate build the program too, for the target's own standard triple, into
//! `OUT_DIR`. For any target but Linux on x86_64 and arm64 the file is
//! empty.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const SOURCES: [&str; 9] = [
    "main.rs",
    "aarch64.rs",
    "carry.rs",
    "log.rs",
    "pass.rs",
    "root.rs",
    "sys.rs",
    "text.rs",
    "x86_64.rs",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo:rerun-if-changed=arrival/{source}");
    }
    let out = PathBuf::from(variable("OUT_DIR")).join("arrive");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|v| v == value);
    let arch = ["x86_64", "aarch64"];
    let known = arch.iter().any(|arch| is("CARGO_CFG_TARGET_ARCH", arch));
    if known && is("CARGO_CFG_TARGET_OS", "linux") {
        compile(&out);
    } else if let Err(error) = fs::write(&out, b"") {
        fail(&format!("cannot write {}: {error}", out.display()));
    }
}

fn compile(out: &Path) {
    let source = Path::new(&variable("CARGO_MANIFEST_DIR")).join("arrival/main.rs");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-name", "arrive", "--crate-type", "bin"])
        .arg("--target")
        .arg(variable("TARGET"))
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "debuginfo=0", "-C", "strip=symbols"])
        .args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static"])
        .args(["-C", "codegen-units=1"])
        // No build id: the bytes depend on nothing but the sources and the compiler.
        .args(["-C", "link-args=-nostartfiles -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noseparate-code"])
        // The program must not hold a path of the machine that built it.
        .arg(prefix_map())
        .arg("-o")
        .arg(out)
        .arg(source);
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|v| v == "musl") {
        // Without this option rustc links its own start files in spite of the linker's options.
        rustc.args(["-C", "link-self-contained=no"]);
    }
    // Flags for the crate (sanitizers, coverage) need a runtime that this program does not have.
    rustc
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    match rustc.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "compiling the arrival program failed ({status}): {rustc:?}"
        )),
        Err(error) => fail(&format!("cannot run {rustc:?}: {error}")),
    }
}

fn prefix_map() -> OsString {
    let mut option = OsString::from("--remap-path-prefix=");
    option.push(variable("CARGO_MANIFEST_DIR"));
    option.push("=kho-kexec");
    option
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| fail(&format!("{name} is not set: run this through cargo")))
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    exit(1)
}
