//! Manual pages and completions, from the command line's own definition.

// The definition belongs to a program, not to a library: it is compiled here once more.
#[allow(dead_code, missing_docs)]
#[path = "../../../crates/cli/src/args.rs"]
mod args;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use super::deb::Package;

/// The command line's definition.
pub fn command() -> clap::Command {
    args::Cli::command()
}

/// Adds them.
pub fn add(package: &mut Package) -> Result<()> {
    let mut command = command();
    command.build();
    page(package, command.clone(), "kho")?;
    for verb in command.get_subcommands() {
        let name = format!("kho-{}", verb.get_name());
        page(package, verb.clone(), &name)?;
    }
    for (shell, path) in [
        (Shell::Bash, "usr/share/bash-completion/completions/kho"),
        (Shell::Zsh, "usr/share/zsh/vendor-completions/_kho"),
        (Shell::Fish, "usr/share/fish/vendor_completions.d/kho.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut args::Cli::command(), "kho", &mut text);
        package.file(path, 0o644, text);
    }
    Ok(())
}

fn page(package: &mut Package, command: clap::Command, name: &str) -> Result<()> {
    let mut text = Vec::new();
    // The date of a page would be that of its making.
    clap_mangen::Man::new(command)
        .title(name)
        .section("8")
        .date("")
        .manual("kho")
        .render(&mut text)?;
    package.gzip(&format!("usr/share/man/man8/{name}.8"), &text)
}
