//! One file for each verb.

pub(crate) mod claude_path;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod run;
pub(crate) mod serve;
