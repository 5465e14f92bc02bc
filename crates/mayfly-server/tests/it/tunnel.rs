//! Tunnels at the orchestrator: who is let in, from where on, and what each of them gets.

use std::sync::Arc;

use mayfly_client::Client;
use mayfly_link::{Channel, Endpoint, Frame, LinkError, Route, dial};
use mayfly_server::Server;
use mayfly_testkit::faulty::{Fault, FaultyWay};
use mayfly_tunnel::{Tunnel, TunnelConfig};
use mayfly_wire::tunnel::{Answer, Chunk, Hello, JOIN_PATH, PROTOCOL, Run, Welcome};
use mayfly_wire::worker::{End, Source};
use mayfly_wire::{Secret, event::Event};

use crate::bed::{Bed, task};
use crate::port::{ANY, start};

fn hello(store: Option<&str>, after: u64) -> Hello {
    Hello { protocol: PROTOCOL, store: store.map(str::to_owned), after }
}

/// Says hello, and gives the answer.
async fn join(channel: &mut Channel, hello: &Hello) -> Answer {
    channel.send(Frame::Text(serde_json::to_string(hello).unwrap())).await.unwrap();
    match channel.recv().await.unwrap().unwrap() {
        Frame::Text(text) => serde_json::from_str(&text).unwrap(),
        Frame::Binary(_) => panic!("an answer is a text"),
    }
}

async fn unix(server: &Server) -> Channel {
    dial(&Route::from(Endpoint::Unix(server.socket())), JOIN_PATH, None).await.unwrap()
}

async fn joined(server: &Server, hello: &Hello) -> (Channel, Welcome) {
    let mut channel = unix(server).await;
    match join(&mut channel, hello).await {
        Answer::Welcome(welcome) => (channel, welcome),
        Answer::Reject { reason } => panic!("{reason}"),
    }
}

async fn rejected(server: &Server, hello: &Hello) -> String {
    match join(&mut unix(server).await, hello).await {
        Answer::Welcome(_) => panic!("welcome"),
        Answer::Reject { reason } => reason,
    }
}

/// All runs up to this position.
async fn read_to(channel: &mut Channel, position: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    loop {
        let Frame::Binary(frame) = channel.recv().await.unwrap().unwrap() else { panic!("a text") };
        let chunk = Chunk::decode(frame).unwrap();
        runs.extend(chunk.runs);
        assert!(chunk.position <= chunk.head);
        if chunk.position >= position {
            return runs;
        }
    }
}

/// G8, R12: from each position on, what follows, and the lines are those of the logs.
#[tokio::test]
async fn a_tunnel_goes_on_from_any_position() {
    let bed = Bed::start().await;
    let mut logs = Vec::new();
    for key in ["a", "b", "c"] {
        let id = bed.client.submit(&task("p", None), key).await.unwrap().id;
        bed.client.cancel(&id, false).await.unwrap();
        let mut events = bed.client.events(&id, 0);
        while let Some(line) = events.next().await.unwrap() {
            logs.push(line + "\n");
        }
    }
    let (mut all, Welcome { store, head, after, .. }) = joined(&bed.server, &hello(None, 0)).await;
    assert_eq!(after, 0);
    let of = |task: &str, runs: &[Run]| -> String {
        let runs = runs.iter().filter(|run| run.task.to_string() == task);
        runs.map(|run| std::str::from_utf8(&run.lines).unwrap()).collect()
    };
    let whole = read_to(&mut all, head).await;
    for line in &logs {
        let task = Event::parse(line).unwrap().task.into_owned();
        assert!(of(&task, &whole).contains(line.as_str()));
    }
    let lines = |runs: &[Run]| runs.iter().map(|run| run.last - run.first + 1).sum::<u64>();
    assert_eq!((lines(&whole), head), (logs.len() as u64, logs.len() as u64));
    for after in 0..head {
        let (mut channel, welcome) = joined(&bed.server, &hello(Some(&store), after)).await;
        assert_eq!(welcome.after, after);
        assert_eq!(lines(&read_to(&mut channel, head).await), head - after, "after {after}");
    }
}

/// Positions of another database mean nothing, and those that never were are refused with what to do.
#[tokio::test]
async fn what_a_hello_names_wrongly_is_told() {
    let bed = Bed::start().await;
    bed.client.submit(&task("p", None), "key").await.unwrap();
    let (_, welcome) = joined(&bed.server, &hello(Some("another"), 7)).await;
    assert_eq!(welcome.after, 0);
    let ahead = rejected(&bed.server, &hello(Some(&welcome.store), 1_000_000)).await;
    assert!(
        ahead.contains("position 1000000 is beyond the newest event")
            && ahead.contains("move the tunnel's folder"),
        "{ahead}"
    );
    let version = rejected(&bed.server, &Hello { protocol: PROTOCOL + 1, ..hello(None, 0) }).await;
    assert!(version.contains("speaks version 1 of the tunnel, and the tunnel version 2"), "{version}");
}

/// A later version's hello may be another message altogether: it is told so, not cut.
#[tokio::test]
async fn a_hello_of_another_version_is_told_which_version_is_spoken_here() {
    let bed = Bed::start().await;
    for (hello, theirs) in [
        (Frame::Text(r#"{"protocol":7,"hi":true}"#.to_owned()), "the tunnel version 7"),
        (Frame::Text(r#"{"protocol":1}"#.to_owned()), "the tunnel another hello"),
        (Frame::Text("hello".to_owned()), "the tunnel something else"),
        (Frame::Binary(vec![2, 0, 7].into()), "the tunnel something else"),
    ] {
        let mut channel = unix(&bed.server).await;
        channel.send(hello).await.unwrap();
        let Frame::Text(answer) = channel.recv().await.unwrap().unwrap() else { panic!("bytes") };
        let Answer::Reject { reason } = serde_json::from_str(&answer).unwrap() else { panic!("{answer}") };
        assert!(reason.contains("speaks version 1") && reason.contains(theirs), "{reason}");
        assert!(channel.recv().await.is_none(), "and then there is a leave");
    }
}

/// A tunnel to `bed`, and its API on a socket of its own.
struct Here {
    folder: tempfile::TempDir,
    tunnel: Option<Tunnel>,
    api: Option<tokio::task::JoinHandle<()>>,
    client: Client,
}

impl Here {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(&folder.path().join("api.sock"));
        Self { folder, tunnel: None, api: None, client }
    }

    async fn start(&mut self, bed: &Bed) {
        let tunnel = Tunnel::start(TunnelConfig {
            way: Arc::new(Route::from(Endpoint::Unix(bed.server.socket()))),
            to: "there".to_owned(),
            token: None,
            folder: self.folder.path().join("tunnel"),
            back_off: mayfly_link::BackOff::new(|| 0),
        });
        let (tunnel, socket) = (tunnel.unwrap(), self.folder.path().join("api.sock"));
        let _ = std::fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let api = tunnel.api();
        self.api = Some(tokio::spawn(async move { axum::serve(listener, api).await.unwrap() }));
        tunnel.status().wait_for(|status| status.connected && status.position == status.head).await.unwrap();
        self.tunnel = Some(tunnel);
    }

    async fn stop(&mut self) {
        self.tunnel.take().unwrap().stop().await;
        self.api.take().unwrap().abort();
    }

    async fn status(&self, is: impl FnMut(&mayfly_wire::tunnel::Status) -> bool) {
        self.tunnel.as_ref().unwrap().status().wait_for(is).await.unwrap();
    }

    fn log(&self, task: &str, name: &str) -> std::path::PathBuf {
        let store = std::fs::read_to_string(self.folder.path().join("tunnel/store")).unwrap();
        self.folder.path().join("tunnel").join(store.trim()).join(format!("logs/{task}.{name}"))
    }
}

/// The whole log, to the task's end, as the orchestrator has it.
async fn whole(client: &Client, task: &str) -> String {
    let (mut events, mut log) = (client.events(task, 0), String::new());
    while let Some(line) = events.next().await.unwrap() {
        log += &(line + "\n");
    }
    log
}

/// A log with a gap and one with a foreign line: each is set aside and fetched again, and the third goes on.
#[tokio::test]
async fn a_damaged_log_is_fetched_again_and_the_others_go_on() {
    let mut bed = Bed::start().await;
    let (mut tasks, mut workers) = (Vec::new(), Vec::new());
    for key in ["gap", "foreign", "whole"] {
        tasks.push(bed.client.submit(&task("p", None), key).await.unwrap().id);
        let mut worker = bed.worker().await;
        worker.ready().await;
        workers.push(worker);
    }
    let mut here = Here::new();
    here.start(&bed).await;
    here.stop().await;
    let (gap, foreign) = (here.log(&tasks[0], "ndjson"), here.log(&tasks[1], "ndjson"));
    std::fs::remove_file(&gap).unwrap();
    std::fs::write(&foreign, "my notes\n").unwrap();
    here.start(&bed).await;
    for worker in &mut workers {
        for _ in 0..20 {
            worker.line("{\"more\":true}").await;
        }
    }
    here.status(|status| (status.damaged, status.mended) == (2, 2)).await;
    for worker in &mut workers {
        worker.end("succeeded").await;
    }
    let mut logs = Vec::new();
    for task in &tasks {
        logs.push(whole(&bed.client, task).await);
    }
    let events = logs.concat().lines().count() as u64;
    here.status(|status| status.position == events).await;
    here.stop().await;
    for (task, whole) in tasks.iter().zip(logs) {
        assert!(std::fs::read_to_string(here.log(task, "ndjson")).unwrap() == whole, "{task}: {whole}");
    }
    assert_eq!(std::fs::read_to_string(here.log(&tasks[1], "damaged")).unwrap(), "my notes\n");
}

/// Also one that is JSON, in a log to which nothing is added any more: it is found by whoever reads, who has the very
/// lines all the same, and the log is fetched again.
#[tokio::test]
async fn a_foreign_line_in_the_middle_of_a_log_is_read_by_nobody() {
    let mut bed = Bed::start().await;
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let mut worker = bed.worker().await;
    worker.ready().await;
    worker.line("{\"n\":1}").await;
    worker.end("succeeded").await;
    let whole = whole(&bed.client, &id).await;
    let mut here = Here::new();
    here.start(&bed).await;
    here.stop().await;
    let log = here.log(&id, "ndjson");
    let mut lines: Vec<&str> = whole.split_inclusive('\n').collect();
    lines.insert(3, "{\"seq\":4,\"task\":\"of somebody else\"}\n");
    std::fs::write(&log, lines.concat()).unwrap();
    here.start(&bed).await;
    assert_eq!(self::whole(&here.client, &id).await, whole);
    here.status(|status| (status.damaged, status.mended) == (1, 1)).await;
    assert_eq!(std::fs::read_to_string(&log).unwrap(), whole);
    assert_eq!(std::fs::read_to_string(here.log(&id, "damaged")).unwrap(), lines.concat());
    assert_eq!(self::whole(&here.client, &id).await, whole);
    here.stop().await;
}

/// R14: who follows a log whose rest nobody has any more is told so, and waits no longer.
#[tokio::test]
async fn a_reader_here_is_told_what_is_gone_there() {
    let hour = std::time::Duration::from_secs(3600);
    let mut bed = Bed::start().await;
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let mut worker = bed.worker().await;
    worker.ready().await;
    let mut here = Here::new();
    here.start(&bed).await;
    here.stop().await;
    let kept = std::fs::read_to_string(here.log(&id, "ndjson")).unwrap().lines().count() as u64;
    worker.end("succeeded").await;
    bed.nobody_but(0).await;
    let last = whole(&bed.client, &id).await.lines().count() as u64;
    bed.clock.sleeper_for(hour).await;
    bed.clock.advance(31 * 24 * hour);
    bed.clock.sleeper_for(hour).await;
    here.start(&bed).await;
    let mut events = here.client.events(&id, 0);
    let told = async {
        for _ in 0..kept {
            events.next().await.unwrap().unwrap();
        }
        events.next().await
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(10), told).await;
    let error = told.expect("it does not wait").unwrap_err();
    assert!(matches!(error, mayfly_client::ClientError::Gone { first } if first == last + 1), "{error:?}");
}

/// Scripts need not know who answers them.
#[tokio::test]
async fn a_tunnel_answers_as_the_orchestrator_does() {
    let bed = Bed::start().await;
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    bed.client.cancel(&id, false).await.unwrap();
    bed.nobody_but(0).await;
    let mut here = Here::new();
    here.start(&bed).await;
    let events = format!("/v1/tasks/{id}/events");
    for (method, path) in [
        ("GET", "/healthz".to_owned()),
        ("POST", "/healthz".to_owned()),
        ("GET", "/readyz".to_owned()),
        ("GET", events.clone()),
        ("GET", format!("{events}?after=1&follow=false")),
        ("GET", format!("{events}?after=x")),
        ("GET", format!("{events}?follow=maybe")),
        ("GET", format!("{events}?since=3")),
        ("POST", events.clone()),
        ("DELETE", events),
        ("GET", "/v1/nowhere".to_owned()),
    ] {
        let ask = async |socket: &std::path::Path| {
            let url = format!("http://mayfly{path}");
            let request = crate::bed::raw(socket).request(method.parse().unwrap(), url);
            let answer = request.send().await.unwrap();
            let header = |name| answer.headers().get(name).cloned();
            let head = (answer.status(), header("content-type"), header("cache-control"));
            (head, answer.text().await.unwrap())
        };
        let there = ask(&bed.server.socket()).await;
        assert_eq!(ask(&here.folder.path().join("api.sock")).await, there, "{method} {path}");
    }
}

/// S33, S40: a tunnel needs a token where one is needed, and ends with it within a second.
#[tokio::test]
async fn a_tunnel_ends_with_its_token() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let owner = Client::new(&server.socket());
    let to: Endpoint = format!("http://{}", server.listening().unwrap()).parse().unwrap();
    let way = Route::from(to);
    for token in [None, Some(Secret::from("mayfly-owner-of-nothing".to_owned()))] {
        let refused = dial(&way, JOIN_PATH, token.as_ref()).await.unwrap_err();
        assert!(matches!(refused, LinkError::Refused { status: 401, .. }), "{refused}");
    }
    let token = owner.add_token("laptop").await.unwrap().token;
    let mut channel = dial(&way, JOIN_PATH, Some(&token)).await.unwrap();
    assert!(matches!(join(&mut channel, &hello(None, 0)).await, Answer::Welcome(_)));
    owner.revoke_token("laptop").await.unwrap();
    let cut = tokio::time::timeout(std::time::Duration::from_secs(1), channel.recv()).await;
    assert!(!matches!(cut.expect("within a second"), Some(Ok(_))));
}

/// A way that calls the orchestrator by another name.
#[derive(Debug)]
struct Named(Route);

#[async_trait::async_trait]
impl mayfly_link::Dial for Named {
    async fn connect(&self) -> Result<Box<dyn mayfly_link::ByteStream>, LinkError> {
        mayfly_link::Dial::connect(&self.0).await
    }

    fn host(&self) -> String {
        "box.example:6293".to_owned()
    }
}

/// S39: it has nothing to do with the token, and what would help is told.
#[tokio::test]
async fn a_tunnel_to_a_name_that_is_not_the_orchestrators_is_told_how_to_list_it() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let to: Endpoint = format!("http://{}", server.listening().unwrap()).parse().unwrap();
    let token = std::fs::read_to_string(server.token_file()).unwrap();
    let tunnel = Tunnel::start(TunnelConfig {
        way: Arc::new(Named(Route::from(to))),
        to: "there".to_owned(),
        token: Some(Secret::from(token.trim().to_owned())),
        folder: data.path().join("tunnel"),
        back_off: mayfly_link::BackOff::new(|| 0),
    });
    let mut status = tunnel.as_ref().unwrap().status();
    let status = status.wait_for(|status| status.trouble.is_some()).await.unwrap().clone();
    let trouble = status.trouble.unwrap();
    assert!(trouble.contains("start it with `mayfly serve --host-names box.example`"), "{trouble}");
    assert!(status.lasting);
}

/// R07, R10: whatever cuts the links, each event is in the tunnel's log once, with the very bytes of the orchestrator's.
#[tokio::test]
async fn a_tunnel_over_links_that_are_cut_has_each_event_once() {
    let mut bed = Bed::start().await;
    let task = bed.client.submit(&task("p", None), "key").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    let folder = tempfile::tempdir().unwrap();
    // One link is cut in the middle of what is sent first, the next brings something and is cut in the middle of more.
    let faults = (0..20).flat_map(|link| [500 + 97 * link, 6000 + link].map(Fault::CutAfterReading));
    let way = FaultyWay::new(Route::from(Endpoint::Unix(bed.server.socket())), faults);
    let tunnel = Tunnel::start(TunnelConfig {
        way: Arc::new(way),
        to: "here".to_owned(),
        token: None,
        folder: folder.path().to_owned(),
        back_off: mayfly_link::BackOff::new(|| 0),
    })
    .unwrap();
    for number in 0..200 {
        worker.say(Source::Claude, End::Newline, format!("{{\"number\":{number}}}")).await;
    }
    bed.client.cancel(&task.id, true).await.unwrap();
    bed.nobody_but(0).await;
    let mut log = String::new();
    let mut events = bed.client.events(&task.id, 0);
    while let Some(line) = events.next().await.unwrap() {
        log += &(line + "\n");
    }
    let lines = log.lines().count() as u64;
    let mut status = tunnel.status();
    let caught_up = status.wait_for(|status| status.position == lines).await.unwrap().clone();
    assert!(caught_up.connections > 5, "{caught_up:?}");
    tunnel.stop().await;
    let here = folder.path().join(caught_up.store.unwrap()).join(format!("logs/{}.ndjson", task.id));
    assert!(std::fs::read_to_string(here).unwrap() == log, "the logs differ");
}
