//! The data folder: who may have it, its lock and its key.
//!
//! ```text
//! mayfly-data   says that the folder is ours (`adopt`); there before anything else
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
//! All of it is the owner's alone, and none of its files is a link. Each machine sees its own folder in `way-out`, through a mount of that one.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::STOP_MAX;
use crate::adopt::{self, make_data_folder};
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
/// The name of the lock's file.
const LOCK: &str = "lock";
/// What is opened by its name in the data folder is no link to something else, and nothing that opening waits for.
#[expect(clippy::cast_possible_wrap, reason = "the flags of the system's call are an int")]
pub const NO_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;
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

/// A data folder that is ours while this value lives.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is not there, checks whose it is, and takes its lock.
    pub(crate) fn open(root: &Path) -> Result<Self, DataError> {
        make_data_folder(root)?;
        check_files(root)?;
        let lock = lock(root)?;
        let data = Self { root: root.to_owned(), _lock: lock };
        let _ = fs::remove_dir_all(data.incoming());
        for private in [data.workspaces(), data.results(), data.incoming(), data.way_out()] {
            adopt::private(&private)?;
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

    /// The key, made at the first start, and whole on disk before anything can depend on it. It is not made anew
    /// where `unfinished` tasks would be lost with that.
    pub(crate) fn key(&self, unfinished: usize) -> Result<[u8; KEY_BYTES], DataError> {
        check_key_kept(&self.root, unfinished)?;
        let path = self.root.join(KEY);
        let key = secret(&path, || Ok(random()?.to_vec()))?;
        key.try_into().map_err(|_| DataError::Secret { path, reason: BadSecret::NoKey })
    }

    /// The file of the token.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.root.join(TOKEN)
    }

    /// What opens the API on a port for programs of this machine, made at the first start.
    pub(crate) fn token(&self) -> Result<String, DataError> {
        let path = self.token_file();
        let text = secret(&path, token_line)?;
        token_in(&text).ok_or(DataError::Secret { path, reason: BadSecret::NoToken })
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

/// The token in the text of its file.
fn token_in(text: &[u8]) -> Option<String> {
    let token = str::from_utf8(text).ok()?.trim_end().to_owned();
    let digits = token.strip_prefix(TOKEN_PREFIX)?;
    let good = digits.len() == 2 * KEY_BYTES && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then_some(token)
}

/// Checks a data folder and what is in it, and makes and changes nothing: whose it is, that its files are files, and
/// that its secrets are ours and for us alone. One that is not there is to be made.
///
/// # Errors
/// What an orchestrator would refuse to start for.
pub fn check_data_folder(path: &Path) -> Result<(), DataError> {
    adopt::look(path)?;
    check_files(path)?;
    let wrong = |name: &str, reason| DataError::Secret { path: path.join(name), reason };
    match known_secret(&path.join(KEY))? {
        Some(key) if key.len() != KEY_BYTES => return Err(wrong(KEY, BadSecret::NoKey)),
        _ => {}
    }
    match known_secret(&path.join(TOKEN))? {
        Some(text) if token_in(&text).is_none() => return Err(wrong(TOKEN, BadSecret::NoToken)),
        _ => {}
    }
    known_secret(&path.join(TLS)).map(drop)
}

/// Checks that the key is there if `unfinished` tasks of the folder depend on it.
pub(crate) fn check_key_kept(root: &Path, unfinished: usize) -> Result<(), DataError> {
    let path = root.join(KEY);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && unfinished > 0 => {
            Err(DataError::LostKey { path, tasks: unfinished })
        }
        _ => Ok(()),
    }
}

/// What we open by its name in the folder is a file, if it is there.
fn check_files(root: &Path) -> Result<(), DataError> {
    for path in [LOCK, KEY, TOKEN, TLS, STORE].map(|name| root.join(name)) {
        match fs::symlink_metadata(&path) {
            Ok(is) if !is.is_file() => return Err(DataError::NoFile { path }),
            _ => {}
        }
    }
    Ok(())
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

/// The content of a file that only we can read, made if there is none.
fn secret(path: &Path, content: impl FnOnce() -> io::Result<Vec<u8>>) -> Result<Vec<u8>, DataError> {
    match known_secret(path)? {
        Some(content) => Ok(content),
        None => make_secret(path, content).map_err(io_error("make", path)),
    }
}

/// The content of a file that only we can read, if it is there.
fn known_secret(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    match OpenOptions::new().read(true).custom_flags(NO_LINK).open(path) {
        Ok(file) => read_secret(file, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Takes the lock, or tells who has it. The system lets go of it when the process ends, however it ends: one that
/// has no door any more is about to, and is waited for.
fn lock(root: &Path) -> Result<File, DataError> {
    let path = root.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_LINK);
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

/// The process that has a data folder, if one has.
pub fn holder_of(root: &Path) -> Option<i32> {
    let lock = OpenOptions::new().read(true).custom_flags(NO_LINK).open(root.join(LOCK)).ok()?;
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| holder(&lock).parse().ok())?
}

/// Waits until nobody has a data folder any more, as long as an orchestrator takes to end. Whether it was.
pub fn wait_until_had_by_none(root: &Path) -> bool {
    wait_until_free(&root.join(LOCK));
    holder_of(root).is_none()
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
        return Err(DataError::Secret { path: path.to_owned(), reason: BadSecret::Open });
    }
    let mut content = Vec::new();
    file.take(SECRET_BYTES_MAX).read_to_end(&mut content).map_err(io_error("read", path))?;
    Ok(content)
}

fn make_secret(path: &Path, content: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let content = content()?;
    write_private(path, &content)?;
    Ok(content)
}

/// Writes a file that only we can read. It has the old content or the new, whatever ends us, and the new one for good
/// once this returns.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(NO_LINK);
    let mut file = options.open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder(path)
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

pub(crate) fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| DataError::Io { verb, path, source }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

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
        data.key(0).expect("a key");
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
        let first = DataFolder::open(parent.path()).expect("free").key(0).expect("a key");
        let second = DataFolder::open(parent.path()).expect("free").key(0).expect("a key");
        assert_eq!(first, second);
        let other = DataFolder::open(&parent.path().join("other")).expect("free").key(0).expect("a key");
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
            assert!(matches!(data.key(0), Err(DataError::Secret { .. })), "{bytes} bytes, mode {bits:o}");
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

    /// A link would have what it leads to changed, or believed.
    #[test]
    fn a_link_or_a_folder_in_the_place_of_a_file_is_refused_and_left_as_it_is() {
        for name in [LOCK, KEY, TOKEN, TLS, STORE] {
            let parent = parent();
            let (root, other) = (parent.path().join("data"), parent.path().join("other"));
            make_data_folder(&root).expect("made");
            fs::write(&other, "precious").expect("written");
            set_mode(&other, 0o600);
            symlink(&other, root.join(name)).expect("made");
            for refused in [DataFolder::open(&root).map(drop), check_data_folder(&root)] {
                let error = refused.expect_err(name);
                assert!(matches!(&error, DataError::NoFile { path } if path.ends_with(name)), "{error}");
            }
            assert_eq!(fs::read_to_string(&other).expect("there"), "precious");
            fs::remove_file(root.join(name)).expect("removed");
            fs::create_dir(root.join(name)).expect("made");
            assert!(matches!(check_data_folder(&root), Err(DataError::NoFile { .. })), "{name}");
        }
    }

    /// A check and an open are two moments: between them a link is refused too.
    #[test]
    fn neither_a_lock_nor_a_secret_is_opened_through_a_link() {
        let parent = parent();
        let other = parent.path().join("other");
        fs::write(&other, "precious").expect("written");
        set_mode(&other, 0o600);
        for name in [LOCK, KEY, "token.new"] {
            symlink(&other, parent.path().join(name)).expect("made");
        }
        lock(parent.path()).expect_err("a link");
        known_secret(&parent.path().join(KEY)).expect_err("a link");
        renew_token(&parent.path().join(TOKEN)).expect_err("a link");
        assert_eq!(fs::read_to_string(&other).expect("there"), "precious");
    }

    #[test]
    fn a_key_is_not_made_anew_where_tasks_depend_on_the_last_one() {
        let parent = parent();
        let data = DataFolder::open(parent.path()).expect("free");
        let error = data.key(2).expect_err("lost").to_string();
        assert!(error.contains("2 task(s)") && error.contains("mv ") && error.contains(".lost"), "{error}");
        data.key(0).expect("nothing depends on it");
        data.key(2).expect("it is there");
        set_mode(&parent.path().join(KEY), 0o644);
        let open = data.key(2).expect_err("open").to_string();
        assert!(open.contains("chmod 600") && open.contains("those that are not over are lost"), "{open}");
    }

    #[test]
    fn secrets_that_a_start_would_refuse_are_refused_by_a_look() {
        let parent = parent();
        let data = DataFolder::open(parent.path()).expect("free");
        data.key(0).expect("made");
        data.token().expect("made");
        for (name, text) in [(KEY, &[7; 31][..]), (TOKEN, b"")] {
            let good = fs::read(parent.path().join(name)).expect("there");
            fs::write(parent.path().join(name), text).expect("written");
            assert!(matches!(check_data_folder(parent.path()), Err(DataError::Secret { .. })), "{name}");
            fs::write(parent.path().join(name), good).expect("written");
            check_data_folder(parent.path()).expect("good again");
        }
    }
}
