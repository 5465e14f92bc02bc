//! The store against the pure state machine: the same events give the same states, effects and counts.

use std::collections::{BTreeMap, BTreeSet};

use mayfly_core::{Attempt, Effect, Event, Failure, Limit, Outcome, Policy, TaskId, TaskState};
use mayfly_store::{Change, Store};
use proptest::prelude::*;

use super::{at, new_task};

const TASKS: u128 = 4;

#[derive(Debug, Clone)]
enum Step {
    Claim,
    Event(u128, Event),
    PerformAll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let attempt = || (1_u32..4).prop_map(Attempt);
    let outcome = prop_oneof![Just(Outcome::Succeeded), Just(Outcome::Failed(Failure::Api))];
    let limit = prop_oneof![Just(Limit::Launch), Just(Limit::Wall), Just(Limit::Idle), Just(Limit::Collect)];
    let event = prop_oneof![
        attempt().prop_map(Event::Joined),
        attempt().prop_map(Event::Started),
        attempt().prop_map(Event::Collected),
        attempt().prop_map(Event::Gone),
        attempt().prop_map(Event::Vanished),
        attempt().prop_map(Event::Refused),
        (attempt(), outcome).prop_map(|(a, outcome)| Event::Ended(a, outcome)),
        (attempt(), limit).prop_map(|(a, limit)| Event::Expired(a, limit)),
        Just(Event::Cancelled),
        Just(Event::Aborted),
    ];
    let step = prop_oneof![
        3 => Just(Step::Claim),
        8 => (1..=TASKS, event).prop_map(|(task, event)| Step::Event(task, event)),
        1 => Just(Step::PerformAll),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_is_the_state_machine(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check(steps));
    }
}

async fn check(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("mayfly.db")).unwrap();
    let policy = Policy { machines_max: 2.try_into().unwrap(), ..Policy::default() };
    let mut model = BTreeMap::new();
    let mut open: BTreeSet<(TaskId, String)> = BTreeSet::new();
    for number in 1..=TASKS {
        let new = new_task(number);
        model.insert(new.id, TaskState::NEW);
        store.submit(new).await.unwrap();
    }
    for step in steps {
        match step {
            Step::Claim => {
                let changed = store.claim(policy, "sim", at()).await.unwrap();
                let free = model.values().filter(|state| state.machine().is_some()).count() < 2;
                let oldest = model.iter().find(|(_, state)| matches!(state, TaskState::Queued(_)));
                let expected = oldest.filter(|_| free).map(|(&id, _)| id);
                assert_eq!(changed.as_ref().map(|changed| changed.task), expected);
                if let Some(id) = expected {
                    advance(&mut model, &mut open, id, Event::Claimed, policy);
                }
            }
            Step::Event(number, event) => {
                let id = new_task(number).id;
                let change = Change { event, at: at(), detail: None, provider: "sim", policy };
                let changed = store.apply(id, change).await.unwrap();
                let expected = advance(&mut model, &mut open, id, event, policy);
                assert_eq!(changed.map(|changed| (changed.state, changed.effects)), expected);
            }
            Step::PerformAll => {
                for (task, effect) in store.effects().await.unwrap() {
                    store.performed(task, effect, None).await.unwrap();
                }
                open.clear();
                // What is stored outlives the process.
                drop(store);
                store = Store::open(&dir.path().join("mayfly.db")).unwrap();
            }
        }
        let effects = store.effects().await.unwrap();
        let stored = effects.iter().map(|(task, effect)| (*task, format!("{effect:?}"))).collect();
        assert_eq!(open, stored);
    }
    let mut alive = 0;
    for (id, state) in model {
        assert_eq!(store.task(id).await.unwrap().unwrap().state, state);
        alive += usize::from(state.machine().is_some());
    }
    assert_eq!(store.live().await.unwrap().len(), alive);
    assert!(alive <= 2);
}

fn advance(
    model: &mut BTreeMap<TaskId, TaskState>,
    open: &mut BTreeSet<(TaskId, String)>,
    id: TaskId,
    event: Event,
    policy: Policy,
) -> Option<(TaskState, Vec<Effect>)> {
    let (state, effects) = model[&id].apply(event, &policy)?;
    model.insert(id, state);
    open.extend(effects.iter().map(|effect| (id, format!("{effect:?}"))));
    Some((state, effects))
}
