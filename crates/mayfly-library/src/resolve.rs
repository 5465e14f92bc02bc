//! Which resources a task gets: all of `_global`, then its project's, then what it asks for itself.
//!
//! Of the same kind and name the later wins; what it stands before is kept to be told of. The choice is made of names
//! alone, whatever order they come in, and only what was chosen is read: what a task leaves out cannot stop it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{GLOBAL, Kind, Name, Reference, ResourceId};
use crate::lock::{Lock, Locked, VERSION};
use crate::problem::{Problem, Problems};
use crate::resource::Resource;

/// The most resources of one task.
pub const RESOURCES_MAX: usize = 500;
/// The most bytes of them together.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a task wants of a library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The namespace beside `_global`.
    pub project: Option<Name>,
    /// The agent to be run by; one that the library does not have may be the repository's.
    pub agent: Option<Reference>,
    /// More resources, wherever they are.
    pub add: Vec<(Kind, Reference)>,
    /// What is left out, though it would be there.
    pub without: Vec<(Kind, Reference)>,
}

/// Why a task has a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// It is for every repository.
    Global,
    /// It is for the task's project.
    Project,
    /// The task asked for it.
    Task,
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Project => "project",
            Self::Task => "task",
        })
    }
}

/// Which resources a task gets, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// What it gets, and why, with the content that it asked for; by kind and name.
    pub chosen: Vec<(ResourceId, From, Option<String>)>,
    /// What it would get if another of the same kind and name did not stand before it.
    pub shadowed: Vec<ResourceId>,
}

/// Chooses from what there is.
pub fn resolve(there: &BTreeSet<ResourceId>, wishes: &Wishes) -> Result<Choice, Problems> {
    let mut layers: Vec<(ResourceId, From, Option<String>)> = Vec::new();
    layers.extend(within(there, GLOBAL).map(|id| (id, From::Global, None)));
    if let Some(project) = wishes.project.as_ref().filter(|project| project.as_str() != GLOBAL) {
        layers.extend(within(there, project.as_str()).map(|id| (id, From::Project, None)));
    }
    let mut problems = Vec::new();
    let agent = wishes.agent.as_ref().filter(|agent| {
        // Without a namespace it may be an agent of the repository's.
        agent.namespace.is_some()
            || agent.content.is_some()
            || find(there, wishes, Kind::Agent, agent).is_some()
    });
    let mut wanted: BTreeSet<(ResourceId, Option<String>)> = BTreeSet::new();
    let asked = wishes.add.iter().cloned().chain(agent.map(|agent| (Kind::Agent, agent.clone())));
    for (kind, named) in asked {
        if let Some(id) = find(there, wishes, kind, &named) {
            wanted.insert((id.clone(), named.content));
            continue;
        }
        let words = match &named.content {
            None => "is not in the library: `mayfly library ls` lists what is",
            Some(_) => "is not in the library, where it must be for an older content of it to be had too",
        };
        problems.push(Problem::new(format!("{kind}/{named}"), words));
    }
    problems.extend(of_one_name(&wanted));
    layers.extend(wanted.into_iter().map(|(id, content)| (id, From::Task, content)));
    let mut chosen: BTreeMap<(Kind, Name), (ResourceId, From, Option<String>)> = BTreeMap::new();
    let mut shadowed = Vec::new();
    for one in layers {
        let left_out = |(kind, named): &(Kind, Reference)| *kind == one.0.kind && named.names(&one.0);
        if one.1 != From::Task && wishes.without.iter().any(left_out) {
            continue;
        }
        let key = (one.0.kind, one.0.name.clone());
        let id = one.0.clone();
        if let Some((before, ..)) = chosen.insert(key, one).filter(|(before, ..)| *before != id) {
            shadowed.push(before);
        }
    }
    let unknown = wishes
        .without
        .iter()
        .filter(|(kind, named)| !there.iter().any(|id| id.kind == *kind && named.names(id)));
    problems.extend(unknown.map(|(kind, named)| {
        Problem::new(format!("{kind}/{named}"), "is to be left out and is not in the library")
    }));
    let pinned = wishes.without.iter().filter(|(_, named)| named.content.is_some());
    problems.extend(pinned.map(|(kind, named)| {
        Problem::new(
            format!("{kind}/{named}"),
            "is to be left out whatever its content is: name it without its content",
        )
    }));
    if chosen.len() > RESOURCES_MAX {
        problems.push(Problem::new(
            "the library",
            format!("has {} resources for this task, and {RESOURCES_MAX} are the most", chosen.len()),
        ));
    }
    shadowed.sort();
    match problems.is_empty() {
        true => Ok(Choice { chosen: chosen.into_values().collect(), shadowed }),
        false => Err(Problems(problems)),
    }
}

/// The servers that are there twice among those of resources together.
pub(crate) fn servers_twice<'a>(servers: impl Iterator<Item = (&'a ResourceId, &'a str)>) -> Vec<Problem> {
    let (mut known, mut problems) = (BTreeMap::new(), Vec::new());
    for (id, server) in servers {
        if let Some(other) = known.insert(server, id) {
            let words = format!("has a server `{server}`, and so has {other}: leave one out");
            problems.push(Problem::new(id.to_string(), words));
        }
    }
    problems
}

/// What is wrong with resources of so many bytes together, if they are more than one task can have.
pub(crate) fn too_large(bytes: usize) -> Option<Problem> {
    let words =
        || format!("has at least {bytes} bytes for this task, and {BYTES_MAX} are the most: leave some out");
    (bytes > BYTES_MAX).then(|| Problem::new("the library", words()))
}

/// What is asked for in two ways, of which a task could have but one.
fn of_one_name(wanted: &BTreeSet<(ResourceId, Option<String>)>) -> Vec<Problem> {
    let mut known = BTreeMap::new();
    let mut problems = Vec::new();
    for (id, content) in wanted {
        let content = content.as_ref().map(|content| format!("@{content}")).unwrap_or_default();
        let one = format!("{id}{content}");
        if let Some(other) = known.insert((id.kind, &id.name), one.clone()) {
            let words = format!("is asked for, and so is {other}: a task has one of a kind and name");
            problems.push(Problem::new(one, words));
        }
    }
    problems
}

fn within<'a>(there: &'a BTreeSet<ResourceId>, namespace: &'a str) -> impl Iterator<Item = ResourceId> + 'a {
    there.iter().filter(move |id| id.namespace.as_str() == namespace).cloned()
}

/// What a task means by a reference: in the namespace that it names, else its project's, else `_global`.
fn find<'a>(
    there: &'a BTreeSet<ResourceId>,
    wishes: &Wishes,
    kind: Kind,
    named: &Reference,
) -> Option<&'a ResourceId> {
    let global = Name::global();
    let namespaces = match &named.namespace {
        Some(namespace) => vec![namespace],
        None => wishes.project.iter().chain([&global]).collect(),
    };
    let id = |namespace: &Name| ResourceId { kind, namespace: namespace.clone(), name: named.name.clone() };
    namespaces.into_iter().find_map(|namespace| there.get(&id(namespace)))
}

/// What a task gets of a library, read whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolution {
    /// The namespace beside `_global`.
    pub project: Option<Name>,
    /// The agent to be run by.
    pub agent: Option<Name>,
    /// The resources, and why each is there; by kind and name.
    pub resources: Vec<(Resource, From)>,
    /// What others stand before.
    pub shadowed: Vec<ResourceId>,
    /// What does not count, though it looks as if it were for the task.
    pub strays: Vec<Problem>,
}

impl Resolution {
    /// What is to be kept of it.
    pub fn lock(&self) -> Lock {
        let locked = |(resource, from): &(Resource, From)| Locked {
            id: resource.id.clone(),
            sha256: resource.sha256.clone(),
            bytes: resource.bytes() as u64,
            from: *from,
            tools: resource.tools().map(|tool| tool.sha256.clone()).collect(),
        };
        let resources = self.resources.iter().map(locked).collect();
        Lock { version: VERSION, project: self.project.clone(), agent: self.agent.clone(), resources }
    }

    /// The resources of a kind in the order in which they count: global ones, the project's, the task's; by name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        let layer = move |from: From| {
            let mine = move |(resource, why): &&(Resource, From)| resource.id.kind == kind && *why == from;
            self.resources.iter().filter(mine).map(|(resource, _)| resource)
        };
        [From::Global, From::Project, From::Task].into_iter().flat_map(layer)
    }

    /// The servers that are there twice, each with what to do about it.
    pub fn servers_twice(&self) -> Vec<Problem> {
        let servers = self.resources.iter().flat_map(|(resource, _)| {
            resource.servers().iter().map(|server| (&resource.id, server.name.as_str()))
        });
        servers_twice(servers)
    }

    /// The agent to be run by, if it is the library's.
    pub fn main_agent(&self) -> Option<&Resource> {
        let name = self.agent.as_ref()?;
        self.of(Kind::Agent).find(|resource| resource.id.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(texts: &[&str]) -> BTreeSet<ResourceId> {
        texts.iter().map(|text| text.parse().expect("an id")).collect()
    }

    fn named(text: &str) -> Reference {
        text.parse().expect("a reference")
    }

    fn shown(choice: &Choice) -> Vec<String> {
        choice.chosen.iter().map(|(id, from, _)| format!("{id} {from}")).collect()
    }

    const THERE: &[&str] = &[
        "skill/_global/a",
        "skill/_global/b",
        "skill/p/b",
        "skill/q/b",
        "skill/q/c",
        "agent/q/r",
        "agent/_global/r",
    ];

    #[test]
    fn a_project_stands_before_global_and_the_task_before_both() {
        let wishes = Wishes { project: "p".parse().ok(), ..Wishes::default() };
        let choice = resolve(&ids(THERE), &wishes).expect("a choice");
        assert_eq!(shown(&choice), ["skill/_global/a global", "skill/p/b project", "agent/_global/r global"]);
        assert_eq!(choice.shadowed, Vec::from_iter(ids(&["skill/_global/b"])));

        let add = vec![(Kind::Skill, named("q/b")), (Kind::Skill, named("q/c"))];
        let wishes =
            Wishes { add, agent: Some(named("q/r")), without: vec![(Kind::Skill, named("a"))], ..wishes };
        let choice = resolve(&ids(THERE), &wishes).expect("a choice");
        assert_eq!(shown(&choice), ["skill/q/b task", "skill/q/c task", "agent/q/r task"]);
    }

    #[test]
    fn what_is_left_out_is_so_whatever_its_content() {
        let wishes = Wishes { without: vec![(Kind::Skill, named("a@01234567"))], ..Wishes::default() };
        let said = resolve(&ids(THERE), &wishes).expect_err("refused").to_string();
        assert_eq!(
            said,
            "skill/a@01234567: is to be left out whatever its content is: name it without its content"
        );
    }

    #[test]
    fn two_of_a_kind_and_name_are_one_too_many() {
        let wishes = |add: &[&str], agent: Option<&str>| Wishes {
            project: "p".parse().ok(),
            agent: agent.map(named),
            add: add
                .iter()
                .map(|text| text.split_once(' ').expect("a kind"))
                .map(|(kind, name)| (kind.parse().expect("a kind"), named(name)))
                .collect(),
            ..Wishes::default()
        };
        for (add, agent, words) in [
            (vec!["skill p/b", "skill q/b"], None, "skill/q/b: is asked for, and so is skill/p/b: "),
            (vec!["skill q/b", "skill p/b"], None, "skill/q/b: is asked for, and so is skill/p/b: "),
            (
                vec!["skill a@01234567", "skill a"],
                None,
                "skill/_global/a@01234567: is asked for, and so is skill/_global/a: ",
            ),
            (
                vec!["agent r@01234567"],
                Some("r"),
                "agent/_global/r@01234567: is asked for, and so is agent/_global/r: ",
            ),
        ] {
            let said = resolve(&ids(THERE), &wishes(&add, agent)).expect_err(words).to_string();
            assert!(said.starts_with(words) && said.lines().count() == 1, "{said}");
        }
        let same = wishes(&["skill b", "skill p/b", "agent r@01234567"], Some("_global/r@01234567"));
        assert!(resolve(&ids(THERE), &same).is_ok(), "it is the same");
    }

    #[test]
    fn what_is_not_there_is_named_all_at_once() {
        let wishes = Wishes {
            agent: Some(named("q/none")),
            add: vec![(Kind::Mcp, named("a"))],
            without: vec![(Kind::Rules, named("x"))],
            ..Wishes::default()
        };
        let said = resolve(&ids(THERE), &wishes).expect_err("refused").to_string();
        assert_eq!(said.lines().count(), 3, "{said}");
        let repository = Wishes { agent: Some(named("none")), ..Wishes::default() };
        assert!(resolve(&ids(THERE), &repository).is_ok(), "it may be the repository's");
    }

    fn an_id() -> impl Strategy<Value = ResourceId> {
        let namespace = prop::sample::select(vec!["_global", "p", "q"]);
        let parts = (prop::sample::select(Kind::ALL.to_vec()), namespace, "[a-c]");
        parts.prop_map(|(kind, namespace, name)| ResourceId {
            kind,
            namespace: namespace.parse().expect("a name"),
            name: name.parse().expect("a name"),
        })
    }

    proptest! {
        /// Whatever order a task names things in, it gets the same; and of each kind and name just one.
        #[test]
        fn a_choice_depends_on_no_order(
            there in prop::collection::btree_set(an_id(), 0..30),
            add in prop::collection::vec((prop::sample::select(Kind::ALL.to_vec()), "([pq]/)?[a-c](@0123456[78])?"), 0..5),
            without in prop::collection::btree_set((prop::sample::select(Kind::ALL.to_vec()), "[a-c]"), 0..3),
        ) {
            let add = add.into_iter().map(|(kind, name)| (kind, named(&name)));
            let without = without.into_iter().map(|(kind, name)| (kind, named(&name)));
            let (add, without) = (add.collect::<Vec<_>>(), without.collect::<Vec<_>>());
            let wishes = Wishes { project: "p".parse().ok(), agent: None, add, without };
            let mut other = wishes.clone();
            other.add.reverse();
            other.without.reverse();
            match (resolve(&there, &wishes), resolve(&there, &other)) {
                (Ok(choice), Ok(other)) => {
                    prop_assert_eq!(&choice, &other);
                    let names: BTreeSet<_> = choice.chosen.iter().map(|(id, ..)| (id.kind, &id.name)).collect();
                    prop_assert_eq!(names.len(), choice.chosen.len());
                    let asked = |id: &ResourceId| wishes.add.iter().any(|(kind, named)| *kind == id.kind && named.names(id));
                    for (kind, named) in &wishes.without {
                        let left = choice.chosen.iter().any(|(id, ..)| id.kind == *kind && named.names(id) && !asked(id));
                        prop_assert!(!left, "{kind}/{named}");
                    }
                }
                (Err(one), Err(other)) => {
                    let sorted = |Problems(mut problems): Problems| { problems.sort(); problems };
                    prop_assert_eq!(sorted(one), sorted(other));
                }
                (one, other) => prop_assert!(false, "{one:?} {other:?}"),
            }
        }
    }
}
