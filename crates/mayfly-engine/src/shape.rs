//! What each field of a task must be, in words, for a task that does not read: the parser speaks of its own types.
//!
//! Unknown, missing and repeated fields are the parser's business: it names them.

use mayfly_wire::api::TIMEOUT_MS_MAX;
use serde_json::{Map, Value};

use crate::submit::{SubmitError, invalid};

/// A field: its name with what it is in, and what is in it.
struct Field {
    name: &'static str,
    is: Is,
    /// Whether it can be `null`.
    optional: bool,
}

/// What is in a field.
#[derive(Clone, Copy)]
enum Is {
    Text,
    /// Any number of them.
    Texts,
    /// One of these words.
    Word(&'static [&'static str]),
    Whole(i64, i64),
    Number,
    Truth,
    Object(&'static [Field]),
}

const fn must(name: &'static str, is: Is) -> Field {
    Field { name, is, optional: false }
}

const fn may(name: &'static str, is: Is) -> Field {
    Field { name, is, optional: true }
}

const TASK: &[Field] = &[
    must("prompt", Is::Text),
    may("workspace", Is::Object(WORKSPACE)),
    may("setup", Is::Object(SETUP)),
    may("provider", Is::Text),
    may("model", Is::Text),
    may("timeout_ms", Is::Whole(1, TIMEOUT_MS_MAX.cast_signed())),
    may("idle_timeout_ms", Is::Whole(1, TIMEOUT_MS_MAX.cast_signed())),
    may("max_turns", Is::Whole(1, u32::MAX as i64)),
    may("max_budget_usd", Is::Number),
    must("trust_repo", Is::Truth),
    must("priority", Is::Whole(-1000, 1000)),
    must("retries", Is::Whole(0, 10)),
    may("project", Is::Text),
    may("agent", Is::Text),
    must("resources", Is::Texts),
    must("without", Is::Texts),
    may("lock", Is::Text),
    must("allow", Is::Texts),
    must("artifacts", Is::Texts),
    may("credential", Is::Object(CREDENTIAL)),
    may("credential_name", Is::Text),
];

const WORKSPACE: &[Field] = &[
    must("workspace.id", Is::Text),
    must("workspace.name", Is::Text),
    must("workspace.base", Is::Text),
    may("workspace.on", Is::Object(WHOLE)),
    may("workspace.origin", Is::Text),
];

const SETUP: &[Field] = &[
    must("setup.commands", Is::Texts),
    must("setup.lock_files", Is::Texts),
    must("setup.keep", Is::Texts),
    may("setup.repository", Is::Text),
    must("setup.timeout_ms", Is::Whole(1, TIMEOUT_MS_MAX.cast_signed())),
];

const WHOLE: &[Field] = &[must("workspace.on.id", Is::Text), must("workspace.on.base", Is::Text)];

const CREDENTIAL: &[Field] = &[
    must("credential.kind", Is::Word(&["oauth-token", "api-key", "bearer"])),
    must("credential.secret", Is::Text),
    may("credential.base_url", Is::Text),
    must("credential.mode", Is::Word(&["broker", "inject", "inject-descriptor"])),
];

/// Checks that each field of a task has what it must have. No message repeats a value, which may be a credential in
/// the wrong place. What is no JSON at all is let pass: the parser says where it breaks.
///
/// # Errors
/// The first field that has something else in it.
pub fn check_shape(json: &str) -> Result<(), SubmitError> {
    match serde_json::from_str(json) {
        Ok(Value::Object(task)) => check(&task, TASK),
        Ok(_) => {
            Err(invalid("the task", "must be a JSON object, such as {\"prompt\": \"fix the failing test\"}"))
        }
        Err(_) => Ok(()),
    }
}

fn check(object: &Map<String, Value>, fields: &'static [Field]) -> Result<(), SubmitError> {
    for field in fields {
        let key = field.name.rsplit('.').next().unwrap_or(field.name);
        match object.get(key) {
            None => {}
            Some(Value::Null) if field.optional => {}
            Some(value) => field.check(value)?,
        }
    }
    Ok(())
}

impl Field {
    fn check(&self, value: &Value) -> Result<(), SubmitError> {
        let good = match (self.is, value) {
            (Is::Object(fields), Value::Object(object)) => return check(object, fields),
            (Is::Text, value) => value.is_string(),
            (Is::Texts, value) => value.as_array().is_some_and(|texts| texts.iter().all(Value::is_string)),
            (Is::Word(words), value) => value.as_str().is_some_and(|word| words.contains(&word)),
            (Is::Whole(least, most), value) => {
                value.as_i64().is_some_and(|number| (least..=most).contains(&number))
            }
            (Is::Number, value) => value.is_number(),
            (Is::Truth, value) => value.is_boolean(),
            (Is::Object(_), _) => false,
        };
        if good { Ok(()) } else { Err(invalid(self.name, &self.words())) }
    }

    fn words(&self) -> String {
        match self.is {
            Is::Text => "must be a text, in quotes".to_owned(),
            Is::Texts => "must be a list of texts, in quotes".to_owned(),
            Is::Word(words) => format!("must be one of {}", words.join(", ")),
            Is::Whole(least, most) => format!("must be a whole number from {least} to {most}"),
            Is::Number => "must be a number".to_owned(),
            Is::Truth => "must be true or false".to_owned(),
            Is::Object(fields) => {
                let keys: Vec<_> = fields.iter().filter_map(|field| field.name.rsplit('.').next()).collect();
                format!("must be a JSON object with {}", keys.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mayfly_wire::api::CreateTask;
    use serde_json::json;

    use super::*;

    /// A value of each type, none of which fits all fields.
    fn values() -> [Value; 6] {
        [json!("canary"), json!(-1.5), json!(true), json!([]), json!({}), json!(u64::MAX)]
    }

    #[test]
    fn each_field_with_something_else_in_it_is_named_with_what_it_must_be() {
        let mut all = Vec::new();
        for field in TASK.iter().chain(WORKSPACE).chain(SETUP).chain(CREDENTIAL) {
            let (outer, key) = field.name.split_once('.').unwrap_or(("", field.name));
            let said = values().iter().find_map(|value| {
                let mut task = json!({"prompt": "p"});
                match outer {
                    "" => task[key] = value.clone(),
                    outer => task[outer] = json!({ key: value }),
                }
                // Whatever the parser takes, or only misses something in, is none of this.
                let parsed = serde_json::from_value::<CreateTask>(task.clone());
                let said = check_shape(&task.to_string()).err().map(|error| error.to_string());
                assert!(parsed.is_err() || said.is_none() || matches!(field.is, Is::Whole(..)), "{task}");
                said
            });
            let said = said.unwrap_or_else(|| panic!("nothing is wrong with {}", field.name));
            assert!(!said.contains("canary"), "{said}");
            all.push(said);
        }
        all.push(check_shape("[]").expect_err("no object").to_string());
        assert!(all.iter().all(|said| said.contains("` must be ")), "{all:#?}");
        for said in [
            "`timeout_ms` must be a whole number from 1 to 604800000",
            "`workspace` must be a JSON object with id, name, base, on, origin",
            "`workspace.id` must be a text, in quotes",
            "`credential.kind` must be one of oauth-token, api-key, bearer",
        ] {
            assert!(all.iter().any(|one| one == said), "{said}: {all:#?}");
        }
    }

    /// A field that is new to the task must be new here too.
    #[test]
    fn each_field_of_a_task_is_in_the_table() {
        let unknown = serde_json::from_str::<CreateTask>("{\"nothing\":1}").expect_err("unknown").to_string();
        let known: Vec<_> = unknown.split('`').skip(3).step_by(2).collect();
        let table: Vec<_> = TASK.iter().map(|field| field.name).collect();
        assert_eq!(known, table, "{unknown}");
    }
}
