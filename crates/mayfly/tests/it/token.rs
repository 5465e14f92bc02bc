//! `mayfly token`, with the tokens of a stand-in for the orchestrator.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::User;
use super::stand_in::{problem, serve};

const MADE: &str = "2026-01-01T00:00:00Z";

fn router() -> Router {
    let add = async |Json(asked): Json<Value>| match asked["name"].as_str().unwrap() {
        "laptop" => problem(409, "name-taken", "there is a token of this name already"),
        name => {
            let made = json!({"name": name, "created_at": MADE, "token": "mayfly-owner-00"});
            (StatusCode::CREATED, made.to_string()).into_response()
        }
    };
    let list =
        async || json!([{"name": "laptop", "created_at": MADE}, {"name": "local", "created_at": MADE}]);
    let list = async move || list().await.to_string();
    let revoke = async |Path(name): Path<String>| match name.as_str() {
        "nobody" => problem(404, "no-such-token", "no token has this name"),
        _ => StatusCode::NO_CONTENT.into_response(),
    };
    Router::new().route("/v1/tokens", get(list).post(add)).route("/v1/tokens/{name}", delete(revoke))
}

/// With the exit codes; a token is on standard output alone, without another word.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_listed_and_revoked() {
    let user = User::new();
    let data = serve(&user, router());
    let data = data.to_str().unwrap();
    let all = [
        &["token", "add", "ci"][..],
        &["token", "add", "laptop"],
        &["token", "ls", "--json"],
        &["token", "revoke", "ci"],
        &["token", "revoke", "local"],
        &["token", "revoke", "nobody"],
    ];
    let said = all.map(|args| {
        let said = user.said(user.mayfly(&[args, &["--data", data]].concat()));
        format!("$ mayfly {}\n{said}", args.join(" "))
    });
    insta::assert_snapshot!(said.concat());
    let output = user.mayfly(&["token", "add", "ci", "--data", data]).output().unwrap();
    assert_eq!(output.stdout, b"mayfly-owner-00\n");
}

#[test]
fn a_token_without_a_good_name_or_an_orchestrator() {
    let user = User::new();
    for args in [["token", "add", "../x"], ["token", "add", ""], ["token", "revoke", "a b"]] {
        let said = user.said(user.mayfly(&args));
        assert!(said.starts_with("exit 2\n") && said.contains("expected 1 to 50 letters"), "{said}");
    }
    let said = user.said(user.mayfly(&["token", "ls"]));
    assert!(said.starts_with("exit 3\n") && said.contains("`mayfly serve` starts one"), "{said}");
    assert!(user.untouched());
}
