//! The first program of a machine that is a whole VM: `mayfly worker --boot FILE`.
//!
//! There it is root, and PID 1 of a namespace of its own. It takes the boot record out of its file, closes what is for root
//! alone, makes the folders that the agent writes to, and becomes the worker: the same process, as the agent's user,
//! without a right over the machine, and with the record as its standard input. What fails is said, and nothing is run.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mayfly_wire::boot::{AGENT_ID, BASE, Boot};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::process::geteuid;
use rustix::thread::set_no_new_privs;

use crate::boot::{self, BOOT_BYTES_MAX, BootError};

/// What names the file.
const OPTION: &str = "--boot";
/// What says that there is nothing else in this machine yet.
const FIRST: &str = "--vm";
/// Where Fly's own program in each VM leaves what speaks for the VM, its socket among it.
const FLY: &str = "/.fly";
/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// What the arguments make of this process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The worker, with its record on the standard input.
    Worker,
    /// What becomes the worker of this file's record.
    Enters(PathBuf),
    /// The first program of a virtual machine.
    First,
}

/// What the arguments say.
pub(crate) fn asked_for(arguments: impl Iterator<Item = OsString>) -> Result<Role, EnterError> {
    match arguments.collect::<Vec<_>>().as_slice() {
        [] => Ok(Role::Worker),
        [option, file] if option == OPTION => Ok(Role::Enters(file.into())),
        [option] if option == FIRST => Ok(Role::First),
        _ => Err(EnterError::Arguments),
    }
}

/// Becomes the worker, or says why not.
pub(crate) fn enter(file: &Path) -> Result<Infallible, EnterError> {
    if !geteuid().is_root() {
        return Err(EnterError::NotRoot);
    }
    let record = take(file).map_err(|source| EnterError::Record { path: file.to_owned(), source })?;
    let boot = boot::parse(&record)?;
    close(Path::new(FLY)).map_err(EnterError::Fly)?;
    for folder in [&*boot.home, &*boot.workspace, Path::new(BASE)] {
        own(folder).map_err(|source| EnterError::Folder { path: folder.to_owned(), source })?;
    }
    Err(EnterError::Execute(execute(&record, &boot)))
}

/// Reads it, and removes it: nobody is to read it after us.
fn take(file: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    let mut record = Vec::new();
    opened.take(BOOT_BYTES_MAX).read_to_end(&mut record)?;
    fs::remove_file(file)?;
    Ok(record)
}

/// Keeps everybody but root out of a folder, if it is there.
fn close(folder: &Path) -> io::Result<()> {
    match fs::set_permissions(folder, Permissions::from_mode(0o700)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        closed => closed,
    }
}

/// Makes a folder the agent's.
fn own(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    chown(folder, Some(AGENT_ID), Some(AGENT_ID))
}

/// Another user's process has none of root's rights, and no program can give it any.
fn execute(record: &[u8], boot: &Boot) -> io::Error {
    let handed_over = || -> io::Result<Command> {
        let mut stdin = File::from(memfd_create("boot", MemfdFlags::CLOEXEC)?);
        stdin.write_all(record)?;
        stdin.rewind()?;
        set_no_new_privs(true)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").stdin(stdin).uid(AGENT_ID).gid(AGENT_ID);
        command.env_clear().env("PATH", PATH).env("HOME", &boot.home).current_dir("/");
        Ok(command)
    };
    match handed_over() {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    }
}

/// Why no worker was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnterError {
    /// Somebody ran it by hand.
    #[error(
        "`mayfly worker` takes `{OPTION} FILE`, `{FIRST}`, or its boot record from standard input: a machine's provider starts it"
    )]
    Arguments,
    /// The image says otherwise.
    #[error("`mayfly worker {OPTION}` has to be root in its machine: the image must name no other user")]
    NotRoot,
    /// The provider did not write it, or it was taken already: the machine was started a second time.
    #[error("cannot take the boot record out of {}: a machine is started once", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The provider speaks another version.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Who is the agent could speak for the VM.
    #[error("cannot keep the agent out of {FLY}")]
    Fly(#[source] io::Error),
    /// The disk is full, or the image is not one of ours.
    #[error("cannot make {} for the agent", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The image is not one of ours.
    #[error("cannot become the worker")]
    Execute(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn arguments(of: &[&str]) -> Result<Role, EnterError> {
        asked_for(of.iter().map(OsString::from))
    }

    #[test]
    fn the_record_is_where_the_arguments_say() {
        assert_eq!(arguments(&[]).unwrap(), Role::Worker);
        assert_eq!(arguments(&["--boot", "/x"]).unwrap(), Role::Enters("/x".into()));
        assert_eq!(arguments(&["--vm"]).unwrap(), Role::First);
        for wrong in [&["--boot"][..], &["x"], &["--boot", "/x", "y"], &["--vm", "/x"]] {
            assert!(matches!(arguments(wrong), Err(EnterError::Arguments)), "{wrong:?}");
        }
    }

    #[test]
    fn a_record_can_be_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("boot.json");
        fs::write(&file, "record").unwrap();
        assert_eq!(take(&file).unwrap(), b"record");
        assert_eq!(take(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "another's").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        take(&file).expect_err("a link is no record");
        assert!(elsewhere.exists());
    }

    #[test]
    fn what_is_for_root_alone_is_closed_if_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("fly");
        close(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        close(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    }
}
