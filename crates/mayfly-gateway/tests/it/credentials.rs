//! What the model API and the machine get to see of credentials.

use axum::response::IntoResponse;
use http::{Method, StatusCode};
use mayfly_gateway::{CredentialKind, PLACEHOLDER_HEADER, Trial, Upstream, try_credential};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::bed::{Bed, CANARY, PLACEHOLDER, message};

/// S19, for each kind: the real credential, once, and nothing that the machine sent.
#[tokio::test]
async fn the_model_api_gets_the_owners_credential_and_no_other() {
    let bearer = format!("Bearer {CANARY}");
    let kinds = [
        (CredentialKind::OauthToken, "authorization", bearer.as_str()),
        (CredentialKind::Bearer, "authorization", bearer.as_str()),
        (CredentialKind::ApiKey, "x-api-key", CANARY),
    ];
    for (kind, header, value) in kinds {
        let mut bed = Bed::new(kind).await;
        let ask = bed.ask().header("x-api-key", "attacker").header("cookie", "a=b");
        let ask = ask.header("proxy-authorization", "Basic eA==").header("x-auth-token", "attacker");
        assert_eq!(ask.send().await.unwrap().status(), 200);
        let (parts, _) = bed.reached.recv().await.unwrap();
        let secret_like = ["authorization", "x-api-key", "cookie", "proxy-authorization", "x-auth-token"];
        let seen: Vec<_> = secret_like.into_iter().filter(|&name| parts.headers.contains_key(name)).collect();
        assert_eq!(seen, [header], "{kind:?}");
        assert_eq!(parts.headers[header], value);
        assert!(!format!("{parts:?}").contains(PLACEHOLDER));
    }
}

/// S19: a placeholder in `x-api-key` is as good.
#[tokio::test]
async fn a_placeholder_may_come_as_an_api_key() {
    let mut bed = Bed::new(CredentialKind::OauthToken).await;
    let url = format!("{}/v1/messages", bed.url);
    let answer = bed.machine.post(url).header("x-api-key", PLACEHOLDER).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (parts, _) = bed.reached.recv().await.unwrap();
    assert!(!parts.headers.contains_key("x-api-key"));
}

#[tokio::test]
async fn the_query_the_body_and_the_other_headers_pass() {
    let mut bed = Bed::new(CredentialKind::ApiKey).await;
    let ask = bed.ask().header("anthropic-version", "2023-06-01").header("accept-encoding", "gzip, br");
    ask.body(r#"{"model":"m"}"#).send().await.unwrap();
    let (parts, body) = bed.reached.recv().await.unwrap();
    assert_eq!((parts.method, parts.uri.to_string()), (Method::POST, "/v1/messages?beta=true".to_owned()));
    assert_eq!(body, r#"{"model":"m"}"#);
    assert_eq!(parts.headers["anthropic-version"], "2023-06-01");
    assert_eq!(parts.headers["accept-encoding"], "identity", "what is compressed cannot be counted");
    assert_ne!(parts.headers["host"], bed.url.trim_start_matches("http://"));
}

/// S19: files, batches, models, admin, other methods and odd paths do not reach the model API.
#[tokio::test]
async fn other_routes_are_refused_and_never_leave() {
    let mut bed = Bed::new(CredentialKind::ApiKey).await;
    let routes = [
        (Method::POST, "/v1/files"),
        (Method::POST, "/v1/messages/batches"),
        (Method::GET, "/v1/messages"),
        (Method::DELETE, "/v1/messages"),
        (Method::GET, "/v1/models"),
        (Method::GET, "/v1/organizations/users"),
        (Method::POST, "/v1/messages/"),
        (Method::POST, "//v1/messages"),
        (Method::POST, "/V1/messages"),
        (Method::POST, "/v1/messages%2fbatches"),
        (Method::POST, "/"),
        (Method::GET, "/api/hello"),
        (Method::GET, "/api/claude_code/policy_limits"),
    ];
    for (method, path) in routes {
        let ask = bed.machine.request(method.clone(), format!("{}{path}", bed.url)).bearer_auth(PLACEHOLDER);
        let answer = ask.send().await.unwrap();
        assert_eq!(answer.status(), 404, "{method} {path}");
        assert!(message(answer).await.contains("not open to a machine"));
    }
    for path in ["/", "/api/hello"] {
        assert_eq!(bed.machine.head(format!("{}{path}", bed.url)).send().await.unwrap().status(), 200);
    }
    assert!(bed.reached.try_recv().is_err(), "nothing may reach the model API");
}

#[tokio::test]
async fn a_wrong_or_missing_token_gets_a_401_and_never_leaves() {
    let mut bed = Bed::new(CredentialKind::Bearer).await;
    let url = format!("{}/v1/messages", bed.url);
    for token in [Some("wrong"), Some(CANARY), None] {
        let ask = bed.machine.post(&url);
        let ask = token.map_or_else(|| bed.machine.post(&url), |token| ask.bearer_auth(token));
        let answer = ask.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        message(answer).await;
    }
    assert!(bed.reached.try_recv().is_err());
}

/// S29: the redirect is not followed, so the credential reaches the one address that its owner named.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    for status in [301, 302, 303, 307, 308] {
        let to = format!("http://{}/v1/messages", other.local_addr().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        let redirect = move || (status, [("location", to.clone())]).into_response();
        let bed = Bed::answering(CredentialKind::ApiKey, redirect).await;
        let answer = bed.ask().send().await.unwrap();
        assert_eq!(answer.status(), 502);
        assert!(answer.headers().get("location").is_none());
        assert!(message(answer).await.contains(status.as_str()));
        let dialled = other.accept().map_err(|error| error.kind());
        assert_eq!(dialled.expect_err("nobody may dial it"), std::io::ErrorKind::WouldBlock);
    }
}

/// S29: an answer's cookies and tokens stay outside the machine.
#[tokio::test]
async fn cookies_and_credentials_of_an_answer_are_dropped() {
    let answer = || {
        let headers = [
            ("set-cookie", "session=1"),
            ("x-refresh-token", "t"),
            ("x-debug", "got sk-canary-5d1f"),
            ("anthropic-ratelimit-tokens-remaining", "7"),
            ("request-id", "req_1"),
        ];
        (StatusCode::TOO_MANY_REQUESTS, headers, "{}").into_response()
    };
    let bed = Bed::answering(CredentialKind::OauthToken, answer).await;
    let answer = bed.ask().send().await.unwrap();
    assert_eq!(answer.status(), 429);
    for dropped in ["set-cookie", "x-refresh-token", "x-debug"] {
        assert!(answer.headers().get(dropped).is_none(), "{dropped}");
    }
    assert_eq!(answer.headers()["request-id"], "req_1");
    assert_eq!(answer.headers()["anthropic-ratelimit-tokens-remaining"], "7");
}

#[tokio::test]
async fn a_model_api_that_is_not_there_is_named_without_secrets() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let (_, reached) = mpsc::unbounded_channel();
    let base_url = format!("http://user:{CANARY}@{address}/");
    let bed = Bed::before(base_url, CredentialKind::ApiKey, reached).await;
    let answer = bed.ask().send().await.unwrap();
    assert_eq!(answer.status(), 502);
    let message = message(answer).await;
    assert!(message.contains(&address.to_string()) && message.contains("refused"), "{message}");
}

/// A server that speaks no TLS: the handshake fails before anything is sent.
#[tokio::test]
async fn a_failed_tls_handshake_is_an_error_that_names_the_host() {
    let url = crate::bed::serve(axum::Router::new()).await;
    let (_, reached) = mpsc::unbounded_channel();
    let bed = Bed::before(url.replace("http:", "https:"), CredentialKind::ApiKey, reached).await;
    let answer = bed.ask().send().await.unwrap();
    assert_eq!(answer.status(), 502);
    let message = message(answer).await;
    assert!(message.contains("127.0.0.1") && message.contains("cannot be reached"), "{message}");
}

#[tokio::test]
async fn a_base_url_that_is_none_is_the_owners_to_correct() {
    for base_url in ["file:///etc", "not a url", ""] {
        let (_, reached) = mpsc::unbounded_channel();
        let bed = Bed::before(base_url.to_owned(), CredentialKind::ApiKey, reached).await;
        let answer = bed.ask().send().await.unwrap();
        assert_eq!(answer.status(), 502);
        assert!(message(answer).await.contains("base URL"));
    }
}

/// S30: no `Debug` shows the credential.
#[test]
fn an_upstream_does_not_show_its_secret() {
    let secret = CANARY.to_owned().into();
    let upstream =
        Upstream { base_url: "https://api.invalid".to_owned(), kind: CredentialKind::Bearer, secret };
    assert!(!format!("{upstream:?}").contains(CANARY));
}

/// S19: a machine that holds the credential itself is known by the header of its own, which never goes out.
#[tokio::test]
async fn a_placeholder_in_its_own_header_counts_before_all_others() {
    let mut bed = Bed::new(CredentialKind::OauthToken).await;
    let url = format!("{}/v1/messages", bed.url);
    let ask = || bed.machine.post(&url).bearer_auth(CANARY).header("x-api-key", CANARY);
    assert_eq!(ask().header(PLACEHOLDER_HEADER, PLACEHOLDER).send().await.unwrap().status(), 200);
    let (parts, _) = bed.reached.recv().await.unwrap();
    assert!(!parts.headers.contains_key(PLACEHOLDER_HEADER) && !parts.headers.contains_key("x-api-key"));
    let wrong = bed.machine.post(&url).bearer_auth(PLACEHOLDER).header(PLACEHOLDER_HEADER, "wrong");
    assert_eq!(wrong.send().await.unwrap().status(), 401);
    assert!(bed.reached.try_recv().is_err());
}

/// R41: that the API refuses the credential is told; other trouble is not taken for that.
#[tokio::test]
async fn a_refused_credential_is_told_from_other_trouble() {
    for (status, told) in [(401, true), (403, false), (429, false), (529, false), (200, false)] {
        let status = StatusCode::from_u16(status).unwrap();
        let mut bed = Bed::answering(CredentialKind::ApiKey, move || status.into_response()).await;
        assert_eq!(bed.ask().send().await.unwrap().status(), status);
        assert_eq!(bed.refused.try_recv().is_ok(), told, "{status}");
    }
}

/// What is said of a credential that is tried, by what the model API answers.
#[tokio::test]
async fn a_trial_tells_a_good_credential_from_a_bad_one_and_from_trouble() {
    let client = mayfly_gateway::upstream_client().unwrap();
    for (status, expected) in [
        (200, "Accepted"),
        (400, "Accepted"),
        (429, "Accepted"),
        (401, "Refused"),
        (403, "Refused"),
        (302, "Unknown"),
        (529, "Unknown"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let mut bed = Bed::answering(CredentialKind::OauthToken, move || status.into_response()).await;
        let trial = try_credential(&client, &bed.upstream).await;
        let words = format!("{trial:?}");
        assert!(words.starts_with(expected) && !words.contains(CANARY), "{status}: {words}");
        let (parts, body) = bed.reached.recv().await.unwrap();
        assert_eq!((parts.uri.path(), &body[..]), ("/v1/messages/count_tokens", &b"{}"[..]));
        assert_eq!(parts.headers["authorization"], format!("Bearer {CANARY}"));
        assert_eq!(parts.headers["anthropic-beta"], "oauth-2025-04-20");
    }
    for base_url in ["http://127.0.0.1:1", "file:///x"] {
        let secret = CANARY.to_owned().into();
        let upstream = Upstream { base_url: base_url.to_owned(), kind: CredentialKind::ApiKey, secret };
        let trial = try_credential(&client, &upstream).await;
        assert!(matches!(trial, Trial::Unknown(_)), "{trial:?}");
    }
}
