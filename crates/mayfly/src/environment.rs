//! The process's environment, read once at the start and passed on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use mayfly_git::Git;
use mayfly_wire::boot::OWNER_TOKEN;

use crate::exit::Stop;

/// The variables of the process. Some are credentials, so `Debug` shows none.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    vars: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// What this process was started with. A home that is elsewhere from each folder is none.
    pub(crate) fn of_process() -> Result<Self, Stop> {
        Self { vars: std::env::vars_os().collect() }.checked()
    }

    fn checked(self) -> Result<Self, Stop> {
        match self.home() {
            Some(home) if !home.is_absolute() => Err(Stop::wrong(format!(
                "HOME is `{}`, which is no absolute path: set HOME to your home folder, such as /home/you",
                home.display()
            ))),
            _ => Ok(self),
        }
    }

    /// A variable's value; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The user's home.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }

    /// The folder of the orchestrator's data: `given`, or the user's usual place.
    pub(crate) fn data_folder(&self, given: Option<&Path>) -> Result<PathBuf, Stop> {
        let folder = match given {
            Some(folder) => folder.to_owned(),
            None => self.xdg("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
                Stop::wrong("cannot tell where to keep data: set HOME, or name a folder with --data DIR")
            })?,
        };
        Ok(std::path::absolute(folder)?)
    }

    /// The folder of what can be fetched again.
    pub(crate) fn cache_folder(&self) -> Option<PathBuf> {
        self.xdg("XDG_CACHE_HOME", ".cache")
    }

    /// The folder of what virtual machines start from, each in a folder of its image's name.
    pub(crate) fn systems_folder(&self) -> Option<PathBuf> {
        Some(self.cache_folder()?.join("systems"))
    }

    /// The folder of what the user has chosen.
    pub(crate) fn config_folder(&self) -> Option<PathBuf> {
        self.xdg("XDG_CONFIG_HOME", ".config")
    }

    fn xdg(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let base = self.xdg_named(name).or_else(|| Some(self.home()?.join(below_home)))?;
        Some(base.join("mayfly"))
    }

    /// The specification has relative values ignored.
    fn xdg_named(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// Where programs are looked for.
    pub(crate) fn path(&self) -> OsString {
        self.get("PATH").unwrap_or_default().to_owned()
    }

    /// git, as this user has it.
    pub(crate) fn git(&self) -> Git {
        Git::new(self.path(), self.home(), self.xdg_named("XDG_CONFIG_HOME"))
    }

    /// Every variable but those that carry credentials or settings of `claude`, or a token of Fly's or ours: what a process in
    /// the background may keep.
    pub(crate) fn without_credentials(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        const OTHERS: [&str; 3] =
            [mayfly_provider_fly::TOKEN, mayfly_provider_fly::ACCESS_TOKEN, OWNER_TOKEN];
        let secret = |name: &OsStr| {
            let name = name.as_encoded_bytes().to_ascii_uppercase();
            name.starts_with(b"ANTHROPIC")
                || name.starts_with(b"CLAUDE")
                || OTHERS.iter().any(|other| other.as_bytes() == name)
        };
        let all = self.vars.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        all.filter(move |(name, _)| !secret(name))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

impl Environment {
    /// One with these variables.
    #[cfg(test)]
    pub(crate) fn of(vars: &[(&str, &str)]) -> Self {
        Self { vars: vars.iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(vars: [(&str, &str); N]) -> Self {
        Self { vars: vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_where_the_user_says_or_keeps_data() {
        let home = Environment::from([("HOME", "/home/u"), ("XDG_DATA_HOME", "")]);
        let folder = |environment: &Environment, given: Option<&str>| {
            environment.data_folder(given.map(Path::new)).ok().map(|path| path.display().to_string())
        };
        assert_eq!(folder(&home, None).as_deref(), Some("/home/u/.local/share/mayfly"));
        assert_eq!(folder(&home, Some("/d")).as_deref(), Some("/d"));
        let xdg = Environment::from([("HOME", "/home/u"), ("XDG_DATA_HOME", "/x")]);
        assert_eq!(folder(&xdg, None).as_deref(), Some("/x/mayfly"));
        let relative = Environment::from([("HOME", "/home/u"), ("XDG_DATA_HOME", "x")]);
        assert_eq!(folder(&relative, None).as_deref(), Some("/home/u/.local/share/mayfly"));
        assert_eq!(folder(&Environment::default(), None), None);
    }

    #[test]
    fn a_home_that_depends_on_where_one_stands_is_refused() {
        for home in ["rel", ".", "~"] {
            let refused = Environment::from([("HOME", home)]).checked().expect_err("relative");
            assert!(refused.lines()[0].to_string().contains(&format!("HOME is `{home}`")));
        }
        for home in ["/home/u", ""] {
            Environment::from([("HOME", home)]).checked().expect("usable, or none");
        }
    }

    /// S14: the process in the background has no credential to show.
    #[test]
    fn no_credential_is_handed_to_the_background() {
        let environment = Environment::from([
            ("PATH", "/bin"),
            ("ANTHROPIC_API_KEY", "canary"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "canary"),
            ("CLAUDECODE", "1"),
            ("anthropic_auth_token", "canary"),
            (mayfly_provider_fly::TOKEN, "canary"),
            ("fly_access_token", "canary"),
            (OWNER_TOKEN, "canary"),
        ]);
        let kept: Vec<_> = environment.without_credentials().collect();
        assert_eq!(kept, [(OsStr::new("PATH"), OsStr::new("/bin"))]);
        assert!(!format!("{environment:?}").contains("canary"));
    }
}
