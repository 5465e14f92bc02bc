//! An orchestrator is brought about at Fly, whatever breaks off meanwhile, and unmade again.

use std::sync::Arc;

use mayfly_core::causes;
use mayfly_fake_fly::{Fault, On, Setup, Token, no_room};
use mayfly_provider::Provider as _;
use mayfly_provider_fly::Fly;
use mayfly_provider_fly::deploy::{DeployError, Deployment, Look, Step, Wanted};
use serde_json::json;

use crate::bed::{Bed, TOKEN, attempt, image, spec};

/// A Fly with nothing of ours in it yet, and a token of its organisation.
async fn bed() -> Bed {
    with(|_| {}).await
}

async fn with(adjust: impl FnOnce(&mut Setup)) -> Bed {
    Bed::with(|setup| {
        setup.apps.clear();
        setup.apps.insert("strangers".to_owned(), "others".to_owned());
        setup.tokens = vec![Token { app: None, ..Token::deploy(TOKEN, "acme", "") }];
        setup.images.push(newer());
        adjust(setup);
    })
    .await
}

fn newer() -> String {
    format!("registry.fly.io/mayfly@sha256:{}", "cd".repeat(32))
}

fn wanted(bed: &Bed) -> Wanted {
    Wanted {
        api: bed.fake.url(),
        token: TOKEN.to_owned().into(),
        organisation: "acme".to_owned(),
        app: "mayfly".to_owned(),
        regions: vec!["ord".to_owned(), "iad".to_owned()],
        image: image(),
        volume_gb: 10,
        size: "shared-cpu-2x".to_owned(),
        owner_token: "made-up".to_owned().into(),
    }
}

fn deployment(bed: &Bed, wanted: Wanted) -> Deployment {
    Deployment::new(wanted, Arc::new(bed.clock.clone())).unwrap()
}

/// As the command does it: what Fly is not clear about is done by the same command again.
async fn deploy(bed: &Bed) -> Result<Vec<String>, DeployError> {
    const TIMES: usize = 20;
    let mut left = TIMES;
    'again: loop {
        let (deployment, mut done) = (deployment(bed, wanted(bed)), Vec::new());
        for step in Step::ALL {
            match deployment.bring_about(step).await {
                Ok(words) => done.push(words),
                Err(DeployError::Unclear { .. } | DeployError::Unseen(_)) if left > 0 => {
                    left -= 1;
                    continue 'again;
                }
                Err(error) => return Err(error),
            }
        }
        return Ok(done);
    }
}

/// What is there when all is.
fn assert_whole(bed: &Bed) {
    assert_eq!(bed.fake.apps(), ["mayfly", "mayfly-workers", "strangers"]);
    let machines = bed.fake.machines();
    let [machine] = &machines[..] else { panic!("{machines:?}") };
    assert_eq!((machine.app.as_str(), machine.state.as_str()), ("mayfly", "started"));
    assert_eq!(bed.fake.complaints(), [""; 0]);
}

#[tokio::test]
async fn a_deployment_is_whole_and_the_same_command_changes_nothing_of_it() {
    let bed = bed().await;
    let done = bed.run(deploy(&bed)).await.unwrap();
    assert_eq!(
        done,
        [
            "app `mayfly`",
            "app `mayfly-workers`",
            "workers reach nothing but Flycast",
            "volume vol_mayfly_0, 10 GB in ord",
            "Flycast address fdaa:0:1:0:1::2",
            "https://mayfly.fly.dev, by 192.0.2.1",
            "secrets FLY_API_TOKEN and MAYFLY_OWNER_TOKEN",
            &format!("orchestrator 00000000000001 in ord, from {}", image()),
            "it answers",
        ]
    );
    assert_whole(&bed);
    let calls = [
        On::CreateApp,
        On::CreateVolume,
        On::Assign,
        On::SetSecrets,
        On::SetPolicy,
        On::Create,
        On::MintToken,
    ];
    let before = calls.map(|on| bed.fake.count(on));
    assert_eq!(bed.run(deploy(&bed)).await.unwrap(), done);
    assert_eq!(calls.map(|on| bed.fake.count(on)), before);
    assert_whole(&bed);
}

#[tokio::test]
async fn what_would_be_done_is_told_and_nothing_is() {
    let bed = bed().await;
    let deployment = deployment(&bed, wanted(&bed));
    let looks = async {
        let mut looks = Vec::new();
        for step in Step::ALL {
            looks.push(deployment.look(step).await.unwrap());
        }
        looks
    };
    let looks = bed.run(looks).await;
    assert!(looks.iter().all(|look| matches!(look, Look::Missing(_))), "{looks:?}");
    let would = Look::Missing(
        "make the app `mayfly-workers` on a private network of its own, `mayfly-workers`".to_owned(),
    );
    assert_eq!(looks[1], would);
    assert_eq!((bed.fake.apps(), bed.fake.machines()), (vec!["strangers".to_owned()], vec![]));
}

#[tokio::test]
async fn it_is_taken_up_wherever_it_broke_off() {
    for stop in 0..Step::ALL.len() {
        let bed = bed().await;
        let first = deployment(&bed, wanted(&bed));
        let some = async {
            for step in &Step::ALL[..stop] {
                first.bring_about(*step).await.unwrap();
            }
        };
        bed.run(some).await;
        bed.run(deploy(&bed)).await.unwrap();
        assert_whole(&bed);
    }
}

/// Each call that changes something is done and not answered, answered with an error, refused for its rate.
#[tokio::test]
async fn it_is_brought_about_whatever_is_wrong_at_fly() {
    let changes = [
        On::CreateApp,
        On::SetPolicy,
        On::CreateVolume,
        On::Assign,
        On::MintToken,
        On::SetSecrets,
        On::Create,
    ];
    let faults = [
        Fault::Html,
        Fault::Broken,
        Fault::Done(500, json!({ "error": "internal" })),
        Fault::refused(503, "unavailable"),
        Fault::Rate(Some(2)),
    ];
    for fault in faults {
        let bed = bed().await;
        for on in changes {
            bed.fake.once(on, fault.clone());
        }
        bed.run(deploy(&bed)).await.unwrap_or_else(|error| panic!("{fault:?}: {}", causes(&error)));
        assert_whole(&bed);
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_said_with_what_to_do() {
    let said = async |bed: &Bed, adjust: fn(&mut Wanted)| {
        let mut wanted = wanted(bed);
        adjust(&mut wanted);
        let deployment = deployment(bed, wanted);
        let all = async {
            for step in Step::ALL {
                deployment.bring_about(step).await?;
            }
            Ok::<_, DeployError>(())
        };
        causes(&bed.run(all).await.unwrap_err())
    };
    let taken = said(&bed().await, |wanted| wanted.app = "strangers".to_owned()).await;
    assert!(taken.contains("choose another name with --app"), "{taken}");
    let other = said(&bed().await, |wanted| wanted.organisation = "others".to_owned()).await;
    assert!(other.starts_with("the token may not do this in the organisation `others`"), "{other}");
    let expired = with(|setup| setup.tokens[0].until = Some(setup.clock.now())).await;
    let expired = said(&expired, |_| {}).await;
    assert!(expired.contains("make another with `fly tokens create org -o acme -x 2h`"), "{expired}");
    let image = said(&with(|setup| setup.images.clear()).await, |_| {}).await;
    assert!(image.starts_with("the image is not in the registry: push it"), "{image}");
    let region = said(&bed().await, |wanted| wanted.regions = vec!["zzz".to_owned()]).await;
    assert!(region.starts_with("Fly does not know the region"), "{region}");
    let quota = said(&with(|setup| setup.machines_max = Some(0)).await, |_| {}).await;
    assert!(quota.starts_with("the organisation `acme` has used up its quota"), "{quota}");
    for on in [On::Create, On::CreateVolume] {
        for disguise in no_room().into_iter().filter(|room| !matches!(room, Fault::Refused(403, _))) {
            let full = bed().await;
            full.fake.each(1, on, disguise);
            let full = said(&full, |_| {}).await;
            assert!(
                full.starts_with("Fly has no room there now: run the same command again later"),
                "{full}"
            );
        }
    }
    let network = with(|setup| drop(setup.apps.insert("mayfly-workers".to_owned(), "acme".to_owned()))).await;
    let network = said(&network, |_| {}).await;
    assert!(
        network.starts_with("the app `mayfly-workers` is on the network `default`, which cannot be changed"),
        "{network}"
    );
    let deployed = bed().await;
    deployed.run(deploy(&deployed)).await.unwrap();
    let other = said(&deployed, |wanted| wanted.image = newer()).await;
    assert!(other.contains("`mayfly fly upgrade --image registry.fly.io/mayfly@sha256:cdcd"), "{other}");
}

/// The orchestrator has a token that is good for its workers' app and nothing else; workers are shut in before there are any.
#[tokio::test]
async fn the_orchestrators_token_makes_workers_and_nothing_else() {
    let bed = bed().await;
    bed.run(deploy(&bed)).await.unwrap();
    let token = bed.fake.secret("mayfly", "FLY_API_TOKEN").unwrap();
    assert_ne!(token, TOKEN);
    let mut config = bed.config.clone();
    (config.app, config.token) = ("mayfly-workers".to_owned(), token.clone().into());
    let fly = Fly::new(config.clone(), Arc::new(bed.clock.clone())).unwrap();
    bed.run(fly.create(&spec(attempt(1)))).await.unwrap();
    bed.run(
        bed.fake.until(|machines| machines.iter().filter(|machine| machine.state == "started").count() == 2),
    )
    .await;
    assert_eq!(bed.run(deployment(&bed, wanted(&bed)).workers()).await.unwrap(), 1);
    bed.run(fly.destroy(attempt(1))).await.unwrap();
    "mayfly".clone_into(&mut config.app);
    let other = Fly::new(config, Arc::new(bed.clock.clone())).unwrap();
    let refused = causes(&bed.run(other.create(&spec(attempt(2)))).await.unwrap_err());
    assert!(refused.contains("the token is not for the app `mayfly`"), "{refused}");
    let more = Wanted { token: token.into(), app: "more".to_owned(), ..wanted(&bed) };
    let refused = causes(&bed.run(deployment(&bed, more).bring_about(Step::App)).await.unwrap_err());
    assert!(refused.starts_with("the token may not do this"), "{refused}");
    assert_whole(&bed);
}

#[tokio::test]
async fn an_upgrade_renews_the_token_and_boots_another_image() {
    let bed = bed().await;
    bed.run(deploy(&bed)).await.unwrap();
    let before = bed.fake.secret("mayfly", "FLY_API_TOKEN").unwrap();
    let there = deployment(&bed, Wanted { image: String::new(), regions: vec![], ..wanted(&bed) });
    let current = bed.run(there.current()).await.unwrap();
    assert_eq!(
        (current.image, current.regions.concat(), current.size),
        (image(), "ordiad".to_owned(), "shared-cpu-2x".to_owned())
    );
    let upgraded = deployment(&bed, Wanted { image: newer(), ..wanted(&bed) });
    let upgrade = async {
        upgraded.upgrade().await?;
        upgraded.bring_about(Step::Machine).await?;
        upgraded.bring_about(Step::Ready).await
    };
    assert_eq!(bed.run(upgrade).await.unwrap(), "it answers");
    assert_ne!(bed.fake.secret("mayfly", "FLY_API_TOKEN").unwrap(), before);
    assert_eq!(bed.fake.machines()[0].config["image"], newer());
    assert_whole(&bed);
}

#[tokio::test]
async fn nothing_is_left_of_one_that_is_destroyed_and_it_can_be_destroyed_again() {
    let bed = bed().await;
    bed.run(deploy(&bed)).await.unwrap();
    let deployment = deployment(&bed, wanted(&bed));
    bed.fake.once(On::DestroyApp, Fault::Html);
    bed.run(deployment.destroy()).await.unwrap();
    bed.run(deployment.destroy()).await.unwrap();
    assert_eq!(bed.fake.apps(), ["strangers"]);
    bed.end();
}
