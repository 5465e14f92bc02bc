//! What the settings and hooks of a task's resources come to: as the CLI merges its own files, and who stood where.
//!
//! Of what is said twice the later counts, tables are joined, and lists go on. The order is that of
//! [`Resolution::of`]: what is for all, the project's, the task's; hooks of settings come before those of hooks.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::compile::hooks_for;
use crate::id::{Kind, ResourceId};
use crate::kinds::What;
use crate::resolve::Resolution;

/// A setting that two resources say differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overridden {
    /// Its key, with a dot between those of tables.
    pub key: String,
    /// Whose word counts.
    pub by: ResourceId,
    /// Whose does not.
    pub over: ResourceId,
}

/// The hooks of one matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookOf {
    /// When they run.
    pub event: String,
    /// For what; none is always.
    pub matcher: Option<String>,
    /// Whose they are.
    pub of: ResourceId,
}

/// Who stands where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// What does not count, in the order in which it was put aside.
    pub settings: Vec<Overridden>,
    /// All hooks, by event in the order in which they are.
    pub hooks: Vec<HookOf>,
}

/// Who stands where in what a task gets.
pub fn merged(resolution: &Resolution) -> Merged {
    let (mut known, mut settings) = (Known::default(), Vec::new());
    let mut hooks = Hooks::default();
    for resource in resolution.of(Kind::Settings) {
        let What::Settings(table) = &resource.what else { continue };
        known.take("", table, &resource.id, &mut settings);
        let of_settings = table.get("hooks").and_then(Value::as_object);
        hooks.take(of_settings.into_iter().flatten(), &resource.id);
    }
    for resource in resolution.of(Kind::Hooks) {
        let table = hooks_for(resource, "");
        hooks.take(table.as_object().into_iter().flatten(), &resource.id);
    }
    Merged { settings, hooks: hooks.0.into_values().flatten().map(|(_, hook)| hook).collect() }
}

/// The settings that are known, by key, and whose they are.
#[derive(Default)]
struct Known(BTreeMap<String, (Value, ResourceId)>);

impl Known {
    fn take(
        &mut self,
        above: &str,
        table: &Map<String, Value>,
        id: &ResourceId,
        put_aside: &mut Vec<Overridden>,
    ) {
        for (name, value) in table {
            let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            let below = format!("{key}.");
            let is_replaced = |known: &str, before: &Value| match value {
                Value::Object(_) => known == key,
                Value::Array(_) => (known == key && !before.is_array()) || known.starts_with(&below),
                _ => (known == key && before != value) || known.starts_with(&below),
            };
            self.0.retain(|known, (before, over)| {
                let stays = !is_replaced(known, before);
                if !stays {
                    put_aside.push(Overridden { key: known.clone(), by: id.clone(), over: over.clone() });
                }
                stays
            });
            match value {
                Value::Object(inner) => self.take(&key, inner, id, put_aside),
                value => drop(self.0.entry(key).or_insert_with(|| (value.clone(), id.clone()))),
            }
        }
    }
}

/// The hooks that are known, by event: each as it is, and whose.
#[derive(Default)]
struct Hooks(BTreeMap<String, Vec<(Value, HookOf)>>);

impl Hooks {
    /// What is there already, word for word, is not there twice.
    fn take<'a>(&mut self, table: impl Iterator<Item = (&'a String, &'a Value)>, id: &ResourceId) {
        for (event, matched) in table {
            let known = self.0.entry(event.clone()).or_default();
            let before = known.len();
            for one in matched.as_array().into_iter().flatten() {
                if known[..before].iter().any(|(known, _)| known == one) {
                    continue;
                }
                let matcher = one["matcher"].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
                known.push((one.clone(), HookOf { event: event.clone(), matcher, of: id.clone() }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::From;
    use crate::resource::Resource;
    use crate::tree::File;

    fn resolution(resources: &[(&str, From, &str, &str)]) -> Resolution {
        let read = |(id, from, path, text): &(&str, From, &str, &str)| {
            let file = |path: &str, text: &str| File {
                path: path.to_owned(),
                executable: true,
                bytes: text.as_bytes().to_vec(),
            };
            let mut files = vec![file(path, text)];
            files.extend(id.starts_with("hooks/").then(|| file("x.sh", "#!/bin/sh\n")));
            (Resource::read(id.parse().expect("an id"), files).expect(id), *from)
        };
        Resolution { resources: resources.iter().map(read).collect(), ..Resolution::default() }
    }

    fn told(merged: &Merged) -> Vec<String> {
        let settings = merged.settings.iter().map(|one| format!("{}: {} over {}", one.key, one.by, one.over));
        let hooks = merged
            .hooks
            .iter()
            .map(|one| format!("{} {}: {}", one.event, one.matcher.as_deref().unwrap_or("always"), one.of));
        settings.chain(hooks).collect()
    }

    #[test]
    fn the_later_counts_and_lists_go_on() {
        let base = r#"{"model": "a", "env": {"A": "1", "B": "1"}, "permissions": {"deny": ["X"]}, "x": {"y": {"z": 1}}, "l": 1}"#;
        let more =
            r#"{"env": {"A": "2", "B": "1"}, "permissions": {"deny": ["Y"]}, "x": {"y": 2}, "l": [1]}"#;
        let last = r#"{"env": {"A": "3"}, "x": {"y": {"z": 1}}}"#;
        let resolution = resolution(&[
            // By kind and name, as they come; the order is that of their layers.
            ("settings/p/a", From::Project, "settings.json", more),
            ("settings/_global/b", From::Global, "settings.json", base),
            ("settings/q/c", From::Task, "settings.json", last),
        ]);
        assert_eq!(
            told(&merged(&resolution)),
            [
                "env.A: settings/p/a over settings/_global/b",
                "l: settings/p/a over settings/_global/b",
                "x.y.z: settings/p/a over settings/_global/b",
                "env.A: settings/q/c over settings/p/a",
                "x.y: settings/q/c over settings/p/a",
            ]
        );
        let compiled = crate::compile(&resolution, "/c", &BTreeMap::new()).settings;
        assert_eq!(
            (&compiled["env"]["A"], &compiled["model"]),
            (&"3".into(), &"a".into()),
            "as it is compiled"
        );
    }

    #[test]
    fn hooks_are_in_the_order_in_which_the_cli_gets_them() {
        let hook = |matcher: &str, command: &str| {
            format!(
                r#"{{"PostToolUse": [{{"matcher": "{matcher}", "hooks": [{{"type": "command", "command": "{command}"}}]}}]}}"#
            )
        };
        let in_settings = format!(r#"{{"hooks": {}}}"#, hook("", "date"));
        let resolution = resolution(&[
            ("hooks/p/a", From::Project, "hooks.json", &hook("Edit", "./x.sh")),
            ("hooks/_global/b", From::Global, "hooks.json", &hook("Edit", "./x.sh")),
            ("hooks/_global/same", From::Global, "hooks.json", &hook("", "date")),
            ("settings/_global/s", From::Global, "settings.json", &in_settings),
        ]);
        let merged = merged(&resolution);
        assert_eq!(
            told(&merged),
            [
                "PostToolUse always: settings/_global/s",
                "PostToolUse Edit: hooks/_global/b",
                "PostToolUse Edit: hooks/p/a",
            ]
        );
        let compiled = crate::compile(&resolution, "/c", &BTreeMap::new()).settings;
        assert_eq!(compiled["hooks"]["PostToolUse"].as_array().map(Vec::len), Some(merged.hooks.len()));
    }
}
