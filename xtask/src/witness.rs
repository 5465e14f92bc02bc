//! What `claude` said, by its own account: the session file that it writes beside its standard output.
//!
//! Each message is in both, with the same id, and with the same bytes as its content; what a message cost is known
//! later, and stands in the session file alone. Lines of other kinds are in one of the two.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A line of either.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: String,
    uuid: Option<String>,
    #[serde(borrow)]
    message: Option<Said<'a>>,
}

#[derive(Debug, Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
}

/// A message that was said: its id and its content.
type Message = (String, String);

/// How far the two must go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// To the end.
    Whole,
    /// To the end of the shorter one: `claude` was killed.
    UntilKilled,
}

/// Whether the log of standard output and the session file tell the same.
pub(crate) fn agree(stdout: &[u8], session: &[u8], account: Account) -> bool {
    let (Some(logged), Some(kept)) = (messages(stdout), messages(session)) else { return false };
    // What the agent was asked, and what it was told besides, is in the session alone.
    let was_logged = |id: &str| logged.iter().any(|(_, (known, _))| known == id);
    let kept: Vec<Message> = kept
        .into_iter()
        .filter(|(kind, (id, _))| kind == "assistant" || was_logged(id))
        .map(|(_, message)| message)
        .collect();
    let logged: Vec<Message> = logged.into_iter().map(|(_, message)| message).collect();
    match account {
        Account::Whole => logged == kept && !logged.is_empty(),
        Account::UntilKilled => logged.iter().zip(&kept).all(|(one, other)| one == other),
    }
}

/// The messages of a file in their order, each with its kind. `None`: a line of it is none.
fn messages(text: &[u8]) -> Option<Vec<(String, Message)>> {
    let mut messages = Vec::new();
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let Line { kind, uuid, message } = serde_json::from_slice(line).ok()?;
        if let (Some(uuid), Some(message), "assistant" | "user") = (uuid, message, kind.as_str()) {
            messages.push((kind, (uuid, message.content.get().to_owned())));
        }
    }
    Some(messages)
}

/// Whether the agent's last words are in its log once as a message and once as its result.
pub(crate) fn says(stdout: &[u8], answer: &str) -> bool {
    let text = format!(r#""text":"{answer}""#);
    let result = format!(r#""result":"{answer}""#);
    let count = |words: &str| {
        let lines = stdout.split(|&byte| byte == b'\n');
        lines.filter(|line| String::from_utf8_lossy(line).contains(words)).count()
    };
    (count(&text), count(&result)) == (1, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ids: &[u32]) -> Vec<u8> {
        let line =
            |id| format!("{{\"type\":\"assistant\",\"uuid\":\"{id}\",\"message\":{{\"content\":{id}}}}}\n");
        ids.iter().map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn a_message_that_is_missing_repeated_changed_or_out_of_order_is_noticed() {
        let asked = br#"{"type":"user","uuid":"0","message":{"content":"asked"}}"#;
        let session = [&asked[..], b"\n", &said(&[1, 2, 3])].concat();
        assert!(agree(&said(&[1, 2, 3]), &session, Account::Whole));
        for ids in [&[1, 2][..], &[1, 3], &[1, 1, 2, 3], &[1, 3, 2], &[]] {
            assert!(!agree(&said(ids), &session, Account::Whole), "{ids:?}");
        }
        let changed = String::from_utf8(said(&[1, 2, 3])).expect("text").replace(":2}", ":4}");
        assert!(!agree(changed.as_bytes(), &session, Account::Whole));
        assert!(agree(&said(&[1, 2]), &session, Account::UntilKilled));
        assert!(!agree(&said(&[1, 3]), &session, Account::UntilKilled));
        assert!(!agree(b"half a li", &session, Account::UntilKilled));
    }
}
