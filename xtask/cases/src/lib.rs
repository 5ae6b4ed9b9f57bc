//! The guest tests: scenarios with their scripts, suites of other projects, the soak, and the commands of the book.

#[cfg(test)]
mod coverage;
pub mod pages;
mod scenario;
pub mod scenarios;
pub mod soak;
mod stock;

pub use scenario::{Limits, Modules, Runs, Scenario, Scripts};
pub use stock::Stock;
