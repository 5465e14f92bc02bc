//! Random events against the pure state machine: the file never knows anything else.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::{
    After, Attempt, Earlier, Effect, Event, Failure, Limit, Outcome, Phase, TaskId, TaskState,
};
use mayfly_store::{Change, NewTask, Performed, Store};
use proptest::prelude::*;

use crate::{AT, change, id, new, open, policy};

const TASKS: u32 = 5;
/// Every task's.
const RETRIES: u32 = 1;

fn has_priority(task: TaskId) -> bool {
    task > id(3)
}

fn new_task(number: u32) -> NewTask {
    let mut new = new(number, None);
    new.spec.retries = RETRIES;
    new.spec.priority = i32::from(has_priority(new.id));
    new
}

#[derive(Debug, Clone)]
enum Step {
    /// The scheduler looks for a free slot.
    Claim,
    /// Something happens to a task.
    Event(u32, Event),
    /// The oldest effect was performed; unmaking leads to the machine's being gone.
    Perform,
    /// So many seconds pass.
    Wait(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let attempt = || (1..=3_u32).prop_map(Attempt);
    let outcome = prop_oneof![
        Just(Outcome::Succeeded),
        Just(Outcome::Failed(Failure::Api)),
        Just(Outcome::Failed(Failure::OutOfMemory))
    ];
    let limit = prop_oneof![Just(Limit::Launch), Just(Limit::Wall), Just(Limit::Idle), Just(Limit::Collect)];
    let event = prop_oneof![
        4 => attempt().prop_map(Event::Joined),
        4 => attempt().prop_map(Event::Started),
        2 => (attempt(), outcome).prop_map(|(attempt, outcome)| Event::Ended(attempt, outcome)),
        2 => attempt().prop_map(Event::Collected),
        1 => (attempt(), limit).prop_map(|(attempt, limit)| Event::Expired(attempt, limit)),
        1 => attempt().prop_map(Event::Refused),
        2 => attempt().prop_map(Event::Vanished),
        3 => attempt().prop_map(Event::Gone),
        1 => Just(Event::Cancelled),
        1 => Just(Event::Aborted),
    ];
    let step = prop_oneof![
        2 => Just(Step::Claim),
        2 => Just(Step::Perform),
        1 => (1..10_u8).prop_map(Step::Wait),
        8 => (1..=TASKS, event).prop_map(|(task, event)| Step::Event(task, event)),
    ];
    proptest::collection::vec(step, 1..80)
}

/// What the state machine alone makes of it.
#[derive(Debug)]
struct Model {
    now: Timestamp,
    /// Before when a task is not claimed.
    due: HashMap<TaskId, Timestamp>,
    states: HashMap<TaskId, TaskState>,
    earlier: HashMap<TaskId, Earlier>,
    /// Whether `claude` was started in the current attempt.
    started: HashMap<TaskId, bool>,
    effects: Vec<(TaskId, Effect)>,
}

impl Model {
    fn new() -> Self {
        let (due, states, earlier, started) =
            (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        Self { now: AT, due, states, earlier, started, effects: Vec::new() }
    }

    fn apply(&mut self, task: TaskId, event: Event) -> Option<TaskState> {
        let before = self.states[&task];
        let earlier = self.earlier.entry(task).or_default();
        let (state, effects) = before.apply(event, policy().chances(*earlier, RETRIES))?;
        if matches!(state, TaskState::Releasing(_, After::Retry)) {
            self.due.insert(task, self.now + policy().retry_pause(*earlier));
        }
        let started = self.started.entry(task).or_default();
        *started |= matches!(state, TaskState::Running(_, Phase::Claude));
        if matches!(state, TaskState::Queued(_)) {
            earlier.started += u32::from(*started);
            earlier.unstarted += u32::from(!*started);
            *started = false;
        }
        self.states.insert(task, state);
        self.effects.extend(effects.into_iter().map(|effect| (task, effect)));
        Some(state)
    }

    fn change(&self, event: Event) -> Change {
        Change { at: self.now, ..change(event) }
    }

    fn alive(&self) -> usize {
        self.states.values().filter(|state| state.machine().is_some()).count()
    }

    fn claim(&mut self) -> Option<TaskState> {
        let is_due = |task| self.due.get(task).is_none_or(|due| *due <= self.now);
        let queued = self.states.iter().filter(|(_, state)| matches!(state, TaskState::Queued(_)));
        let queued = queued.filter(|(task, _)| is_due(task));
        // The last ones have priority.
        let next = *queued.map(|(task, _)| task).min_by_key(|task| (!has_priority(**task), **task))?;
        if self.alive() == 2 { None } else { self.apply(next, Event::Claimed) }
    }
}

async fn take(store: &Store, model: &mut Model, step: Step) {
    let (expected, found) = match step {
        Step::Claim => (model.claim(), store.claim(policy(), "sim", model.now).await.unwrap()),
        Step::Event(task, event) => {
            (model.apply(id(task), event), store.apply(id(task), model.change(event)).await.unwrap())
        }
        Step::Wait(seconds) => {
            model.now += Duration::from_secs(seconds.into());
            return;
        }
        Step::Perform => {
            let Some((task, effect)) = model.effects.pop() else { return };
            let gone = match effect {
                Effect::DestroyMachine(attempt) => Some(Event::Gone(attempt)),
                _ => None,
            };
            let performed = Performed {
                task,
                effect,
                at: model.now,
                notes: Vec::new(),
                next: gone.map(|event| model.change(event)),
            };
            let found = store.performed(performed).await.unwrap();
            (gone.and_then(|event| model.apply(task, event)), found)
        }
    };
    assert_eq!(found.map(|changed| changed.state), expected);
}

/// What is in the file, against the model.
async fn compare(store: &Store, model: &Model) {
    for (&task, &state) in &model.states {
        let row = store.task(task).await.unwrap().unwrap();
        assert_eq!(row.state, state);
        assert_eq!(row.finished.is_some(), state.outcome().is_some());
        let is_put_off = matches!(state, TaskState::Queued(_) | TaskState::Releasing(_, After::Retry));
        assert_eq!(row.due, model.due.get(&task).copied().filter(|_| is_put_off));
        let events = store.events(task, 0, usize::MAX).await.unwrap();
        assert!(events.iter().map(|event| event.seq).eq(1..=row.last_seq), "no gap, no repeat");
    }
    let mut expected = model.effects.clone();
    let mut found = store.effects().await.unwrap();
    let by_name = |(task, effect): &(TaskId, Effect)| (*task, format!("{effect:?}"));
    expected.sort_by_key(by_name);
    expected.dedup();
    found.sort_by_key(by_name);
    assert_eq!(found, expected);
    let live = store.live().await.unwrap();
    assert_eq!(live.len(), model.alive());
    assert!(live.len() <= 2, "more machines than allowed");
    let unfinished = model.states.values().filter(|state| state.outcome().is_none()).count();
    assert_eq!(store.unfinished().await.unwrap(), unfinished);
    let put_off = model.due.iter().filter(|(task, due)| {
        let waits =
            matches!(model.states[task], TaskState::Queued(_) | TaskState::Releasing(_, After::Retry));
        waits && **due > model.now
    });
    assert_eq!(store.next_due(model.now).await.unwrap(), put_off.map(|(_, due)| *due).min());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// G6, G7: state, effects and log as the pure machine has them, also when the file is opened again.
    #[test]
    fn the_file_holds_what_the_state_machine_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, dir) = open();
            let mut model = Model::new();
            for number in 1..=TASKS {
                store.submit(new_task(number)).await.unwrap();
                model.states.insert(id(number), TaskState::NEW);
            }
            for step in steps {
                take(&store, &mut model, step).await;
            }
            compare(&store, &model).await;
            drop(store);
            compare(&Store::open(&dir.path().join("db")).unwrap(), &model).await;
        });
    }
}
