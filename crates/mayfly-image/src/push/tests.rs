use std::collections::BTreeMap;

use mayfly_test_needs::image_registry::{ImageRegistry, Trouble, Wants};

use super::*;
use crate::parts;
use crate::tree::{Data, Entry, Tree};

const USER: &str = "x";
const PASSWORD: &str = "canary-password";

/// A store with an image of two layers.
fn stored() -> (tempfile::TempDir, Store, Image) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::in_folder(dir.path().join("images"));
    let lock = store.lock(|| ()).expect("the only one");
    let layer = |text: &str| {
        let mut tree = Tree::default();
        tree.add("file", Entry::file(0o644, Data::Bytes(text.into()))).expect("plain");
        let layer = store.add_layer(text, &tree, &mut |_| true, &lock).expect("added");
        (layer, "a file".to_owned())
    };
    let layers = [layer("one"), layer("two")];
    let run = parts::run("/opt/mayfly/mayfly", BTreeMap::new());
    let image = store.put("mayfly", "amd64", run, &layers, &lock).expect("put");
    drop(lock);
    (dir, store, image)
}

fn login(password: &str) -> Login {
    Login { user: USER.to_owned(), password: password.to_owned().into() }
}

async fn registry(wants: Wants) -> ImageRegistry {
    ImageRegistry::start(wants, "team/app", USER, PASSWORD).await
}

/// Pushes to it; what was told beside the outcome.
async fn push_to(
    registry: &ImageRegistry,
    (store, image): (&Store, &Image),
    login: Option<&Login>,
) -> (Result<String, String>, Vec<String>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let to = format!("{}/team/app:v1", registry.host()).parse().expect("a place");
    let http =
        Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().expect("a client");
    let mut told = Vec::new();
    let push = Push { store, image, to: &to, login, http: &http, sent: Arc::default() };
    let pushed = push.send(|line| told.push(line.to_owned())).await;
    if pushed.is_ok() {
        assert_eq!(push.is_there().await.ok(), Some(true), "it is not there by its digest");
    }
    let pushed = pushed.map(|()| push.name());
    (pushed.map_err(|error| error.to_string().replace(&registry.host(), "[registry]")), told)
}

#[tokio::test]
async fn an_image_is_pushed_once_and_named_by_its_digest() {
    let (_dir, store, image) = stored();
    for wants in [Wants::Basic, Wants::Bearer] {
        let registry = registry(wants).await;
        let (pushed, told) = push_to(&registry, (&store, &image), Some(&login(PASSWORD))).await;
        let name = format!("{}/team/app@{}", registry.host(), image.descriptor.digest);
        assert_eq!((pushed, told.len()), (Ok(name.clone()), 3), "{wants:?}");
        assert_eq!(registry.tag("v1").as_ref(), Some(&image.descriptor.digest));
        assert_eq!(registry.uploads(), 3);
        let (again, told) = push_to(&registry, (&store, &image), Some(&login(PASSWORD))).await;
        assert_eq!(again, Ok(name));
        assert!(told.iter().all(|line| line.ends_with("there already")), "{told:?}");
        assert_eq!((registry.uploads(), registry.complaints()), (3, Vec::new()));
    }
}

#[tokio::test]
async fn a_wrong_login_and_none_are_refused_without_an_upload() {
    let (_dir, store, image) = stored();
    for wants in [Wants::Basic, Wants::Bearer] {
        for login in [None, Some(login("wrong"))] {
            let registry = registry(wants).await;
            let (pushed, _) = push_to(&registry, (&store, &image), login.as_ref()).await;
            let refused = pushed.expect_err("refused");
            assert!(
                refused.starts_with("the registry does not let this login push to [registry]/team/app:v1: "),
                "{refused}"
            );
            assert_eq!((registry.uploads(), registry.tag("v1")), (0, None));
        }
    }
}

#[tokio::test]
async fn a_push_that_broke_off_goes_on_when_it_is_begun_again() {
    let (_dir, store, image) = stored();
    let registry = registry(Wants::Bearer).await;
    registry.trouble(Trouble::Unavailable);
    let (pushed, _) = push_to(&registry, (&store, &image), Some(&login(PASSWORD))).await;
    let said = "the registry of [registry]/team/app:v1 did not take a layer: 503, UNAVAILABLE try again";
    assert_eq!(pushed, Err(said.to_owned()));
    assert_eq!(registry.tag("v1"), None, "there is no name for what is not whole");
    let (pushed, _) = push_to(&registry, (&store, &image), Some(&login(PASSWORD))).await;
    pushed.expect("pushed");
    assert_eq!(registry.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_that_is_over_in_the_middle_is_asked_for_again() {
    let (_dir, store, image) = stored();
    let registry = registry(Wants::Bearer).await;
    registry.trouble(Trouble::Expired);
    let (pushed, _) = push_to(&registry, (&store, &image), Some(&login(PASSWORD))).await;
    pushed.expect("pushed");
    assert_eq!((registry.uploads(), registry.complaints()), (4, Vec::new()));
}

#[tokio::test]
async fn a_registry_that_stores_something_else_or_leads_elsewhere_is_not_trusted() {
    let (_dir, store, image) = stored();
    for (trouble, words) in [
        (Trouble::OtherDigest, "it has stored something else than it was sent"),
        (Trouble::Elsewhere, "it does not say where an upload goes"),
    ] {
        let registry = registry(Wants::Basic).await;
        registry.trouble(trouble);
        let (pushed, _) = push_to(&registry, (&store, &image), Some(&login(PASSWORD))).await;
        let said = format!("{} is no registry that an image can be pushed to: {words}", "[registry]");
        assert_eq!(pushed, Err(said));
        assert_eq!(registry.tag("v1"), None);
    }
}

#[tokio::test]
async fn one_that_is_not_there_is_named() {
    let (_dir, store, image) = stored();
    let gone = registry(Wants::Basic).await;
    let host = gone.host();
    drop(gone);
    let to = format!("{host}/team/app").parse().expect("a place");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().no_proxy().build().expect("a client");
    // Whether the port is closed yet or answers for the last time, nothing was pushed.
    let login = login(PASSWORD);
    let push = Push {
        store: &store,
        image: &image,
        to: &to,
        login: Some(&login),
        http: &http,
        sent: Arc::default(),
    };
    push.send(|_| ()).await.expect_err("nobody is there");
}

#[test]
fn what_a_registry_wants_is_read() {
    let read = |header: &str| Wanted::read(header);
    assert_eq!(read("Basic realm=\"x\""), Some(Wanted::Basic));
    let asks = vec![
        ("service".to_owned(), "s".to_owned()),
        ("scope".to_owned(), "repository:a:pull,push".to_owned()),
    ];
    let bearer =
        "Bearer realm=\"https://r/token\",service=\"s\", scope=\"repository:a:pull,push\",error=\"x\"";
    assert_eq!(read(bearer), Some(Wanted::Bearer { realm: "https://r/token".to_owned(), asks }));
    for none in ["", "Bearer", "Bearer service=\"s\"", "Bearer realm=\"x", "Negotiate"] {
        assert_eq!(read(none), None, "{none}");
    }
}

#[test]
fn a_login_goes_to_no_place_without_tls_but_this_machine() {
    for (place, safe) in [
        ("https://auth.example/token", true),
        ("http://auth.example/token", false),
        ("http://127.0.0.1:1/token", true),
        ("file:///etc/passwd", false),
    ] {
        assert_eq!(is_safe(&Url::parse(place).expect("a URL")), safe, "{place}");
    }
}

#[tokio::test]
async fn whether_an_image_is_there_is_seen_without_sending_any_of_it() {
    let (_dir, store, image) = stored();
    let registry = registry(Wants::Bearer).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (login, http) = (login(PASSWORD), Client::builder().no_proxy().build().expect("a client"));
    let to = format!("{}/team/app:v1", registry.host()).parse().expect("a place");
    let push = Push {
        store: &store,
        image: &image,
        to: &to,
        login: Some(&login),
        http: &http,
        sent: Arc::default(),
    };
    assert!(!push.is_there().await.expect("an answer"));
    push.send(|_| ()).await.expect("pushed");
    let blobs = image.manifest.layers.iter().chain([&image.manifest.config]);
    assert_eq!(push.sent.load(Ordering::Relaxed), blobs.map(|blob| blob.size).sum::<u64>());
    assert!(push.is_there().await.expect("an answer"));
    let other = format!("{}/team/other:v1", registry.host()).parse().expect("a place");
    let elsewhere = Push { to: &other, ..push };
    let refused = elsewhere.is_there().await.expect_err("another repository");
    assert!(matches!(refused, PushError::Login { .. }), "{refused}");
    assert_eq!((registry.uploads(), registry.complaints()), (3, Vec::new()));
}
