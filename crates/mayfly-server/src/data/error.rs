//! Why a folder cannot be the data folder, with what to do about it.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::secret::KEY;

/// Why a folder cannot be the data folder.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Another user owns it.
    #[error("the data folder {} belongs to user {owner}, not to you (user {user}): choose another with --data", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who asked.
        user: u32,
    },
    /// Others could put files into it.
    #[error("the data folder {} can be written by others (mode {mode:o}): run `chmod go-w` on it, or choose another", path.display())]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is something else.
    #[error("{} is not a folder: name a folder for the data, or one that can be made, with --data", path.display())]
    NoFolder {
        /// What it is not.
        path: PathBuf,
    },
    /// There are files in it that are not ours.
    #[error(
        "the folder {} is not empty, and nothing in it says that it is mayfly's: name a new folder or an empty one with \
         --data, such as {}", path.display(), path.join("mayfly").display())]
    Others {
        /// The folder.
        path: PathBuf,
    },
    /// It would be where we cannot make it.
    #[error(
        "the data folder {} cannot be made, since {} is not yours to write to: name a folder of your own with --data",
        path.display(), above.display())]
    Closed {
        /// The folder.
        path: PathBuf,
        /// The last folder on the way there that can be seen.
        above: PathBuf,
    },
    /// Something in it is not the file that it should be.
    #[error("{} is no regular file: move it away, and start again", path.display())]
    NoFile {
        /// What it is not.
        path: PathBuf,
    },
    /// The key is gone, and tasks depend on it.
    #[error(
        "the key {} is gone, and with it {tasks} task(s) that are not over: machines that run could not come back, and \
         credentials that wait could not be read. Put the file back; or give these tasks up: move the whole folder away \
         (`mv {} {}.lost`), and the next start makes a new one",
        path.display(), folder(path), folder(path))]
    LostKey {
        /// The key.
        path: PathBuf,
        /// How many.
        tasks: usize,
    },
    /// Another orchestrator has it.
    #[error("process {pid} already serves {}, as its orchestrator or as a tunnel: use it, or end it first", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that has it.
        pid: String,
    },
    /// A secret in it is not one that we made, or not one any more.
    #[error("{} {reason}: {}", path.display(), way_on(path, *reason))]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: BadSecret,
    },
    /// The system did not let us.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSecret {
    /// It is one no more.
    Open,
    /// It is no key.
    NoKey,
    /// It is no token.
    NoToken,
}

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "can be read by others",
            Self::NoKey => "is not 32 bytes long",
            Self::NoToken => "is not a token that was made here",
        })
    }
}

/// The folder of a file, as it is shown.
fn folder(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

/// What to do about a secret. A key is not lost lightly.
fn way_on(path: &Path, reason: BadSecret) -> String {
    const MADE_ANEW: &str = "end what runs, delete it, and start again; a new one is made";
    const COST: &str = "but first let all tasks end: without the key those that are not over are lost";
    match (path.file_name().is_some_and(|name| name == KEY), reason) {
        (true, BadSecret::Open) => format!(
            "if nobody else can have read it, `chmod 600 {}`; else {MADE_ANEW}, {COST}",
            path.display()
        ),
        (true, _) => format!("put the right one back; or {MADE_ANEW}, {COST}"),
        (false, _) => MADE_ANEW.to_owned(),
    }
}

pub(crate) fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| DataError::Io { verb, path, source }
}
