//! A machine's inside: the worker's own link, and `claude` played by the seed.
//!
//! What happens is what a worker does (see `life` there): it joins, says durably that `claude` is about to start, writes
//! what `claude` writes, says how it ended, and stays until its work is safe.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use mayfly_core::AttemptId;
use mayfly_link::{BackOff, Dial};
use mayfly_provider::MachineSpec;
use mayfly_wire::Secret;
use mayfly_wire::api::Collected;
use mayfly_wire::worker::{End, Hello, PROTOCOL, Report};
use mayfly_worker::simulation::{Played, Room};
use secrecy::ExposeSecret as _;
use tokio::time::sleep;

use crate::ledger::Ledger;

/// So little that much of what is written waits on the disk, or keeps `claude` waiting.
const ROOM: Room = Room { memory: 8 * 1024, chunk: 2 * 1024, spool: 32 * 1024 };
/// A line that is a frame of its own.
const LONG_LINE_BYTES: usize = 100 * 1024;

/// One machine's life.
#[derive(Debug)]
pub(crate) struct Life {
    attempt: AttemptId,
    ledger: Ledger,
    rng: Rng,
    /// Whether the outcome is one that may pass.
    fails: bool,
}

impl Life {
    /// Lives it to its end.
    pub(crate) async fn live(
        spec: MachineSpec,
        way: Arc<dyn Dial>,
        mut rng: Rng,
        ledger: Ledger,
        disk: &Path,
    ) {
        let hello = Hello {
            protocol: PROTOCOL,
            attempt: spec.attempt.to_string(),
            ticket: Secret::from(spec.ticket.expose_secret().to_owned()),
            link: Secret::from(format!("{:032x}", rng.u128(..))),
        };
        let mut jitter = rng.fork();
        let mut worker = Played::start(way, hello, BackOff::new(move || jitter.u64(..)), ROOM, disk);
        if worker.order().await.is_none() {
            return;
        }
        let (fails, stays) = (rng.u8(0..6) == 0, rng.u8(0..3) == 0);
        let mut life = Self { attempt: spec.attempt, ledger, rng, fails };
        let dismissed = worker.dismissed();
        tokio::select! {
            () = life.work(&mut worker) => {}
            () = dismissed => {}
        }
        if stays {
            // Something in it does not end, and the machine goes on until it is unmade.
            std::future::pending::<()>().await;
        }
    }

    async fn work(&mut self, worker: &mut Played) {
        let outcome = match worker.is_wanted() && worker.report_durably(&Report::Started).await {
            true if worker.is_wanted() => self.claude(worker).await,
            _ => "cancelled",
        };
        self.ledger.attempt(self.attempt, |attempt| attempt.ended = Some(outcome.to_owned()));
        worker.report(&Report::Ended { outcome: outcome.to_owned(), detail: None }).await;
        self.pause(2000).await;
        if worker.report_durably(&Report::Collected(Collected::default())).await {
            self.ledger.attempt(self.attempt, |attempt| {
                attempt.collected = true;
                attempt.durable = attempt.records.len();
            });
        }
    }

    /// `claude` runs; gives how it ends.
    async fn claude(&mut self, worker: &mut Played) -> &'static str {
        self.ledger.attempt(self.attempt, |attempt| attempt.starts += 1);
        worker.report(&Report::Ready { version: "2".to_owned(), model: "sonnet".to_owned() }).await;
        let (lines, pause_ms) = (self.rng.u32(0..60), if self.rng.bool() { 5 } else { 1500 });
        for number in 0..lines {
            let line = self.line(number);
            for piece in line.chunks(self.rng.usize(1..20_000)) {
                self.say(worker, piece).await;
            }
            if self.rng.u8(0..8) == 0 && !self.is_safe(worker).await || !worker.is_wanted() {
                break;
            }
            self.pause(pause_ms).await;
        }
        let rest = worker.rest();
        self.note(&rest);
        worker.say(rest).await;
        match (worker.is_wanted(), self.fails) {
            (false, _) => "cancelled",
            (true, true) => "killed",
            (true, false) => "succeeded",
        }
    }

    async fn say(&mut self, worker: &mut Played, piece: &[u8]) {
        let records = worker.split(piece);
        // Before they are on their way: from then on they may be in the log.
        self.note(&records);
        worker.say(records).await;
    }

    fn note(&self, records: &[(Bytes, End)]) {
        self.ledger.attempt(self.attempt, |attempt| attempt.records.extend_from_slice(records));
    }

    /// Waits until all that was written is safe. `false`: it never will be.
    async fn is_safe(&mut self, worker: &mut Played) -> bool {
        let mut written = 0;
        self.ledger.attempt(self.attempt, |attempt| written = attempt.records.len());
        let safe = worker.report_durably(&Report::Warning { text: "so far".to_owned() }).await;
        if safe {
            self.ledger.attempt(self.attempt, |attempt| attempt.durable = written);
        }
        safe
    }

    /// What `claude` writes next: as a rule a line of JSON.
    fn line(&mut self, number: u32) -> Vec<u8> {
        let text =
            |bytes: usize| format!("{{\"n\":{number},\"text\":\"{}\"}}\n", "x".repeat(bytes)).into_bytes();
        match self.rng.u8(0..40) {
            0 => text(LONG_LINE_BYTES),
            1 => vec![b'\n'],
            2 => vec![0xff, 0, b'\r', b'\n'],
            3 => format!("{number} without an end").into_bytes(),
            4..12 => text(self.rng.usize(0..5000)),
            _ => text(self.rng.usize(0..200)),
        }
    }

    async fn pause(&mut self, ms_max: u64) {
        sleep(Duration::from_millis(self.rng.u64(0..=ms_max))).await;
    }
}
