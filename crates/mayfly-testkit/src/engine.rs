//! A real engine on a real file, which a test can restart.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mayfly_core::TaskId;
use mayfly_engine::{Engine, EngineConfig, LibraryConfig, Rules, Store};
use mayfly_wire::api::{CreateTask, Credential, CredentialKind, Task};
use mayfly_wire::event::{Event, MayflyEvent};
use tempfile::TempDir;

use crate::checkpoints::SimCheckpoints;
use crate::clock::ManualClock;
use crate::doors::SimDoors;
use crate::sim::{SimMachines, SimProvider};

/// An engine, and all that it stands on.
#[derive(Debug)]
pub struct TestEngine {
    /// The engine.
    pub engine: Engine,
    /// Its machines.
    pub machines: SimMachines,
    /// Its machines' doors.
    pub doors: SimDoors,
    /// What is kept of their work.
    pub checkpoints: SimCheckpoints,
    /// Its time.
    pub clock: ManualClock,
    /// What the next [`restart`](Self::restart) starts with.
    pub config: EngineConfig,
    provider: SimProvider,
    dir: TempDir,
}

/// A task that asks for nothing but `prompt`, with a credential that was made up.
pub fn task(prompt: &str) -> CreateTask {
    // Long enough to be masked, and in none of its forms begun by the end of what tests say.
    let credential = Credential::new(CredentialKind::ApiKey, "Qmade-up-key".to_owned().into(), None);
    CreateTask { prompt: prompt.to_owned(), credential: Some(credential), ..CreateTask::default() }
}

impl TestEngine {
    /// Starts one whose configuration differs from the usual only in what the test is about.
    pub async fn start(adjust: impl FnOnce(&mut EngineConfig)) -> Self {
        let (provider, machines) = SimProvider::new();
        Self::start_on(provider, machines, adjust).await
    }

    /// Starts one on a place where something is already.
    pub async fn start_on(
        provider: SimProvider,
        machines: SimMachines,
        adjust: impl FnOnce(&mut EngineConfig),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = usual(&dir);
        adjust(&mut config);
        let (clock, doors, checkpoints) =
            (ManualClock::default(), SimDoors::default(), SimCheckpoints::default());
        let engine = open(&dir, &config, &provider, (&doors, &checkpoints), &clock).await;
        Self { engine, machines, doors, checkpoints, clock, config, provider, dir }
    }

    /// Ends the engine and starts another on the same file, machines and clock.
    pub async fn restart(&mut self) {
        self.engine.stop().await;
        self.doors.end();
        let kept = (&self.doors, &self.checkpoints);
        self.engine = open(&self.dir, &self.config, &self.provider, kept, &self.clock).await;
    }

    /// The same, with some time in between.
    pub async fn restart_after(&mut self, span: Duration) {
        self.engine.stop().await;
        self.clock.advance(span);
        self.restart().await;
    }

    /// The database's file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("mayfly.db")
    }

    /// Submits a task that is accepted.
    pub async fn submit(&self, task: CreateTask) -> TaskId {
        let task = self.engine.submit(task, None).await.expect("a task that is accepted");
        task.id.parse().expect("an id")
    }

    /// A task as it stands.
    pub async fn task(&self, id: TaskId) -> Task {
        self.engine.task(id).await.expect("a store that works").expect("a task that is there")
    }

    /// Waits until a task is so, looking whenever its log grows.
    pub async fn until(&self, id: TaskId, so: impl Fn(&Task) -> bool) -> Task {
        let reader = self.engine.events(id, 0, true).await.expect("a store that works");
        let mut reader = reader.expect("a task that is there");
        loop {
            let task = self.task(id).await;
            if so(&task) {
                return task;
            }
            let more = reader.next().await.expect("a store that works");
            assert!(more.is_some() || so(&self.task(id).await), "the task is over, as {task:?}");
        }
    }

    /// Waits until a task is in the state with this name.
    pub async fn until_state(&self, id: TaskId, state: &str) -> Task {
        self.until(id, |task| task.state == state).await
    }

    /// Waits for a task's end; gives the name of its outcome, and its detail.
    pub async fn outcome(&self, id: TaskId) -> (String, Option<String>) {
        let outcome = self.until_state(id, "finished").await.outcome.expect("a finished task has one");
        (outcome.name, outcome.detail)
    }

    /// A task's log as it is now, as clients get it.
    pub async fn log(&self, id: TaskId, after: u64) -> String {
        let reader = self.engine.events(id, after, false).await.expect("a store that works");
        let mut reader = reader.expect("a task that is there");
        let mut log = Vec::new();
        while let Some(run) = reader.next().await.expect("a store that works") {
            log.extend_from_slice(&run.lines);
        }
        String::from_utf8(log).expect("a log is text")
    }

    /// What mayfly itself has told of a task, with the attempt that each is about.
    pub async fn told(&self, id: TaskId) -> Vec<(u32, MayflyEvent)> {
        let log = self.log(id, 0).await;
        let events = log.lines().map(|line| Event::parse(line).expect("an event"));
        events.filter_map(|event| Some((event.attempt, event.event?))).collect()
    }

    /// The warnings among them.
    pub async fn warnings(&self, id: TaskId) -> Vec<String> {
        let texts = self.told(id).await.into_iter().filter_map(|(_, event)| match event {
            MayflyEvent::Warning { text } => Some(text),
            _ => None,
        });
        texts.collect()
    }

    /// Waits until no task is unfinished.
    pub async fn all_finished(&self) {
        self.engine.unfinished().wait_for(|count| *count == 0).await.expect("the engine is here");
    }
}

fn usual(dir: &TempDir) -> EngineConfig {
    EngineConfig {
        library: LibraryConfig {
            folder: dir.path().join("library"),
            required: false,
            archives: dir.path().join("resources"),
            tools: dir.path().join("tools"),
            projects: BTreeMap::new(),
        },
        rules: Rules::default(),
        workspaces: dir.path().join("workspaces"),
        results: dir.path().join("results"),
        key: [7; 32],
        secrets: mayfly_core::Secrets::default(),
    }
}

async fn open(
    dir: &TempDir,
    config: &EngineConfig,
    provider: &SimProvider,
    (doors, checkpoints): (&SimDoors, &SimCheckpoints),
    clock: &ManualClock,
) -> Engine {
    let store = Store::open(&dir.path().join("mayfly.db")).expect("a store");
    let (provider, doors, clock) =
        (Arc::new(provider.clone()), Arc::new(doors.clone()), Arc::new(clock.clone()));
    let checkpoints = Arc::new(checkpoints.clone());
    Engine::start(config.clone(), store, provider, doors, checkpoints, clock).await.expect("an engine")
}
