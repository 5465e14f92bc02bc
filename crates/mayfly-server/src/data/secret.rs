//! The secrets in a data folder: files that only we can read, whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use mayfly_failpoint::failpoint;
use rustix::fs::OFlags;

use super::error::{BadSecret, DataError, io_error};

pub(super) const KEY_BYTES: usize = 32;
/// More than a secret has.
const SECRET_BYTES_MAX: u64 = 16 * 1024;
/// The name of the key's file.
pub(super) const KEY: &str = "key";
/// The name of the token's file.
pub(crate) const TOKEN: &str = "token";
/// The name of the file with the certificate that signed itself.
pub(super) const TLS: &str = "tls.pem";
/// By this a token is known for what it is, wherever it turns up.
pub(super) const TOKEN_PREFIX: &str = "mayfly-owner-";
/// What is opened by its name in the data folder is no link to something else, and nothing that opening waits for.
#[expect(clippy::cast_possible_wrap, reason = "the flags of the system's call are an int")]
pub const NO_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;
/// The bits of a mode that let others than the owner do anything.
const OTHERS: u32 = 0o077;

/// A token that nobody knows yet.
///
/// # Errors
/// What the system says where there are no random bytes.
pub fn new_token() -> io::Result<String> {
    Ok(format!("{TOKEN_PREFIX}{}", hex::encode(random()?)))
}

pub(super) fn token_line() -> io::Result<Vec<u8>> {
    Ok(format!("{}\n", new_token()?).into_bytes())
}

/// Puts a new token in the place of the one in the file `path`: whatever ends us, it has the one or the other.
pub(crate) fn renew_token(path: &Path) -> Result<(), DataError> {
    make_secret(path, token_line).map(drop).map_err(io_error("make", path))
}

/// The token in the file `path`, which is there.
pub(crate) fn token_at(path: &Path) -> Result<String, DataError> {
    let text = known_secret(path)?.unwrap_or_default();
    token_in(&text).ok_or_else(|| DataError::Secret { path: path.to_owned(), reason: BadSecret::NoToken })
}

/// The token in the text of its file.
pub(super) fn token_in(text: &[u8]) -> Option<String> {
    let token = str::from_utf8(text).ok()?.trim_end().to_owned();
    let digits = token.strip_prefix(TOKEN_PREFIX)?;
    let good = digits.len() == 2 * KEY_BYTES && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then_some(token)
}

/// The content of a file that only we can read, made if there is none.
pub(super) fn secret(
    path: &Path,
    content: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, DataError> {
    match known_secret(path)? {
        Some(content) => Ok(content),
        None => make_secret(path, content).map_err(io_error("make", path)),
    }
}

/// The content of a file that only we can read, if it is there.
pub(super) fn known_secret(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    match OpenOptions::new().read(true).custom_flags(NO_LINK).open(path) {
        Ok(file) => read_secret(file, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
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
    failpoint("private-unnamed");
    fs::rename(&unfinished, path)?;
    sync_folder(path)?;
    failpoint("private-named");
    Ok(())
}

pub(super) fn random() -> io::Result<[u8; KEY_BYTES]> {
    let mut random = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random)
}

/// Makes the name of `path` as durable as its bytes.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
