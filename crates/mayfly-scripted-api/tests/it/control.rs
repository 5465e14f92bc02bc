//! What a test can do with the API: hold answers, wait for requests, look at them, stop it.

use std::net::{Ipv4Addr, SocketAddr};

use mayfly_scripted_api::{Accepted, REQUESTS_KEPT_MAX, ScriptedApi};
use tokio::io::AsyncReadExt as _;

use crate::client::{OAUTH, TOKEN, api, ask, ask_streaming, begin, body, send};

#[tokio::test]
async fn a_held_answer_comes_once_it_is_released() {
    let api = api().await;
    let prompt = body("[script: hold name=gate text=through]");
    let (answer, ()) = tokio::join!(ask(&api, &prompt), async {
        api.held("gate", 1).await;
        let other = ask(&api, &body("[script: text text=other]")).await;
        assert_eq!(other.json()["content"][0]["text"], "other", "a hold is no concern of others");
        api.release("gate");
    });
    assert_eq!(answer.json()["content"][0]["text"], "through");
    assert_eq!(ask(&api, &prompt).await.status, 200, "a hold stays open");
}

#[tokio::test]
async fn a_hold_withholds_the_headers_too() {
    let api = api().await;
    let mut tcp = begin(&api, "POST", "/v1/messages", &OAUTH, &body("[script: hold]").to_string()).await;
    api.held("hold", 1).await;
    let nothing = tcp.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    api.release("hold");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn arrivals_can_be_awaited_before_and_after_they_happen() {
    let api = api().await;
    let prompt = body("[script: text]");
    tokio::join!(api.arrived("text", 2), async {
        ask(&api, &prompt).await;
        ask(&api, &prompt).await;
    });
    api.arrived("text", 1).await;
}

#[tokio::test]
async fn requests_are_kept_with_what_matters_of_them() {
    let api = api().await;
    ask(&api, &body("[script: text]")).await;
    send(&api, "GET", "/v1/models?x=y", &[("x-secret", "x")], "").await;
    let [asked, refused] = api.requests().try_into().unwrap();
    assert_eq!((asked.status, asked.scenario.as_deref()), (200, Some("text")));
    assert_eq!(asked.header("authorization"), Some("Bearer dummy-token"));
    assert_eq!(asked.body["messages"][0]["content"], "[script: text]");
    assert_eq!(
        (refused.status, refused.method.as_str(), refused.path.as_str()),
        (404, "GET", "/v1/models?x=y")
    );
    assert_eq!((refused.header("x-secret"), refused.scenario.as_deref()), (None, None));
}

#[tokio::test]
async fn only_the_last_requests_are_kept() {
    let api = api().await;
    for _ in 0..REQUESTS_KEPT_MAX {
        send(&api, "HEAD", "/", &[], "").await;
    }
    ask(&api, &body("[script: text]")).await;
    let requests = api.requests();
    assert_eq!(requests.len(), REQUESTS_KEPT_MAX);
    assert_eq!(requests.last().unwrap().scenario.as_deref(), Some("text"));
}

#[tokio::test]
async fn a_hanging_answer_has_headers_and_ends_with_the_api() {
    let api = api().await;
    let mut body = body("[script: hang]");
    body["stream"] = true.into();
    let mut tcp = begin(&api, "POST", "/v1/messages", &OAUTH, &body.to_string()).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
    api.stop().await;
    drop(tcp.read_to_end(&mut Vec::new()).await);
}

#[tokio::test]
async fn a_stop_refuses_those_who_are_held() {
    let api = api().await;
    let held = begin(&api, "POST", "/v1/messages", &OAUTH, &body("[script: hold]").to_string()).await;
    api.held("hold", 1).await;
    api.stop().await;
    let mut answer = String::new();
    { held }.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[tokio::test]
async fn a_pause_is_as_long_as_the_pace_makes_it() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let prompt = "[script: slow chunks=5 pause_ms=10]";
    let api = ScriptedApi::start_paced(any, Accepted::Oauth(TOKEN.into()), 2.0).await.unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(ask_streaming(&api, prompt).await.status, 200);
    assert!(begun.elapsed().as_millis() >= 100, "{:?}", begun.elapsed());
    assert!(ScriptedApi::start_paced(any, Accepted::Oauth(TOKEN.into()), -1.0).await.is_err());
}
