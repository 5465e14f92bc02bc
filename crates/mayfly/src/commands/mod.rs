//! One file for each verb.

pub(crate) mod allow;
pub(crate) mod cancel;
pub(crate) mod claude_path;
pub(crate) mod credential;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod fly;
pub(crate) mod image;
pub(crate) mod library;
pub(crate) mod logs;
pub(crate) mod ps;
pub(crate) mod result;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod token;
pub(crate) mod tunnel;
