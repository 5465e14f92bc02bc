//! What happens to a run when the link, or the orchestrator, does not behave.

use std::time::Duration;

use mayfly_wire::worker::{Down, Report, Source};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::host::{Host, reports};
use crate::life::LifeError;
use crate::outbox::OUTBOX_BYTES_MAX;

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

/// Covers R16: without acknowledgements the worker keeps to its bound, and `claude` waits.
#[tokio::test]
async fn without_acknowledgements_claude_waits_and_nothing_is_dropped() {
    let host = Host::start(
        "init; yes $(head -c 9999 /dev/zero | tr '\\0' y) | head -c 40000000; result; cat > /dev/null",
    );
    let (lived, ()) = tokio::join!(host.live(), async {
        host.reported(|report| matches!(report, Report::Ready { .. })).await;
        for _ in 0..2 {
            let acked = u64::try_from(host.desk.records.borrow().len()).unwrap();
            host.desk.acks.send_replace(acked);
            let held = host.until(|records| {
                let held: usize = records[usize::try_from(acked).unwrap()..]
                    .iter()
                    .map(|record| record.bytes.len() + size_of_val(record))
                    .sum();
                (held >= OUTBOX_BYTES_MAX).then_some(held)
            });
            assert!(held.await < OUTBOX_BYTES_MAX + 2 * 1024 * 1024);
        }
        host.desk.acks.send_replace(u64::MAX);
    });
    lived.unwrap();
    let flood: usize = lines_of(&host.bytes(Source::Claude))
        .filter(|line| line.starts_with(b"y"))
        .map(|line| line.len() + 1)
        .sum();
    assert_eq!(flood, 40_000_000);
    assert_eq!(host.ended().0, "succeeded");
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
