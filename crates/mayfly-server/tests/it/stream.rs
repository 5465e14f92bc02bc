//! A task's log as server-sent events, and a log that is old.

use std::time::Duration;

use mayfly_client::ClientError;
use mayfly_wire::api::{Collected, Problem};
use reqwest::{RequestBuilder, Response};

use crate::bed::{Bed, raw, task};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

fn get(bed: &Bed, path: &str) -> RequestBuilder {
    raw(&bed.server.socket()).get(format!("http://mayfly{path}"))
}

fn follow(bed: &Bed, id: &str, after: u64) -> RequestBuilder {
    let path = format!("/v1/tasks/{id}/events?after={after}");
    get(bed, &path).header("accept", "text/event-stream")
}

async fn finished(bed: &mut Bed) -> String {
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let mut worker = bed.worker().await;
    worker.ready().await;
    worker.line("{\"a\":1}").await;
    worker.line("two\rhalves \u{2028}").await;
    worker.finish(Collected::default()).await;
    log(bed, &id).await;
    id
}

/// Waits for the task's end, and gives its log.
async fn log(bed: &Bed, id: &str) -> Vec<String> {
    let (mut events, mut lines) = (bed.client.events(id, 0), Vec::new());
    while let Some(line) = events.next().await.unwrap() {
        lines.push(line);
    }
    lines
}

/// What arrives until `end` is there.
async fn until(answer: &mut Response, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let chunk = answer.chunk().await.unwrap().expect("more");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text
}

/// R12, G8: each event once, with its number, and from any number on; who has all is told to stay away.
#[tokio::test]
async fn server_sent_events_are_the_same_log_and_end_with_it() {
    let mut bed = Bed::start().await;
    let id = finished(&mut bed).await;
    let lines = log(&bed, &id).await;
    let event = |(seq, line): (usize, &String)| format!("id: {}\ndata: {line}\n\n", seq + 1);
    let events: Vec<String> = lines.iter().enumerate().map(event).collect();
    for after in 0..events.len() {
        let answer = follow(&bed, &id, after as u64).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.text().await.unwrap(), events[after..].concat(), "after {after}");
    }
    let again = |last: usize| follow(&bed, &id, 0).header("last-event-id", last.to_string()).send();
    assert_eq!(again(2).await.unwrap().text().await.unwrap(), events[2..].concat(), "`after` is outranked");
    let over = again(events.len()).await.unwrap();
    assert_eq!((over.status().as_u16(), over.text().await.unwrap().as_str()), (204, ""));
    let bad = follow(&bed, &id, 0).header("last-event-id", "-1").send().await.unwrap();
    assert_eq!(
        (bad.status().as_u16(), bad.json::<Problem>().await.unwrap().kind.as_str()),
        (400, "bad-request")
    );
}

#[tokio::test]
async fn a_silent_stream_says_from_time_to_time_that_it_is_there() {
    let mut bed = Bed::start().await;
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let mut worker = bed.worker().await;
    let mut answer = follow(&bed, &id, 0).send().await.unwrap();
    until(&mut answer, "running").await;
    for _ in 0..2 {
        bed.clock.sleeper_for(15 * SECOND).await;
        bed.clock.advance(15 * SECOND);
        assert_eq!(until(&mut answer, ":\n\n").await, ":\n\n");
    }
    worker.line("now").await;
    assert!(until(&mut answer, "\n\n").await.starts_with("id: 4\ndata: {"));
}

/// R14, G8: what is gone is said, and nothing is passed over in silence.
#[tokio::test]
async fn a_log_and_a_result_that_are_old_are_gone_and_said_to_be() {
    let mut bed = Bed::start().await;
    let id = finished(&mut bed).await;
    let last = log(&bed, &id).await.len() as u64;
    bed.clock.sleeper_for(3600 * SECOND).await;
    bed.clock.advance(31 * DAY);
    bed.clock.sleeper_for(3600 * SECOND).await;
    for path in ["events?after=0", "events?after=3&follow=false", "result", "result/bundle", "result/patch"] {
        let answer = get(&bed, &format!("/v1/tasks/{id}/{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 410, "{path}");
        let problem: Problem = answer.json().await.unwrap();
        let first = path.starts_with("events").then_some(last + 1);
        assert_eq!((problem.kind.as_str(), problem.first), ("gone", first), "{path}");
    }
    assert_eq!(follow(&bed, &id, 1).send().await.unwrap().status(), 410);
    let error = bed.client.events(&id, 0).next().await.unwrap_err();
    assert!(matches!(error, ClientError::Gone { first } if first == last + 1), "{error:?}");
    assert_eq!(bed.client.events(&id, last).next().await.unwrap(), None);
    let task = bed.client.task(&id).await.unwrap();
    assert!(task.pruned && task.outcome.unwrap().name == "succeeded");
}
