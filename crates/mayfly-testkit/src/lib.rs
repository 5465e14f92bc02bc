//! A whole engine in one process: the real engine, a real SQLite file, simulated machines, a manual clock.
//!
//! A test holds what is otherwise not in its hands: each machine that is asked for, what its worker says, and the
//! time. It never sleeps: it waits for a machine, an event or a sleeper.

#![expect(clippy::missing_panics_doc, reason = "a test's tools panic when the test is wrong")]

mod clock;
mod engine;
mod sim;

pub use clock::ManualClock;
pub use engine::{TestEngine, create};
pub use sim::{Answer, SimMachine, SimMachines, SimProvider, SimWorker};
