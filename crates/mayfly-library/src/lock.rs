//! The exact resources that a task runs with, by content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Name, ResourceId};
use crate::pack;
use crate::resolve::From;

/// The version of what is written here.
pub const VERSION: u32 = 1;

/// A lock: equal ones are equal byte for byte, and are named by the SHA-256 of these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Must equal [`VERSION`].
    pub version: u32,
    /// The namespace beside `_global`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// The agent that the task is run by, among the resources or in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// Its resources, by kind and name.
    pub resources: Vec<Locked>,
}

/// One resource of a lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Which it is: `kind/namespace/name`.
    pub id: ResourceId,
    /// The SHA-256 of its archive, in hex.
    pub sha256: String,
    /// The bytes of its files.
    pub bytes: u64,
    /// Why it is there.
    pub from: From,
    /// The trees that its servers run, by their SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
}

impl Lock {
    /// As it is written.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a lock is JSON")
    }

    /// Its name.
    pub fn sha256(&self) -> String {
        pack::sha256(self.to_json().as_bytes())
    }
}

/// A resource that two locks differ in, by kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What the first lock has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Locked>,
    /// What the second has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Locked>,
}

/// A name that two locks differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// What the first lock has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Name>,
    /// What the second has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
}

/// What differs between two locks; why a resource is there is no difference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The namespace beside `_global`.
    pub project: Option<Changed>,
    /// The agent to be run by.
    pub agent: Option<Changed>,
    /// The resources, by kind and name.
    pub resources: Vec<Difference>,
}

/// Compares two locks.
pub fn differences(before: &Lock, after: &Lock) -> Differences {
    let changed = |before: &Option<Name>, after: &Option<Name>| {
        (before != after).then(|| Changed { before: before.clone(), after: after.clone() })
    };
    Differences {
        project: changed(&before.project, &after.project),
        agent: changed(&before.agent, &after.agent),
        resources: of_resources(before, after),
    }
}

fn of_resources(before: &Lock, after: &Lock) -> Vec<Difference> {
    let by_name = |lock: &Lock| -> BTreeMap<_, _> {
        let key = |locked: &Locked| (locked.id.kind, locked.id.name.clone());
        lock.resources.iter().map(|locked| (key(locked), locked.clone())).collect()
    };
    let (mut old, new) = (by_name(before), by_name(after));
    let mut found: BTreeMap<_, Difference> = BTreeMap::new();
    for (key, after) in new {
        let before = old.remove(&key);
        if before.as_ref().is_none_or(|before| (&before.id, &before.sha256) != (&after.id, &after.sha256)) {
            found.insert(key, Difference { before, after: Some(after) });
        }
    }
    found
        .extend(old.into_iter().map(|(key, before)| (key, Difference { before: Some(before), after: None })));
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(resources: &[(&str, &str)]) -> Lock {
        let locked = |(id, sha256): &(&str, &str)| Locked {
            id: id.parse().expect("an id"),
            sha256: (*sha256).to_owned(),
            bytes: 1,
            from: From::Global,
            tools: Vec::new(),
        };
        Lock {
            version: VERSION,
            project: None,
            agent: None,
            resources: resources.iter().map(locked).collect(),
        }
    }

    #[test]
    fn a_lock_reads_back_and_is_named_by_its_bytes() {
        let lock = lock(&[("skill/_global/a", "1")]);
        let read: Lock = serde_json::from_str(&lock.to_json()).expect("a lock");
        assert_eq!((&read, read.sha256()), (&lock, lock.sha256()));
        insta::assert_snapshot!(lock.to_json(), @r#"{"version":1,"resources":[{"id":"skill/_global/a","sha256":"1","bytes":1,"from":"global"}]}"#);
    }

    #[test]
    fn what_two_locks_differ_in_is_found() {
        let before = lock(&[("skill/_global/a", "1"), ("skill/_global/b", "1"), ("skill/_global/c", "1")]);
        let after = lock(&[("skill/_global/a", "1"), ("skill/p/b", "1"), ("rules/_global/c", "1")]);
        let found = differences(&before, &after).resources;
        let ids = |locked: &Option<Locked>| locked.as_ref().map(|locked| locked.id.to_string());
        let found: Vec<_> = found.iter().map(|one| (ids(&one.before), ids(&one.after))).collect();
        let some = |id: &str| Some(id.to_owned());
        assert_eq!(
            found,
            [
                (some("skill/_global/b"), some("skill/p/b")),
                (some("skill/_global/c"), None),
                (None, some("rules/_global/c")),
            ]
        );
        assert_eq!(differences(&before, &before), Differences::default());
        let by = |agent: &str| Lock { agent: agent.parse().ok(), ..before.clone() };
        let differ = differences(&by("fixer"), &by("reviewer"));
        let agent = Changed { before: "fixer".parse().ok(), after: "reviewer".parse().ok() };
        assert_eq!(differ, Differences { agent: Some(agent), ..Differences::default() });
        let of_project = Lock { project: "p".parse().ok(), ..before.clone() };
        assert_eq!(
            differences(&of_project, &before).project,
            Some(Changed { before: "p".parse().ok(), after: None })
        );
    }
}
