//! The data folder: who may have it, its lock and its key.
//!
//! ```text
//! lock          held while an orchestrator has the folder; the process id of the last holder is in it
//! key           32 random bytes, made once; the tokens of all attempts come from it
//! token         what opens the API on a port for programs of this machine; a new one once it is revoked
//! tls.pem       the key and the certificate that signed itself, made when it is first asked for
//! mayfly.db     the store
//! workspaces/   <sha256>.bundle
//! results/      <task>/<attempt>/bundle, <task>/<attempt>/transcript
//! incoming/     files that are still arriving, on the same file system; emptied at each start
//! way-out/      the machines' doors: <attempt>/orchestrator.sock
//! api.sock      the owner's socket
//! ```
//!
//! All of it is the owner's alone. Each machine sees its own folder in `way-out`, through a mount of that one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::STOP_MAX;
use crate::config::OWNER_SOCKET;

const KEY_BYTES: usize = 32;
/// How long an orchestrator that has closed its door may take to end.
const ENDING_MAX: Duration = STOP_MAX.saturating_mul(3);
/// More than a process id has.
const PID_BYTES_MAX: usize = 20;
/// More than a secret has.
const SECRET_BYTES_MAX: u64 = 16 * 1024;
/// The name of the key's file.
const KEY: &str = "key";
/// The name of the token's file.
pub(crate) const TOKEN: &str = "token";
/// The name of the file with the certificate that signed itself.
const TLS: &str = "tls.pem";
/// The name of the store's file.
pub(crate) const STORE: &str = "mayfly.db";
/// By this a token is known for what it is, wherever it turns up.
const TOKEN_PREFIX: &str = "mayfly-owner-";
/// The bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// The bits of a mode that let others than the owner do anything.
const OTHERS: u32 = 0o077;

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
    /// Another orchestrator has it.
    #[error("process {pid} already is the orchestrator of {}: use it, or end it first", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that has it.
        pid: String,
    },
    /// A secret in it is not one that we made, or not one any more.
    #[error(
        "{} {reason}: end what runs, delete it, and start again; a new one is made", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
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

/// A data folder that is ours while this value lives.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is not there, checks whose it is, and takes its lock.
    pub(crate) fn open(root: &Path) -> Result<Self, DataError> {
        folder(root)?;
        let lock = lock(root)?;
        let data = Self { root: root.to_owned(), _lock: lock };
        let _ = fs::remove_dir_all(data.incoming());
        for private in [data.workspaces(), data.results(), data.incoming(), data.way_out()] {
            folder(&private)?;
        }
        Ok(data)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join(STORE)
    }

    pub(crate) fn workspaces(&self) -> PathBuf {
        self.root.join("workspaces")
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    pub(crate) fn way_out(&self) -> PathBuf {
        self.root.join("way-out")
    }

    /// The key, made at the first start. It is whole on disk before anything can depend on it.
    pub(crate) fn key(&self) -> Result<[u8; KEY_BYTES], DataError> {
        let path = self.root.join(KEY);
        let key = secret(&path, || Ok(random()?.to_vec()))?;
        key.try_into().map_err(|_| DataError::Secret { path, reason: "is not 32 bytes long" })
    }

    /// The file of the token.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.root.join(TOKEN)
    }

    /// What opens the API on a port for programs of this machine, made at the first start.
    pub(crate) fn token(&self) -> Result<String, DataError> {
        let path = self.token_file();
        let text = secret(&path, token_line)?;
        let token = String::from_utf8(text).unwrap_or_default().trim_end().to_owned();
        let digits = token.strip_prefix(TOKEN_PREFIX).unwrap_or_default();
        if digits.len() != 2 * KEY_BYTES || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(DataError::Secret { path, reason: "is not a token that was made here" });
        }
        Ok(token)
    }

    /// The file of the certificate that signed itself, and what is in it; `make` gives that at the first time.
    pub(crate) fn tls(
        &self,
        make: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<(PathBuf, Vec<u8>), DataError> {
        let path = self.root.join(TLS);
        let pem = secret(&path, make)?;
        Ok((path, pem))
    }
}

/// A token that nobody knows yet.
pub(crate) fn new_token() -> io::Result<String> {
    Ok(format!("{TOKEN_PREFIX}{}", hex::encode(random()?)))
}

fn token_line() -> io::Result<Vec<u8>> {
    Ok(format!("{}\n", new_token()?).into_bytes())
}

/// Puts a new token in the place of the one in the file `path`, and gives it.
pub(crate) fn renew_token(path: &Path) -> Result<String, DataError> {
    let text = make_secret(path, token_line).map_err(io_error("make", path))?;
    Ok(String::from_utf8(text).expect("it is hex").trim_end().to_owned())
}

/// Checks what is in a data folder, and makes nothing: whose it is, and that its secrets are for us alone.
///
/// # Errors
/// What an orchestrator would refuse to start for.
pub fn check_data_folder(path: &Path) -> Result<(), DataError> {
    folder(path)?;
    for name in [KEY, TOKEN, TLS] {
        let path = path.join(name);
        match File::open(&path) {
            Ok(file) => drop(read_secret(file, &path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("read", &path)(error)),
        }
    }
    Ok(())
}

/// The content of a file that only we can read, made if there is none.
fn secret(path: &Path, content: impl FnOnce() -> io::Result<Vec<u8>>) -> Result<Vec<u8>, DataError> {
    match File::open(path) {
        Ok(file) => read_secret(file, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_secret(path, content).map_err(io_error("make", path))
        }
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Makes a data folder if it is not there, and checks that it is ours, and for us alone.
///
/// # Errors
/// If it cannot be made so, or is another's.
pub fn make_data_folder(path: &Path) -> Result<(), DataError> {
    folder(path)
}

/// A folder of ours, and for us alone.
fn folder(path: &Path) -> Result<(), DataError> {
    // What is there and is no folder is named below, in better words.
    if !path.exists() {
        let making = DirBuilder::new().recursive(true).mode(0o700).create(path);
        making.map_err(|source| match path.ancestors().find(|above| above.exists()) {
            Some(above) if !above.is_dir() => DataError::NoFolder { path: above.to_owned() },
            _ => io_error("make the folder", path)(source),
        })?;
    }
    let is = fs::metadata(path).map_err(io_error("look at", path))?;
    let user = rustix::process::geteuid().as_raw();
    if !is.is_dir() {
        return Err(DataError::NoFolder { path: path.to_owned() });
    }
    if is.uid() != user {
        return Err(DataError::Foreign { path: path.to_owned(), owner: is.uid(), user });
    }
    if is.mode() & OTHERS_WRITE != 0 {
        return Err(DataError::Shared { path: path.to_owned(), mode: is.mode() & 0o7777 });
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io_error("set the mode of", path))
}

/// Takes the lock, or tells who has it. The system lets go of it when the process ends, however it ends: one that
/// has no door any more is about to, and is waited for.
fn lock(root: &Path) -> Result<File, DataError> {
    let path = root.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(io_error("open", &path))?;
    let mut locked = file.try_lock();
    if matches!(locked, Err(TryLockError::WouldBlock)) && is_ending(root, &file) {
        wait_until_free(&path);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(DataError::Locked { path: root.to_owned(), pid: holder(&file) });
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io_error("write", &path))?;
    Ok(file)
}

/// Who wrote its process id into the lock.
fn holder(lock: &File) -> String {
    let mut pid = [0; PID_BYTES_MAX];
    let read = lock.read_at(&mut pid, 0).unwrap_or_default();
    String::from_utf8_lossy(&pid[..read]).trim().to_owned()
}

/// Whether the holder has closed its door, and is another process than this one.
fn is_ending(root: &Path, lock: &File) -> bool {
    !root.join(OWNER_SOCKET).exists() && holder(lock) != std::process::id().to_string()
}

/// Waits until the lock can be had, though not for ever. No system waits for a lock with a bound: a thread does
/// without one, and lets go of what it got too late.
fn wait_until_free(path: &Path) {
    let Ok(lock) = File::open(path) else { return };
    let (free, freed) = mpsc::channel();
    thread::spawn(move || {
        let locked = lock.lock();
        drop(lock);
        free.send(locked)
    });
    let _ = freed.recv_timeout(ENDING_MAX);
}

fn read_secret(file: File, path: &Path) -> Result<Vec<u8>, DataError> {
    let is = file.metadata().map_err(io_error("look at", path))?;
    if is.mode() & OTHERS != 0 || is.uid() != rustix::process::geteuid().as_raw() {
        return Err(DataError::Secret { path: path.to_owned(), reason: "can be read by others" });
    }
    let mut content = Vec::new();
    file.take(SECRET_BYTES_MAX).read_to_end(&mut content).map_err(io_error("read", path))?;
    Ok(content)
}

fn make_secret(path: &Path, content: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let content = content()?;
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(&content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder(path)?;
    Ok(content)
}

fn random() -> io::Result<[u8; KEY_BYTES]> {
    let mut random = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random)
}

/// Makes the name of `path` as durable as its bytes.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| DataError::Io { verb, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    }

    fn parent() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    /// S32
    #[test]
    fn all_of_it_is_the_owners_alone() {
        let parent = parent();
        let root = parent.path().join("a/b");
        let data = DataFolder::open(&root).expect("a data folder");
        data.key().expect("a key");
        for (name, expected) in
            [("", 0o700), ("lock", 0o600), ("key", 0o600), ("results", 0o700), ("way-out", 0o700)]
        {
            assert_eq!(mode(&root.join(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_folder_that_others_can_read_is_closed_to_them() {
        let parent = parent();
        set_mode(parent.path(), 0o755);
        DataFolder::open(parent.path()).expect("ours");
        assert_eq!(mode(parent.path()), 0o700);
    }

    /// S56: whoever can write to it could plant anything.
    #[test]
    fn a_folder_that_others_can_write_is_refused_and_named() {
        let parent = parent();
        for writable in [0o770, 0o702, 0o1777] {
            set_mode(parent.path(), writable);
            let error = DataFolder::open(parent.path()).expect_err("shared");
            assert!(matches!(error, DataError::Shared { mode, .. } if mode == writable), "{error}");
            assert!(error.to_string().contains(&parent.path().display().to_string()));
            assert_eq!(mode(parent.path()), writable, "what is not ours is not changed");
        }
        set_mode(parent.path(), 0o700);
    }

    #[test]
    fn a_file_is_no_data_folder() {
        let parent = parent();
        let path = parent.path().join("file");
        File::create(&path).expect("a file");
        for wanted in [path.clone(), path.join("below"), path.join("far/below")] {
            let error = DataFolder::open(&wanted).expect_err("a file");
            assert!(matches!(&error, DataError::NoFolder { path: named } if *named == path), "{error}");
        }
    }

    /// R21: the second is told who the first is; once that one is gone, the folder is free.
    #[test]
    fn a_second_orchestrator_is_refused_with_the_firsts_process_id() {
        let parent = parent();
        let first = DataFolder::open(parent.path()).expect("free");
        let error = DataFolder::open(parent.path()).expect_err("taken");
        let pid = std::process::id().to_string();
        assert!(matches!(&error, DataError::Locked { pid: first, .. } if *first == pid), "{error}");
        drop(first);
        DataFolder::open(parent.path()).expect("free again");
    }

    #[test]
    fn the_key_is_made_once() {
        let parent = parent();
        let first = DataFolder::open(parent.path()).expect("free").key().expect("a key");
        let second = DataFolder::open(parent.path()).expect("free").key().expect("a key");
        assert_eq!(first, second);
        let other = DataFolder::open(&parent.path().join("other")).expect("free").key().expect("a key");
        assert_ne!(first, other);
    }

    #[test]
    fn a_key_that_is_short_or_open_to_others_is_not_used() {
        let parent = parent();
        let data = DataFolder::open(parent.path()).expect("free");
        let path = parent.path().join("key");
        for (bytes, bits) in [(31, 0o600), (33, 0o600), (0, 0o600), (32, 0o640)] {
            fs::write(&path, vec![7; bytes]).expect("written");
            set_mode(&path, bits);
            assert!(matches!(data.key(), Err(DataError::Secret { .. })), "{bytes} bytes, mode {bits:o}");
        }
    }

    #[test]
    fn the_token_is_made_once_and_is_not_used_when_others_can_read_it() {
        let parent = parent();
        let data = DataFolder::open(parent.path()).expect("free");
        let path = parent.path().join(TOKEN);
        let token = data.token().expect("made");
        assert_eq!((data.token().expect("read"), mode(&path)), (token.clone(), 0o600));
        assert_eq!(token.len(), TOKEN_PREFIX.len() + 64);
        assert_ne!(renew_token(&path).expect("made anew"), token);
        assert_eq!(mode(&path), 0o600);
        set_mode(&path, 0o644);
        let error = data.token().expect_err("open").to_string();
        assert!(check_data_folder(parent.path()).is_err());
        assert!(error.contains("read by others") && error.contains(&path.display().to_string()), "{error}");
        set_mode(&path, 0o600);
        for text in ["", "mayfly-owner-", "x", &format!("{token}0"), &token.to_uppercase()] {
            fs::write(&path, text).expect("written");
            assert!(matches!(data.token(), Err(DataError::Secret { .. })), "{text}");
        }
    }

    #[test]
    fn what_was_still_arriving_at_the_last_end_is_gone() {
        let parent = parent();
        let data = DataFolder::open(parent.path()).expect("free");
        let left = data.incoming().join("left");
        fs::write(&left, "half").expect("written");
        drop(data);
        DataFolder::open(parent.path()).expect("free");
        assert!(!left.exists());
    }
}
