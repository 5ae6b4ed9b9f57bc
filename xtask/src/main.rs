//! Project tasks: everything here is started by `cargo xtask`.

mod bench;
mod book;
#[cfg(test)]
mod circles;
mod demo;
mod dist;
mod early;
mod fuzz;
#[cfg(test)]
mod map;
mod module;
mod peer_kernel;
#[cfg(test)]
mod proofs;
mod soak;
mod suites;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the kho project. Whatever a task needs and this machine lacks is installed, after saying so.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    #[command(subcommand)]
    Bench(bench::Task),
    Book(book::Arguments),
    Demo(demo::Arguments),
    Dist(dist::Arguments),
    EarlyRanges(early::Arguments),
    Fuzz(fuzz::Arguments),
    Module(module::Arguments),
    PeerKernel(peer_kernel::Arguments),
    Soak(soak::Arguments),
    Suites(suites::Arguments),
    Test(test::Arguments),
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Bench(task) => bench::run(&task),
        Task::Book(arguments) => book::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::EarlyRanges(arguments) => early::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Module(arguments) => module::run(&arguments),
        Task::PeerKernel(arguments) => peer_kernel::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Suites(arguments) => suites::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Vm(arguments) => vm::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
