//! Reads what `claude` writes, puts it into the outbox, and only then looks at a copy.
//!
//! While the outbox is full nothing is read, and `claude` waits on its pipe. Once it is dead each further
//! read has a grace, since a process that it left behind may hold the pipe open.
//!
//! Bounds: [`LINE_BYTES_MAX`] for the copy of a line; [`STDERR_BYTES_MAX`] of the standard error, of which
//! the last [`TAIL_BYTES_MAX`] are kept.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mayfly_wire::event::LINE_BYTES_MIN;
use mayfly_wire::worker::{End, Report, Source};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::claude::interpret::{Finding, Interpreter, LINE_BYTES_MAX};
use crate::lines::Lines;
use crate::uplink::Outlet;

/// What is passed on of the standard error; the rest is read and dropped.
pub(crate) const STDERR_BYTES_MAX: usize = 1024 * 1024;
/// What is kept of its end, as the reason of a failed start.
const TAIL_BYTES_MAX: usize = 2048;

/// What the lines so far mean for the one who watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) is_answered: bool,
    pub(crate) is_at_rest: bool,
    pub(crate) mismatch: Option<String>,
    /// It has written more than its log may take.
    pub(crate) is_too_much: bool,
}

/// What tools do, as far as it is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// How many have ended that may have changed files.
    pub(crate) ended: u64,
    /// Whether one is under way.
    pub(crate) open: bool,
}

/// Listens to the standard output of one run.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) interpreter: Interpreter,
    pub(crate) outlet: Outlet,
    /// The way to the input, as long as it is open.
    pub(crate) answers: mpsc::WeakSender<Bytes>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) activity: watch::Sender<Activity>,
    pub(crate) exited: watch::Receiver<bool>,
    pub(crate) drain: Duration,
    /// What may still come, as it will be in the log.
    pub(crate) room: u64,
}

impl Listener {
    /// Listens to the end, and gives back what it has understood.
    pub(crate) async fn listen(mut self, mut stdout: pipe::Receiver) -> Interpreter {
        let (mut lines, mut copy) = (Lines::default(), Copy::default());
        while read(&mut stdout, &mut lines, &mut self.exited, self.drain).await {
            self.take(&mut copy, std::iter::from_fn(|| lines.take()).collect()).await;
        }
        self.take(&mut copy, lines.rest().into_iter().collect()).await;
        self.interpreter
    }

    async fn take(&mut self, copy: &mut Copy, records: Vec<(Bytes, End)>) {
        self.count(&records);
        self.outlet.say(Source::Claude, records.clone()).await;
        for (bytes, end) in records {
            if let Some(line) = copy.take(bytes, end) {
                self.interpret(&line).await;
            }
        }
    }

    /// The orchestrator counts what it has stored, and may be away: what waits for it counts here.
    fn count(&mut self, records: &[(Bytes, End)]) {
        let taken: usize = records.iter().map(|(bytes, _)| bytes.len() + LINE_BYTES_MIN).sum();
        let was_full = self.room == 0;
        self.room = self.room.saturating_sub(taken as u64);
        if self.room == 0 && !was_full {
            self.progress.send_modify(|progress| progress.is_too_much = true);
        }
    }

    async fn interpret(&mut self, line: &[u8]) {
        let mut mismatch = None;
        for finding in self.interpreter.read(line) {
            match finding {
                Finding::Report(report) => self.outlet.report(&report).await,
                // Never waits: `claude` may itself be waiting for this side to read.
                Finding::Answer(answer) => {
                    let _ = self.answers.upgrade().map(|answers| answers.try_send(answer));
                }
                Finding::Mismatch(difference) => mismatch = Some(difference),
            }
        }
        let activity = self.interpreter.activity();
        self.activity.send_if_modified(|told| std::mem::replace(told, activity) != activity);
        let (is_answered, is_at_rest) = (self.interpreter.is_answered(), self.interpreter.is_at_rest());
        // Few lines mean anything, and whoever watches is woken for each that does.
        self.progress.send_if_modified(|progress| {
            let mismatch = mismatch.or_else(|| progress.mismatch.clone());
            let is_too_much = progress.is_too_much;
            let next = Progress { is_answered, is_at_rest, mismatch, is_too_much };
            *progress != next && {
                *progress = next;
                true
            }
        });
    }
}

/// Puts the parts of a line together again, within [`LINE_BYTES_MAX`].
#[derive(Debug, Default)]
struct Copy {
    parts: BytesMut,
    too_long: bool,
}

impl Copy {
    /// The whole line, once there is one that is not too long.
    fn take(&mut self, bytes: Bytes, end: End) -> Option<Bytes> {
        if end != End::More && self.parts.is_empty() && !self.too_long {
            return Some(bytes);
        }
        self.too_long |= self.parts.len() + bytes.len() > LINE_BYTES_MAX;
        match self.too_long {
            true => self.parts = BytesMut::new(),
            false => self.parts.extend_from_slice(&bytes),
        }
        if end == End::More {
            return None;
        }
        let line = self.parts.split().freeze();
        (!std::mem::take(&mut self.too_long)).then_some(line)
    }
}

/// Passes the standard error of `claude` on up to its limit, and gives its end.
pub(crate) async fn stderr(
    stderr: pipe::Receiver,
    outlet: Outlet,
    exited: watch::Receiver<bool>,
    drain: Duration,
) -> String {
    output(stderr, "claude", outlet, exited, drain).await
}

/// The same for what another program says, which is told as if it were a standard error.
pub(crate) async fn output(
    mut pipe: pipe::Receiver,
    whose: &str,
    outlet: Outlet,
    mut exited: watch::Receiver<bool>,
    drain: Duration,
) -> String {
    let (mut lines, mut tail, mut room) = (Lines::default(), Tail::default(), STDERR_BYTES_MAX);
    while read(&mut pipe, &mut lines, &mut exited, drain).await {
        let records = std::iter::from_fn(|| lines.take()).collect();
        pass(&outlet, whose, &mut room, tail.take(records)).await;
    }
    pass(&outlet, whose, &mut room, tail.take(lines.rest().into_iter().collect())).await;
    String::from_utf8_lossy(&tail.kept).into_owned()
}

/// Passes records on while there is room, and says so once when there is none.
async fn pass(outlet: &Outlet, whose: &str, room: &mut usize, mut records: Vec<(Bytes, End)>) {
    if *room == 0 {
        return;
    }
    // An empty line costs as much as its newline.
    let cost = |bytes: &Bytes| bytes.len() + 1;
    records.retain(|(bytes, _)| {
        let kept = *room > 0;
        *room = room.saturating_sub(cost(bytes));
        kept
    });
    outlet.say(Source::Stderr, records).await;
    if *room == 0 {
        let text = format!(
            "{whose} wrote more than {STDERR_BYTES_MAX} bytes to its standard error; the rest is dropped"
        );
        outlet.report(&Report::Warning { text }).await;
    }
}

#[derive(Debug, Default)]
struct Tail {
    kept: Vec<u8>,
}

impl Tail {
    /// Notes the end of these records, and gives them back.
    fn take(&mut self, records: Vec<(Bytes, End)>) -> Vec<(Bytes, End)> {
        for (bytes, end) in &records {
            self.kept.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..]);
            self.kept.extend((*end == End::Newline).then_some(b'\n'));
            let over = self.kept.len().saturating_sub(TAIL_BYTES_MAX);
            self.kept.drain(..over);
        }
        records
    }
}

/// Reads once. `false`: nothing more comes.
async fn read(
    pipe: &mut pipe::Receiver,
    lines: &mut Lines,
    exited: &mut watch::Receiver<bool>,
    drain: Duration,
) -> bool {
    let room = lines.room();
    let got = tokio::select! {
        // First what there is: the end of the process must not hide its last bytes.
        biased;
        got = pipe.read_buf(room) => got,
        () = over(exited) => {
            let Ok(got) = timeout(drain, pipe.read_buf(room)).await else { return false };
            got
        }
    };
    got.is_ok_and(|bytes| bytes > 0)
}

async fn over(exited: &mut watch::Receiver<bool>) {
    // Nobody left to say so is the same.
    let _ = exited.wait_for(|exited| *exited).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_parts_is_read_as_one_and_a_line_too_long_not_at_all() {
        let mut copy = Copy::default();
        let part = Bytes::from(vec![b'x'; LINE_BYTES_MAX / 2]);
        assert_eq!(copy.take(part.clone(), End::More), None);
        assert_eq!(copy.take(part.clone(), End::Newline).map(|line| line.len()), Some(LINE_BYTES_MAX));
        for end in [End::More, End::More, End::More, End::Newline] {
            assert_eq!(copy.take(part.clone(), end), None);
        }
        assert_eq!(copy.take(Bytes::from_static(b"next"), End::Eof).as_deref(), Some(&b"next"[..]));
    }

    #[test]
    fn the_tail_is_the_end_however_long_the_text() {
        let mut tail = Tail::default();
        tail.take(vec![(vec![b'a'; 5000].into(), End::Newline), (Bytes::from_static(b"end"), End::Eof)]);
        assert_eq!(tail.kept.len(), TAIL_BYTES_MAX);
        assert!(tail.kept.ends_with(b"a\nend"));
    }
}
