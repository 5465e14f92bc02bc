//! Where this user's tunnel leads, remembered in the data folder: said once, and from then on `mayfly tunnel` is
//! enough. While it is remembered, no verb starts an orchestrator here.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mayfly_link::Endpoint;
use mayfly_server::{NO_LINK, write_private};
use mayfly_wire::Secret;
use serde::{Deserialize, Serialize};

use crate::exit::Stop;

/// The file's name in the data folder.
const FILE: &str = "tunnel.json";
/// The bits of a mode that let others than the owner do anything.
const OTHERS: u32 = 0o077;

/// A tunnel, as it is remembered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    /// The orchestrator's address.
    pub(crate) to: Endpoint,
    /// What opens it; a unix socket needs nothing.
    pub(crate) token: Option<Secret>,
    /// Whether the token may pass others who can read it.
    #[serde(default)]
    pub(crate) without_tls: bool,
}

impl Saved {
    /// The file that remembers it.
    pub(crate) fn file(data: &Path) -> PathBuf {
        data.join(FILE)
    }

    /// What is remembered in a data folder.
    pub(crate) fn load(data: &Path) -> Result<Option<Self>, Stop> {
        let path = Self::file(data);
        let shown = path.display();
        let mut file = match OpenOptions::new().read(true).custom_flags(NO_LINK).open(&path) {
            // Where the folder is none, whoever wants it says so in better words.
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Ok(None);
            }
            opened => opened.with_context(|| format!("cannot open `{shown}`"))?,
        };
        let is = file.metadata().with_context(|| format!("cannot look at `{shown}`"))?;
        if is.mode() & OTHERS != 0 {
            return Err(Stop::wrong(format!(
                "`{shown}` has a token in it and can be read by others: run `chmod 600 {shown}`, and think of making another token"
            )));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("cannot read `{shown}`"))?;
        let parsed = serde_json::from_str(&text);
        parsed
            .map(Some)
            .with_context(|| format!("`{shown}` is not as we wrote it: say `mayfly tunnel --to URL` again"))
            .map_err(Stop::usage)
    }

    /// Remembers it. The file has the old content or the new.
    pub(crate) fn save(&self, data: &Path) -> anyhow::Result<()> {
        let path = Self::file(data);
        let text = serde_json::to_string_pretty(self).expect("it is plain data");
        let saved = write_private(&path, format!("{text}\n").as_bytes());
        saved.with_context(|| format!("cannot write `{}`", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn saved() -> Saved {
        let to = "https://box.example:6293".parse().expect("an endpoint");
        Saved { to, token: Some(Secret::from("mayfly-owner-canary".to_owned())), without_tls: false }
    }

    #[test]
    fn what_is_saved_is_for_its_owner_alone_and_reads_back() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Saved::load(folder.path()).expect("none").is_none());
        saved().save(folder.path()).expect("saved");
        let mode = fs::metadata(Saved::file(folder.path())).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
        let back = Saved::load(folder.path()).expect("read").expect("there");
        assert_eq!(
            (back.to.to_string(), back.token.expect("there").expose()),
            ("https://box.example:6293".into(), "mayfly-owner-canary")
        );
    }

    #[test]
    fn neither_what_is_read_nor_what_is_written_is_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = folder.path().join("other");
        fs::write(&other, "precious").expect("written");
        for name in [FILE, "tunnel.new"] {
            std::os::unix::fs::symlink(&other, folder.path().join(name)).expect("made");
        }
        assert!(Saved::load(folder.path()).is_err());
        assert!(saved().save(folder.path()).is_err());
        assert_eq!(fs::read_to_string(&other).expect("there"), "precious");
    }

    /// S32: a token that others can read is one no more.
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        saved().save(folder.path()).expect("saved");
        let path = Saved::file(folder.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let lines = Saved::load(folder.path()).expect_err("refused").lines();
        assert!(lines[0].to_string().contains("chmod 600"), "{lines:?}");
    }
}
