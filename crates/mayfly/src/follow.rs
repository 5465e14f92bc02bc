//! Follows tasks to their ends.
//!
//! One loop owns the printer. Each task's event stream is read by a task of its own, [`FOLLOWED_MAX`] at once, and
//! comes in through a channel of [`NEWS_MAX`]; a slow terminal slows only this process. The first interrupt cancels
//! what still runs, the second insists; both then wait for the last event, which says that the machine is gone. A
//! reader of standard output that goes away is an interrupt too.

use std::sync::Arc;

use mayfly_client::ClientError;
use tokio::sync::{Semaphore, mpsc};

use crate::carry_out::Tracked;
use crate::contact::{Contact, tell};
use crate::exit::Exit;
use crate::interrupts::Interrupts;
use crate::printer::Printer;

/// The most news that wait to be shown.
const NEWS_MAX: usize = 256;

/// The most tasks that are followed at once, by a connection each: an orchestrator has places for more, and others come
/// too. The rest wait for their turn, in the order in which they were submitted, as they do in the queue.
const FOLLOWED_MAX: usize = 256;

/// What a follower has to say about the task with this index.
#[derive(Debug)]
enum News {
    Line(usize, String),
    Over(usize),
    Broken(usize, anyhow::Error),
    NotCancelled(anyhow::Error),
    /// About the orchestrator, if there is anything to say.
    Note(Option<String>),
}

/// The followers of all tasks.
#[derive(Debug)]
pub(crate) struct Following<'a> {
    contact: &'a Arc<Contact>,
    tracked: &'a [Tracked],
    over: Vec<bool>,
    /// For cancelling; each follower has one of its own.
    sender: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    cancels: u32,
}

impl<'a> Following<'a> {
    /// Begins to follow each of `tracked`.
    pub(crate) fn start(contact: &'a Arc<Contact>, tracked: &'a [Tracked]) -> Self {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        let ids = tracked.iter().map(|task| task.id.clone()).collect();
        tokio::spawn(follow_each(Arc::clone(contact), ids, sender.clone()));
        Self { contact, tracked, over: vec![false; tracked.len()], sender, news, cancels: 0 }
    }

    /// Shows everything until every stream has ended. Returns trouble if one broke off.
    pub(crate) async fn until_over(&mut self, printer: &mut Printer, interrupts: &mut Interrupts) -> Exit {
        let mut exit = Exit::Success;
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
                    printer.aside(&format!("lost sight of task {}: {error:#}", printer.row(index).short));
                }
                News::NotCancelled(error) => printer.aside(&format!("could not cancel: {error:#}")),
                News::Note(text) => tell(printer, text),
            }
            if printer.unread() && self.cancels == 0 {
                self.cancel();
            }
        }
        exit
    }

    /// Asks for the end of every task that still runs: the first time with its work, then without.
    pub(crate) fn cancel(&mut self) {
        self.cancels += 1;
        let force = self.forced();
        if force {
            self.contact.enough();
        }
        let running = self.tracked.iter().zip(&self.over).filter(|(_, over)| !**over);
        for (task, _) in running {
            let (contact, sender) = (Arc::clone(self.contact), self.sender.clone());
            tokio::spawn(cancel(contact, task.id.clone(), force, sender));
        }
    }

    /// Whether the user has given up the work.
    pub(crate) fn forced(&self) -> bool {
        self.cancels > 1
    }
}

fn cancelling(cancels: u32) -> &'static str {
    match cancels {
        1 => "cancelling; the work is still brought back. Once more ends the machines at once, without it",
        2 => "ending the machines at once",
        _ => "still waiting for the machines to be gone",
    }
}

/// Begins to follow each as soon as there is a place.
async fn follow_each(contact: Arc<Contact>, ids: Vec<String>, sender: mpsc::Sender<News>) {
    let places = Arc::new(Semaphore::new(FOLLOWED_MAX));
    for (index, id) in ids.into_iter().enumerate() {
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        let (contact, sender) = (Arc::clone(&contact), sender.clone());
        tokio::spawn(async move {
            follow(contact, index, id, sender).await;
            drop(place);
        });
    }
}

/// Reads one task's events to their end.
async fn follow(contact: Arc<Contact>, index: usize, id: String, sender: mpsc::Sender<News>) {
    let mut events = contact.client.events(&id, 0);
    loop {
        let news = match events.next().await {
            Ok(Some(line)) => {
                contact.heard();
                News::Line(index, line)
            }
            Ok(None) => News::Over(index),
            // The stream goes on after the last event that it gave.
            Err(error) => again(&contact, error).await.unwrap_or_else(|error| News::Broken(index, error)),
        };
        let last = matches!(news, News::Over(_) | News::Broken(..));
        if sender.send(news).await.is_err() || last {
            return;
        }
    }
}

async fn cancel(contact: Arc<Contact>, id: String, force: bool, sender: mpsc::Sender<News>) {
    while let Err(error) = contact.client.cancel(&id, force).await {
        let news = again(&contact, error).await.unwrap_or_else(News::NotCancelled);
        let last = matches!(news, News::NotCancelled(_));
        if sender.send(news).await.is_err() || last {
            return;
        }
    }
}

async fn again(contact: &Contact, error: ClientError) -> anyhow::Result<News> {
    contact.again(error).await.map(News::Note)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mayfly_client::Client;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::watch;

    use super::*;

    /// A log that ends once it may.
    async fn answer(mut stream: UnixStream, mut may: watch::Receiver<bool>) {
        assert_ne!(stream.read(&mut [0; 4096]).await.expect("a request"), 0);
        may.wait_for(|may| *may).await.expect("told");
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(head).await.expect("taken");
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_tasks_so_many_are_followed_at_once_and_all_to_their_end() {
        const TASKS: usize = FOLLOWED_MAX + 44;
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).expect("free");
        let ((may, told), (came, counted)) = (watch::channel(false), watch::channel(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                came.send_modify(|came| *came += 1);
                tokio::spawn(answer(stream, told.clone()));
            }
        });
        let contact = Arc::new(Contact::within(Client::new(&socket)));
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        let ids = (0..TASKS).map(|number| format!("{number:032x}")).collect();
        tokio::spawn(follow_each(contact, ids, sender));
        // This time passes only once nobody has anything to do any more.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*counted.borrow(), FOLLOWED_MAX);
        may.send_replace(true);
        let mut over = vec![false; TASKS];
        while let Some(told) = news.recv().await {
            let News::Over(index) = told else { panic!("{told:?}") };
            over[index] = true;
        }
        assert_eq!(over, vec![true; TASKS]);
    }
}
