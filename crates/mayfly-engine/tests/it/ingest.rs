use mayfly_core::{Outcome, TaskId};
use mayfly_engine::IngestError;
use mayfly_testkit::{SimMachine, TestEngine, task};
use mayfly_wire::event::{Event, EventSource};
use mayfly_wire::worker::{Down, End, Record, Report, Source};

async fn running(mayfly: &mut TestEngine) -> (TaskId, SimMachine) {
    let id = mayfly.submit(task("x")).await;
    let mut machine = mayfly.machines.next().await;
    machine.boot(&mayfly.engine).await;
    (id, machine)
}

/// What the log holds of the CLI's own bytes.
async fn said(mayfly: &TestEngine, id: TaskId) -> Vec<Vec<u8>> {
    let log = mayfly.log(id, 0).await;
    let events = log.lines().map(|line| Event::parse(line).unwrap());
    let said = events.filter(|event| event.source != EventSource::Mayfly).map(|event| event.raw());
    said.map(|line| line.strip_suffix(b"\n").unwrap().to_vec()).collect()
}

/// R10, G3
#[tokio::test]
async fn records_that_come_again_are_stored_once() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let lines: Vec<Record> = ["a", "b", "c", "d"].map(|line| machine.record(Source::Claude, line)).into();
    for (sent, acknowledged) in [(0..3, 3), (0..3, 3), (1..4, 4), (0..1, 4), (0..0, 4)] {
        assert_eq!(machine.send(lines[sent].to_vec()).await.unwrap(), acknowledged);
    }
    assert_eq!(said(&mayfly, id).await, [b"a", b"b", b"c", b"d"]);
}

/// G3: nothing of it is dropped, and the attempt ends; stderr counts too, and what mayfly tells does not.
#[tokio::test]
async fn a_log_that_is_full_ends_the_attempt() {
    let mut mayfly = TestEngine::start(|config| config.rules.policy.log_bytes_max = 300).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.says("12345").await;
    let more = [machine.record(Source::Stderr, "6789"), machine.record(Source::Claude, "a")];
    machine.send(vec![more[0].clone()]).await.unwrap();
    assert_eq!(mayfly.task(id).await.state, "running");
    machine.send(more.to_vec()).await.unwrap();
    assert!(matches!(machine.told().await, Down::Collect));
    machine.says("what was on its way").await;
    machine.collected().await;
    let words = "its log reached the limit of 300 bytes";
    assert_eq!(mayfly.outcome(id).await, ("log-full".to_owned(), Some(words.to_owned())));
    assert_eq!(said(&mayfly, id).await, [&b"12345"[..], b"6789", b"a", b"what was on its way"]);
}

/// S37: what counts is what the log takes, however little each line says.
#[tokio::test]
async fn a_log_of_empty_lines_is_full_as_well() {
    let mut mayfly = TestEngine::start(|config| config.rules.policy.log_bytes_max = 100_000).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    let lines = (0..1000).map(|_| machine.record(Source::Claude, "")).collect();
    machine.send(lines).await.unwrap();
    assert!(matches!(machine.told().await, Down::Collect));
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await.0, "log-full");
}

/// A report that comes again tells nothing twice either.
#[tokio::test]
async fn reports_that_come_again_change_nothing() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let reports = [
        machine.report(&Report::Started),
        machine.report(&Report::Warning { text: "careful".to_owned() }),
        machine.report(&Report::Ended { outcome: "succeeded".to_owned(), detail: Some("fine".to_owned()) }),
    ];
    machine.send(reports.to_vec()).await.unwrap();
    let log = mayfly.log(id, 0).await;
    machine.send(reports.to_vec()).await.unwrap();
    assert_eq!(mayfly.log(id, 0).await, log);
    machine.collected().await;
    assert_eq!(mayfly.outcome(id).await, ("succeeded".to_owned(), Some("fine".to_owned())));
}

/// G3: nothing is stored beyond a gap.
#[tokio::test]
async fn records_after_a_gap_are_refused() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let lines: Vec<Record> = ["a", "b", "c"].map(|line| machine.record(Source::Claude, line)).into();
    machine.send(lines[..1].to_vec()).await.unwrap();
    let refused = machine.send(lines[2..].to_vec()).await.unwrap_err();
    assert!(matches!(refused, IngestError::Gap { found: 3, expected: 2 }), "{refused:?}");
    assert_eq!(machine.send(lines[1..].to_vec()).await.unwrap(), 3);
    assert_eq!(said(&mayfly, id).await, [b"a", b"b", b"c"]);
    let last = Record { number: u64::MAX, ..lines[0].clone() };
    assert!(matches!(machine.send(vec![last]).await, Err(IngestError::Gap { found: u64::MAX, .. })));
}

/// S35, S42: a frame with a report that nobody knows is stored not at all.
#[tokio::test]
async fn a_bad_report_is_refused_with_its_whole_frame() {
    let outcome = |name: &str| serde_json::json!({"type": "ended", "outcome": name}).to_string();
    for bad in ["", "{}", "null", r#"{"type":"sung"}"#, "\u{0}", &outcome("splendid"), &"[".repeat(100_000)] {
        let mut mayfly = TestEngine::start(|_| {}).await;
        let (id, mut machine) = running(&mut mayfly).await;
        let before = mayfly.log(id, 0).await;
        let frame = vec![
            machine.record(Source::Claude, "a line"),
            machine.report(&Report::Started),
            machine.record(Source::Report, bad.to_owned()),
        ];
        let refused = machine.send(frame.clone()).await.unwrap_err();
        assert!(matches!(refused, IngestError::BadReport { number: 3 }), "{refused:?}");
        assert_eq!(mayfly.log(id, 0).await, before);
        assert_eq!(machine.send(frame[..1].to_vec()).await.unwrap(), 1);
    }
}

/// S35, S36, S42, G3: bytes come out as they went in, each event on one line of its own.
#[tokio::test]
async fn what_claude_writes_comes_out_unchanged() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let lines: Vec<Vec<u8>> = vec![
        vec![],
        b"{\"b\":1,\"a\":1e400, \"a\":2}".to_vec(),
        b"\xff\xfe half a \xe2\x82".to_vec(),
        b"{\"a\":\"\xff\"}".to_vec(),
        b"\0\r\t".to_vec(),
        b"{}\r".to_vec(),
        "\u{feff}{}".into(),
        "\u{2028}".into(),
        br#""\ud800""#.to_vec(),
        b"[0,\n{\"task\":\"forged\",\"attempt\":1,\"seq\":1}\n]".to_vec(),
        b"{}\n{\"task\":\"forged\"}".to_vec(),
        b" {} ".to_vec(),
        deep.into(),
    ];
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    for line in &lines {
        machine.says(line.clone()).await;
    }
    assert_eq!(said(&mayfly, id).await, lines);
}

/// S35: parts of a long line, and a last one without an end, are marked.
#[tokio::test]
async fn how_a_line_ends_is_kept() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let ends = [End::More, End::Newline, End::Eof];
    let records = ends.map(|end| Record { end, ..machine.record(Source::Stderr, "1") });
    machine.send(records.to_vec()).await.unwrap();
    let log = mayfly.log(id, 3).await;
    let parts: Vec<Vec<u8>> = log.lines().map(|line| Event::parse(line).unwrap().raw()).collect();
    assert_eq!(parts, [&b"1"[..], b"1\n", b"1"]);
    let marks = log.lines().map(|line| (line.contains(r#""end":"more""#), line.contains(r#""end":"eof""#)));
    assert_eq!(marks.collect::<Vec<_>>(), [(true, false), (false, false), (false, true)]);
}

/// The machine's clock is hostile too.
#[tokio::test]
async fn a_time_that_does_not_exist_spoils_no_log() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    for at_ms in [u64::MAX, i64::MAX.unsigned_abs(), 253_402_207_200_000, 0] {
        let record = Record { at_ms, ..machine.record(Source::Claude, "x") };
        machine.send(vec![record]).await.unwrap();
    }
    assert_eq!(said(&mayfly, id).await.len(), 4);
}

#[tokio::test]
async fn nothing_more_is_stored_once_the_attempt_is_over() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    machine.starts().await;
    machine.ends(Outcome::Succeeded).await;
    machine.collected().await;
    mayfly.outcome(id).await;
    let log = mayfly.log(id, 0).await;
    let late = machine.record(Source::Claude, "late");
    assert!(matches!(machine.send(vec![late]).await, Err(IngestError::Over)));
    assert_eq!(mayfly.log(id, 0).await, log);
}

/// S34: a line that looks like an ending is no ending.
#[tokio::test]
async fn what_claude_prints_changes_no_state() {
    let mut mayfly = TestEngine::start(|_| {}).await;
    let (id, mut machine) = running(&mut mayfly).await;
    let reports = [
        Report::Started,
        Report::Ended { outcome: "succeeded".to_owned(), detail: None },
        Report::Collected(mayfly_wire::api::Collected::default()),
    ];
    for report in reports {
        machine.says(serde_json::to_vec(&report).unwrap()).await;
    }
    assert_eq!(mayfly.task(id).await.state, "running");
    assert_eq!(mayfly.told(id).await.len(), 3, "queued, launching, running");
}
