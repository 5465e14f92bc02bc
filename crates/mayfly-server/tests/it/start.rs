//! What must hold before an orchestrator starts.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mayfly_core::AttemptId;
use mayfly_core::TaskId;
use mayfly_engine::SystemClock;
use mayfly_provider::{Machine, MachineSpec, Provider, ProviderError};
use mayfly_server::{DataError, Server, ServerConfig, StartError, check_database, make_data_folder};
use mayfly_store::{NewTask, Store};
use mayfly_wire::api::CreateTask;

/// A provider that makes nothing: it cannot here, or it only could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    Unable,
    Unused,
}

#[async_trait]
impl Provider for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        match self {
            Self::Unused => Ok(()),
            Self::Unable => Err(ProviderError::Refused {
                provider: "idle",
                reason: "user namespaces are off".to_owned(),
                source: None,
            }),
        }
    }

    async fn create(&self, _: &MachineSpec) -> Result<Machine, ProviderError> {
        panic!("nothing may be made")
    }

    async fn destroy(&self, _: AttemptId) -> Result<(), ProviderError> {
        panic!("nothing was made")
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        panic!("nothing was made")
    }
}

/// Without the key the machines could not come back, and the credentials not be read: that is not done silently.
#[tokio::test]
async fn a_key_that_is_gone_while_a_task_waits_stops_the_start_and_the_doctor_knows() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    make_data_folder(&data).unwrap();
    let store = Store::open(&data.join("mayfly.db")).unwrap();
    let new = NewTask {
        id: TaskId::new(uuid::Uuid::now_v7()),
        spec: CreateTask { prompt: "p".to_owned(), ..CreateTask::default() },
        credential: mayfly_store::Whose::Own(vec![0]),
        rules: Vec::new(),
        lock: None,
        told: Vec::new(),
        resumes: None,
        idempotency_key: None,
        at: Timestamp::UNIX_EPOCH,
    };
    store.submit(new).await.unwrap();
    drop(store);
    let config = ServerConfig::in_dir(&data);
    let refused =
        Server::start(config.clone(), Arc::new(Idle::Unused), Arc::new(SystemClock)).await.unwrap_err();
    let known = check_database(&data).unwrap_err();
    for error in [refused, known] {
        assert!(matches!(error, StartError::Data(DataError::LostKey { tasks: 1, .. })), "{error}");
    }
    assert!(!data.join("key").exists());
    // The advice is one.
    std::fs::rename(&data, dir.path().join("data.lost")).unwrap();
    let next = start(&data).await;
    assert!(matches!(next, StartError::Provider(_)), "{next}");
}

async fn start(data: &Path) -> StartError {
    let config = ServerConfig::in_dir(data);
    Server::start(config, Arc::new(Idle::Unable), Arc::new(SystemClock)).await.unwrap_err()
}

/// S59: no machine without all its parts, and no orchestrator without machines.
#[tokio::test]
async fn a_provider_that_cannot_make_machines_stops_the_start_with_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let error = start(&data).await;
    assert!(matches!(error, StartError::Provider(_)), "{error}");
    assert!(error.source().unwrap().to_string().contains("user namespaces are off"));
    let config = ServerConfig::in_dir(&data);
    assert!(!config.socket().exists());
    let again = start(&data).await;
    assert!(matches!(again, StartError::Provider(_)), "the folder is free again: {again}");
}

#[tokio::test]
async fn a_data_folder_with_too_long_a_path_is_refused_before_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("long".repeat(25));
    let error = start(&data).await;
    assert!(matches!(&error, StartError::LongPath { path } if path.starts_with(&data)), "{error}");
    assert!(!data.exists());
}
