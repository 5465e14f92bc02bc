//! Performs effects: each until it is done, whatever it takes.
//!
//! An effect is forgotten in the same commit as the step that it leads to, so one that was under way when the
//! engine died is performed again. A machine is unmade only after its making has been answered.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use mayfly_core::{AttemptId, Effect, Event, TaskId, TaskState, causes};
use mayfly_failpoint::failpoint;
use mayfly_provider::{CodeSpec, Machine, MachineSpec, ProviderError, WorkspaceSpec};
use mayfly_store::{Change, Performed, StoreError, TaskRow};
use mayfly_wire::event::MayflyEvent;
use secrecy::SecretString;
use tracing::{info, instrument, warn};

use crate::clock::after;
use crate::engine::Engine;
use crate::session::Turn;
use crate::submit::bundle_of;
use crate::token::Route;

/// The first wait after an unclear answer; each further one is twice as long.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(30);

impl Engine {
    /// Starts performing `effect`.
    pub(crate) fn perform(&self, task: TaskId, effect: Effect) {
        let engine = self.clone();
        self.spawn(async move {
            engine.until_stored(|| engine.carry_out(task, effect)).await;
        });
    }

    async fn carry_out(&self, task: TaskId, effect: Effect) -> Result<(), StoreError> {
        let (notes, next) = match effect {
            Effect::CreateMachine(attempt) => self.create_machine(task.attempt(attempt)).await?,
            // The session sees the state and tells the worker, now or when it has dialled again.
            Effect::CollectWork(_) => (Vec::new(), None),
            Effect::DestroyMachine(attempt) => {
                let gone = self.destroy_machine(task.attempt(attempt)).await;
                // From here on nothing more comes out of it.
                self.settle_result(task.attempt(attempt)).await?;
                (Vec::new(), Some(gone))
            }
        };
        let performed = Performed { task, effect, at: self.0.clock.now(), notes, next };
        failpoint("effect-performed");
        let changed = self.0.store.performed(performed).await?;
        failpoint("effect-forgotten");
        if let Some(changed) = changed {
            self.follow_up(&changed);
        } else if let Effect::CreateMachine(attempt) = effect {
            self.watch_launch(task.attempt(attempt));
        }
        // The notes raised the head as well.
        self.follow(task).await.map(drop)
    }

    /// Gives what the owner should know about the machine, and what follows.
    #[instrument(skip_all, fields(task = %attempt.task, %attempt))]
    async fn create_machine(
        &self,
        attempt: AttemptId,
    ) -> Result<(Vec<MayflyEvent>, Option<Change>), StoreError> {
        const NOTHING: (Vec<MayflyEvent>, Option<Change>) = (Vec::new(), None);
        let turn = self.0.links.turn(attempt);
        let _turn = turn.lock().await;
        let (mut wait, launching) = (RETRY_FIRST, TaskState::Launching(attempt.attempt));
        let Some(mut follow) = self.follow(attempt.task).await? else { return Ok(NOTHING) };
        loop {
            // One whose worker was heard has its machine, and must not get another.
            let task = self.0.store.task(attempt.task).await?.filter(|task| task.state == launching);
            let Some(task) = task else { return Ok(NOTHING) };
            match self.make(&task, attempt).await {
                Ok(machine) => {
                    turn.note_trouble(None);
                    info!(provider = self.0.provider.name(), "machine created");
                    let warning = |text| MayflyEvent::Warning { text };
                    return Ok((machine.notes.into_iter().map(warning).collect(), None));
                }
                Err(error @ ProviderError::Refused { .. }) => {
                    let refused = self.change(Event::Refused(attempt.attempt), Some(causes(&error)));
                    return Ok((Vec::new(), Some(refused)));
                }
                Err(error) => {
                    warn!(error = causes(&error), "machine not created yet");
                    self.tell_trouble(attempt, &turn, causes(&error)).await?;
                }
            }
            tokio::select! {
                () = self.pause(&mut wait) => {}
                () = follow.until(|head| head.state != launching) => {}
            }
        }
    }

    /// Tells the owner once why there is no machine yet; the newest reason is kept for when its time is over.
    async fn tell_trouble(&self, attempt: AttemptId, turn: &Turn, why: String) -> Result<(), StoreError> {
        let text = format!("no machine yet, and trying again: {why}");
        match turn.note_trouble(Some(why)) {
            None => self.tell(attempt, MayflyEvent::Warning { text }).await,
            Some(_) => Ok(()),
        }
    }

    #[instrument(skip_all, fields(task = %attempt.task, %attempt))]
    async fn destroy_machine(&self, attempt: AttemptId) -> Change {
        let turn = self.0.links.turn(attempt);
        let _turn = turn.lock().await;
        let mut wait = RETRY_FIRST;
        while let Err(error) = self.unmake(attempt).await {
            warn!(error = causes(&error), "machine not destroyed yet");
            self.pause(&mut wait).await;
        }
        info!("machine destroyed");
        self.change(Event::Gone(attempt.attempt), None)
    }

    /// The door first: a machine must not miss it.
    async fn make(&self, task: &TaskRow, attempt: AttemptId) -> Result<Machine, ProviderError> {
        let way_out = self.0.doors.open(attempt).map_err(unclear("open the machine's door"))?;
        failpoint("create-asked");
        let tools = self
            .tools(task.id)
            .await
            .map_err(|error| ProviderError::Unclear { call: "read the task's lock", source: error.into() })?;
        let made = self.0.provider.create(&MachineSpec { tools, ..self.spec(task, attempt, way_out) }).await;
        failpoint("create-answered");
        made
    }

    /// The door last: it goes once nobody can be behind it.
    async fn unmake(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        failpoint("destroy-asked");
        self.0.provider.destroy(attempt).await?;
        failpoint("destroy-answered");
        self.0.doors.close(attempt).map_err(unclear("close the machine's door"))
    }

    fn spec(&self, task: &TaskRow, attempt: AttemptId, way_out: PathBuf) -> MachineSpec {
        let bundle = |id: &str| bundle_of(&self.0.config.workspaces, id);
        let code =
            |id: &str, base: &str| CodeSpec { id: id.to_owned(), base: base.to_owned(), bundle: bundle(id) };
        let workspace = task.spec.workspace.as_ref().map(|workspace| WorkspaceSpec {
            name: workspace.name.clone(),
            code: code(&workspace.id, &workspace.base),
            on: workspace.on.as_ref().map(|on| code(&on.id, &on.base)),
        });
        let ticket = SecretString::from(self.0.tokens.mint(Route::Ticket, attempt).expose());
        MachineSpec {
            attempt,
            ticket,
            workspace,
            tools: Vec::new(),
            way_out,
            limits: self.0.config.rules.limits,
        }
    }

    /// Appends an event of mayfly's own to a task's log, while the attempt is the task's own.
    pub(crate) async fn tell(&self, attempt: AttemptId, event: MayflyEvent) -> Result<(), StoreError> {
        self.0.store.tell(attempt, self.0.clock.now(), event).await?;
        // Those who follow read the head from the store, and whoever is newer wins.
        self.follow(attempt.task).await.map(drop)
    }

    pub(crate) async fn pause(&self, wait: &mut Duration) {
        self.0.clock.sleep_until(after(self.0.clock.now(), *wait)).await;
        *wait = (*wait * 2).min(RETRY_MAX);
    }
}

/// Both can be tried again, as a provider's verbs can.
fn unclear(call: &'static str) -> impl FnOnce(io::Error) -> ProviderError {
    move |error| ProviderError::Unclear { call, source: error.into() }
}
