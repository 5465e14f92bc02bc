//! What the last orchestrator of a data folder was like, remembered there for the next one that is started in the
//! background: it is to have as many machines as the last one, each with as much.
//!
//! ```text
//! serve ── ready ──► in-force.toml ── killed ──────────────────────► the next one is the same, its port included
//!                        └── ended by its user, tasks are left ────► ended.toml: the next one keeps its limits
//!                        └── ended, and nothing is left to do ─────► forgotten
//! ```
//!
//! Each is a configuration as `--config` takes it, with all that was in force, from flags too. A `mayfly serve` that
//! is started by hand does not read it: it has words of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use mayfly_server::write_private;

use crate::config::{Given, Settings, Source};

/// While it runs, and after it died.
const IN_FORCE: &str = "in-force.toml";
/// After its user ended it.
const ENDED: &str = "ended.toml";
/// For whoever looks.
const WORDS: &str =
    "# What the last orchestrator here was like; the next one that `mayfly run` starts takes it from here.\n";

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Last {
    /// A configuration.
    pub(crate) file: PathBuf,
    /// Whether its user ended it.
    pub(crate) ended: bool,
}

impl Last {
    /// What is remembered in a data folder.
    pub(crate) fn of(data: &Path) -> Option<Self> {
        let known =
            |name, ended| Some(Self { file: data.join(name), ended }).filter(|last| last.file.exists());
        known(IN_FORCE, false).or_else(|| known(ENDED, true))
    }
}

/// Remembers an orchestrator that is ready: its settings, its CLI, and the port that it got.
pub(crate) fn remember(
    data: &Path,
    settings: &Settings,
    claude: Option<&Path>,
    listening: Option<SocketAddr>,
) -> io::Result<()> {
    let mut settings = with_claude(settings, claude);
    let values = &mut settings.values;
    values.listen = listening.map(|value| Given { value, from: Source::Default });
    for place in [&mut values.tls_cert, &mut values.tls_key].into_iter().flatten() {
        place.value = std::path::absolute(&place.value)?;
    }
    write(&data.join(IN_FORCE), &settings)?;
    remove(&data.join(ENDED))
}

/// Remembers of an orchestrator that ends what its `unfinished` tasks need; without any, nothing.
pub(crate) fn end(
    data: &Path,
    settings: &Settings,
    claude: Option<&Path>,
    unfinished: usize,
) -> io::Result<()> {
    if unfinished == 0 {
        remove(&data.join(ENDED))?;
        return remove(&data.join(IN_FORCE));
    }
    let mut settings = with_claude(settings, claude);
    let values = &mut settings.values;
    (values.listen, values.tls, values.host_names) = (None, None, None);
    (values.tls_cert, values.tls_key) = (None, None);
    values.listen_without_tls.value = false;
    write(&data.join(ENDED), &settings)?;
    remove(&data.join(IN_FORCE))
}

/// The folder is known to whoever reads this.
fn with_claude(settings: &Settings, claude: Option<&Path>) -> Settings {
    let mut settings = settings.clone();
    settings.values.data = None;
    settings.values.claude = claude.map(|claude| Given { value: claude.to_owned(), from: Source::Default });
    settings
}

fn write(path: &Path, settings: &Settings) -> io::Result<()> {
    write_private(path, format!("{WORDS}{}", settings.written()).as_bytes())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::config::Flags;
    use crate::environment::Environment;
    use crate::values::SelfSigned;

    fn flags() -> Flags {
        Flags {
            data: Some("rel".into()),
            parallel: NonZeroU32::new(1),
            memory: Some(300 << 20),
            tls: Some(SelfSigned),
            ..Flags::default()
        }
    }

    fn read(last: &Last) -> Settings {
        Settings::load(Some(&last.file), Flags::default(), &Environment::default()).expect("as we wrote it")
    }

    #[test]
    fn one_that_died_is_remembered_whole_and_one_that_was_ended_by_its_limits() {
        let data = tempfile::tempdir().expect("a folder");
        let (settings, claude) = (Settings::of(flags()), Path::new("/c \"x\""));
        let port = "127.0.0.1:4711".parse().expect("an address");
        assert_eq!(Last::of(data.path()), None);
        remember(data.path(), &settings, Some(claude), Some(port)).expect("written");
        let died = Last::of(data.path()).expect("remembered");
        assert!(!died.ended);
        assert_eq!(fs::metadata(&died.file).expect("there").mode() & 0o777, 0o600);
        let read_back = read(&died);
        let values = &read_back.values;
        assert_eq!((values.parallel.value.get(), values.memory.value), (1, 300 << 20));
        assert_eq!(values.listen.as_ref().map(|given| given.value), Some(port));
        assert_eq!((read_back.claude().as_deref(), read_back.data()), (Some(claude), None));
        assert!(values.tls.is_some());

        end(data.path(), &settings, Some(claude), 1).expect("written");
        let ended = Last::of(data.path()).expect("remembered");
        assert!(ended.ended);
        let values = read(&ended).values;
        assert_eq!((values.parallel.value.get(), values.memory.value), (1, 300 << 20));
        assert!(values.listen.is_none() && values.tls.is_none());

        remember(data.path(), &settings, Some(claude), None).expect("written");
        assert!(!Last::of(data.path()).expect("remembered").ended);
        end(data.path(), &settings, Some(claude), 0).expect("removed");
        assert_eq!(Last::of(data.path()), None);
    }
}
