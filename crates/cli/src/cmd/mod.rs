//! The verbs.

pub mod arm;
pub mod boot;
pub mod capture;
pub mod compat;
pub mod diff;
pub mod doctor;
pub mod dump;
pub mod exec;
pub mod get;
pub mod keep;
pub mod kexec;
pub mod load;
pub mod plan;
pub mod restore;
pub mod status;
pub mod validate;
