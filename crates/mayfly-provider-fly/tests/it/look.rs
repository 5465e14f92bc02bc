//! What is known of machines, and what is believed.

use std::sync::Arc;
use std::time::Duration;

use mayfly_core::AttemptId;
use mayfly_fake_fly::{Exit, Fault, On, Setup};
use mayfly_provider::{Machine, Provider as _, Sight};
use mayfly_provider_fly::Fly;
use serde_json::json;

use crate::bed::{Bed, attempt, spec};

/// A provider with one machine, which has booted.
async fn booted(adjust: impl FnOnce(&mut Setup)) -> (Bed, Fly, String) {
    let bed = Bed::with(adjust).await;
    let fly = bed.provider();
    bed.run(fly.create(&spec(attempt(1)))).await.unwrap();
    bed.run(bed.fake.until(|machines| machines.iter().all(|machine| machine.state != "created"))).await;
    let id = bed.fake.machines().first().map_or_else(String::new, |machine| machine.id.clone());
    (bed, fly, id)
}

/// One whose worker ends at once, so.
fn ends(exit: Exit) -> impl FnOnce(&mut Setup) {
    move |setup| setup.run = Arc::new(move |_| Box::pin(async move { exit }))
}

async fn look(bed: &Bed, fly: &Fly) -> Sight {
    bed.run(fly.look(attempt(1))).await.unwrap()
}

async fn words(bed: &Bed, fly: &Fly) -> String {
    match look(bed, fly).await {
        Sight::Ended(Some(words)) => words,
        sight => panic!("it has not ended with words: {sight:?}"),
    }
}

async fn listed(bed: &Bed, fly: &Fly) -> Vec<(AttemptId, bool)> {
    let machine = |machine: Machine| (machine.attempt, machine.alive);
    bed.run(fly.list()).await.unwrap().into_iter().map(machine).collect()
}

#[tokio::test]
async fn an_end_is_told_with_what_caused_it() {
    let cases = [
        (137, true, "its VM ran out of memory (Fly says oom_killed): a larger `size` has more"),
        (-1, false, "its host was lost (Fly says exit_code -1)"),
        (3, false, "its worker ended with exit code 3"),
    ];
    for (code, is_out_of_memory, expected) in cases {
        let (bed, fly, _) = booted(ends(Exit { code, is_out_of_memory })).await;
        bed.run(bed.fake.until(<[_]>::is_empty)).await;
        let words = words(&bed, &fly).await;
        assert!(words.starts_with(expected) && words.ends_with("in iad)"), "{words}");
        assert_eq!(listed(&bed, &fly).await, [], "it destroyed itself");
        bed.run(fly.destroy(attempt(1))).await.unwrap();
        bed.end();
    }
}

/// For hours, if nobody looked: the next attempt is made elsewhere.
#[tokio::test]
async fn a_machine_that_is_not_up_in_time_has_ended_and_its_region_is_left_out() {
    let bed = Bed::start().await;
    bed.fake.once(On::Create, Fault::Stuck);
    let fly = bed.provider();
    bed.run(fly.create(&spec(attempt(1)))).await.unwrap();
    bed.clock.advance(Duration::from_secs(119));
    assert_eq!(look(&bed, &fly).await, Sight::Alive);
    bed.clock.advance(Duration::from_secs(1));
    let words = words(&bed, &fly).await;
    assert!(words.starts_with("it was still `created` after 120s"), "{words}");
    assert_eq!(listed(&bed, &fly).await, [(attempt(1), false)]);
    bed.run(fly.destroy(attempt(1))).await.unwrap();
    bed.run(fly.create(&spec(attempt(2)))).await.unwrap();
    assert_eq!(bed.fake.machines()[0].region, "ord");
}

#[tokio::test]
async fn a_machine_that_vanished_is_gone_once_that_has_been_so_for_a_while() {
    let (bed, fly, id) = booted(|_| {}).await;
    bed.fake.vanish(&id);
    assert_eq!(look(&bed, &fly).await, Sight::Alive, "one answer is none");
    assert_eq!(listed(&bed, &fly).await, [(attempt(1), true)]);
    bed.clock.advance(Duration::from_secs(30));
    assert_eq!(look(&bed, &fly).await, Sight::Ended(None));
    assert_eq!(listed(&bed, &fly).await, []);
}

#[tokio::test]
async fn a_machine_that_was_missed_by_mistake_is_not_lost() {
    let (bed, fly, _) = booted(|_| {}).await;
    bed.fake.once(On::Get, Fault::refused(404, "not_found: machine not found"));
    assert_eq!(look(&bed, &fly).await, Sight::Alive);
    bed.clock.advance(Duration::from_secs(20));
    assert_eq!(look(&bed, &fly).await, Sight::Alive);
    bed.clock.advance(Duration::from_secs(20));
    bed.fake.once(On::Get, Fault::refused(404, "not_found: machine not found"));
    assert_eq!(look(&bed, &fly).await, Sight::Alive, "the time begins anew");
}

/// As all lists were for a night in April 2026.
#[tokio::test]
async fn an_empty_list_ends_no_machine() {
    let (bed, fly, _) = booted(|_| {}).await;
    bed.fake.each(1, On::List, Fault::Empty);
    assert_eq!(listed(&bed, &fly).await, [(attempt(1), true)]);
    assert_eq!(look(&bed, &fly).await, Sight::Alive);
    // Nor for one that was restarted, and knows no machine.
    let restarted = bed.provider();
    assert_eq!(look(&bed, &restarted).await, Sight::Alive);
    bed.fake.calm();
    bed.clock.advance(Duration::from_secs(60));
    assert_eq!(look(&bed, &restarted).await, Sight::Alive);
}

#[tokio::test]
async fn a_host_that_is_not_heard_of_ends_no_machine() {
    let (bed, fly, id) = booted(|_| {}).await;
    bed.fake.lose_host(&id);
    assert_eq!(look(&bed, &fly).await, Sight::Alive, "its worker may be at work");
    assert_eq!(listed(&bed, &fly).await, [(attempt(1), true)]);
}

#[tokio::test]
async fn a_machine_that_was_moved_is_lost() {
    let (bed, fly, id) = booted(|_| {}).await;
    bed.fake.happens(&id, "launch", json!({ "migrated": true }));
    assert!(words(&bed, &fly).await.starts_with("Fly moved it to another host, where it began anew"));
    assert_eq!(listed(&bed, &fly).await, [(attempt(1), false)]);
}

#[tokio::test]
async fn a_state_that_nobody_knows_counts_as_life_and_one_without_a_future_does_not() {
    let (bed, fly, id) = booted(|_| {}).await;
    for state in ["hibernating", "replacing", "started"] {
        bed.fake.becomes(&id, state);
        assert_eq!(look(&bed, &fly).await, Sight::Alive, "{state}");
    }
    for state in ["stopped", "suspended", "failed", "launch_failed", "destroying"] {
        bed.fake.becomes(&id, state);
        assert!(words(&bed, &fly).await.starts_with(&format!("Fly says that it is `{state}`")));
    }
}

#[tokio::test]
async fn no_machine_lives_longer_than_it_may() {
    let (bed, fly, _) = booted(|_| {}).await;
    bed.clock.advance(Duration::from_secs(24 * 60 * 60));
    assert!(words(&bed, &fly).await.starts_with("it has lived for 86400s, the longest time for a machine"));
}

#[tokio::test]
async fn what_cannot_be_seen_is_an_error_with_flys_name_for_the_request() {
    let (bed, fly, _) = booted(|_| {}).await;
    bed.fake.each(1, On::Get, Fault::refused(500, "internal: it broke"));
    let error = mayfly_core::causes(&bed.run(fly.look(attempt(1))).await.unwrap_err());
    let said = "no clear answer to `look`: Fly answered `look at a machine` with 500 (fly-request-id 01FAKE";
    assert!(error.starts_with(said) && error.ends_with("internal: it broke"), "{error}");
}
