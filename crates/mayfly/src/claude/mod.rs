//! Finds the Claude Code CLI: the pinned binary, or the one that the user names.
//!
//! In this order:
//!
//! 1. `--claude PATH`, whatever its version: the user's word
//! 2. `claude` on `PATH`, if it is the pinned binary
//! 3. the cache, `$XDG_CACHE_HOME/mayfly/claude/<version>/claude`, if it is the pinned binary
//! 4. the npm package, [`fetch`]ed into the cache
//!
//! A binary is known by its digest, never by what it says about itself. Only one that the user names and that has
//! another digest is asked what it is ([`version`]): a wrong one should not cost a task.

mod digest;
mod fetch;
pub(crate) mod pin;
mod version;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::environment::Environment;
use crate::exit::Stop;
use crate::fetching::{Flag, GivenUp};
use pin::{Pin, VERSION};
pub(crate) use version::first_line;

/// A CLI to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claude {
    /// The binary, with all links resolved.
    pub(crate) path: PathBuf,
    /// The version that it must say it is; none for one of unknown digest.
    pub(crate) version: Option<&'static str>,
}

/// Finds the CLI, and fetches it if it is nowhere, which can take minutes; tells how it goes on standard error.
pub(crate) async fn find(given: Option<PathBuf>, environment: &Environment) -> Result<Claude, Stop> {
    let (named, environment) = (given.is_some(), environment.clone());
    let given_up = GivenUp::default();
    let flag = given_up.flag();
    let found = spawn_blocking(move || find_pinned(given.as_deref(), &environment, pin::here(), &flag));
    let checked = match found.await? {
        Ok(claude) if claude.version.is_none() => version::check(&claude.path).await.map(|()| claude),
        found => found,
    };
    checked.map_err(|error| if named { Stop::usage(error) } else { Stop::from(error) })
}

/// The CLI as it is now, checked as [`find`] does, and without a fetch; none if it is to be fetched.
pub(crate) async fn look(
    given: Option<PathBuf>,
    environment: &Environment,
) -> Result<Option<Claude>, ClaudeError> {
    let environment = environment.clone();
    let seen = spawn_blocking(move || see(given.as_deref(), &environment, pin::here()).map(Seen::here));
    let seen = seen.await.expect("a look does not panic")?;
    if let Some(Claude { path, version: None }) = &seen {
        version::check(path).await?;
    }
    Ok(seen)
}

/// Whether the CLI is here.
enum Seen<'a> {
    Here(Claude),
    /// It is to be fetched into the cache, as `cached`.
    Nowhere {
        pin: &'a Pin,
        cache: PathBuf,
        cached: PathBuf,
    },
}

impl Seen<'_> {
    fn here(self) -> Option<Claude> {
        match self {
            Self::Here(claude) => Some(claude),
            Self::Nowhere { .. } => None,
        }
    }
}

fn find_pinned(
    given: Option<&Path>,
    environment: &Environment,
    pin: Option<&Pin>,
    given_up: &Flag,
) -> Result<Claude, ClaudeError> {
    match see(given, environment, pin)? {
        Seen::Here(claude) => Ok(claude),
        Seen::Nowhere { pin, cache, cached } => {
            fetch::fetch(pin, &cache, &cached, environment, given_up)?;
            Ok(Claude { path: cached, version: Some(VERSION) })
        }
    }
}

fn see<'a>(
    given: Option<&Path>,
    environment: &Environment,
    pin: Option<&'a Pin>,
) -> Result<Seen<'a>, ClaudeError> {
    let cache = environment.cache_folder().map(|folder| folder.join("claude"));
    // Where stamps cannot be trusted, everything is read each time; only a fetch needs the folder.
    let stamps = cache.as_deref().filter(|folder| digest::private(folder).is_ok());
    let is_pinned = |path: &Path, pin: &Pin| {
        digest::of_file(path, stamps).map(|digest| digest == pin.sha256).map_err(ClaudeError::file(path))
    };
    if let Some(given) = given {
        let path = native(given)?;
        let known = match pin {
            Some(pin) => is_pinned(&path, pin)?,
            None => false,
        };
        return Ok(Seen::Here(Claude { path, version: known.then_some(VERSION) }));
    }
    let pin = pin.ok_or(ClaudeError::NoPin)?;
    let pinned = |path| Seen::Here(Claude { path, version: Some(VERSION) });
    if let Some(path) = on_path("claude", environment).and_then(|path| fs::canonicalize(path).ok())
        && is_pinned(&path, pin).unwrap_or(false)
    {
        return Ok(pinned(path));
    }
    let cache = cache.as_deref().ok_or(ClaudeError::NoCache)?;
    digest::private(cache).map_err(ClaudeError::file(cache))?;
    let cached = cache.join(VERSION).join("claude");
    match cached.is_file() && is_pinned(&cached, pin)? {
        true => Ok(pinned(cached)),
        false => Ok(Seen::Nowhere { pin, cache: cache.to_owned(), cached }),
    }
}

/// The first program of this name on `PATH`.
pub(crate) fn on_path(name: &str, environment: &Environment) -> Option<PathBuf> {
    let path = environment.path();
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|candidate| executable(candidate))
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Checks that a machine could run `given`.
fn native(given: &Path) -> Result<PathBuf, ClaudeError> {
    let path = fs::canonicalize(given).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ClaudeError::NotThere { path: given.to_owned() },
        _ => ClaudeError::file(given)(error),
    })?;
    if path.is_dir() {
        return Err(ClaudeError::Folder { path: given.to_owned() });
    }
    let mut magic = [0; 4];
    let read = File::open(&path).and_then(|mut file| match path.is_file() {
        true => file.read_exact(&mut magic).or_else(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(()),
            _ => Err(error),
        }),
        // A pipe or a device.
        false => Ok(()),
    });
    read.map_err(ClaudeError::file(given))?;
    match () {
        () if magic != *b"\x7fELF" => Err(ClaudeError::NotNative { path: given.to_owned() }),
        () if !executable(&path) => Err(ClaudeError::NotExecutable { path: given.to_owned() }),
        () => Ok(path),
    }
}

/// Why there is no CLI to run. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaudeError {
    #[error("no Claude Code CLI is pinned for this kind of machine: name a binary with --claude PATH")]
    NoPin,
    #[error("cannot tell where to keep the Claude Code CLI: set HOME, or name a binary with --claude PATH")]
    NoCache,
    #[error("`{}` is a script, and a machine holds the native binary alone: name that one with --claude", path.display())]
    NotNative { path: PathBuf },
    #[error("`{}` is not executable: chmod +x it", path.display())]
    NotExecutable { path: PathBuf },
    #[error("`{}` does not exist: name the native binary of the Claude Code CLI with --claude, or leave --claude out to use the pinned one", path.display())]
    NotThere { path: PathBuf },
    #[error("`{}` is a folder: name the native binary of the Claude Code CLI itself with --claude", path.display())]
    Folder { path: PathBuf },
    #[error(
        "`{}` is not the Claude Code CLI: with --version that prints a line such as `{VERSION} (Claude Code)`, and \
         this {said}. Name the CLI's native binary with --claude, or leave --claude out to use the pinned one",
        path.display()
    )]
    NotClaude { path: PathBuf, said: String },
    #[error("cannot use `{}`", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the Claude Code CLI {VERSION} is not here, and npm, which could fetch it, cannot be run. One of:\n  \
         install npm (Debian: apt-get install npm) and try again; {package} is then fetched, once\n  \
         install that very version yourself, so that `claude` on PATH is its native binary\n  \
         name a native binary of any version with --claude PATH"
    )]
    NoNpm { package: &'static str },
    #[error(
        "npm could not fetch {package}@{VERSION}: {said}\n  \
         see that npm reaches its registry (`npm ping`) and try again, or name a native binary with --claude PATH"
    )]
    Npm { package: &'static str, said: String },
    #[error(
        "what npm fetched as {package}@{VERSION} is not what was published ({what} differs): it was deleted.\n  \
         see which registry npm asks (`npm config get registry`), or name a native binary with --claude PATH"
    )]
    Forged { package: &'static str, what: &'static str },
    #[error("the fetch of the Claude Code CLI was given up")]
    GivenUp,
    #[error("cannot unpack {package}@{VERSION} with tar: {said}")]
    Unpack { package: &'static str, said: String },
}

impl ClaudeError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;
