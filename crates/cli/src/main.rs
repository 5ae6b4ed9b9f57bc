//! The `kho` command: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    kho_cli::main()
}
