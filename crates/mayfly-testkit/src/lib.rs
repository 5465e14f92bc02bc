//! An engine in one process, with simulated machines and a clock that only the test moves.
//!
//! The store, the file under it and the engine are real. What is not, the test holds: each machine asked for
//! ([`SimMachines::next`]), what the provider answers, and time ([`ManualClock::advance`]). So no test sleeps
//! or polls: it waits for what it is about.
//!
//! - [`clock`]: time. [`sim`]: a provider and its machines. [`doors`]: doors that lead nowhere.
//!   [`checkpoints`]: those of nothing. [`engine`]: an engine over all of them, which can be restarted.
//! - [`faulty`]: connections that fail, for whatever speaks over a link; no engine is needed for them.

pub mod checkpoints;
pub mod clock;
pub mod doors;
pub mod engine;
pub mod faulty;
pub mod sim;

pub use checkpoints::SimCheckpoints;
pub use clock::ManualClock;
pub use doors::SimDoors;
pub use engine::{TestEngine, task};
pub use sim::{OnCreate, SimMachine, SimMachines, SimProvider};
