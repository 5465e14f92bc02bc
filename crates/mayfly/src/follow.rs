//! Submits tasks, follows them to their ends, and brings their work home: what `run` and `demo` share.
//!
//! One loop owns the printer. Each task's event stream is read by a task of its own and comes in through a
//! channel of [`NEWS_MAX`]; a slow terminal slows only this process. The first interrupt cancels what still
//! runs, the second insists; both then wait for the last event, which says that the machine is gone.

use std::sync::Arc;

use anyhow::anyhow;
use mayfly_client::{Client, ClientError};
use mayfly_core::causes;
use mayfly_wire::api::{CreateTask, Task};
use tokio::sync::mpsc;

use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::landing::{self, Landed, Landing, Place};
use crate::printer::{Printer, Row};

/// The most news that wait to be shown.
const NEWS_MAX: usize = 256;

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
struct Tracked {
    id: String,
    title: String,
}

/// What a follower has to say about the task with this index.
#[derive(Debug)]
enum News {
    Line(usize, String),
    Over(usize),
    Broken(usize, ClientError),
    NotCancelled(ClientError),
}

/// Carries `jobs` out from beginning to end. The exit is the worst of their outcomes.
pub(crate) async fn carry_out(
    client: &Arc<Client>,
    jobs: Vec<Job>,
    landing: &Landing,
    printer: &mut Printer,
    interrupts: &mut Interrupts,
) -> Result<Exit, Stop> {
    let (tracked, refused) = submit(client, jobs, printer).await;
    let mut all = Following::start(client, &tracked);
    if refused.is_some() {
        all.cancel();
    }
    let mut exit = all.until_over(printer, interrupts).await;
    printer.end();
    for (index, task) in tracked.iter().enumerate() {
        exit = exit.max(settle(client, index, task, landing, printer).await);
    }
    match refused {
        Some(error) if tracked.is_empty() => Err(anyhow!(error).context("the task was not accepted").into()),
        Some(error) => {
            Err(anyhow!(error).context("a task was not accepted, and the others were cancelled").into())
        }
        None => Ok(exit),
    }
}

/// Submits each; stops at the first that is refused.
async fn submit(
    client: &Client,
    jobs: Vec<Job>,
    printer: &mut Printer,
) -> (Vec<Tracked>, Option<ClientError>) {
    let (mut tracked, mut rows) = (Vec::new(), Vec::new());
    let mut refused = None;
    for Job { title, create } in jobs {
        let key = uuid::Uuid::now_v7().to_string();
        match client.submit(&create, &key).await {
            Ok(task) => {
                rows.push(Row::new(&task.short, &title));
                tracked.push(Tracked { id: task.id, title });
            }
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    printer.follow(rows);
    (tracked, refused)
}

/// The followers of all tasks.
struct Following<'a> {
    client: &'a Arc<Client>,
    tracked: &'a [Tracked],
    over: Vec<bool>,
    sender: Option<mpsc::Sender<News>>,
    news: mpsc::Receiver<News>,
    cancels: u32,
}

impl<'a> Following<'a> {
    fn start(client: &'a Arc<Client>, tracked: &'a [Tracked]) -> Self {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        for (index, task) in tracked.iter().enumerate() {
            tokio::spawn(follow(Arc::clone(client), index, task.id.clone(), sender.clone()));
        }
        let over = vec![false; tracked.len()];
        Self { client, tracked, over, sender: Some(sender), news, cancels: 0 }
    }

    /// Shows everything until every stream has ended. Returns trouble if one broke off.
    async fn until_over(mut self, printer: &mut Printer, interrupts: &mut Interrupts) -> Exit {
        let mut exit = Exit::Success;
        // The sender is for cancelling; the streams end when each follower has dropped its own.
        while self.over.iter().any(|over| !over) {
            let news = tokio::select! {
                () = interrupts.next() => {
                    self.cancel();
                    printer.aside(cancelling(self.cancels));
                    continue;
                }
                news = self.news.recv() => news,
            };
            match news.expect("a sender is held here") {
                News::Line(index, line) => printer.event(index, &line),
                // The stream of a task ends after the event that says that its machine is gone.
                News::Over(index) => self.over[index] = true,
                News::Broken(index, error) => {
                    self.over[index] = true;
                    exit = Exit::Trouble;
                    printer.aside(&format!(
                        "lost sight of task {}: {}",
                        printer.row(index).short,
                        causes(&error)
                    ));
                }
                News::NotCancelled(error) => printer.aside(&format!("could not cancel: {}", causes(&error))),
            }
        }
        self.sender = None;
        exit
    }

    /// Asks for the end of every task that still runs: the first time with its work, then without.
    fn cancel(&mut self) {
        self.cancels += 1;
        let force = self.cancels > 1;
        let running = self.tracked.iter().zip(&self.over).filter(|(_, over)| !**over);
        for (task, _) in running {
            let (client, id) = (Arc::clone(self.client), task.id.clone());
            let Some(sender) = self.sender.clone() else { return };
            tokio::spawn(async move {
                if let Err(error) = client.cancel(&id, force).await {
                    let _ = sender.send(News::NotCancelled(error)).await;
                }
            });
        }
    }
}

fn cancelling(cancels: u32) -> &'static str {
    match cancels {
        1 => "cancelling; the work is still brought back. Once more ends the machines at once, without it",
        2 => "ending the machines at once",
        _ => "still waiting for the machines to be gone",
    }
}

/// Reads one task's events to their end.
async fn follow(client: Arc<Client>, index: usize, id: String, sender: mpsc::Sender<News>) {
    let mut events = client.events(&id, 0);
    loop {
        let news = match events.next().await {
            Ok(Some(line)) => News::Line(index, line),
            Ok(None) => News::Over(index),
            Err(error) => News::Broken(index, error),
        };
        let last = !matches!(news, News::Line(..));
        if sender.send(news).await.is_err() || last {
            return;
        }
    }
}

/// Brings one task's work home and prints its last lines.
async fn settle(
    client: &Client,
    index: usize,
    tracked: &Tracked,
    landing: &Landing,
    printer: &mut Printer,
) -> Exit {
    let task = match client.task(&tracked.id).await {
        Ok(task) => task,
        Err(error) => {
            printer.closing(&format!("{}  unknown: {}", printer.row(index).short, causes(&error)));
            return Exit::Trouble;
        }
    };
    let Some(outcome) = &task.outcome else {
        printer.closing(&format!("{}  still {}: it goes on without being followed", task.short, task.state));
        return Exit::Trouble;
    };
    let landed = landing.land(client, &task, &tracked.title).await;
    print(&task, index, &landed, landing.dirty(), printer);
    match landed.failed {
        true => Exit::Trouble,
        false => Exit::of_outcome(&outcome.name),
    }
}

fn print(task: &Task, index: usize, landed: &Landed, dirty: bool, printer: &mut Printer) {
    let row = printer.row(index).clone();
    let outcome = task.outcome.as_ref();
    let name = outcome.map_or("", |outcome| outcome.name.as_str());
    printer.closing(&format!("{}  {}  {name}  {}", row.short, row.title, row.figures()));
    if let Some(detail) = outcome.and_then(|outcome| outcome.detail.as_deref()) {
        printer.closing(&format!("          reason      {detail}"));
    }
    for line in landing::lines(landed) {
        printer.closing(&format!("          {line}"));
    }
    match &landed.place {
        Some(Place::Branch(branch)) => {
            printer.closing(&format!("          look        git diff HEAD...{branch}"));
            let first =
                if dirty { "   # after a commit or stash of what you have not committed" } else { "" };
            printer.closing(&format!("          take        git merge {branch}{first}"));
        }
        Some(Place::Folder(_)) | None => {}
    }
}
