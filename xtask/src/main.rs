//! Project tasks: everything here is started by `cargo xtask`.

mod bench;
mod book;
mod cache;
#[cfg(test)]
mod circles;
mod cpio;
mod deb;
mod demo;
mod dist;
mod early;
mod fuzz;
mod guest;
mod host;
mod kernel;
mod lab;
mod module;
mod proofs;
mod qemu;
mod scenarios;
mod soak;
mod suites;
mod system;
mod test;
mod vm;
mod workspace;

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
    PeerKernel(kernel::peer::Arguments),
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
        Task::PeerKernel(arguments) => kernel::peer::run(&arguments),
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
