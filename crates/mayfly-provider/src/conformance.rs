//! What every provider must pass.
//!
//! A provider's own tests call [`all`] with a [`Stage`] over the real thing. Each check uses attempts of its own
//! and leaves nothing, so that the place may be shared; what is wrong is a panic that says so.

use std::fmt;
use std::sync::Arc;

use mayfly_core::AttemptId;

use crate::{Machine, MachineSpec, Provider};

/// How many machines are made at once where many are.
const MANY: u32 = 5;

/// A provider's place, and what to make there.
pub struct Stage {
    /// Gives a provider over the same place, a new object each time: as after a restart.
    pub open: Box<dyn Fn() -> Arc<dyn Provider> + Send + Sync>,
    /// What an attempt's machine is made from. Its worker must not end by itself.
    pub spec: Box<dyn Fn(AttemptId) -> MachineSpec + Send + Sync>,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").finish_non_exhaustive()
    }
}

/// Runs every check, one after the other.
pub async fn all(stage: &Stage) {
    a_probe_finds_nothing_missing_and_leaves_nothing(stage).await;
    creating_twice_finds_the_same_machine(stage).await;
    destroying_what_never_was_is_a_success(stage).await;
    a_destroyed_machine_is_no_longer_listed(stage).await;
    an_attempt_can_have_a_machine_again(stage).await;
    many_at_once_do_not_disturb_each_other(stage).await;
    many_who_create_the_same_get_one(stage).await;
    destroying_while_creating_leaves_nothing(stage).await;
    a_new_provider_knows_the_machines_of_the_old(stage).await;
}

/// A probe's machine is gone when it answers.
pub async fn a_probe_finds_nothing_missing_and_leaves_nothing(stage: &Stage) {
    let provider = (stage.open)();
    let before = provider.list().await.expect("a list");
    provider.probe().await.expect("a place where the suite can run");
    assert_eq!(provider.list().await.expect("a list"), before, "the probe left something");
}

/// The second `create` succeeds and makes nothing.
pub async fn creating_twice_finds_the_same_machine(stage: &Stage) {
    let (provider, attempt) = ((stage.open)(), attempt(1));
    let first = provider.create(&(stage.spec)(attempt)).await.expect("a machine");
    let second = provider.create(&(stage.spec)(attempt)).await.expect("the same machine");
    assert_eq!((first.attempt, first.alive), (attempt, true));
    assert_eq!(first, second);
    assert_eq!(listed(&*provider, attempt).await, Some(true));
    gone(&*provider, attempt).await;
}

/// There may have been a crash between the intent and the deed.
pub async fn destroying_what_never_was_is_a_success(stage: &Stage) {
    gone(&*(stage.open)(), attempt(2)).await;
}

/// Nor is it after a second time.
pub async fn a_destroyed_machine_is_no_longer_listed(stage: &Stage) {
    let (provider, attempt) = ((stage.open)(), attempt(3));
    assert_eq!(listed(&*provider, attempt).await, None);
    provider.create(&(stage.spec)(attempt)).await.expect("a machine");
    assert_eq!(listed(&*provider, attempt).await, Some(true));
    gone(&*provider, attempt).await;
    gone(&*provider, attempt).await;
}

/// An attempt's name is not used up.
pub async fn an_attempt_can_have_a_machine_again(stage: &Stage) {
    let (provider, attempt) = ((stage.open)(), attempt(4));
    for _ in 0..2 {
        provider.create(&(stage.spec)(attempt)).await.expect("a machine");
        assert_eq!(listed(&*provider, attempt).await, Some(true));
        gone(&*provider, attempt).await;
    }
}

/// Half of them are destroyed while the other half lives.
pub async fn many_at_once_do_not_disturb_each_other(stage: &Stage) {
    let provider = (stage.open)();
    let attempts: Vec<_> = (0..MANY * 2).map(|number| attempt(100 + number)).collect();
    let (some, others) = attempts.split_at(attempts.len() / 2);
    each(&provider, some, |provider, attempt| {
        let spec = (stage.spec)(attempt);
        async move { drop(provider.create(&spec).await.expect("a machine")) }
    })
    .await;
    let creating = each(&provider, others, |provider, attempt| {
        let spec = (stage.spec)(attempt);
        async move { drop(provider.create(&spec).await.expect("a machine")) }
    });
    let destroying =
        each(
            &provider,
            some,
            |provider, attempt| async move { provider.destroy(attempt).await.expect("gone") },
        );
    tokio::join!(creating, destroying);
    for attempt in some {
        assert_eq!(listed(&*provider, *attempt).await, None);
    }
    for attempt in others {
        assert_eq!(listed(&*provider, *attempt).await, Some(true));
        gone(&*provider, *attempt).await;
    }
}

/// All of them succeed.
pub async fn many_who_create_the_same_get_one(stage: &Stage) {
    let (provider, attempt) = ((stage.open)(), attempt(5));
    let same = [attempt; MANY as usize];
    each(&provider, &same, |provider, attempt| {
        let spec = (stage.spec)(attempt);
        async move { assert!(provider.create(&spec).await.expect("the machine").alive) }
    })
    .await;
    let machines: Vec<Machine> = provider.list().await.expect("a list");
    assert_eq!(machines.iter().filter(|machine| machine.attempt == attempt).count(), 1);
    gone(&*provider, attempt).await;
}

/// Whoever comes first, a last `destroy` leaves nothing.
pub async fn destroying_while_creating_leaves_nothing(stage: &Stage) {
    let (provider, attempt) = ((stage.open)(), attempt(6));
    let spec = (stage.spec)(attempt);
    for _ in 0..MANY {
        let (_, destroyed) = tokio::join!(provider.create(&spec), provider.destroy(attempt));
        destroyed.expect("a destroy that succeeds");
        gone(&*provider, attempt).await;
    }
}

/// An orchestrator that was restarted finds them alive, and can destroy them.
pub async fn a_new_provider_knows_the_machines_of_the_old(stage: &Stage) {
    let attempt = attempt(7);
    let old = (stage.open)();
    old.create(&(stage.spec)(attempt)).await.expect("a machine");
    drop(old);
    let new = (stage.open)();
    assert_eq!(listed(&*new, attempt).await, Some(true));
    assert!(new.create(&(stage.spec)(attempt)).await.expect("the same machine").alive);
    gone(&*new, attempt).await;
}

/// One of this suite's own attempts.
fn attempt(number: u32) -> AttemptId {
    format!("00000000-0000-7000-8000-{number:012x}.1").parse().expect("a valid id")
}

/// Whether the machine is listed, and as alive.
async fn listed(provider: &dyn Provider, attempt: AttemptId) -> Option<bool> {
    let machines = provider.list().await.expect("a list");
    machines.iter().find(|machine| machine.attempt == attempt).map(|machine| machine.alive)
}

/// Destroys it and looks.
async fn gone(provider: &dyn Provider, attempt: AttemptId) {
    provider.destroy(attempt).await.expect("a destroy that succeeds");
    assert_eq!(listed(provider, attempt).await, None, "something of {attempt} is left");
}

/// Does one thing for each attempt at once.
async fn each<F: Future<Output = ()> + Send + 'static>(
    provider: &Arc<dyn Provider>,
    attempts: &[AttemptId],
    does: impl Fn(Arc<dyn Provider>, AttemptId) -> F,
) {
    let all: Vec<_> =
        attempts.iter().map(|attempt| tokio::spawn(does(Arc::clone(provider), *attempt))).collect();
    for one in all {
        one.await.expect("no panic");
    }
}
