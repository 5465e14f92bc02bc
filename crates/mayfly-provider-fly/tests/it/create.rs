//! Making machines.

use std::sync::Arc;

use base64::Engine as _;
use mayfly_core::causes;
use mayfly_fake_fly::{Fault, On, no_room};
use mayfly_provider::clock::SystemClock;
use mayfly_provider::{Limits, MachineSpec, Provider as _, ProviderError, ToolSpec};
use mayfly_provider_fly::{BOOT_FILE, CLOSED_TO, Fly};
use mayfly_wire::boot::Boot;
use serde_json::json;

use crate::bed::{Bed, attempt, image, spec};

#[tokio::test]
async fn a_machine_is_made_to_live_once_and_for_one_attempt() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    assert!(bed.run(fly.create(&spec(attempt(1)))).await.unwrap().alive);
    let machine = bed.fake.machines().pop().unwrap();
    assert_eq!(
        (machine.name.as_str(), machine.region.as_str()),
        ("mayfly-d1-0193b2c40000700080000123456789ab-1", "iad")
    );
    let config = &machine.config;
    assert_eq!(config["image"], image());
    assert_eq!(config["auto_destroy"], true);
    assert_eq!(config["restart"], json!({ "policy": "no" }));
    assert_eq!(config["guest"], json!({ "cpu_kind": "performance", "cpus": 2, "memory_mb": 4096 }));
    assert_eq!(config["rootfs"]["size_gb"], 24);
    assert!(config.get("services").is_none() && config.get("env").is_none());
    assert_eq!(config["metadata"]["mayfly_attempt"], attempt(1).to_string());
    assert_eq!(config["metadata"]["mayfly_deployment"], "d1");
    let file = &config["files"][0];
    assert_eq!((&file["guest_path"], &file["mode"]), (&json!(BOOT_FILE), &json!(0o400)));
    let boot = base64::engine::general_purpose::STANDARD.decode(file["raw_value"].as_str().unwrap()).unwrap();
    let boot: Boot = serde_json::from_slice(&boot).unwrap();
    assert_eq!((boot.attempt.clone(), boot.ticket.expose()), (attempt(1).to_string(), "ticket"));
    assert_eq!(boot.endpoint.to_string(), "http://mayfly.flycast");
    assert!(!config.to_string().contains("fm2_"), "a token in a machine");
    assert_eq!(boot.closed_to, CLOSED_TO, "it tries whether it is shut in");
    // What says that it is another machine has not the attempt's.
    let can_be = |id: &str| fly.can_be_machine_of(attempt(1), id);
    assert!(
        can_be(&machine.id)
            && !can_be("148ed21a031189")
            && fly.can_be_machine_of(attempt(2), "148ed21a031189")
    );
    bed.run(fly.destroy(attempt(1))).await.unwrap();
    bed.end();
}

#[tokio::test]
async fn a_machine_that_was_made_without_an_answer_is_found_and_not_made_again() {
    let late = json!({ "error": "deadline_exceeded" });
    for fault in [Fault::Html, Fault::Broken, Fault::Silence, Fault::Slow, Fault::Done(408, late)] {
        let bed = Bed::start().await;
        bed.fake.once(On::Create, fault.clone());
        assert!(bed.run(bed.provider().create(&spec(attempt(1)))).await.unwrap().alive);
        assert_eq!((bed.fake.machines().len(), bed.fake.count(On::Create)), (1, 1), "{fault:?}");
        assert_eq!(bed.fake.complaints(), [""; 0]);
    }
}

/// The name is taken by it, and the answer says which it is.
#[tokio::test]
async fn what_the_list_does_not_have_yet_is_adopted_by_its_id() {
    let bed = Bed::start().await;
    bed.fake.once(On::Create, Fault::Html);
    bed.fake.once(On::List, Fault::Empty);
    assert!(bed.run(bed.provider().create(&spec(attempt(1)))).await.unwrap().alive);
    assert_eq!((bed.fake.machines().len(), bed.fake.count(On::Create)), (1, 2));
}

#[tokio::test]
async fn a_name_that_is_said_to_be_another_machines_is_looked_for() {
    let bed = Bed::start().await;
    let other = bed.fake.add(&json!({ "name": "postgres", "config": {} }));
    bed.run(bed.provider().create(&spec(attempt(1)))).await.unwrap();
    let error = format!("already_exists: unique machine name violation, machine ID {other} already exists");
    bed.fake.once(On::Create, Fault::refused(409, &error));
    let fly = bed.provider();
    assert!(bed.run(fly.create(&spec(attempt(1)))).await.unwrap().alive);
    bed.run(fly.destroy(attempt(1))).await.unwrap();
    assert_eq!(bed.fake.machines().len(), 1, "the other one is nobody's business");
}

#[tokio::test]
async fn where_a_region_has_no_room_the_next_is_asked_and_the_first_left_out_for_a_while() {
    for fault in no_room() {
        let bed = Bed::start().await;
        bed.fake.once(On::Create, fault.clone());
        let fly = bed.provider();
        bed.run(fly.create(&spec(attempt(1)))).await.unwrap();
        assert_eq!(bed.fake.machines()[0].region, "ord", "{fault:?}");
        bed.clock.advance(std::time::Duration::from_secs(300));
        bed.run(fly.create(&spec(attempt(2)))).await.unwrap();
        assert_eq!(bed.fake.machines()[1].region, "iad", "{fault:?}");
    }
}

#[tokio::test]
async fn no_room_anywhere_is_said_and_asked_for_again() {
    let bed = Bed::start().await;
    bed.fake.each(1, On::Create, Fault::refused(412, "insufficient resources to create new machine"));
    let fly = bed.provider();
    let error = bed.run(fly.create(&spec(attempt(1)))).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unclear { .. }));
    let words = causes(&error);
    assert!(
        words
            .starts_with("no clear answer to `create`: Fly has no room for a machine in iad, ord: name more"),
        "{words}"
    );
    assert!(
        words.contains("412 (fly-request-id 01FAKE")
            && words.ends_with("insufficient resources to create new machine"),
        "{words}"
    );
    // Nobody is asked while all of them are left out.
    let asked = bed.fake.count(On::Create);
    bed.run(fly.create(&spec(attempt(1)))).await.unwrap_err();
    assert_eq!((bed.fake.count(On::Create), asked), (asked, 2));
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_said_in_flys_terms() {
    let bed = Bed::with(|setup| setup.machines_max = Some(0)).await;
    let words = causes(&bed.run(bed.provider().create(&spec(attempt(1)))).await.unwrap_err());
    assert!(
        words.contains("the organisation has used up its quota in iad, ord: end other machines"),
        "{words}"
    );
    assert!(words.contains("over the allowed quota"), "{words}");
}

#[tokio::test]
async fn an_image_that_is_not_there_is_refused_with_what_to_do() {
    let bed = Bed::with(|setup| setup.images.clear()).await;
    let error = bed.run(bed.provider().create(&spec(attempt(1)))).await.unwrap_err();
    assert!(matches!(error, ProviderError::Refused { .. }));
    let words = causes(&error);
    assert!(words.contains("the image is not in the registry: push it"), "{words}");
    assert!(words.contains(&image()) && words.contains("MANIFEST_UNKNOWN"), "{words}");
    assert_eq!(bed.fake.count(On::Create), 1, "it was not asked for again");
}

#[tokio::test]
async fn what_cannot_be_brought_into_a_machine_is_refused_before_one_is_made() {
    let bed = Bed::start().await;
    let fly = bed.provider();
    let limits = Limits { cpus_max: 64.0, ..Limits::default() };
    let tool = ToolSpec { inside: "/opt/mayfly/tools/t1".into(), folder: "/tools".into() };
    let cases = [
        (
            MachineSpec { limits, ..spec(attempt(1)) },
            "the largest machine has 16 processors, and `cpus` asks for 64",
        ),
        (
            MachineSpec { tools: vec![tool], ..spec(attempt(1)) },
            "it cannot bring the programs at /opt/mayfly/tools/t1",
        ),
    ];
    for (spec, words) in cases {
        let error = bed.run(fly.create(&spec)).await.unwrap_err();
        assert!(
            matches!(error, ProviderError::Refused { .. }) && error.to_string().contains(words),
            "{error}"
        );
    }
    assert_eq!(bed.fake.requests(), 0);
}

/// By the system's clock: a clock that leaps would have requests under way arrive late, and all at once.
#[tokio::test]
async fn many_are_made_at_once_at_the_pace_that_fly_allows() {
    let clock = Arc::new(SystemClock);
    let bed = Bed::with(|setup| setup.clock = clock.clone()).await;
    let fly = Fly::new(bed.config.clone(), clock).unwrap();
    let making = (1..=6).map(|number| {
        let (fly, spec) = (fly.clone(), spec(attempt(number)));
        tokio::spawn(async move { fly.create(&spec).await })
    });
    for made in making.collect::<Vec<_>>() {
        made.await.unwrap().unwrap();
    }
    assert_eq!((bed.fake.machines().len(), bed.fake.count(On::Create)), (6, 6));
    // One that was held up on its way may come together with the next.
    assert!(bed.fake.rate_refusals() <= 1, "{}", bed.fake.rate_refusals());
}

#[tokio::test]
async fn a_fly_that_cannot_be_reached_is_asked_again_and_nothing_is_said_to_be_wrong_with_the_task() {
    let mut bed = Bed::start().await;
    bed.config.api = "http://127.0.0.1:1".to_owned();
    let error = bed.run(bed.provider().create(&spec(attempt(1)))).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unclear { .. }), "{error:?}");
    assert!(causes(&error).contains("Fly cannot be reached for `create machine`"), "{}", causes(&error));
}
