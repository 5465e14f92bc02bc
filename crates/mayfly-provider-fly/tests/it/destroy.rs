//! Unmaking machines.

use mayfly_core::causes;
use mayfly_fake_fly::{Fault, On};
use mayfly_provider::{Provider as _, ProviderError, Sight};
use serde_json::json;

use crate::bed::{Bed, attempt, spec};

#[tokio::test]
async fn a_machine_that_lingers_is_destroyed_until_it_is_gone() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    bed.run(fly.create(&spec(attempt(1)))).await.unwrap();
    bed.fake.linger(&bed.fake.machines()[0].id, 2);
    bed.run(fly.destroy(attempt(1))).await.unwrap();
    assert_eq!(bed.fake.count(On::Destroy), 3);
    bed.end();
}

#[tokio::test]
async fn a_machine_that_never_goes_is_said_to_be_there() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    bed.run(fly.create(&spec(attempt(1)))).await.unwrap();
    let id = bed.fake.machines()[0].id.clone();
    bed.fake.linger(&id, u32::MAX);
    let error = bed.run(fly.destroy(attempt(1))).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unclear { .. }));
    let words = format!(
        "machine {id} is still `destroying` 300s after it was destroyed: see `fly machine status {id} -a workers`"
    );
    assert!(causes(&error).contains(&words), "{}", causes(&error));
    assert_eq!(bed.run(fly.list()).await.unwrap().len(), 1, "it keeps its place");
}

/// A restarted orchestrator knows no id.
#[tokio::test]
async fn one_list_with_nothing_in_it_is_no_proof() {
    let bed = Bed::start().await;
    bed.run(bed.provider().create(&spec(attempt(1)))).await.unwrap();
    bed.fake.once(On::List, Fault::Empty);
    bed.run(bed.provider().destroy(attempt(1))).await.unwrap();
    bed.end();
}

/// Whatever a program in it has done to its own metadata.
#[tokio::test]
async fn a_machine_is_known_by_its_name_alone() {
    let bed = Bed::start().await;
    bed.run(bed.provider().create(&spec(attempt(1)))).await.unwrap();
    let metadata =
        json!({ "mayfly": "1", "mayfly_attempt": attempt(1).to_string(), "mayfly_deployment": "d1" });
    let liar =
        json!({ "name": "mayfly-d1-0193b2c40000700080000123456789ab-2", "config": { "metadata": metadata } });
    bed.fake.add(&liar);
    let fly = bed.provider();
    bed.run(fly.destroy(attempt(1))).await.unwrap();
    assert_eq!(bed.fake.machines().len(), 1);
    assert_eq!(bed.run(fly.look(attempt(2))).await.unwrap(), Sight::Alive);
    bed.run(fly.destroy(attempt(2))).await.unwrap();
    bed.end();
}
