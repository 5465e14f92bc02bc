//! What an owner does with many tasks, and with time that runs out.

use std::time::Duration;

use mayfly_client::{Bundle, ClientError};
use mayfly_wire::api::{Retry, Task};
use mayfly_wire::worker::Down;

use crate::bed::{Bed, git, raw, task};

async fn get<T: serde::de::DeserializeOwned>(bed: &Bed, path: &str) -> T {
    let answer = raw(&bed.server.socket()).get(format!("http://mayfly{path}")).send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

async fn refused(bed: &Bed, path: &str) -> (u16, String) {
    let answer = raw(&bed.server.socket()).get(format!("http://mayfly{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn finished(bed: &Bed, id: &str) -> Task {
    let mut events = bed.client.events(id, 0);
    while events.next().await.unwrap().is_some() {}
    bed.client.task(id).await.unwrap()
}

/// S60, R35: both clocks of a run, as the owner sees them; the work is asked for first.
#[tokio::test]
async fn time_that_runs_out_ends_a_task_for_its_owner() {
    let mut bed = Bed::start().await;
    let limits = [(Some(90_000), None, 90, "timeout"), (None, Some(60_000), 60, "idle-timeout")];
    for (timeout_ms, idle_timeout_ms, seconds, outcome) in limits {
        let mut asked = task("p", None);
        (asked.timeout_ms, asked.idle_timeout_ms) = (timeout_ms, idle_timeout_ms);
        asked.max_turns = Some(7);
        let submitted = bed.client.submit(&asked, outcome).await.unwrap();
        let mut worker = bed.worker().await;
        worker.ready().await;
        bed.clock.sleeper_for(Duration::from_secs(seconds)).await;
        let running = bed.client.task(&submitted.id).await.unwrap();
        assert_eq!(running.state, "running");
        assert!(running.heard_at.is_some() && running.deadline_at > running.heard_at, "{running:?}");
        let limits = running.limits.unwrap();
        assert_eq!(limits.timeout_ms, timeout_ms.unwrap_or(1_800_000));
        assert_eq!(limits.idle_timeout_ms, idle_timeout_ms.unwrap_or(600_000));
        assert_eq!((limits.memory_bytes, limits.processes, limits.disk_bytes), (4 << 30, 1024, 20 << 30));
        assert_eq!((limits.cpus, limits.max_turns), (2.0, Some(7)));
        bed.clock.advance(Duration::from_secs(seconds));
        assert!(matches!(worker.heard().await, Some(Down::Collect)));
        worker.report(&mayfly_wire::worker::Report::Collected(mayfly_wire::api::Collected::default())).await;
        let ended = finished(&bed, &submitted.id).await;
        assert_eq!(ended.outcome.unwrap().name, outcome);
        assert_eq!((bed.machines_alive(), ended.deadline_at, ended.limits), (0, None, None));
    }
}

/// R07, R08: a machine that is silent for too long is given up, however long the orchestrator was away.
#[tokio::test]
async fn a_machine_that_never_dials_again_is_lost_in_the_end() {
    let mut bed = Bed::start().await;
    let mut asked = task("p", None);
    asked.timeout_ms = Some(160 * 3_600_000);
    let submitted = bed.client.submit(&asked, "key").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    drop(worker);
    let mut bed = bed.restart().await;
    bed.clock.run(Duration::from_secs(60), finished(&bed, &submitted.id)).await;
    let lost = bed.client.task(&submitted.id).await.unwrap().outcome.unwrap();
    assert_eq!(
        (lost.name.as_str(), lost.detail.as_deref()),
        ("lost", Some("its machine was not heard for 1h"))
    );
    assert_eq!(bed.machines_alive(), 0);
    assert!(bed.machines.try_recv().is_err(), "none was made in its place");
}

#[tokio::test]
async fn tasks_are_listed_by_state_and_page_by_page() {
    let mut bed = Bed::start().await;
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(bed.client.submit(&task("p", None), &n.to_string()).await.unwrap().id);
    }
    let mut worker = bed.worker().await;
    worker.ready().await;
    let mut seen: Vec<String> = Vec::new();
    while seen.len() < ids.len() {
        let cursor = seen.last().map(|id| format!("&cursor={id}")).unwrap_or_default();
        let page: Vec<Task> = get(&bed, &format!("/v1/tasks?limit=3{cursor}")).await;
        assert!((1..=3).contains(&page.len()));
        seen.extend(page.into_iter().map(|task| task.id));
    }
    ids.reverse();
    assert_eq!(seen, ids);
    let running: Vec<Task> = get(&bed, "/v1/tasks?state=running").await;
    assert_eq!((running.len(), running[0].heard_at.is_some()), (1, true));
    let queued: Vec<Task> = get(&bed, "/v1/tasks?state=queued").await;
    assert_eq!(queued.len(), 2, "five have machines");
    for (path, word) in [("/v1/tasks?state=idle", "launching"), ("/v1/tasks?cursor=x", "cursor")] {
        let (status, text) = refused(&bed, path).await;
        assert!(status == 400 && text.contains(word), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_task_is_found_by_the_end_of_its_id() {
    let bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    for name in [&submitted.id, &submitted.short, &submitted.short[4..], &submitted.id.to_uppercase()] {
        assert_eq!(get::<Task>(&bed, &format!("/v1/tasks/{name}")).await.id, submitted.id, "{name}");
    }
    assert_eq!(refused(&bed, &format!("/v1/tasks/{}", &submitted.short[5..])).await.0, 404, "too short");
    assert_eq!(refused(&bed, "/v1/tasks/%25%25%25%25").await.0, 404);
    // Of so many, two end alike in four digits as good as surely; which is looked for.
    let mut ends = std::collections::HashMap::from([(submitted.id[32..].to_owned(), submitted.id.clone())]);
    let twins = loop {
        let other = bed.client.submit(&task("p", None), &ends.len().to_string()).await.unwrap().id;
        if let Some(twin) = ends.insert(other[32..].to_owned(), other.clone()) {
            break [twin, other];
        }
    };
    let (status, text) = refused(&bed, &format!("/v1/tasks/{}", &twins[0][32..])).await;
    assert_eq!(status, 409);
    assert!(twins.iter().all(|id| text.contains(id)) && text.contains("ambiguous-task"), "{text}");
}

#[tokio::test]
async fn a_task_that_is_over_is_asked_for_again() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("fix it", None), "key").await.unwrap();
    let retry = Retry { credential: task("x", None).credential, ..Retry::default() };
    let early = bed.client.retry(&submitted.id, &retry, "again").await.unwrap_err();
    assert!(matches!(&early, ClientError::Refused(problem) if problem.kind == "not-over"), "{early}");
    let mut worker = bed.worker().await;
    worker.ready().await;
    worker.end("api-error").await;
    finished(&bed, &submitted.id).await;
    let again = bed.client.retry(&submitted.short, &retry, "again").await.unwrap();
    assert_eq!(bed.client.retry(&submitted.id, &retry, "again").await.unwrap().id, again.id);
    assert_ne!(again.id, submitted.id);
    assert_eq!(bed.worker().await.order.prompt, "fix it");
}

/// The numbers are those of what happened, and a machine that was nobody's is one of them.
#[tokio::test]
async fn what_happened_is_counted() {
    let mut bed = Bed::start().await;
    let numbers = async |bed: &Bed| {
        let answer = raw(&bed.server.socket()).get("http://mayfly/metrics").send().await.unwrap();
        assert!(
            answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text")
        );
        answer.text().await.unwrap()
    };
    let has = |text: &str, line: &str| assert!(text.lines().any(|known| known == line), "{line} in {text}");
    for n in 0..6 {
        bed.client.submit(&task("p", None), &n.to_string()).await.unwrap();
    }
    let mut worker = bed.worker().await;
    worker.ready().await;
    let text = numbers(&bed).await;
    for line in [
        "mayfly_tasks{state=\"queued\"} 1",
        "mayfly_tasks{state=\"finished\"} 0",
        "mayfly_machines_running 5",
        "mayfly_machines_allowed 5",
        "mayfly_launch_seconds_count 1",
        "mayfly_records_acknowledged_total 2",
        "mayfly_event_lag_seconds_count 2",
        "mayfly_link_reconnects_total 0",
        "mayfly_hellos_refused_total 0",
        "mayfly_leaked_machines_total 0",
    ] {
        has(&text, line);
    }
    let (door, hello) = (worker.door.clone(), worker.hello.clone());
    drop(worker);
    let _again = crate::bed::Worker::join(&door, &hello).await.unwrap();
    has(&numbers(&bed).await, "mayfly_link_reconnects_total 1");
    bed.put_stranger();
    let bed = bed.restart().await;
    bed.nobody_but(5).await;
    has(&numbers(&bed).await, "mayfly_leaked_machines_total 1");
}

#[tokio::test]
async fn how_a_task_ended_is_told_with_what_came_out_of_it() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    let path = format!("/v1/tasks/{}/result", submitted.short);
    let mut worker = bed.worker().await;
    assert_eq!(refused(&bed, &path).await.0, 409);
    worker.ready().await;
    worker.finish(mayfly_wire::api::Collected { notes: vec!["n".to_owned()], ..Default::default() }).await;
    finished(&bed, &submitted.id).await;
    let result: mayfly_wire::api::TaskResult = get(&bed, &path).await;
    assert_eq!((result.outcome.name.as_str(), result.attempt), ("succeeded", Some(1)));
    assert_eq!(result.collected.unwrap().notes, ["n"]);
}

/// A task that could not speak to the model would only cost a machine.
#[tokio::test]
async fn a_task_without_a_credential_is_refused() {
    let bed = Bed::start().await;
    let mut without = task("p", None);
    without.credential = None;
    let error = bed.client.submit(&without, "key").await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.kind == "no-credential"), "{error}");
    assert!(error.to_string().contains("mayfly credential add"), "{error}");
    assert!(bed.client.tasks(None, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_method_that_a_route_has_not_is_told_from_a_route_that_is_not_there() {
    let bed = Bed::start().await;
    let owner = raw(&bed.server.socket());
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(owner.delete("http://mayfly/v1/tasks")).await, 405);
    assert_eq!(status(owner.delete("http://mayfly/v1/task")).await, 404);
}

/// Said where it is met, and with what to do.
#[tokio::test]
async fn a_database_that_is_damaged_while_nobody_looks_is_named() {
    use std::os::unix::fs::FileExt as _;
    let bed = Bed::start().await;
    for n in 0..50 {
        bed.client.submit(&task(&"p".repeat(5000), None), &n.to_string()).await.unwrap();
    }
    let file = bed.data().join("mayfly.db");
    let bed = bed.restart().await;
    rusqlite::Connection::open(&file).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let bytes = std::fs::metadata(&file).unwrap().len();
    let spoilt = std::fs::File::options().write(true).open(&file).unwrap();
    spoilt.write_all_at(&vec![0xa5; usize::try_from(bytes - 4096).unwrap()], 4096).unwrap();
    let bed = bed.restart_as_is().await;
    let (status, text) = match &bed {
        Ok(bed) => refused(bed, "/readyz").await,
        Err(error) => (503, error.clone()),
    };
    assert!(status == 503 && text.contains("damaged"), "{status} {text}");
}

/// S46: made of what came out of a machine, with every object checked.
#[tokio::test]
async fn what_was_changed_is_there_as_a_patch() {
    let mut bed = Bed::start().await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    git(dir.path(), &["init", "-q", "-b", "base", "."]);
    git(dir.path(), &["commit", "-q", "--allow-empty", "-m", "base"]);
    git(dir.path(), &["bundle", "create", "-q", "base.bundle", "base"]);
    let mut asked = task("p", None);
    asked.workspace = Some(
        bed.client
            .upload_workspace("repo", &Bundle::read(&at("base.bundle"), None).await.unwrap())
            .await
            .unwrap(),
    );
    let submitted = bed.client.submit(&asked, "key").await.unwrap();
    let path = format!("/v1/tasks/{}/result/patch", submitted.id);
    let mut worker = bed.worker().await;
    worker.ready().await;
    assert_eq!(refused(&bed, &path).await.0, 404);
    git(dir.path(), &["checkout", "-q", "-b", "work"]);
    std::fs::write(at("made.txt"), "new\n").unwrap();
    git(dir.path(), &["add", "made.txt"]);
    git(dir.path(), &["commit", "-q", "-m", "work"]);
    git(dir.path(), &["bundle", "create", "-q", "work.bundle", "refs/heads/work", "^base"]);
    let put = raw(&worker.door).put("http://mayfly/v1/worker/result/bundle");
    let put =
        put.bearer_auth(worker.order.result_token.expose()).body(std::fs::read(at("work.bundle")).unwrap());
    assert_eq!(put.send().await.unwrap().status(), 204);
    let head = Some(git(dir.path(), &["rev-parse", "work"]));
    worker.finish(mayfly_wire::api::Collected { head, bundle: true, ..Default::default() }).await;
    finished(&bed, &submitted.id).await;
    let answer = raw(&bed.server.socket()).get(format!("http://mayfly{path}")).send().await.unwrap();
    std::fs::write(at("patch"), answer.bytes().await.unwrap()).unwrap();
    git(dir.path(), &["checkout", "-q", "base"]);
    git(dir.path(), &["apply", "patch"]);
    assert_eq!(std::fs::read_to_string(at("made.txt")).unwrap(), "new\n");
    assert_eq!(std::fs::read_dir(bed.data().join("incoming")).unwrap().count(), 0);
}
