//! Submits tasks, follows them to their ends, and brings their work home: what `run`, `retry`, `resume` and `demo` share.
//!
//! ```text
//! submit ──► follow ──► settle        an interrupt in the first cancels, as one in the second does;
//!                                     in the last it leaves the work where it is, and says where
//! ```
//!
//! Bound: [`ANSWER_MAX`] for the answer about a task whose submitting was interrupted.

use std::sync::Arc;
use std::time::Duration;

use mayfly_client::{Client, ClientError};
use mayfly_failpoint::failpoint;
use mayfly_wire::api::{CreateTask, Resume, Retry, Task};
use tokio::time::timeout;

use crate::contact::{Contact, wrong_as_typed};
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
    /// A few words for it, if they are not to be the orchestrator's; the first of them name its branch.
    pub(crate) title: Option<String>,
    /// What is asked for.
    pub(crate) wish: Wish,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// A new task.
    Create(Box<CreateTask>),
    /// One like the task with this id, which is over.
    Again(String, Retry),
    /// One that goes on where the task with this id ended.
    Resume(String, Resume),
}

impl Wish {
    async fn submit(&self, client: &Client, key: &str) -> Result<Task, ClientError> {
        match self {
            Self::Create(create) => client.submit(create, key).await,
            Self::Again(id, retry) => client.retry(id, retry, key).await,
            Self::Resume(id, resume) => client.resume(id, resume, key).await,
        }
    }
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
    /// Whether it works on code that was handed over.
    pub(crate) has_code: bool,
}

/// Why not every job was submitted.
#[derive(Debug)]
pub(crate) enum Unsubmitted {
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
    let (tasks, unsubmitted) = submit(contact, jobs, printer, interrupts).await;
    printer.follow(tasks.iter().map(|(task, title)| Row::new(&task.short, title)).collect());
    let tracked: Vec<Tracked> = tasks.into_iter().map(Tracked::from).collect();
    let mut all = Following::start(contact, &tracked);
    if unsubmitted.is_some() {
        all.cancel();
    }
    let seen = all.until_over(printer, interrupts).await;
    let forced = all.forced();
    printer.end();
    let settled = Settling { contact, landing, forced }.all(&tracked, printer, interrupts).await;
    let exit = seen.max(settled);
    unsubmitted.map_or(Ok(exit), |why| Ok(exit.max(why.told(tracked.len(), printer)?)))
}

impl From<(Task, String)> for Tracked {
    fn from((task, title): (Task, String)) -> Self {
        Self { id: task.id, short: task.short, title, has_code: task.workspace.is_some() }
    }
}

impl Unsubmitted {
    /// Tells the user, once the `others` that were submitted are cancelled.
    pub(crate) fn told(self, others: usize, printer: &mut Printer) -> Result<Exit, Stop> {
        match self {
            Self::Interrupted => Ok(Exit::Cancelled),
            Self::Unanswered => {
                printer.closing(
                    "The orchestrator has not said whether it took the last task: if it did, the task runs unwatched.",
                );
                Ok(Exit::Cancelled)
            }
            Self::Refused(error) => {
                let is_ours = error.downcast_ref().and_then(wrong_as_typed).is_some();
                let error = error.context(not_accepted(others));
                Err(if is_ours { Stop::usage(error) } else { error.into() })
            }
        }
    }
}

fn not_accepted(others: usize) -> &'static str {
    match others {
        0 => "the task was not accepted",
        _ => "a task was not accepted, and the others were cancelled",
    }
}

/// Submits each; stops at the first that is refused, and at an interrupt. Returns the tasks with their titles.
pub(crate) async fn submit(
    contact: &Contact,
    jobs: Vec<Job>,
    printer: &mut Printer,
    interrupts: &mut Interrupts,
) -> (Vec<(Task, String)>, Option<Unsubmitted>) {
    let mut tasks = Vec::new();
    for Job { title, wish } in jobs {
        let (answer, interrupted) = submit_one(contact, &wish, printer, interrupts).await;
        match answer {
            Some(Ok(task)) => {
                failpoint("submit-answered");
                let title = title.unwrap_or_else(|| task.title.clone());
                tasks.push((task, title));
            }
            Some(Err(error)) => return (tasks, Some(Unsubmitted::Refused(error))),
            None => return (tasks, Some(Unsubmitted::Unanswered)),
        }
        if interrupted {
            return (tasks, Some(Unsubmitted::Interrupted));
        }
    }
    (tasks, None)
}

/// The answer, if there was one in time, and whether the user has stopped it.
async fn submit_one(
    contact: &Contact,
    wish: &Wish,
    printer: &mut Printer,
    interrupts: &mut Interrupts,
) -> (Option<anyhow::Result<Task>>, bool) {
    let key = uuid::Uuid::now_v7().to_string();
    let mut asked = Box::pin(contact.ask(printer, async |client| wish.submit(client, &key).await));
    tokio::select! {
        answer = &mut asked => (Some(answer), false),
        () = interrupts.next() => (timeout(ANSWER_MAX, asked).await.ok(), true),
    }
}
