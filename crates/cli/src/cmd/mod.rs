//! The verbs.

pub mod doctor;
pub mod dump;
pub mod exec;
pub mod get;
pub mod keep;
pub mod load;
pub mod plan;
pub mod restore;
pub mod status;
