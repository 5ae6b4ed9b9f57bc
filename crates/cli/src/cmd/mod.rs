//! The verbs of the command, one module for each.

pub mod arm;
pub mod boot;
pub mod capture;
pub mod compat;
pub mod diff;
pub mod doctor;
pub mod dump;
pub mod exec;
pub mod generator;
pub mod get;
pub mod initrd;
pub mod keep;
pub mod kexec;
pub mod load;
pub mod module;
pub mod plan;
pub mod restore;
pub mod status;
pub mod trace;
pub mod validate;
