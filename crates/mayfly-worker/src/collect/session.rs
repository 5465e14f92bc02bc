//! Finds the CLI's session file: `projects/*/<session>.jsonl` in its folder, the middle part of which it names
//! after the workspace. An agent can have closed the folders on the way; its user, ours, may open them again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::nested::allow;
use crate::claude::command::config_dir;

/// The session file. `None`: there is none.
pub(crate) fn find(home: &Path, session: &str) -> Result<Option<PathBuf>, Unreadable> {
    open(home, 0o700);
    let config = config_dir(home);
    open(&config, 0o700);
    let projects = config.join("projects");
    open(&projects, 0o700);
    let entries = match fs::read_dir(&projects) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(Unreadable::at(&projects))?,
    };
    for project in entries.flatten() {
        open(&project.path(), 0o700);
        let file = project.path().join(format!("{session}.jsonl"));
        match file.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => {
                open(&file, 0o400);
                return Ok(Some(file));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Unreadable::at(&file)(error));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The session file, as far as it can be reached as things are.
pub(crate) fn look(home: &Path, session: &str) -> Option<PathBuf> {
    let projects = fs::read_dir(config_dir(home).join("projects")).ok()?.flatten();
    let mut files = projects.map(|project| project.path().join(format!("{session}.jsonl")));
    files.find(|file| file.symlink_metadata().is_ok_and(|is| is.is_file()))
}

/// Opens what is closed; if it cannot be, whoever reads it says so.
fn open(path: &Path, wanted: u32) {
    if let Ok(metadata) = path.symlink_metadata()
        && !metadata.is_symlink()
        && metadata.mode() & wanted != wanted
    {
        let _ = allow(path, metadata.mode() | wanted);
    }
}

/// A place where it can be, and that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be read", path.display())]
pub(crate) struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

impl Unreadable {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }
}
