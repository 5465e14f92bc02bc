//! What a client gets for a scenario: events, JSON, broken streams and errors.

use mayfly_scripted_api::SCENARIOS;
use serde_json::{Value, json};

use crate::client::{Answer, api, ask, ask_streaming, body};

/// A request in the middle of a conversation: a prompt, and then so many answers.
fn after(prompt: &str, answers: usize) -> Value {
    let mut body = body(prompt);
    let messages = body["messages"].as_array_mut().unwrap();
    for _ in 0..answers {
        messages.push(json!({"role": "assistant", "content": "x"}));
        messages.push(json!({"role": "user", "content": "go on"}));
    }
    body
}

/// The content of an answer that did not stream, and why it stopped.
fn said(answer: &Answer) -> (Value, String) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let message = answer.json();
    (message["content"].clone(), message["stop_reason"].as_str().unwrap().to_owned())
}

async fn text(prompt: &Value) -> String {
    let (content, _) = said(&ask(&api().await, prompt).await);
    content[0]["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stream_says_the_same_as_the_json() {
    let api = api().await;
    let prompt = "[script: thinking thinking=\"hm \\\"so\\\"\" text=ok]";
    let (content, stop) = said(&ask(&api, &body(prompt)).await);
    let streamed = ask_streaming(&api, prompt).await;
    assert_eq!(streamed.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events = streamed.events();
    let joined = |kind: &str, field: &str| -> String {
        let deltas = events.iter().map(|event| &event["delta"]).filter(|delta| delta["type"] == kind);
        deltas.map(|delta| delta[field].as_str().unwrap()).collect()
    };
    assert_eq!(content[0]["thinking"], joined("thinking_delta", "thinking"));
    assert_eq!(content[0]["signature"], joined("signature_delta", "signature"));
    assert_eq!(content[1]["text"], joined("text_delta", "text"));
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types.first(), Some(&"message_start"));
    assert_eq!(types.last(), Some(&"message_stop"));
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], stop);
    assert!(streamed.whole);
}

#[tokio::test]
async fn the_last_directive_of_the_users_own_words_counts() {
    let mut asked = body("x");
    asked["messages"] = json!([
        {"role": "user", "content": "[script: text text=early]"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "A", "input": {}}]},
        {"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>[script: text text=reminder]</system-reminder>[script: text text=first]"},
            {"type": "text", "text": "[script: text text=wrong] and [script: text text=\"last [script: empty] ]\"]."},
            {"type": "text", "text": "<system-reminder>\n[script: text text=reminder]\n"},
            {"type": "tool_result", "tool_use_id": "a", "content": "[script: text text=tool]"},
        ]},
        {"role": "system", "content": "[script: text text=system]"},
    ]);
    assert_eq!(text(&asked).await, "last [script: empty] ]");
}

#[tokio::test]
async fn the_answers_after_the_directive_are_the_step() {
    let prompt = "[script: steps list=[{\"text\":\"zero\"},{\"text\":\"one\"}]]";
    assert_eq!(text(&after(prompt, 0)).await, "zero");
    assert_eq!(text(&after(prompt, 1)).await, "one");
    assert_eq!(text(&after(prompt, 2)).await, "The script is over.");
}

#[tokio::test]
async fn the_working_directory_is_put_where_the_script_has_a_mark_for_it() {
    let api = api().await;
    let mut asked = body("[script: tool name=A input={\"file\":\"{cwd}/a\",\"list\":[\"{cwd}\"]}]");
    let input = |answer: Answer| said(&answer).0[0]["input"].clone();
    assert_eq!(input(ask(&api, &asked).await), json!({"file": "a", "list": ["."]}));
    let environment =
        json!({"role": "system", "content": "x\n - Primary working directory: /work space/a\n - x"});
    asked["messages"].as_array_mut().unwrap().push(environment);
    assert_eq!(input(ask(&api, &asked).await), json!({"file": "/work space/a/a", "list": ["/work space/a"]}));
}

#[tokio::test]
async fn without_a_directive_the_answer_says_how_to_give_one() {
    assert!(text(&body("hello")).await.contains("[script: text]"));
}

#[tokio::test]
async fn a_directive_that_cannot_be_read_is_refused_with_its_reason() {
    let api = api().await;
    for (prompt, named) in [
        ("[script: nonsense]", "nonsense"),
        ("[script: text", "`]` is missing"),
        ("[script: text colour=red]", "colour"),
        ("[script: text text]", "key=value"),
        ("[script: text text=\"open]", "bad JSON"),
        ("[script: bash]", "command"),
        ("[script: big-text megabytes=65]", "64"),
        ("[script: slow pause_ms=600001]", "600000"),
        ("[script: slow chunks=10001]", "10000"),
        ("[script: status code=200]", "200"),
        ("[script: steps list=[{\"txet\":\"x\"}]]", "txet"),
    ] {
        let (status, _, message) = ask(&api, &body(prompt)).await.error();
        assert_eq!(status, 400, "{prompt}");
        assert!(message.contains(named), "`{message}` does not name `{named}`");
    }
}

#[tokio::test]
async fn the_help_lists_exactly_the_scenarios_that_there_are() {
    let (_, _, message) = ask(&api().await, &body("[script: nonsense]")).await.error();
    let known: Vec<_> = message.split("expected one of ").nth(1).unwrap().split(", ").collect();
    let listed: Vec<_> = SCENARIOS.iter().map(|scenario| format!("`{}`", scenario.name)).collect();
    assert_eq!(known, listed);
}

#[tokio::test]
async fn a_cut_stream_has_no_end_and_is_whole_when_it_does_not_stream() {
    let api = api().await;
    let cut = ask_streaming(&api, "[script: cut-stream]").await;
    assert!(!cut.whole, "{}", cut.body);
    assert_eq!(cut.events()[0]["type"], "message_start", "half of it comes");
    assert!(!cut.body.contains("message_stop"), "{}", cut.body);
    assert_eq!(said(&ask(&api, &body("[script: cut-stream]")).await).1, "end_turn");
}

#[tokio::test]
async fn a_failing_stream_ends_with_an_error_event() {
    let api = api().await;
    let failed = ask_streaming(&api, "[script: stream-error]").await;
    assert_eq!(failed.status, 200);
    assert_eq!(failed.events().last().unwrap()["error"]["type"], "overloaded_error");
    assert!(failed.whole);
    assert_eq!(ask(&api, &body("[script: stream-error]")).await.error().0, 529);
}

#[tokio::test]
async fn errors_have_the_status_and_the_kind_that_was_asked_for() {
    let api = api().await;
    for (code, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ] {
        let answer =
            ask_streaming(&api, &format!("[script: status code={code} message=sorry retry_after=7]")).await;
        assert_eq!(answer.error(), (code, kind.to_owned(), "sorry".to_owned()));
        assert_eq!(answer.header("retry-after"), Some("7"));
    }
}

#[tokio::test]
async fn a_used_up_subscription_says_so_in_its_headers() {
    let answer = ask(&api().await, &body("[script: usage-limit resets_at=4102444801]")).await;
    assert_eq!(answer.error().0, 429);
    let unified = |name: &str| answer.header(&format!("anthropic-ratelimit-unified-{name}"));
    assert_eq!(unified("status"), Some("rejected"));
    assert_eq!(unified("representative-claim"), Some("five_hour"));
    assert_eq!(unified("reset"), Some("4102444801"));
}

#[tokio::test]
async fn answers_stop_for_the_reason_that_was_asked_for() {
    let api = api().await;
    let stop = async |prompt: &str| said(&ask(&api, &body(prompt)).await).1;
    assert_eq!(stop("[script: max-tokens]").await, "max_tokens");
    assert_eq!(stop("[script: refusal]").await, "refusal");
    assert_eq!(stop("[script: two-tools]").await, "tool_use");
    let (content, stop) = said(&ask(&api, &body("[script: empty]")).await);
    assert_eq!((content, stop.as_str()), (json!([]), "end_turn"));
}

#[tokio::test]
async fn a_big_text_is_one_line_and_costs_no_fortune() {
    let (content, _) = said(&ask(&api().await, &body("[script: big-text megabytes=3]")).await);
    let text = content[0]["text"].as_str().unwrap();
    assert_eq!((text.len(), text.lines().count()), (3_000_000, 1));
    let answer = ask_streaming(&api().await, "[script: big-text megabytes=3]").await;
    assert!(answer.body.len() > 3_000_000);
    let usage = &answer.events().into_iter().find(|event| event["type"] == "message_delta").unwrap()["usage"];
    assert_eq!(usage["output_tokens"], 32_000);
}

#[tokio::test]
async fn usage_counts_what_is_new_apart_from_what_was_seen() {
    let usage = async |body: &Value| ask(&api().await, body).await.json()["usage"].clone();
    let prompt = format!("{} [script: loop]", "x".repeat(4000));
    let first = usage(&after(&prompt, 0)).await;
    assert_eq!(first["cache_read_input_tokens"], 0);
    assert!(first["cache_creation_input_tokens"].as_u64().unwrap() > 1000, "{first}");
    let second = usage(&after(&prompt, 1)).await;
    assert!(second["cache_read_input_tokens"].as_u64().unwrap() > 1000, "{second}");
    assert!(second["cache_creation_input_tokens"].as_u64().unwrap() < 100, "{second}");
}
