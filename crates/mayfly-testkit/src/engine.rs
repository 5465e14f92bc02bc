//! An engine with all that it needs.

use std::fs;
use std::sync::Arc;

use mayfly_core::TaskId;
use mayfly_engine::{Engine, EngineConfig, Rules, Store};
use mayfly_wire::api::{CreateTask, Credential, CredentialKind, Task};
use mayfly_wire::event::{Event, MayflyEvent};
use tempfile::TempDir;

use crate::clock::ManualClock;
use crate::sim::{SimMachines, SimProvider};

/// A running engine, its machines and its time.
#[derive(Debug)]
pub struct TestEngine {
    /// The engine.
    pub engine: Engine,
    /// Each machine that it asks for.
    pub machines: SimMachines,
    /// Its time.
    pub clock: ManualClock,
    /// Its folder: `mayfly.db` is in it.
    pub dir: TempDir,
    provider: SimProvider,
    config: EngineConfig,
}

impl TestEngine {
    /// Starts one whose rules differ from the default only in what the test is about.
    pub async fn start(adjust: impl FnOnce(&mut Rules)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = EngineConfig {
            rules: Rules::default(),
            workspaces: dir.path().join("workspaces"),
            results: dir.path().to_owned(),
            key: [7; 32],
        };
        fs::create_dir(&config.workspaces).expect("a folder");
        adjust(&mut config.rules);
        let (provider, machines) = SimProvider::new();
        let clock = ManualClock::default();
        let engine = open(&config, &dir, &provider, &clock).await;
        Self { engine, machines, clock, dir, provider, config }
    }

    /// The engine dies, and another takes up its store, machines and time.
    pub async fn restart(&mut self) {
        self.engine.stop().await;
        self.engine = open(&self.config, &self.dir, &self.provider, &self.clock).await;
    }

    /// Submits a task with a credential.
    pub async fn submit(&self, prompt: &str) -> TaskId {
        let task = self.engine.submit(create(prompt), None).await.expect("accepted");
        task.id.parse().expect("an id")
    }

    /// A task as it stands.
    pub async fn task(&self, id: TaskId) -> Task {
        self.engine.task(id).await.expect("read").expect("there")
    }

    /// Waits for the end of a task; the outcome's name and the words for it.
    pub async fn outcome(&self, id: TaskId) -> (String, String) {
        self.log(id).await;
        let outcome = self.task(id).await.outcome.expect("over");
        (outcome.name, outcome.detail.unwrap_or_default())
    }

    /// Waits for the end of a task; its whole log.
    pub async fn log(&self, id: TaskId) -> String {
        self.read(id, |_| false).await
    }

    /// Waits until the log of a task has an event of mayfly's own that `is_it`.
    pub async fn until(&self, id: TaskId, is_it: impl Fn(&MayflyEvent) -> bool) {
        self.read(id, is_it).await;
    }

    /// The types of mayfly's own events, at the end of a task.
    pub async fn story(&self, id: TaskId) -> Vec<String> {
        let own = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            value["event"]["type"].as_str().map(str::to_owned)
        };
        self.log(id).await.lines().filter_map(own).collect()
    }

    async fn read(&self, id: TaskId, is_it: impl Fn(&MayflyEvent) -> bool) -> String {
        let mut reader = self.engine.events(id, 0, true).await.expect("read").expect("there");
        let mut log = String::new();
        while let Some(lines) = reader.next().await.expect("read") {
            let lines = std::str::from_utf8(&lines).expect("UTF-8");
            log += lines;
            let own = lines.lines().filter_map(|line| Event::parse(line).expect("an event").event);
            if own.into_iter().any(|event| is_it(&event)) {
                break;
            }
        }
        log
    }
}

async fn open(config: &EngineConfig, dir: &TempDir, provider: &SimProvider, clock: &ManualClock) -> Engine {
    let store = Store::open(&dir.path().join("mayfly.db")).expect("a store");
    let (provider, clock) = (Arc::new(provider.clone()), Arc::new(clock.clone()));
    Engine::start(config.clone(), store, provider, clock).await.expect("an engine")
}

/// What a task with this prompt is created from.
pub fn create(prompt: &str) -> CreateTask {
    CreateTask {
        prompt: prompt.to_owned(),
        workspace: None,
        model: None,
        timeout_ms: None,
        idle_timeout_ms: None,
        max_turns: None,
        max_budget_usd: None,
        credential: Some(Credential {
            kind: CredentialKind::OauthToken,
            secret: "canary-credential".to_owned().into(),
            base_url: None,
        }),
    }
}
