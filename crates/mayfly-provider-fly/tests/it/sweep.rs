//! Machines that no orchestrator destroys.

use std::time::Duration;

use mayfly_provider::clock::Clock as _;
use mayfly_provider::{Provider as _, Sight};
use serde_json::{Value, json};

use crate::bed::{Bed, attempt, spec};

const OTHER: &str = "mayfly-d2-0193b2c40000700080000123456789ab-1";

/// A machine of another deployment, which says that its time is over in so many seconds.
fn other(bed: &Bed, seconds: i64) -> Value {
    let deadline = (bed.clock.now().as_second() + seconds).to_string();
    json!({ "name": OTHER, "config": { "metadata": { "mayfly": "1", "mayfly_deadline": deadline } } })
}

#[tokio::test]
async fn strangers_are_reported_and_left_alone() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    let postgres = bed.fake.add(&json!({ "name": "postgres", "config": {} }));
    let liar = json!({ "mayfly": "1", "mayfly_deadline": "0", "mayfly_deployment": "d1" });
    let liar = bed.fake.add(&json!({ "name": "web-1", "config": { "metadata": liar } }));
    let working = bed.fake.add(&other(&bed, 24 * 60 * 60));
    bed.clock.advance(Duration::from_secs(60 * 60));
    let swept = bed.run(fly.sweep()).await.unwrap();
    assert_eq!((swept.destroyed, swept.strangers), (Vec::new(), vec![postgres, liar, working]));
    assert_eq!(bed.run(fly.list()).await.unwrap(), [], "none of them is this deployment's");
    assert_eq!(bed.fake.machines().len(), 3);
}

#[tokio::test]
async fn a_machine_of_an_ended_deployment_goes_once_its_time_and_some_more_is_over() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    let old = bed.fake.add(&other(&bed, 3600));
    bed.clock.advance(Duration::from_secs(3600 + 500));
    assert_eq!(bed.run(fly.sweep()).await.unwrap().destroyed, [""; 0]);
    bed.clock.advance(Duration::from_secs(100));
    assert_eq!(bed.run(fly.sweep()).await.unwrap().destroyed, [old]);
    bed.end();
}

#[tokio::test]
async fn a_young_machine_is_given_time_whatever_it_says() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    bed.fake.add(&other(&bed, -7200));
    assert_eq!(bed.run(fly.sweep()).await.unwrap().destroyed, [""; 0]);
    bed.clock.advance(Duration::from_secs(300));
    assert_eq!(bed.run(fly.sweep()).await.unwrap().destroyed.len(), 1);
    bed.end();
}

/// Its worker may be at work: the orchestrator is told by what it sees afterwards.
#[tokio::test]
async fn a_machine_of_our_own_goes_when_it_has_lived_too_long() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    bed.run(fly.create(&spec(attempt(1)))).await.unwrap();
    bed.clock.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(bed.run(fly.sweep()).await.unwrap().destroyed, [""; 0]);
    bed.clock.advance(Duration::from_secs(600));
    assert_eq!(bed.run(fly.sweep()).await.unwrap().destroyed.len(), 1);
    assert!(matches!(bed.run(fly.look(attempt(1))).await.unwrap(), Sight::Ended(_)));
    bed.end();
}

#[tokio::test]
async fn the_sweeper_comes_by_itself_each_minute() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    bed.fake.add(&other(&bed, -7200));
    let gone = bed.fake.until(<[_]>::is_empty);
    bed.run(async {
        tokio::select! {
            () = fly.keep_swept() => {}
            () = gone => {}
        }
    })
    .await;
    bed.end();
}
