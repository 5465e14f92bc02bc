//! Submits tasks, follows them to their ends, and brings their work home: what `run` and `demo` share.
//!
//! ```text
//! submit ──► follow ──► settle        an interrupt in the first cancels, as one in the second does;
//!                                     in the last it leaves the work where it is, and says where
//! ```
//!
//! Bound: [`ANSWER_MAX`] for the answer about a task whose submitting was interrupted.

use std::sync::Arc;
use std::time::Duration;

use mayfly_wire::api::CreateTask;
use tokio::time::timeout;

use crate::contact::Contact;
use crate::exit::{Exit, Stop};
use crate::follow::Following;
use crate::interrupts::Interrupts;
use crate::landing::Landing;
use crate::printer::{Printer, Row};
use crate::settle::Settling;

/// How long an interrupted submit is still waited for: only its answer tells what to cancel.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// A task to be.
#[derive(Debug)]
pub(crate) struct Job {
    /// A few words for it; the first of them name its branch.
    pub(crate) title: String,
    /// What is submitted.
    pub(crate) create: CreateTask,
}

/// A task that was accepted.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// Its whole id.
    pub(crate) id: String,
    /// Its last digits.
    pub(crate) short: String,
    /// A few words for it.
    pub(crate) title: String,
}

/// Why not every job was submitted.
#[derive(Debug)]
enum Unsubmitted {
    /// The orchestrator said no, or there is none.
    Refused(anyhow::Error),
    /// The user stopped it.
    Interrupted,
    /// The user stopped it, and nobody knows whether the orchestrator has the last one.
    Unanswered,
}

/// Carries `jobs` out from beginning to end. The exit is the worst of their outcomes.
pub(crate) async fn carry_out(
    contact: &Arc<Contact>,
    jobs: Vec<Job>,
    landing: &Landing,
    printer: &mut Printer,
    interrupts: &mut Interrupts,
) -> Result<Exit, Stop> {
    let (tracked, unsubmitted) = submit(contact, jobs, printer, interrupts).await;
    let mut all = Following::start(contact, &tracked);
    if unsubmitted.is_some() {
        all.cancel();
    }
    let seen = all.until_over(printer, interrupts).await;
    let forced = all.forced();
    printer.end();
    let settled = Settling { contact, landing, forced }.all(&tracked, printer, interrupts).await;
    let exit = seen.max(settled);
    match unsubmitted {
        None => Ok(exit),
        Some(Unsubmitted::Interrupted) => Ok(exit.max(Exit::Cancelled)),
        Some(Unsubmitted::Unanswered) => {
            printer.closing(
                "The orchestrator has not said whether it took the last task: if it did, the task runs unwatched.",
            );
            Ok(exit.max(Exit::Cancelled))
        }
        Some(Unsubmitted::Refused(error)) => Err(error.context(not_accepted(tracked.len())).into()),
    }
}

fn not_accepted(others: usize) -> &'static str {
    match others {
        0 => "the task was not accepted",
        _ => "a task was not accepted, and the others were cancelled",
    }
}

/// Submits each; stops at the first that is refused, and at an interrupt.
async fn submit(
    contact: &Contact,
    jobs: Vec<Job>,
    printer: &mut Printer,
    interrupts: &mut Interrupts,
) -> (Vec<Tracked>, Option<Unsubmitted>) {
    let (mut tracked, mut rows) = (Vec::new(), Vec::new());
    let mut ended = None;
    for Job { title, create } in jobs {
        let key = uuid::Uuid::now_v7().to_string();
        let mut asked = Box::pin(contact.ask(printer, async |client| client.submit(&create, &key).await));
        let answer = tokio::select! {
            answer = &mut asked => answer,
            () = interrupts.next() => {
                ended = Some(Unsubmitted::Interrupted);
                let Ok(late) = timeout(ANSWER_MAX, asked).await else {
                    ended = Some(Unsubmitted::Unanswered);
                    break;
                };
                late
            }
        };
        match answer {
            Ok(task) => {
                rows.push(Row::new(&task.short, &title));
                tracked.push(Tracked { id: task.id, short: task.short, title });
            }
            Err(error) => ended = Some(Unsubmitted::Refused(error)),
        }
        if ended.is_some() {
            break;
        }
    }
    printer.follow(rows);
    (tracked, ended)
}
