//! What is wrong with a token, an app or a configuration is said before a task needs it.

use mayfly_core::causes;
use mayfly_fake_fly::{On, Setup, Token};
use mayfly_provider::clock::{Clock as _, after};
use mayfly_provider::{Provider as _, ProviderError};

use crate::bed::{APP, Bed, TOKEN};

/// What a probe says against such a Fly.
async fn said(adjust: impl FnOnce(&mut Setup)) -> String {
    let bed = Bed::with(adjust).await;
    refused(&bed).await
}

async fn refused(bed: &Bed) -> String {
    let error = bed.run(bed.provider().probe()).await.unwrap_err();
    assert!(matches!(error, ProviderError::Refused { .. }), "{error:?}");
    bed.end();
    let words = causes(&error);
    words.strip_prefix("the fly provider cannot make this machine: ").unwrap().to_owned()
}

#[tokio::test]
async fn a_probe_places_a_machine_that_is_never_started() {
    let bed = Bed::start().await;
    bed.run(bed.provider().probe()).await.unwrap();
    assert_eq!((bed.fake.count(On::Create), bed.fake.count(On::Destroy)), (1, 1));
    bed.end();
}

#[tokio::test]
async fn an_expired_token_says_how_to_make_another() {
    let words = said(|setup| setup.tokens[0].until = Some(setup.clock.now())).await;
    let expected = "Fly does not take the token: it has expired or was revoked; make another with \
                    `fly tokens create deploy -a workers -x 720h`, and set it as FLY_API_TOKEN: Fly answered \
                    `ask what the token is for` with 401 (fly-request-id 01FAKE";
    assert!(words.starts_with(expected), "{words}");
    assert!(!words.contains(TOKEN));
}

#[tokio::test]
async fn a_token_of_another_organisation_says_of_which() {
    let words =
        said(|setup| setup.tokens = vec![Token { app: None, ..Token::deploy(TOKEN, "personal", APP) }]).await;
    assert!(
        words.starts_with("the token is not for the app `workers`: it is another app's or organisation's"),
        "{words}"
    );
    assert!(words.contains("(the token is of the organisation `personal`)"), "{words}");
}

#[tokio::test]
async fn an_app_that_is_not_there_says_how_to_make_it() {
    let words = said(|setup| setup.apps.clear()).await;
    assert!(
        words.starts_with(
            "there is no app `workers` that this token can see: make it with `fly apps create workers`"
        ),
        "{words}"
    );
}

#[tokio::test]
async fn a_region_that_there_is_not_says_which_there_are() {
    let mut bed = Bed::start().await;
    bed.config.regions = vec!["iad".to_owned(), "zzz".to_owned()];
    assert_eq!(refused(&bed).await, "Fly has no region `zzz`; it has iad, ord");
}

#[tokio::test]
async fn an_image_that_is_not_there_says_to_push_it() {
    let words = said(|setup| setup.images.clear()).await;
    assert!(
        words.starts_with("the image is not in the registry: push it, and name it by the digest"),
        "{words}"
    );
}

#[tokio::test]
async fn a_token_that_may_only_look_is_not_enough() {
    let words = said(|setup| setup.tokens[0].is_readonly = true).await;
    assert!(
        words.starts_with("the token is not for the app `workers`") && words.contains("read-only token"),
        "{words}"
    );
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_no_reason_to_give_up() {
    let bed = Bed::with(|setup| setup.machines_max = Some(0)).await;
    let error = bed.run(bed.provider().probe()).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unclear { .. }), "{error:?}");
    assert!(
        causes(&error).contains("the organisation has used up its quota in iad, ord"),
        "{}",
        causes(&error)
    );
    bed.end();
}

/// It was good when the orchestrator started.
#[tokio::test]
async fn a_token_that_ends_later_is_told_by_each_verb() {
    let bed = Bed::with(|setup| {
        setup.tokens[0].until = Some(after(setup.clock.now(), std::time::Duration::from_secs(3600)));
    })
    .await;
    let fly = bed.provider();
    bed.run(fly.probe()).await.unwrap();
    bed.clock.advance(std::time::Duration::from_secs(3600));
    assert!(bed.clock.now() > after(jiff::Timestamp::UNIX_EPOCH, std::time::Duration::ZERO));
    let error = bed.run(fly.list()).await.unwrap_err();
    assert!(causes(&error).contains("Fly does not take the token"), "{}", causes(&error));
}
