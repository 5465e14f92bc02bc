//! What a machine's events say about its end.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::api::Event;

/// Fly's account of the end of a VM's first program.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "the names are Fly's")]
struct Exit {
    exit_code: Option<i64>,
    guest_exit_code: Option<i64>,
    guest_signal: Option<i64>,
    oom_killed: Option<bool>,
    requested_stop: Option<bool>,
}

/// What the newest end says, if there was one.
pub(crate) fn words(events: &[Event]) -> Option<String> {
    let exit = events.iter().filter(|event| event.kind == "exit").max_by_key(|event| event.timestamp)?;
    let request = &exit.request;
    let told = [&request["exit_event"], &request["MonitorEvent"]["exit_event"]];
    let exit = told.into_iter().find_map(|told| Exit::deserialize(told).ok())?;
    Some(exit.words())
}

impl Exit {
    fn words(&self) -> String {
        if self.oom_killed == Some(true) {
            return "its VM ran out of memory (Fly says oom_killed): a larger `size` has more".to_owned();
        }
        let code = self.guest_exit_code.filter(|code| *code != 0).or(self.exit_code);
        match (self.requested_stop, code) {
            (Some(true), _) => "it was stopped from outside (Fly says requested_stop)".to_owned(),
            (_, Some(-1)) => "its host was lost (Fly says exit_code -1)".to_owned(),
            (_, code) => {
                let mut words = "its worker ended".to_owned();
                if let Some(code) = code {
                    write!(words, " with exit code {code}").expect("a text takes all");
                }
                if let Some(signal) = self.guest_signal.filter(|signal| *signal > 0) {
                    write!(words, " by signal {signal}").expect("a text takes all");
                }
                words
            }
        }
    }
}

/// Whether it was stopped on one host and started on another: what it had is lost.
pub(crate) fn has_moved(events: &[Event]) -> bool {
    events.iter().any(|event| event.kind == "launch" && event.request["migrated"] == true)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(kind: &str, timestamp: i64, request: Value) -> Event {
        Event { kind: kind.to_owned(), timestamp: Some(timestamp), request }
    }

    fn ended(exit: &Value) -> String {
        let words = words(&[event("exit", 1, json!({ "exit_event": exit }))]).unwrap();
        let nested = json!({ "MonitorEvent": { "exit_event": exit } });
        assert_eq!(super::words(&[event("exit", 1, nested)]).unwrap(), words);
        words
    }

    #[test]
    fn an_end_is_told_by_what_caused_it() {
        assert!(
            ended(&json!({"exit_code": 137, "oom_killed": true})).starts_with("its VM ran out of memory")
        );
        let lost = json!({"exit_code": -1, "oom_killed": false, "requested_stop": false});
        assert_eq!(ended(&lost), "its host was lost (Fly says exit_code -1)");
        let stopped = json!({"exit_code": 0, "requested_stop": true});
        assert_eq!(ended(&stopped), "it was stopped from outside (Fly says requested_stop)");
        assert_eq!(ended(&json!({"exit_code": 3})), "its worker ended with exit code 3");
        let killed = json!({"exit_code": 0, "guest_exit_code": 0, "guest_signal": 9});
        assert_eq!(ended(&killed), "its worker ended with exit code 0 by signal 9");
        assert_eq!(ended(&json!({"new": 1})), "its worker ended");
    }

    #[test]
    fn the_newest_end_counts_and_what_is_none_does_not() {
        let old = event("exit", 1, json!({"exit_event": {"exit_code": 1}}));
        let new = event("exit", 2, json!({"exit_event": {"exit_code": 2}}));
        assert_eq!(words(&[old, new]).unwrap(), "its worker ended with exit code 2");
        assert_eq!(words(&[event("launch", 1, Value::Null), event("exit", 2, Value::Null)]), None);
        assert_eq!(words(&[event("exit", 2, json!({"exit_event": "x"}))]), None);
    }

    #[test]
    fn a_launch_on_another_host_is_a_move() {
        assert!(!has_moved(&[event("launch", 1, Value::Null), event("start", 2, json!({"migrated": true}))]));
        assert!(has_moved(&[event("launch", 3, json!({"migrated": true}))]));
    }
}
