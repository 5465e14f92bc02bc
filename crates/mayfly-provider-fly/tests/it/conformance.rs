//! What every provider must do, done by this one, whatever goes wrong at Fly.

use std::sync::Arc;

use mayfly_fake_fly::{Fault, On, no_room};
use mayfly_provider::conformance::{Stage, all};
use serde_json::json;

use crate::bed::{Bed, Patient, spec};

async fn conforms(wrong: &[(u64, On, Fault)]) {
    let bed = Bed::start().await;
    for (nth, on, fault) in wrong {
        bed.fake.each(*nth, *on, fault.clone());
    }
    let (config, clock) = (bed.config.clone(), bed.clock.clone());
    let open = move || -> Arc<dyn mayfly_provider::Provider> {
        let fly = mayfly_provider_fly::Fly::new(config.clone(), Arc::new(clock.clone())).unwrap();
        Arc::new(Patient { fly, clock: clock.clone() })
    };
    let stage = Stage { open: Box::new(open), spec: Box::new(spec) };
    bed.run(all(&stage)).await;
    for (_, on, fault) in wrong {
        assert!(bed.fake.count(*on) > 0, "{fault:?} never happened");
    }
    bed.end();
}

#[tokio::test]
async fn the_provider_conforms() {
    conforms(&[]).await;
}

#[tokio::test]
async fn it_conforms_where_creates_are_done_and_not_answered() {
    for fault in [Fault::Html, Fault::Broken, Fault::Silence, Fault::Slow] {
        conforms(&[(3, On::Create, fault)]).await;
    }
}

#[tokio::test]
async fn it_conforms_where_creates_are_done_and_answered_with_an_error() {
    let late = "deadline_exceeded: timed out waiting for machine";
    for (status, error) in [(408, late), (500, "internal"), (502, "bad gateway"), (504, "gateway timeout")] {
        conforms(&[(3, On::Create, Fault::Done(status, json!({ "error": error })))]).await;
    }
}

#[tokio::test]
async fn it_conforms_where_there_is_no_room_in_each_of_its_disguises() {
    for fault in no_room() {
        conforms(&[(3, On::Create, fault)]).await;
    }
}

#[tokio::test]
async fn it_conforms_where_it_is_asked_to_slow_down() {
    let slow = [On::Create, On::List, On::Get, On::Destroy, On::Wait];
    conforms(&slow.map(|on| (4, on, Fault::Rate(Some(3))))).await;
    conforms(&slow.map(|on| (5, on, Fault::Rate(None)))).await;
}

#[tokio::test]
async fn it_conforms_where_lists_are_wrong() {
    for fault in [Fault::Empty, Fault::Html, Fault::Broken, Fault::refused(503, "unavailable")] {
        conforms(&[(2, On::List, fault)]).await;
    }
}

#[tokio::test]
async fn it_conforms_where_machines_cannot_be_looked_at() {
    for fault in
        [Fault::Html, Fault::refused(500, "internal"), Fault::refused(404, "not_found: machine not found")]
    {
        conforms(&[(3, On::Get, fault)]).await;
    }
}

#[tokio::test]
async fn it_conforms_where_machines_linger() {
    for fault in
        [Fault::Lingers, Fault::Html, Fault::refused(503, "unavailable"), Fault::Done(500, json!({}))]
    {
        conforms(&[(2, On::Destroy, fault)]).await;
    }
    for fault in
        [Fault::Html, Fault::refused(408, "deadline_exceeded"), Fault::refused(412, "failed_precondition")]
    {
        conforms(&[(2, On::Wait, fault)]).await;
    }
}

#[tokio::test]
async fn it_conforms_where_all_goes_wrong_at_once() {
    let wrong = [
        (3, On::Create, Fault::Html),
        (4, On::Create, Fault::refused(412, "insufficient resources")),
        (2, On::List, Fault::Empty),
        (5, On::Get, Fault::refused(404, "not_found")),
        (3, On::Destroy, Fault::Lingers),
        (7, On::Destroy, Fault::Rate(Some(1))),
    ];
    conforms(&wrong).await;
}
