//! Whether the lines of a log are the events of its task, one after another: line N is event N.
//!
//! A log is a file of the user's, and whatever writes into it, an editor or a script, would shift all that follows: a
//! reader goes by the numbers of lines. The head of each line is compared with what the orchestrator writes; one that
//! begins otherwise, as a later version may have it, is read as JSON. What a line holds behind its head is not looked at.
//!
//! Bound: [`LINE_BYTES_MAX`] a line.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use mayfly_core::TaskId;
use serde::Deserialize;

/// The longest line that can be an event.
pub(crate) const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What is read of a file at once.
const READ_BYTES: usize = 256 * 1024;

/// What has come of a log so far.
#[derive(Debug)]
pub(crate) struct Order {
    task: String,
    head: Vec<u8>,
    last: u64,
}

/// What a line must say of itself, wherever in it.
#[derive(Debug, Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    task: Option<Cow<'a, str>>,
    seq: u64,
}

impl Order {
    /// Nothing has come of it.
    pub(crate) fn of(task: TaskId) -> Self {
        let (task, last) = (task.to_string(), 0);
        let head = format!("{{\"task\":\"{task}\",\"attempt\":").into_bytes();
        Self { task, head, last }
    }

    /// How many bytes of these whole lines are the events that are next. Behind them is a line that is none of them.
    pub(crate) fn take(&mut self, lines: &[u8]) -> usize {
        let mut taken = 0;
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            if !self.is_next(line) {
                break;
            }
            self.last += 1;
            taken += line.len();
        }
        taken
    }

    fn is_next(&self, line: &[u8]) -> bool {
        self.begins_as_next(line) || self.says_so(line)
    }

    fn begins_as_next(&self, line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(&*self.head) else { return false };
        let (_, rest) = number(rest);
        let Some(rest) = rest.strip_prefix(b",\"seq\":") else { return false };
        let (seq, rest) = number(rest);
        seq == Some(self.last + 1) && rest.starts_with(b",")
    }

    fn says_so(&self, line: &[u8]) -> bool {
        let named = serde_json::from_slice::<Named<'_>>(line);
        named.is_ok_and(|Named { task, seq }| {
            seq == self.last + 1 && task.is_none_or(|task| task == self.task)
        })
    }
}

/// The number that bytes begin with, and what follows.
fn number(bytes: &[u8]) -> (Option<u64>, &[u8]) {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(digits);
    (std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()), rest)
}

/// Whether the whole lines of the log at `path` are the events of `task`, in their order.
pub(crate) fn is_kept(path: &Path, task: TaskId) -> io::Result<bool> {
    let mut log = BufReader::with_capacity(READ_BYTES, File::open(path)?);
    let (mut order, mut line) = (Order::of(task), Vec::new());
    loop {
        line.clear();
        (&mut log).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            // Half a line at the end comes again.
            return Ok((line.len() as u64) < LINE_BYTES_MAX);
        }
        if order.take(&line) == 0 {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use mayfly_wire::event::{Envelope, EventSource};
    use mayfly_wire::worker::End;
    use uuid::Uuid;

    use super::*;

    fn id(task: u128) -> TaskId {
        TaskId::new(Uuid::from_u128(task))
    }

    fn event(task: TaskId, seq: u64) -> Vec<u8> {
        let (task, mut line) = (task.to_string(), Vec::new());
        let at = jiff::Timestamp::UNIX_EPOCH;
        let (attempt, source, end, redacted) = (10, EventSource::Claude, End::Newline, 0);
        Envelope { task: &task, attempt, seq, at, source, end, bytes: b"{\"seq\":7}", json: true, redacted }
            .write(&mut line);
        line
    }

    /// As the orchestrator writes them they are known by their heads alone.
    #[test]
    fn events_in_their_order_are_taken_and_none_is_parsed() {
        let mut order = Order::of(id(1));
        for seq in 1..=100 {
            let line = event(id(1), seq);
            assert!(order.begins_as_next(&line), "{}", String::from_utf8_lossy(&line));
            assert_eq!(order.take(&line), line.len());
        }
    }

    #[test]
    fn fields_in_another_order_are_as_good() {
        let other = format!("{{\"seq\":1,\"more\":[],\"task\":\"{}\"}}\n", id(1));
        assert_eq!(Order::of(id(1)).take(other.as_bytes()), other.len());
    }

    /// Also ones that are JSON, or events of another place.
    #[test]
    fn a_line_that_is_not_the_next_event_is_found() {
        let foreign = [
            event(id(1), 1),
            event(id(1), 3),
            event(id(1), 20),
            event(id(2), 2),
            b"{\"note\":\"mine\"}\n".to_vec(),
            b"{\"seq\":3}\n".to_vec(),
            b"my notes\n".to_vec(),
            b"\n".to_vec(),
        ];
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        for foreign in foreign {
            let lines = [event(id(1), 1), foreign, event(id(1), 2), event(id(1), 3)].concat();
            assert_eq!(Order::of(id(1)).take(&lines), event(id(1), 1).len(), "{lines:?}");
            std::fs::write(&path, lines).expect("written");
            assert!(!is_kept(&path, id(1)).expect("read"));
        }
        let half = [event(id(1), 1), event(id(1), 2), b"{\"task\":\"".to_vec()].concat();
        std::fs::write(&path, half).expect("written");
        assert!(is_kept(&path, id(1)).expect("read"), "half a line comes again");
    }
}
