//! What is logged names its task and its attempt, whoever logs it.

use std::io;
use std::sync::{Arc, Mutex};

use mayfly_core::{Attempt, AttemptId};
use mayfly_testkit::{SimProvider, TestEngine, task};
use mayfly_wire::api::CreateTask;
use tracing::subscriber::DefaultGuard;

use crate::seconds;

/// A log in memory, of this thread alone.
#[derive(Debug, Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    /// Checks that `message` was logged in the span of this name, which names `attempt` and its task.
    fn assert_logged(&self, span: &str, attempt: AttemptId, message: &str) {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let span = format!("{span}{{task={} attempt={attempt}}}: ", attempt.task);
        let found = text.lines().any(|line| line.contains(&span) && line.contains(message));
        assert!(found, "`{message}` in {span} is not in\n{text}");
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_part_of_an_attempt_is_logged_in_a_span_that_names_it() {
    let (log, _guard) = Captured::start();
    let mut mayfly = TestEngine::start(|_| {}).await;
    let id = mayfly.submit(CreateTask { timeout_ms: Some(90_000), ..task("x") }).await;
    let attempt = id.attempt(Attempt(1));
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    mayfly.doors.opens_fail(1);
    mayfly.restart().await;
    mayfly.clock.sleeper_for(seconds(90)).await;
    mayfly.clock.advance(seconds(90));
    mayfly.until_state(id, "collecting").await;
    machine.vanish();
    assert_eq!(mayfly.clock.run(seconds(1), mayfly.outcome(id)).await.0, "timeout");
    log.assert_logged("create_machine", attempt, "machine created");
    log.assert_logged("door", attempt, "door not opened yet");
    log.assert_logged("limits", attempt, "limit of time reached limit=Wall");
    log.assert_logged("presence", attempt, "machine lost why=\"its machine is gone\"");
    log.assert_logged("destroy_machine", attempt, "machine destroyed");
}

#[tokio::test]
async fn a_machine_that_is_nobodys_is_named_where_it_is_reaped() {
    let (log, _guard) = Captured::start();
    let (provider, machines) = SimProvider::new();
    let stranger: AttemptId = "0193b2c4-0000-7000-8000-0123456789ab.1".parse().unwrap();
    machines.put(stranger, true);
    machines.destroys_unclear(1);
    let mayfly = TestEngine::start_on(provider, machines, |_| {}).await;
    mayfly.clock.sleeper_for(seconds(30)).await;
    log.assert_logged("reap", stranger, "machine of no live attempt");
    log.assert_logged("reap", stranger, "machine not destroyed yet");
}
