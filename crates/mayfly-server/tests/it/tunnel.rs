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
        assert!(matches!(refused, LinkError::Refused { status: 401 }), "{refused}");
    }
    let token = owner.add_token("laptop").await.unwrap().token;
    let mut channel = dial(&way, JOIN_PATH, Some(&token)).await.unwrap();
    assert!(matches!(join(&mut channel, &hello(None, 0)).await, Answer::Welcome(_)));
    owner.revoke_token("laptop").await.unwrap();
    let cut = tokio::time::timeout(std::time::Duration::from_secs(1), channel.recv()).await;
    assert!(!matches!(cut.expect("within a second"), Some(Ok(_))));
}

/// R07, R10: whatever cuts the links, each event is in the tunnel's log once, with the very bytes of the orchestrator's.
#[tokio::test]
async fn a_tunnel_over_links_that_are_cut_has_each_event_once() {
    let mut bed = Bed::start().await;
    let task = bed.client.submit(&task("p", None), "key").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    let folder = tempfile::tempdir().unwrap();
    // Each link carries some more bytes than the one before, and is cut in the middle of whatever is sent then.
    let faults = (0..40).map(|link| Fault::CutAfterReading(300 + 97 * link));
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
    assert!(caught_up.connections > 10, "{caught_up:?}");
    tunnel.stop().await;
    let here = folder.path().join(caught_up.store.unwrap()).join(format!("logs/{}.ndjson", task.id));
    assert!(std::fs::read_to_string(here).unwrap() == log, "the logs differ");
}
