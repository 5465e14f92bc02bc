//! No configured secret gets out of a machine by what it says or hands over, and what it uses is bounded from outside.

use std::fs;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::post;
use mayfly_wire::api::{Collected, Problem, Task};
use mayfly_wire::event::Event;
use mayfly_wire::worker::{Down, End, Report, Source};
use tokio::net::TcpListener;

use crate::bed::{Bed, CANARY, Worker, bundle, raw, task};

/// The canary with an `a` before it and more after it, in base64.
const CODED: &str = "YXNrLWNhbmFyeS03N2Fheno=";

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

async fn log(bed: &Bed, id: &str) -> Vec<String> {
    let (mut events, mut lines) = (bed.client.events(id, 0), Vec::new());
    while let Some(line) = events.next().await.unwrap() {
        lines.push(line);
    }
    lines
}

async fn put(worker: &Worker, name: &str, bytes: Vec<u8>) -> reqwest::Response {
    let put = raw(&worker.door).put(format!("http://mayfly/v1/worker/result/{name}"));
    put.bearer_auth(worker.order.result_token.expose()).body(bytes).send().await.unwrap()
}

/// S17, S30, S32: searched for in everything that is read or stored, after a restart in the middle too.
#[tokio::test]
async fn a_credential_that_a_machine_says_is_nowhere() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    worker.say(Source::Claude, End::Newline, format!(r#"{{"said":"{CANARY} {CODED}"}}"#)).await;
    worker.say(Source::Claude, End::More, format!("cut {}", &CANARY[..9])).await;
    let (door, hello) = (worker.door.clone(), worker.hello.clone());
    drop(worker);
    let bed = bed.restart().await;
    let mut worker = Worker::join(&door, &hello).await.unwrap();
    worker.say(Source::Claude, End::Newline, format!("{} here", &CANARY[9..])).await;
    worker.say(Source::Stderr, End::Newline, format!("token={CANARY}")).await;
    worker.report(&Report::Denied { tool: CANARY.to_owned(), message: CANARY.to_owned() }).await;
    let transcript = format!("{{\"x\":\"{CANARY}\"}}\n").repeat(3);
    assert_eq!(put(&worker, "transcript", transcript.into()).await.status(), 204);
    let detail = Some(format!("died with {CANARY}"));
    worker.report(&Report::Ended { outcome: "claude-error".to_owned(), detail }).await;
    let notes = vec![format!("note {CANARY}")];
    worker
        .report(&Report::Collected(Collected {
            transcript: true,
            notes,
            others: vec![CANARY.to_owned()],
            ..Collected::default()
        }))
        .await;

    let lines = log(&bed, &submitted.id).await;
    let text = lines.concat();
    assert!(!text.contains("canary") && !text.contains(&CODED[4..18]), "{text}");
    assert!(
        lines.iter().any(|line| line.contains(r#""redacted":2,"line":{"said":"************** "#)),
        "{text}"
    );
    assert!(text.contains("in 3 places, which are masked"), "{text}");
    let said = lines
        .iter()
        .map(|line| Event::parse(line).unwrap())
        .find(|event| event.text.as_deref() == Some("cut "));
    assert!(said.is_some(), "what waited is in the next part: {text}");
    let task = serde_json::to_string(&bed.client.task(&submitted.id).await.unwrap()).unwrap();
    assert!(!task.contains("canary") && task.contains("died with **************"), "{task}");
    let to = bed.data().join("to");
    bed.client.transcript(&submitted.id, None, &to).await.unwrap();
    assert_eq!(fs::read_to_string(to).unwrap(), "{\"x\":\"**************\"}\n".repeat(3));
    for file in files(bed.data()) {
        assert!(!holds(&fs::read(&file).unwrap_or_default(), CANARY), "{}", file.display());
    }
}

/// S17: in a file, in its name, in a message, in the name of a branch, or not to be searched; it is not given out, and not lost.
#[tokio::test]
async fn work_with_a_credential_in_it_is_withheld() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    let padding = "x".repeat(100_000);
    let mut last = Vec::new();
    for (name, text, message, other) in [
        (".npmrc", format!("{padding}//r:_authToken={CANARY}"), "m", "o"),
        (CANARY, "text".to_owned(), "m", "o"),
        ("a.txt", "text".to_owned(), CANARY, "o"),
        ("a.txt", "text".to_owned(), "m", CANARY),
    ] {
        last = bundle(name, &text, message, other);
        let answer = put(&worker, "bundle", last.clone()).await;
        assert_eq!(answer.status(), 422);
        let problem: Problem = answer.json().await.unwrap();
        assert_eq!(problem.kind, "secret-in-result");
        let detail = problem.detail;
        assert!(detail.contains("bundle.withheld") && !detail.contains(CANARY), "{detail}");
    }
    let kept = bed.data().join("results").join(&submitted.id).join("1");
    assert!(fs::read(kept.join("bundle.withheld")).unwrap() == last);
    assert!(!kept.join("bundle").exists());
    let answer = put(&worker, "bundle", b"no bundle at all".to_vec()).await;
    assert_eq!(answer.status(), 422);
    assert!(answer.text().await.unwrap().contains("could not be searched"));
    assert_eq!(fs::read(kept.join("bundle.withheld")).unwrap(), b"no bundle at all");
    assert!(!kept.join("bundle").exists());
    assert_eq!(put(&worker, "bundle", bundle("a.txt", "no secret", "m", "o")).await.status(), 204);
    worker.finish(Collected { bundle: true, ..Collected::default() }).await;
    let to = bed.data().join("to");
    log(&bed, &submitted.id).await;
    bed.client.bundle(&submitted.id, None, &to).await.unwrap();
}

/// A model API whose every answer is one token for four.
async fn model_api() -> String {
    let stream = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":4,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":1}}\n\n";
    let answer = move || async move { ([("content-type", "text/event-stream")], stream).into_response() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/v1/messages", post(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

async fn ask(worker: &Worker) -> u16 {
    let ask =
        raw(&worker.door).post("http://mayfly/v1/messages").bearer_auth(worker.order.model_token.expose());
    let answer = ask.body("{}").send().await.unwrap();
    let status = answer.status().as_u16();
    answer.bytes().await.unwrap();
    status
}

/// A task that makes so many requests, of which none is refused, and is then told to bring its work out.
async fn spends(requests: u64, limit: impl Fn(&mut mayfly_wire::api::CreateTask)) -> Task {
    let mut bed = Bed::start_with(|config| {
        config.rules.prices = Some("2026-01-01: m 250000/0/0/0".parse().unwrap());
    })
    .await;
    let mut asked = task("p", Some(model_api().await));
    limit(&mut asked);
    let submitted = bed.client.submit(&asked, "key").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    for _ in 0..requests {
        assert_eq!(ask(&worker).await, 200);
    }
    let told = worker.heard().await;
    assert!(matches!(told, Some(Down::Collect)), "{told:?}");
    assert_eq!(ask(&worker).await, 401, "nothing more is asked for");
    worker
        .report(&Report::Collected(Collected { notes: vec!["saved".to_owned()], ..Collected::default() }))
        .await;
    log(&bed, &submitted.id).await;
    let ended = bed.client.task(&submitted.id).await.unwrap();
    assert_eq!(ended.usage.as_ref().unwrap().requests, requests);
    ended
}

/// S60: a `claude` that goes on beyond its turns is ended from outside, and its work is brought out.
#[tokio::test]
async fn who_ignores_the_limit_of_turns_is_ended() {
    let ended = spends(8, |task| task.max_turns = Some(2)).await;
    let outcome = ended.outcome.unwrap();
    assert_eq!(outcome.name, "max-turns");
    assert_eq!(outcome.detail.as_deref(), Some("claude went on after 2 turns, and was ended after 8"));
    assert_eq!(ended.result.unwrap().notes, ["saved"]);
    let usage = ended.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (32, 8));
    assert_eq!((usage.cost_usd, usage.cost_by.as_deref()), (Some(8.0), Some("prices of 2026-01-01")));
}

/// S60: the same of money, by the table of prices: each request is a dollar.
#[tokio::test]
async fn who_ignores_the_limit_of_money_is_ended() {
    let ended = spends(5, |task| task.max_budget_usd = Some(3.0)).await;
    let outcome = ended.outcome.unwrap();
    assert_eq!(outcome.name, "max-budget");
    assert_eq!(outcome.detail.as_deref(), Some("claude went on after $4.0000, and $3 were allowed"));
    assert_eq!(ended.result.unwrap().notes, ["saved"]);
}
