//! What happens to a run when the link, or the orchestrator, does not behave.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use mayfly_link::{BACK_OFF_MAX, BackOff};
use mayfly_testkit::faulty::{Barred, Fault, FaultyWay, InMemory, in_memory};
use mayfly_wire::event::LINE_BYTES_MIN;
use mayfly_wire::worker::{Down, End, Hello, PROTOCOL, Record, Report, Source};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::host::{Desk, Host, connection, reports};
use crate::life::LifeError;
use crate::outbox::Bounds;
use crate::spool::Spool;
use crate::uplink::{self, Duty};

fn lines(to: u32) -> Vec<u8> {
    (1..=to).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// Covers R03, R07 and R10 for a link that is cut while `claude` writes.
#[tokio::test]
async fn a_cut_link_loses_nothing_and_repeats_nothing() {
    let mut host =
        Host::start("seq 1 20000; head -n 2 > /dev/null; seq 1 20000; init; result; cat > /dev/null");
    let mut hellos = std::mem::replace(&mut host.hellos, tokio::sync::mpsc::unbounded_channel().1);
    let (lived, secrets) = tokio::join!(host.live(), async {
        let mut secrets = vec![hellos.recv().await.unwrap().link.expose().to_owned()];
        for already in [1_000, 20_000, 30_000] {
            host.until(|records| (records.len() > already).then_some(())).await;
            host.cut();
            secrets.push(hellos.recv().await.unwrap().link.expose().to_owned());
        }
        secrets
    });
    lived.unwrap();
    let said = host.bytes(Source::Claude);
    let expected = [lines(20_000), lines(20_000)].concat();
    assert!(said.starts_with(&expected), "{} bytes", said.len());
    assert_eq!(host.ended().0, "succeeded");
    assert!(secrets.iter().all(|secret| secret == "link"), "each hello proves the same worker");
}

/// Many times what is kept in memory, in lines of 10,000 bytes.
const FLOOD: usize = 40_000_000;
const FLOODS: &str = "yes $(head -c 9999 /dev/zero | tr '\\0' y) | head -c 40000000";

/// Covers R16: without acknowledgements the worker keeps to its bounds, and `claude` waits.
#[tokio::test]
async fn with_the_spool_full_claude_waits_and_nothing_is_dropped() {
    let mut host = Host::start(&format!("exec 9> alive; init; {FLOODS}; exec 9>&-; result; cat > /dev/null"));
    host.bounds = Bounds { memory: 2 << 20, chunk: 1 << 18, spool: 3 << 20 };
    let (least, most) = (3 << 19, (2 << 20) + (1 << 20));
    let mut wrote = host.lifeline();
    let (lived, ()) = tokio::join!(host.live(), async {
        host.reported(|report| matches!(report, Report::Ready { .. })).await;
        for _ in 0..4 {
            let acked = host.desk.records.borrow().len();
            host.desk.acks.send_replace(u64::try_from(acked).unwrap());
            let held = host.until(|records| Some(held(&records[acked..])).filter(|held| *held >= least));
            assert!(held.await < most);
        }
        assert!(wrote.read_u8().now_or_never().is_none(), "claude did not wait");
        host.desk.acks.send_replace(u64::MAX);
    });
    lived.unwrap();
    assert_eq!((flood(&host), host.ended().0.as_str()), (FLOOD, "succeeded"));
}

/// Covers R16: the outlet waits once memory and spool are full, one warning says so, and then all comes.
#[tokio::test(start_paused = true)]
async fn a_full_spool_is_told_once_and_takes_no_more_until_it_is_read() {
    let (dir, (desk, _hellos)) = (tempfile::tempdir().unwrap(), Desk::new());
    let bounds = Bounds { memory: 20_000, chunk: 5_000, spool: 50_000 };
    let spool = Spool::on_disk_of(dir.path(), bounds.spool);
    let link = uplink::start(Arc::new(at(&desk)), hello(), BackOff::new(|| 7), (bounds, spool));
    desk.acks.send_replace(0);
    let mut sent: Vec<Bytes> = Vec::new();
    for round in 0..3_u8 {
        // The clock moves when nothing else does: then it is full.
        let more = || vec![(Bytes::from(vec![round; 1000]), End::Newline)];
        while timeout(Duration::from_secs(1), link.outlet.say(Source::Claude, more())).await.is_ok() {
            sent.push(vec![round; 1000].into());
        }
        let waiting = sent.len() - desk.records.borrow().len();
        assert!((50..80).contains(&waiting), "{waiting} records wait");
        let stored = u64::try_from(desk.records.borrow().len()).unwrap();
        desk.acks.send_replace(stored);
    }
    desk.acks.send_replace(u64::MAX);
    assert!(link.outlet.report_durably(&Report::Started).await);
    let records = desk.records.borrow().clone();
    let said = records.iter().filter(|record| record.source == Source::Claude);
    assert!(said.map(|record| &record.bytes).eq(&sent), "not what was said");
    let told = reports(&records).into_iter().filter(|report| matches!(report, Report::Warning { .. }));
    assert_eq!(told.count(), 1);
}

/// Covers R07: `claude` goes on while nothing is acknowledged, and afterwards all of it comes, in order.
#[tokio::test]
async fn what_finds_no_room_in_memory_waits_on_the_disk_and_claude_does_not() {
    let host = Host::start(&format!(
        "exec 9> alive; init; {FLOODS}; seq 1 20000; exec 9>&-; result; cat > /dev/null"
    ));
    let mut wrote = host.lifeline();
    let (lived, ()) = tokio::join!(host.live(), async {
        host.reported(|report| matches!(report, Report::Ready { .. })).await;
        let acked = u64::try_from(host.desk.records.borrow().len()).unwrap();
        host.desk.acks.send_replace(acked);
        assert_eq!(wrote.read(&mut [0]).await.unwrap(), 0, "claude has written all");
        assert!(held(&host.desk.records.borrow()) < FLOOD / 2, "more than memory was sent");
        host.cut();
        host.desk.acks.send_replace(u64::MAX);
    });
    lived.unwrap();
    assert_eq!((flood(&host), host.ended().0.as_str()), (FLOOD, "succeeded"));
    let said = host.bytes(Source::Claude);
    let counted = said.windows(3).position(|bytes| bytes == b"y\n1").unwrap() + 2;
    assert!(said[counted..].starts_with(&lines(20_000)));
}

/// Covers S37: what waits for an orchestrator that takes nothing counts for the log as well.
#[tokio::test]
async fn a_flood_that_nobody_takes_ends_at_the_bound_of_the_log() {
    const MOST: usize = 32 << 20;
    /// What it still writes until it is stopped.
    const UNDER_WAY: usize = 1 << 20;
    let mut host = Host::with("exec 9> alive; init; exec yes", |desk| {
        desk.order.log_bytes_max = Some(MOST as u64);
    });
    host.bounds = Bounds { memory: 1 << 16, chunk: 1 << 14, spool: 1 << 30 };
    let mut wrote = host.lifeline();
    let (lived, ()) = tokio::join!(host.live(), async {
        host.reported(|report| matches!(report, Report::Ready { .. })).await;
        let acked = u64::try_from(host.desk.records.borrow().len()).unwrap();
        host.desk.acks.send_replace(acked);
        assert_eq!(wrote.read(&mut [0]).await.unwrap(), 0, "claude is stopped");
        host.desk.acks.send_replace(u64::MAX);
    });
    lived.unwrap();
    let expected = ("log-full".to_owned(), format!("its log reached the limit of {MOST} bytes"));
    assert_eq!(host.ended(), expected);
    let said = host.bytes(Source::Claude);
    let logged: usize = lines_of(&said).map(|line| line.len() + LINE_BYTES_MIN).sum();
    let most = MOST + UNDER_WAY * (LINE_BYTES_MIN + 1) / 2;
    assert!((MOST..most).contains(&logged), "{logged} bytes");
}

/// Covers R07, on a clock that stands still while something happens: however long nobody can be reached, what is said
/// is taken at once, and comes once and in order as soon as somebody can.
#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_for_hours_holds_nobody_up_and_loses_nothing() {
    const LINE: usize = 1000;
    let ((mut desk, mut hellos), dir) = (Desk::new(), tempfile::tempdir().unwrap());
    desk.order.orphan_after_ms = 3 * 3600 * 1000;
    // Two hours take much more than memory.
    let bounds = Bounds { memory: 100_000, chunk: 20_000, spool: 16 << 20 };
    let spool = Spool::on_disk_of(dir.path(), bounds.spool);
    let way = Arc::new(Barred::new(at(&desk)));
    let link = uplink::start(way.clone(), hello(), BackOff::new(|| 7), (bounds, spool));
    assert!(link.outlet.report_durably(&Report::Started).await);
    let mut sent: Vec<Bytes> = Vec::new();
    for seconds in [1, 30, 5 * 60, 2 * 3600] {
        let back = Instant::now() + Duration::from_secs(seconds);
        way.bar(true);
        desk.downs.send(None).unwrap();
        while Instant::now() < back {
            let bytes = Bytes::from(format!("{:>LINE$}", sent.len()));
            let said = link.outlet.say(Source::Claude, vec![(bytes.clone(), End::Newline)]);
            timeout(Duration::from_millis(10), said).await.expect("it is taken at once");
            sent.push(bytes);
            sleep(Duration::from_secs(1)).await;
        }
        way.bar(false);
        assert!(link.outlet.report_durably(&Report::Started).await, "{seconds} s");
        let caught_up = back.elapsed();
        assert!(caught_up <= BACK_OFF_MAX, "after {seconds} s: {caught_up:?}");
    }
    assert_eq!(*link.duty.borrow(), Duty::Work);
    let records = desk.records.borrow();
    let said = records.iter().filter(|record| record.source == Source::Claude);
    assert!(said.map(|record| &record.bytes).eq(&sent), "not what was said");
    let mut links = 0;
    while hellos.try_recv().is_ok() {
        links += 1;
    }
    assert_eq!(links, 5, "one for the start, and one after each cut");
}

fn held(records: &[Record]) -> usize {
    records.iter().map(|record| record.bytes.len() + size_of_val(record)).sum()
}

/// How much of the flood came.
fn flood(host: &Host) -> usize {
    let said = host.bytes(Source::Claude);
    lines_of(&said).filter(|line| line.starts_with(b"y")).map(|line| line.len() + 1).sum()
}

fn lines_of(said: &[u8]) -> impl Iterator<Item = &[u8]> {
    said.split(|&byte| byte == b'\n')
}

/// Covers G2: a start that is not durable has not happened.
#[tokio::test]
async fn claude_is_started_only_once_that_is_durable() {
    let host = Host::with("touch started", |desk| desk.acks = tokio::sync::watch::Sender::new(0));
    let (lived, ()) = tokio::join!(host.live(), async {
        host.until(|records| reports(records).contains(&Report::Started).then_some(())).await;
        host.say(Down::Collect);
        host.say(Down::Ack { stored: 1 });
        host.desk.acks.send_replace(u64::MAX);
    });
    lived.unwrap();
    assert_eq!(host.ended().0, "cancelled");
    assert!(!host.workspace().join("started").exists());
}

/// Covers S27 for the worker's side.
#[tokio::test]
async fn a_rejected_machine_ends_at_once() {
    let host = Host::start("exec 9> alive; init; exec tail -f /dev/null");
    let alive = host.lifeline();
    let (lived, ()) = tokio::join!(host.live(), async {
        host.reported(|report| matches!(report, Report::Ready { .. })).await;
        host.say(Down::Reject { reason: "the attempt is over".to_owned() });
    });
    assert!(matches!(lived, Err(LifeError::Quit)), "{lived:?}");
    assert!(!host.reports().iter().any(|report| matches!(report, Report::Collected(_))));
    is_over(alive).await;
}

/// Covers G5: a machine that loses its orchestrator ends itself.
#[tokio::test]
async fn a_machine_without_an_orchestrator_ends_itself() {
    let host =
        Host::with("exec 9> alive; init; exec tail -f /dev/null", |desk| desk.order.orphan_after_ms = 200);
    let alive = host.lifeline();
    let (lived, ()) = tokio::join!(host.live(), async {
        host.reported(|report| matches!(report, Report::Ready { .. })).await;
        host.die();
    });
    assert!(matches!(lived, Err(LifeError::Quit)), "{lived:?}");
    is_over(alive).await;
}

/// Waits until nobody holds the other end.
async fn is_over(mut lifeline: pipe::Receiver) {
    let read = timeout(Duration::from_secs(20), lifeline.read(&mut [0])).await;
    assert_eq!(read.expect("claude is still alive").unwrap(), 0);
}

/// Covers R10, with whatever the worker sends on a link: its handshake, its hello, and a frame of more than 4 KiB.
#[test]
fn a_reset_after_any_byte_loses_nothing_and_repeats_nothing() {
    let sent: Vec<Bytes> = (0..40_u8).map(|number| vec![number; 120].into()).collect();
    for cut in 0..5000 {
        // A new world each time, whose clock stands still while something happens.
        let world = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let (links, stored) = world.unwrap().block_on(over_a_cut(cut, &sent));
        assert!(stored.iter().eq(&sent), "after {cut} bytes: {} records", stored.len());
        assert!(links <= 2 && (links == 2 || cut < 700), "after {cut} bytes: {links} hellos");
    }
}

/// The way to an orchestrator in memory.
fn at(desk: &Desk) -> InMemory {
    let ((way, mut connections), desk) = (in_memory(), desk.clone());
    tokio::spawn(async move {
        while let Some(stream) = connections.recv().await {
            tokio::spawn(connection(stream, desk.clone()));
        }
    });
    way
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        attempt: "a.1".to_owned(),
        ticket: "t".to_owned().into(),
        link: "l".to_owned().into(),
    }
}

/// How many hellos came, and what `claude` said, when the first connection is reset after so many bytes.
async fn over_a_cut(cut: usize, sent: &[Bytes]) -> (usize, Vec<Bytes>) {
    let (desk, mut hellos) = Desk::new();
    let way = Arc::new(FaultyWay::new(at(&desk), [Fault::CutAfter(cut)]));
    let nowhere = Spool::on_disk_of(Path::new("/none"), 0);
    let link = uplink::start(way, hello(), BackOff::new(|| 7), (Bounds::USUAL, nowhere));
    let records = sent.iter().map(|bytes| (bytes.clone(), End::Newline)).collect();
    link.outlet.say(Source::Claude, records).await;
    assert!(link.outlet.report_durably(&Report::Started).await, "it is stored in the end");
    let mut links = 0;
    while hellos.try_recv().is_ok() {
        links += 1;
    }
    let stored = desk.records.borrow();
    let said = stored.iter().filter(|record| record.source == Source::Claude);
    (links, said.map(|record| record.bytes.clone()).collect())
}
