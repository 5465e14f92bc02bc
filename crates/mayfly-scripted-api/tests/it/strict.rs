//! What the API refuses, rule by rule, each by one change to a request that it takes.

use mayfly_scripted_api::Accepted;
use serde_json::{Value, json};

use crate::client::{Answer, OAUTH, TOKEN, VERSION, api, api_that_takes, ask, body, send};

const BEARER: (&str, &str) = ("authorization", "Bearer dummy-token");
const KEY: (&str, &str) = ("x-api-key", "dummy-token");

async fn with_headers(accepted: Accepted, headers: &[(&str, &str)]) -> Answer {
    let api = api_that_takes(accepted).await;
    send(&api, "POST", "/v1/messages?beta=true", headers, &body("[script: text]").to_string()).await
}

#[tokio::test]
async fn each_kind_of_credential_opens_the_api_that_takes_it() {
    let token = || TOKEN.to_owned();
    assert_eq!(with_headers(Accepted::Oauth(token()), &OAUTH).await.status, 200);
    assert_eq!(with_headers(Accepted::Bearer(token()), &[BEARER, VERSION]).await.status, 200);
    assert_eq!(with_headers(Accepted::ApiKey(token()), &[KEY, VERSION]).await.status, 200);
}

#[tokio::test]
async fn any_other_credential_is_an_authentication_error() {
    let oauth = || Accepted::Oauth(TOKEN.into());
    let bearer = || Accepted::Bearer(TOKEN.into());
    let key = || Accepted::ApiKey(TOKEN.into());
    let beta = ("anthropic-beta", "oauth-2025-04-20");
    let cases = [
        ("no credential", oauth(), vec![beta, VERSION]),
        ("OAuth without its beta", oauth(), vec![BEARER, VERSION]),
        (
            "OAuth with a beta that only begins like it",
            oauth(),
            vec![BEARER, ("anthropic-beta", "oauth-2025-04-201"), VERSION],
        ),
        ("wrong token", oauth(), vec![("authorization", "Bearer other"), beta, VERSION]),
        ("token with more behind it", bearer(), vec![("authorization", "Bearer dummy-token2"), VERSION]),
        ("not a bearer", bearer(), vec![("authorization", "Basic dummy-token"), VERSION]),
        ("key where a bearer is taken", bearer(), vec![KEY, VERSION]),
        ("wrong key", key(), vec![("x-api-key", "other"), VERSION]),
        ("bearer where a key is taken", key(), vec![BEARER, VERSION]),
        ("both, key taken", key(), vec![KEY, BEARER, VERSION]),
        ("both, bearer taken", bearer(), vec![KEY, BEARER, VERSION]),
    ];
    for (what, accepted, headers) in cases {
        let (status, kind, _) = with_headers(accepted, &headers).await.error();
        assert_eq!((status, kind.as_str()), (401, "authentication_error"), "{what}");
    }
}

#[tokio::test]
async fn a_credential_that_is_sent_twice_is_refused() {
    let (status, _, message) =
        with_headers(Accepted::Bearer(TOKEN.into()), &[BEARER, BEARER, VERSION]).await.error();
    assert_eq!(status, 400, "{message}");
}

#[tokio::test]
async fn the_version_of_the_api_has_to_be_named() {
    for headers in [vec![BEARER], vec![BEARER, ("anthropic-version", "1999-01-01")]] {
        let (status, kind, message) = with_headers(Accepted::Bearer(TOKEN.into()), &headers).await.error();
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{message}");
        assert!(message.contains("anthropic-version"), "{message}");
    }
}

#[tokio::test]
async fn other_routes_are_not_found_and_greetings_need_no_credential() {
    let api = api().await;
    for (method, path) in [("HEAD", "/"), ("HEAD", "/api/hello")] {
        assert_eq!(send(&api, method, path, &[], "").await.status, 200, "{method} {path}");
    }
    for (method, path) in [
        ("GET", "/v1/messages"),
        ("POST", "/v1/messages/"),
        ("POST", "/v1/messages/batches"),
        ("GET", "/v1/models"),
        ("GET", "/"),
        ("GET", "/api/hello"),
    ] {
        let (status, kind, _) = send(&api, method, path, &OAUTH, "").await.error();
        assert_eq!((status, kind.as_str()), (404, "not_found_error"), "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let api = api().await;
    let body = " ".repeat((32 << 20) + 1);
    let (status, kind, _) = send(&api, "POST", "/v1/messages", &OAUTH, &body).await.error();
    assert_eq!((status, kind.as_str()), (413, "request_too_large"));
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let api = api().await;
    for body in ["", "{", "hello", "[]", "\"text\"", "null"] {
        let (status, kind, _) = send(&api, "POST", "/v1/messages", &OAUTH, body).await.error();
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{body:?}");
    }
}

/// Changes a good body and asserts that it is refused because of what `named` says.
async fn refused(named: &str, change: impl FnOnce(&mut Value)) {
    let api = api().await;
    let mut body = body("[script: text]");
    change(&mut body);
    let (status, kind, message) = ask(&api, &body).await.error();
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{body}");
    assert!(message.contains(named), "`{message}` does not name `{named}`: {body}");
}

async fn refused_messages(named: &str, messages: Value) {
    refused(named, |body| body["messages"] = messages).await;
}

fn without(body: &mut Value, field: &str) {
    body.as_object_mut().unwrap().remove(field);
}

#[tokio::test]
async fn the_fields_that_every_request_needs_are_asked_for() {
    for field in ["model", "max_tokens", "messages"] {
        refused(field, |body| without(body, field)).await;
    }
    refused("model", |body| body["model"] = 3.into()).await;
    refused("model", |body| body["model"] = "".into()).await;
    refused("max_tokens", |body| body["max_tokens"] = 0.into()).await;
    refused("max_tokens", |body| body["max_tokens"] = "100".into()).await;
    refused("stream", |body| body["stream"] = "yes".into()).await;
    refused("system", |body| body["system"] = json!([{"type": "image"}])).await;
}

#[tokio::test]
async fn messages_of_a_wrong_role_or_shape_are_refused() {
    refused_messages("messages", json!("hello")).await;
    refused_messages("messages", json!([])).await;
    refused_messages("role", json!([{"role": "tool", "content": "x"}])).await;
    refused_messages("role", json!([{"content": "x"}])).await;
    refused_messages(
        "role",
        json!([{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}]),
    )
    .await;
    refused_messages("role", json!([{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]))
        .await;
    refused_messages(
        "end with",
        json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]),
    )
    .await;
}

#[tokio::test]
async fn content_that_is_empty_or_of_a_wrong_shape_is_refused() {
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    refused_messages("empty", user(json!(""))).await;
    refused_messages("empty", user(json!([]))).await;
    refused_messages("content", user(json!(3))).await;
    refused_messages("content", json!([{"role": "user"}])).await;
    refused_messages("text", user(json!([{"type": "text", "text": ""}]))).await;
    refused_messages("text", user(json!([{"type": "text"}]))).await;
    refused_messages("type", user(json!([{"text": "x"}]))).await;
    refused_messages("type", user(json!(["x"]))).await;
    refused_messages("poem", user(json!([{"type": "poem"}]))).await;
    refused_messages("thinking", user(json!([{"type": "thinking", "thinking": "x", "signature": "x"}])))
        .await;
    refused_messages("tool_use", user(json!([{"type": "tool_use", "id": "a", "name": "A", "input": {}}])))
        .await;
}

#[tokio::test]
async fn tools_without_a_name_or_a_schema_are_refused() {
    let schema = json!({"type": "object"});
    refused("name", |body| body["tools"] = json!([{"input_schema": schema}])).await;
    refused("input_schema", |body| body["tools"] = json!([{"name": "A"}])).await;
    refused("input_schema", |body| body["tools"] = json!([{"name": "A", "input_schema": {"type": "array"}}]))
        .await;
    let twice = json!([{"name": "A", "input_schema": schema}, {"name": "A", "input_schema": schema}]);
    refused("twice", |body| body["tools"] = twice).await;
    refused("tools", |body| body["tools"] = json!({})).await;
}

fn call(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "A", "input": {}})
}

fn result(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": "x"})
}

/// A prompt, then turns of the assistant and the user, alternately.
fn conversation(turns: &[Value]) -> Value {
    let prompt = json!({"role": "user", "content": "[script: text]"});
    let roles = ["assistant", "user"].into_iter().cycle();
    let turns = roles.zip(turns).map(|(role, content)| json!({"role": role, "content": content}));
    [prompt].into_iter().chain(turns).collect()
}

#[tokio::test]
async fn each_tool_call_has_to_be_answered_in_the_next_message() {
    refused_messages("a has no `tool_result`", conversation(&[json!([call("a")]), json!("x")])).await;
    refused_messages(
        "b has no `tool_result`",
        conversation(&[json!([call("a"), call("b")]), json!([result("a")])]),
    )
    .await;
    refused_messages("a has no `tool_result`", conversation(&[json!([call("a")])])).await;
    let late = [json!([call("a")]), json!("x"), json!("x"), json!([result("a")])];
    refused_messages("a has no `tool_result`", conversation(&late)).await;
}

#[tokio::test]
async fn each_tool_result_has_to_have_its_call_in_the_message_before() {
    refused_messages("unexpected", conversation(&[json!("x"), json!([result("a")])])).await;
    refused_messages("unexpected", conversation(&[json!([call("a")]), json!([result("a"), result("b")])]))
        .await;
    refused_messages("unexpected", conversation(&[json!([call("a")]), json!([result("a"), result("a")])]))
        .await;
    refused_messages("unexpected", json!([{"role": "user", "content": [result("a")]}])).await;
    let again = [json!([call("a")]), json!([result("a")]), json!("x"), json!([result("a")])];
    refused_messages("unexpected", conversation(&again)).await;
}

#[tokio::test]
async fn the_ids_of_tool_calls_are_unique_in_a_conversation() {
    refused_messages(
        "a is there twice",
        conversation(&[json!([call("a"), call("a")]), json!([result("a")])]),
    )
    .await;
    let again = [json!([call("a")]), json!([result("a")]), json!([call("a")]), json!([result("a")])];
    refused_messages("a is there twice", conversation(&again)).await;
}

#[tokio::test]
async fn tool_calls_have_an_id_a_name_and_an_object_as_input() {
    let call = |id: Value, name: Value, input: Value| json!({"type": "tool_use", "id": id, "name": name, "input": input});
    for (named, call) in [
        ("id", call(json!(""), json!("A"), json!({}))),
        ("name", call(json!("a"), json!(null), json!({}))),
        ("input", call(json!("a"), json!("A"), json!("{}"))),
    ] {
        refused_messages(named, conversation(&[json!([call]), json!([result("a")])])).await;
    }
}

#[tokio::test]
async fn what_the_cli_really_sends_is_taken() {
    let api = api().await;
    let mut asked = body("x");
    asked["system"] = json!([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]);
    asked["tools"] = json!([
        {"name": "A", "input_schema": {"type": "object"}, "defer_loading": true},
        {"type": "web_search_20250305", "name": "web_search"},
    ]);
    asked["a_field_of_tomorrow"] = true.into();
    asked["messages"] = json!([
        {"role": "user", "content": [{"type": "text", "text": "[script: text]"}]},
        {"role": "system", "content": "x"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "x"}, call("a")]},
        {"role": "assistant", "content": [call("b")]},
        {"role": "user", "content": [result("b")]},
        {"role": "system", "content": [{"type": "tool_addition", "tool": "x"}]},
        {"role": "user", "content": [result("a"), {"type": "text", "text": "and more"}]},
    ]);
    let answer = ask(&api, &asked).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn tokens_are_counted_by_the_same_rules() {
    let api = api().await;
    let mut asked = body("x");
    without(&mut asked, "max_tokens");
    let count =
        async |body: &Value| send(&api, "POST", "/v1/messages/count_tokens", &OAUTH, &body.to_string()).await;
    let few = count(&asked).await.json()["input_tokens"].as_u64().unwrap();
    asked["messages"][0]["content"] = "x".repeat(4000).into();
    let many = count(&asked).await.json()["input_tokens"].as_u64().unwrap();
    assert!((900..1100).contains(&(many - few)), "{few}, {many}");
    without(&mut asked, "messages");
    assert_eq!(count(&asked).await.error().0, 400);
}
