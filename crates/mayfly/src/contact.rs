//! The way to an orchestrator, and to the next one if that one ends.
//!
//! ```text
//! call ─── answered ──► done
//!  ▲ └── unreachable ─► join: one is started on the same data folder, and takes the machines over
//!  ├───────────────────┘
//!  └── the tunnel of this folder, or who it leads to, is away: wait, until it is there again or the user has enough
//! ```
//!
//! Every call can be made twice: a submit has its key, an event stream its last number, and the others ask for
//! what is so already. The socket is the folder's, so that one client reaches whoever serves there.
//!
//! Bounds: [`RESTARTS_MAX`] in a row that bring neither an answer nor an event; [`WAIT_MAX`] between two looks for a
//! tunnel. How long it is waited for is the user's to say.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mayfly_client::{Client, ClientError};
use mayfly_wire::api::Task;
use mayfly_wire::tunnel::AWAY;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::Stop;
use crate::printer::Printer;
use crate::server_process::{self, Joined, Was};
use crate::tunnel::Saved;
use crate::values::shell_word;

/// The most restarts in a row that bring neither an answer nor an event.
pub(crate) const RESTARTS_MAX: u32 = 3;

/// The first wait for a tunnel that is away, how often it doubles, and the longest.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_DOUBLINGS: u32 = 6;
const WAIT_MAX: Duration = Duration::from_secs(2);

/// A line to whichever orchestrator is there.
#[derive(Debug)]
pub(crate) struct Contact {
    /// The calls; whoever uses it directly hands an error to [`again`](Self::again).
    pub(crate) client: Client,
    /// How to get another one; none if this process is the orchestrator.
    origin: Option<Origin>,
    /// Since the last answer or event.
    restarts: AtomicU32,
    /// Whether there ever was an answer.
    was_there: AtomicBool,
    /// Looks for a tunnel that is away, since the last answer or event.
    looks: AtomicU32,
    /// The user waits no longer for a tunnel.
    enough: CancellationToken,
}

/// What it takes to join or start an orchestrator.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The folder of its data.
    pub(crate) data: PathBuf,
    /// The CLI that one that is started is to run; none is to be found first.
    pub(crate) claude: Option<PathBuf>,
    /// What else it is to be like.
    pub(crate) settings: Settings,
    /// The user's.
    pub(crate) environment: Environment,
}

impl Origin {
    /// As the settings have it, or in the user's usual folder.
    pub(crate) fn new(settings: &Settings, environment: &Environment) -> Result<Self, Stop> {
        Ok(Self {
            data: environment.data_folder(settings.data())?,
            claude: settings.claude(),
            settings: settings.clone(),
            environment: environment.clone(),
        })
    }

    /// A command of ours about this folder, as the user types it.
    pub(crate) fn command(&self, words: &str) -> String {
        let usual = self.environment.data_folder(None).is_ok_and(|usual| usual == self.data);
        match usual {
            true => format!("mayfly {words}"),
            false => format!("mayfly {words} --data {}", shell_word(&self.data.to_string_lossy())),
        }
    }
}

impl Contact {
    /// With an orchestrator that ends with this process.
    pub(crate) fn within(client: Client) -> Self {
        Self::new(client, None)
    }

    fn new(client: Client, origin: Option<Origin>) -> Self {
        let (restarts, looks) = (AtomicU32::new(0), AtomicU32::new(0));
        let (was_there, enough) = (AtomicBool::new(false), CancellationToken::new());
        Self { client, origin, restarts, was_there, looks, enough }
    }

    /// With the orchestrator of a folder. Returns also what was there before.
    pub(crate) async fn join(mut origin: Origin) -> Result<(Self, Was), Stop> {
        let Joined { client, was, claude } = server_process::join(&origin).await?;
        // What was found first is what the next one runs too.
        origin.claude = claude.or(origin.claude);
        Ok((Self::new(client, Some(origin)), was))
    }

    /// With the orchestrator of a folder that has been used, for a verb about tasks that are there.
    pub(crate) async fn about_tasks(origin: Origin) -> Result<Self, Stop> {
        let folder = origin.data.display();
        match origin.data.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                return Err(Stop::wrong(format!(
                    "there is no data folder `{folder}`, and so no task of it: name the right one with --data DIR"
                )));
            }
            Err(error) => {
                return Err(Stop::usage(anyhow::Error::new(error).context(format!(
                    "cannot look into `{folder}`: name a data folder of your own with --data DIR"
                ))));
            }
        }
        Ok(Box::pin(Self::join(origin)).await?.0)
    }

    /// The task that the user named by its id or the end of it.
    pub(crate) async fn find(&self, printer: &mut Printer, name: &str) -> Result<Task, Stop> {
        let asked = self.ask(printer, async |client| client.task(name).await).await;
        asked.map_err(|error| self.not_found(name, error))
    }

    /// The same through a tunnel. `None`: the tunnel cannot ask its orchestrator now, and the user is told so.
    pub(crate) async fn find_if_reached(
        &self,
        printer: &mut Printer,
        name: &str,
    ) -> Result<Option<Task>, Stop> {
        let asked = self.ask(printer, async |client| client.task(name).await).await;
        match asked {
            Ok(task) => Ok(Some(task)),
            Err(error) => match error.downcast_ref() {
                Some(ClientError::Refused(problem)) if problem.kind == AWAY => {
                    printer.aside(&problem.detail);
                    Ok(None)
                }
                _ => Err(self.not_found(name, error)),
            },
        }
    }

    fn not_found(&self, name: &str, error: anyhow::Error) -> Stop {
        let all = || self.origin.as_ref().map_or_else(String::new, |origin| origin.command("ps --all"));
        match error.downcast_ref() {
            Some(ClientError::Refused(problem)) if problem.kind == "no-such-task" => Stop::wrong(format!(
                "no task has the id `{name}`, or one that ends so: `{}` lists them",
                all()
            )),
            Some(ClientError::Refused(problem)) if problem.kind == "ambiguous-task" => {
                Stop::wrong(format!("`{name}`: {}", problem.detail))
            }
            _ => error.into(),
        }
    }

    /// Why a verb about tasks that are over does nothing.
    pub(crate) fn not_over(&self, task: &Task) -> Stop {
        let Task { short, state, .. } = task;
        let command =
            |words: String| self.origin.as_ref().map_or_else(String::new, |origin| origin.command(&words));
        Stop::wrong(format!(
            "task {short} is not over, but {state}: `{}` follows it to its end, `{}` ends it",
            command(format!("logs {short} --follow")),
            command(format!("cancel {short}")),
        ))
    }

    /// Waits until a task is over and its machine gone.
    pub(crate) async fn wait(&self, printer: &mut Printer, task: &Task) -> anyhow::Result<Task> {
        let mut events = self.client.events(&task.id, task.last_seq);
        loop {
            match events.next().await {
                Ok(Some(_)) => self.heard(),
                Ok(None) => break,
                Err(error) => tell(printer, self.again(error).await?),
            }
        }
        self.ask(printer, async |client| client.task(&task.id).await).await
    }

    /// Makes a call until it is answered.
    pub(crate) async fn ask<T>(
        &self,
        printer: &mut Printer,
        mut call: impl AsyncFnMut(&Client) -> Result<T, ClientError>,
    ) -> anyhow::Result<T> {
        loop {
            match call(&self.client).await {
                Ok(answer) => {
                    self.heard();
                    return Ok(answer);
                }
                Err(error) => tell(printer, self.again(error).await?),
            }
        }
    }

    /// The same for a call about what was typed: what is refused because of that is the user's to put right.
    pub(crate) async fn ask_as_typed<T>(
        &self,
        printer: &mut Printer,
        call: impl AsyncFnMut(&Client) -> Result<T, ClientError>,
    ) -> Result<T, Stop> {
        self.ask(printer, call).await.map_err(|error| {
            let wrong = error.downcast_ref().and_then(wrong_as_typed);
            wrong.unwrap_or_else(|| error.into())
        })
    }

    /// There was an answer or an event.
    pub(crate) fn heard(&self) {
        self.restarts.store(0, Ordering::Relaxed);
        self.looks.store(0, Ordering::Relaxed);
        self.was_there.store(true, Ordering::Relaxed);
    }

    /// The user waits no longer for a tunnel that is away.
    pub(crate) fn enough(&self) {
        self.enough.cancel();
    }

    /// What is away, in words, if it is a tunnel or who that leads to; and once there was an answer.
    fn away(&self, error: &ClientError) -> anyhow::Result<Option<String>> {
        if !self.was_there.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match (error, &self.origin) {
            (ClientError::Refused(problem), _) if problem.kind == AWAY => Ok(Some(problem.detail.clone())),
            (ClientError::Unreachable { .. }, Some(origin)) => {
                let saved = Saved::load(&origin.data).map_err(Stop::into_error)?;
                let words = |saved: Saved| {
                    let (to, command) = (saved.to.without_pin(), origin.command("tunnel"));
                    format!("the tunnel to {to} does not run: start it with `{command}`")
                };
                Ok(saved.map(words))
            }
            _ => Ok(None),
        }
    }

    /// Waits a little for what is away. Returns what to tell the user, the first time.
    async fn wait_for(&self, away: String) -> anyhow::Result<Option<String>> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let wait = WAIT_MIN * 2_u32.pow(looks.min(WAIT_DOUBLINGS));
        if self.enough.run_until_cancelled(sleep(wait.min(WAIT_MAX))).await.is_none() {
            return Err(anyhow::anyhow!(
                "{away}; the tasks go on there, and `mayfly logs` and `mayfly result` tell of them later"
            ));
        }
        Ok((looks == 0).then(|| format!("{away}; waiting for it: the tasks go on there")))
    }

    /// Sees to it that there is an orchestrator again, if `error` says that there is none, so that the call can
    /// be repeated. Returns what to tell the user, if there is news.
    pub(crate) async fn again(&self, error: ClientError) -> anyhow::Result<Option<String>> {
        if let Some(away) = self.away(&error)? {
            return self.wait_for(away).await;
        }
        let Some(origin) = self.origin.as_ref().filter(|_| matches!(error, ClientError::Unreachable { .. }))
        else {
            return Err(error.into());
        };
        let data = shell_word(&origin.data.to_string_lossy());
        if self.restarts.fetch_add(1, Ordering::Relaxed) == RESTARTS_MAX {
            return Err(anyhow::Error::new(error).context(format!(
                "the orchestrator went away {RESTARTS_MAX} times in a row; `mayfly serve --data {data}` runs it in \
                 sight, and takes over the machines that are left"
            )));
        }
        let joined = Box::pin(server_process::join(origin)).await.map_err(|stop| {
            stop.into_error().context(format!(
                "the orchestrator had ended and did not start again; once the cause is gone, `mayfly serve --data \
                 {data}` takes over the machines that are left"
            ))
        })?;
        Ok(Some(match joined.was {
            Was::There => "the orchestrator did not answer, and does again",
            Was::Nowhere | Was::Killed => "the orchestrator had ended; started it again",
            Was::Ended => {
                "the orchestrator was ended by its user; started one in the background, with the same limits"
            }
        }.to_owned()))
    }

    /// Where results can be had once this process has ended: the socket, and how an orchestrator is started.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
}

/// The words for whoever typed what is refused, if that is why.
pub(crate) fn wrong_as_typed(error: &ClientError) -> Option<Stop> {
    match error {
        ClientError::Refused(problem) if [404, 409, 422].contains(&problem.status) => {
            Some(Stop::wrong(&problem.detail))
        }
        _ => None,
    }
}

/// Says what is new about the orchestrator.
pub(crate) fn tell(printer: &mut Printer, news: Option<String>) {
    if let Some(news) = news {
        printer.aside(&news);
    }
}
