//! Tasks, attempts, events, effects and the tokens of owners in one SQLite file. The only crate that knows SQL.
//!
//! One thread writes. It takes every command that waits, carries each out in a savepoint of one transaction,
//! commits once, and only then answers: so what was answered is on the disk, and a hundred commands cost one
//! `fsync`. Reads have connections of their own and never wait for a writer.
//!
//! A task's state, the effects of a change and the events that tell of it are written together, so there is
//! no moment at which one is true without the others.
//!
//! - [`Store`]: what can be asked. `writer`: the thread. `schema`: the tables. `row`: how they read back.
//! - `change`: a state machine's step with all that belongs to it. `ingest`: what a machine says. `carries`: what waits of
//!   it. `usage`: what it uses.
//! - `owner_tokens`: who may come by the port. `pool`: the credentials that tasks use by their names.
//! - `egress`: where machines may go, and where they asked to go.
//! - `log`: how events are written, as the lines that clients read. `read`: how they are read.
//! - `tail`: the newest of them, in memory. `prune`: what is old goes.
//! - `checkpoints`: what was committed gets into the file itself.

mod carries;
mod change;
mod checkpoints;
mod desk;
mod egress;
mod error;
mod ingest;
mod locks;
mod log;
mod owner_tokens;
mod pool;
mod prune;
mod read;
mod readers;
mod row;
mod schema;
mod store;
mod tail;
mod usage;
mod writer;

pub use change::{Change, Changed};
pub use egress::{Allowing, Asked};
pub use error::StoreError;
pub use ingest::{IngestError, IngestRules, Ingested};
pub use owner_tokens::OwnerToken;
pub use pool::{Pooled, Sealed, Whose};
pub use prune::Named;
pub use read::{FeedChunk, LogError, Run};
pub use row::{AttemptRow, Resumed, TaskRow};
pub use store::{Bound, Listing, NewLock, NewTask, Performed, Store, Submitted};
pub use usage::{AttemptUsage, Used};
