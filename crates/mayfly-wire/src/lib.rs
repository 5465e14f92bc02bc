//! Every byte between mayfly's processes.
//!
//! - [`api`]: the bodies of the HTTP API that the owner's side speaks.
//! - [`boot`]: what a machine finds when its worker starts.
//! - [`endpoint`]: where an orchestrator is reached.
//! - [`event`]: one record of a task's log, as clients read it.
//! - [`system`]: what virtual machines of this box start from.
//! - [`tunnel`]: what a tunnel on the user's machine and the orchestrator say to each other.
//! - [`worker`]: what a worker and the orchestrator say to each other.
//! - [`secret`]: a credential or token on its way, which no log can print.
//!
//! The types of `mayfly-core` are not serialised: they are mirrored here, so that a change of the wire shows
//! in this crate's snapshots and nowhere else. There is no I/O here.

pub mod api;
pub mod boot;
pub mod endpoint;
pub mod event;
pub mod secret;
pub mod system;
pub mod tunnel;
pub mod worker;

pub use endpoint::Endpoint;
pub use secret::Secret;
