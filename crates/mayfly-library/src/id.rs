//! How resources are named: `kind/namespace/name`, and by a reference to one of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The namespace that is for every repository.
pub const GLOBAL: &str = "_global";
/// The longest name of a resource or a namespace.
pub const NAME_BYTES_MAX: usize = 64;
/// The fewest digits by which a reference may name a content.
const DIGITS_MIN: usize = 8;
/// The digits of a whole one.
const DIGITS_MAX: usize = 64;

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `SKILL.md`, and files beside it.
    Skill,
    /// `agent.json` or `agent.md`.
    Agent,
    /// `mcp.json`, and files of a server.
    Mcp,
    /// `hooks.json`, and scripts.
    Hooks,
    /// Files that end in `.md`.
    Rules,
    /// `settings.json`.
    Settings,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Skill, Self::Agent, Self::Mcp, Self::Hooks, Self::Rules, Self::Settings];

    /// Its name, and that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skill => "skill",
            Self::Agent => "agent",
            Self::Mcp => "mcp",
            Self::Hooks => "hooks",
            Self::Rules => "rules",
            Self::Settings => "settings",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(BadName::Kind)
    }
}

/// The name of a resource or a namespace: 1 to [`NAME_BYTES_MAX`] of `A-Z a-z 0-9 . _ -`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// [`GLOBAL`].
    pub fn global() -> Self {
        Self(GLOBAL.to_owned())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let good = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain);
        if good && !text.starts_with(['.', '-']) { Ok(Self(text.to_owned())) } else { Err(BadName::Name) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One resource: `kind/namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    /// What it is.
    pub kind: Kind,
    /// Whom it is for.
    pub namespace: Name,
    /// Which it is.
    pub name: Name,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl FromStr for ResourceId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let mut parts = text.split('/');
        let (Some(kind), Some(namespace), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadName::Id);
        };
        Ok(Self { kind: kind.parse()?, namespace: namespace.parse()?, name: name.parse()? })
    }
}

/// How a task names a resource of a kind that is known: `[NAMESPACE/]NAME[@SHA256]`. Without a namespace, the project's
/// comes before `_global`; a content is the beginning of its hash, of at least eight digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Where it is looked for.
    pub namespace: Option<Name>,
    /// Which it is.
    pub name: Name,
    /// What it must be.
    pub content: Option<String>,
}

impl Reference {
    /// Whether it means a resource of this name.
    pub fn names(&self, id: &ResourceId) -> bool {
        self.name == id.name && self.namespace.as_ref().is_none_or(|namespace| *namespace == id.namespace)
    }
}

impl FromStr for Reference {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let (path, content) = match text.split_once('@') {
            Some((path, content)) => (path, Some(content)),
            None => (text, None),
        };
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_content =
            |text: &str| (DIGITS_MIN..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(digit);
        if !content.is_none_or(is_content) {
            return Err(BadName::Content);
        }
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(namespace.parse()?), name),
            None => (None, path),
        };
        Ok(Self { namespace, name: name.parse()?, content: content.map(str::to_owned) })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{}", self.name)?;
        self.content.as_ref().map_or(Ok(()), |content| write!(f, "@{content}"))
    }
}

/// Why a text names nothing in a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// None of the kinds.
    #[error("a kind is one of skill, agent, mcp, hooks, rules, settings")]
    Kind,
    /// Not as names are.
    #[error("a name is 1 to 64 of A-Z a-z 0-9 . _ -, and does not begin with . or -")]
    Name,
    /// Not three parts.
    #[error("a resource is named KIND/NAMESPACE/NAME, such as skill/_global/review")]
    Id,
    /// Not the beginning of a hash.
    #[error("a content is named by 8 to 64 of the digits that `mayfly library ls` shows, in lower case")]
    Content,
}

/// Serialised as the text that it is.
macro_rules! as_text {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

as_text!(Name, ResourceId, Reference);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_reads_back() {
        for text in ["skill/_global/review", "mcp/tally/github.com", "settings/a-b/_x"] {
            assert_eq!(text.parse::<ResourceId>().map(|id| id.to_string()), Ok(text.to_owned()));
        }
        for text in ["review", "tally/review", "review@0123abcd", "tally/review@0123abcd4567"] {
            assert_eq!(text.parse::<Reference>().map(|named| named.to_string()), Ok(text.to_owned()));
        }
    }

    /// Covers S10 for the names of resources.
    #[test]
    fn an_odd_name_names_nothing() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        let odd =
            ["", ".", "..", "-x", ".x", "a b", "a\nb", "a\u{1b}b", "ä", "a\u{202e}b", "a\\b", "a/b", &long];
        for name in odd {
            assert_eq!(name.parse::<Name>(), Err(BadName::Name), "{name:?}");
        }
        for id in ["skill", "skill/x", "skills/x/y", "skill/../y", "skill/x/y/z", "skill//y", "/skill/x/y"] {
            assert!(id.parse::<ResourceId>().is_err(), "{id}");
        }
        for named in ["x@", "x@0123", "x@0123ABCD", "a/b/c", "@01234567", "/x", "x/"] {
            assert!(named.parse::<Reference>().is_err(), "{named}");
        }
    }
}
