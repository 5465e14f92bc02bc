//! The orchestrator without HTTP: submit, schedule, perform, ingest, reap.
//!
//! ```text
//! submit ──► store ◄── schedule: a free slot? claim the oldest task
//!              │
//!              ├─► effects ──► perform ──► provider
//!              │                  └─ done: forgotten together with the step it leads to
//!              ├─► heads ────► events: readers follow the log
//!              │        └────► limits: a clock for each running attempt
//!              └◄─ session: what a worker says, stored before it is acknowledged
//! ```
//!
//! Every change of a task is one call of the store, which writes the state, the effects and the events in one
//! commit; what follows from it (`Engine::follow_up`) can be done again after any failure, the engine's own death
//! included. Time comes from a [`Clock`], machines from a [`Provider`](mayfly_provider::Provider); nothing polls.
//!
//! Each machine has a door of its own to the orchestrator ([`Doors`]), which is there before the machine and goes
//! after it.
//!
//! - `submit`: what a task must look like. `schedule`: who gets the free slot. `perform`: effects.
//! - `session`: the link of one worker. `limits`: time that runs out. `reap`: machines that are lost, or nobody's.
//! - `checkpoints`: what is kept of a machine's work while it runs, and becomes of it.
//! - `events`: the log of a task as clients read it. `feed`: those of all tasks. `token`: what machines prove themselves with. `seal`: credentials at rest. `pool`: those with names.
//! - `resume`: a task that goes on where another ended.
//! - `spend`: what is used of model APIs. `prune`: what is old goes. `library`: what a task gets of it. `metrics`: what is counted.

mod checkpoints;
mod clock;
mod config;
mod doors;
mod egress;
mod engine;
mod events;
mod feed;
mod heads;
mod library;
mod limits;
mod metrics;
mod model;
mod perform;
mod pool;
mod prune;
mod reap;
mod resume;
mod schedule;
mod seal;
mod session;
mod setup;
mod shape;
mod spend;
mod submit;
mod token;
mod view;

pub use checkpoints::Checkpoints;
pub use clock::{Clock, SystemClock};
pub use config::{EngineConfig, Rules};
pub use doors::Doors;
pub use egress::{AllowError, Asked, read_rules};
pub use engine::{Engine, Found, StartError, TASKS_MAX};
pub use events::EventReader;
pub use feed::{Ahead, FeedReader};
pub use library::{
    EditError, KeepError, LibraryConfig, archive_of, begin_library, check_library, content_of,
    differences_of, library_of, problem_of, strays_told, wishes_in,
};
pub use mayfly_store::{FeedChunk, IngestError, Listing, LogError, Run, Store, StoreError, Used};
pub use model::{Denied, Gate, GateClosed, ModelAccess, NoModel};
pub use pool::{NoCredential, PoolError};
pub use resume::{ARTIFACTS, BUNDLE, TRANSCRIPT, WITHHELD, result_folder};
pub use session::{JoinError, Session};
pub use setup::{check_kept, check_setup};
pub use shape::check_shape;
pub use submit::{SubmitError, bundle_of, check_task};
