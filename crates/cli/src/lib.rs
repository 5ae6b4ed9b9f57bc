//! The `kho` command, which carries memory and state across kexec.
//!
//! The program is [`main`]. The other items are public for tests, fuzzers and packages. The interface is not stable.

#![warn(clippy::too_many_lines)]

// The first module, because the others use its macros.
#[macro_use]
mod output;

mod ahead;
pub mod args;
mod armed;
mod arrived;
pub mod carrier;
mod clock;
mod cmd;
pub mod enter;
mod entries;
mod exit;
#[cfg(test)]
mod failing_calls;
mod handover;
mod hash;
pub mod keepd;
mod kexec_target;
mod khofs;
mod last;
mod late;
mod list;
mod loaded;
mod lost;
mod map;
mod module;
mod mounts;
mod notify;
pub mod on_failure;
mod ordering;
mod privilege;
mod random;
mod release;
mod restore;
mod session;
mod shown;
pub mod state;
pub mod status;
mod systemd;
mod trace;
mod whole;

use clap::Parser;
use clap::error::ErrorKind;
use exit::{Fail, FailJson, Status};
use output::Output;
use std::process::ExitCode;

/// Parses the arguments, runs the verb, and reports the result.
pub fn main() -> ExitCode {
    // kexec(8) has other rules for its arguments than the other verbs, so `kho kexec` parses its own.
    if let Some(status) = cmd::kexec::called(std::env::args_os()) {
        return status;
    }
    if let Some(status) = cmd::generator::called(std::env::args_os()) {
        return status;
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            let asked = matches!(
                err.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            // With --json the error is JSON too, even if the other arguments could not be parsed.
            if !asked && std::env::args_os().any(|arg| arg == "--json") {
                let text = err.render().to_string();
                let what = text
                    .trim()
                    .strip_prefix("error: ")
                    .unwrap_or(&text)
                    .to_owned();
                let fail = Fail::new(Status::Usage, what).fix("kho --help");
                eprintln!(
                    "{}",
                    serde_json::json!(FailJson::new(&fail, output::take_warnings()))
                );
                return ExitCode::from(fail.status.code());
            }
            // If the reader has closed the output, no other place is left for the message.
            let _ = err.print();
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(Status::Usage.code())
            };
        }
    };
    let out = Output {
        json: cli.json,
        quiet: cli.quiet,
    };
    let done = run(cli, out).and_then(|()| match output::all_written() {
        true => Ok(()),
        false => Err(Fail::new(
            Status::Failed,
            "the result could not be written to standard output",
        )),
    });
    match done {
        Ok(()) => {
            out.last_warnings();
            ExitCode::SUCCESS
        }
        Err(fail) => {
            if out.json {
                eprintln!(
                    "{}",
                    serde_json::json!(FailJson::new(&fail, output::take_warnings()))
                );
            } else {
                eprintln!("kho: {fail}");
            }
            ExitCode::from(fail.status.code())
        }
    }
}

fn run(cli: args::Cli, out: Output) -> Result<(), Fail> {
    use args::Command;
    let session = session::Session::new(cli.state_dir);
    match &cli.command {
        Command::Doctor(args) => {
            kexec_target::warn_of_boot_entry(&session, out);
            cmd::doctor::run(args, &session, out)
        }
        Command::Keep(args) => cmd::keep::run(args, &session, out),
        Command::Plan(args) => cmd::plan::run(args, &session, out),
        Command::Load(args) => cmd::load::run(args, &session, out),
        Command::Capture(args) => cmd::capture::run(args, &session, out),
        Command::Kexec { args } => cmd::kexec::from_verb(args),
        Command::Exec(args) => cmd::exec::run(args.stale_ok, &session, out),
        Command::Reboot(args) => cmd::load::reboot(args, &session, out),
        Command::Unload { force } => cmd::load::unload(*force, &session, out),
        Command::Activate => cmd::module::activate(&session, out),
        Command::Abort => cmd::module::abort(&session, out),
        Command::Release { what } => cmd::module::release(what, &session, out),
        Command::Status {
            exit_statuses: true,
        } => cmd::status::exit_statuses(out),
        Command::Status { .. } => {
            kexec_target::warn_of_boot_entry(&session, out);
            cmd::status::run(&session, out)
        }
        Command::Restore(args) => cmd::restore::run(args, &session, out),
        Command::Trace(args) => cmd::trace::run(args, &session, out),
        Command::Log(args) => cmd::trace::log(args, &session, out),
        Command::Get { name } => cmd::get::run(name, &session, out),
        Command::Dump(args) => cmd::dump::run(args, &session, out),
        Command::Validate(args) => cmd::validate::run(args, &session, out),
        Command::Diff(args) => cmd::diff::run(args, &session, out),
        Command::Compat(args) => cmd::compat::run(args, out),
        Command::Initrd(args) => cmd::initrd::run(args, out),
    }
}
