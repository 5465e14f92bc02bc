//! What mayfly decides, without doing any of it.
//!
//! No socket, clock, lock, file or random number is in this crate: the caller brings events in and
//! performs the effects that come out; what is read is the caller's to open. So each rule is here once, and its tests are
//! exhaustive.
//!
//! - [`id`]: how tasks and attempts are named.
//! - [`task`]: the state machine of one task.
//! - [`outcome`]: the ways a task can end.
//! - [`policy`]: how many at once, and when an attempt is worth another try, and how soon.
//! - [`answers`]: how long the model's answers to an agent may be.
//! - [`host`]: where a machine may go, by name; [`egress`]: what is decided when it asks.
//! - [`prices`]: what models cost, by a table.
//! - [`redact`]: how configured secrets are taken out of what is stored or shown.
//! - [`unfold`]: what a commit comes to when it is checked out.
//! - [`sha256_of`](sha256_of()): the name of what is named by its content.
//! - [`amount`](amount()): how many bytes there are, for people.
//! - [`causes`](causes()): an error with all its causes, in one line.

mod amount;
pub mod answers;
mod causes;
pub mod egress;
pub mod host;
pub mod id;
pub mod outcome;
pub mod policy;
pub mod prices;
pub mod redact;
mod sha256;
pub mod task;
pub mod unfold;

pub use amount::amount;
pub use answers::AnswerBounds;
pub use causes::causes;
pub use id::{AttemptId, TaskId};
pub use outcome::{Failure, Outcome};
pub use policy::{Chances, Earlier, Policy};
pub use prices::Prices;
pub use redact::{Carry, Redacted, Redactor, Secrets};
pub use sha256::sha256_of;
pub use task::{After, Attempt, Effect, Event, Limit, Phase, TaskState};
pub use unfold::{TooMuch, Unfolding};
