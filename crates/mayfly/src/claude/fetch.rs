//! Fetches the CLI with the machine's own npm, once for all of this user's machines.
//!
//! ```text
//! lock ─► npm pack ─► SHA-512 of the package ─► tar: one file ─► SHA-256 of it ─► sync ─► rename into place
//! ```
//!
//! npm brings its own configuration (registry, proxy), so no host is named here; it runs none of the
//! package's scripts. Nothing is believed before its hash is checked, and tar writes to a pipe only. A fetch
//! removes what it made when it fails or is given up.
//!
//! Bounds: [`FETCH_MAX`] for npm, [`BINARY_BYTES_MAX`] for the binary.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Sha256, Sha512};

use super::pin::{Pin, VERSION};
use super::{ClaudeError, digest};
use crate::environment::Environment;
use crate::fetching::{Ended, Flag, Scratch, run};
use crate::printer::Shown;
use crate::progress::{self, Progress};

/// The longest that npm may take.
const FETCH_MAX: Duration = Duration::from_secs(30 * 60);
/// The largest binary.
const BINARY_BYTES_MAX: u64 = 1 << 30;

/// Puts the pinned binary at `into`, below `cache`, a folder of the user's alone.
pub(super) fn fetch(
    pin: &Pin,
    cache: &Path,
    into: &Path,
    environment: &Environment,
    given_up: &Flag,
) -> Result<(), ClaudeError> {
    let scratch = Scratch::below(cache, "the Claude Code CLI", given_up).map_err(ClaudeError::file(cache))?;
    let scratch = scratch.ok_or(ClaudeError::GivenUp)?;
    // Another mayfly may have been faster; its result is believed as little as any other.
    if into.is_file() && digest::of_file(into, None).map_err(ClaudeError::file(into))? == pin.sha256 {
        return Ok(());
    }
    let package = pack(pin, scratch.path(), environment, given_up)?;
    progress::say("checking and unpacking it");
    check(pin, &package)?;
    let binary = unpack(pin, &package, environment)?;
    place(&binary, into).map_err(ClaudeError::file(into))
}

/// Has npm put the package into `scratch`. Its cache is there too: it is gone with it, and shows how far it is.
fn pack(
    pin: &Pin,
    scratch: &Path,
    environment: &Environment,
    given_up: &Flag,
) -> Result<PathBuf, ClaudeError> {
    let said = scratch.join("npm-said");
    let mut npm = command("npm", environment);
    npm.args(["pack", &format!("{}@{VERSION}", pin.package), "--ignore-scripts", "--loglevel=error"]);
    npm.arg("--pack-destination").arg(scratch).arg("--cache").arg(scratch.join("npm-cache"));
    npm.current_dir(scratch).stdout(Stdio::null());
    npm.stderr(File::create(&said).map_err(ClaudeError::file(&said))?);
    let mut progress = None;
    let ended = run(&mut npm, FETCH_MAX, given_up, || {
        let begin = || Progress::new(format!("fetching Claude Code {VERSION} with npm, once"));
        progress.get_or_insert_with(begin).tell(bytes_below(scratch));
    });
    let npm_says = |said| ClaudeError::Npm { package: pin.package, said };
    let failed = || npm_says(last_words(&fs::read(&said).unwrap_or_default()));
    match ended.map_err(|_| ClaudeError::NoNpm { package: pin.package })? {
        Ended::GivenUp => return Err(ClaudeError::GivenUp),
        Ended::TooLate => return Err(npm_says(format!("it took longer than {FETCH_MAX:?}"))),
        Ended::Itself(status) if !status.success() => return Err(failed()),
        Ended::Itself(_) => progress.into_iter().for_each(Progress::end),
    }
    let entries = fs::read_dir(scratch).map_err(ClaudeError::file(scratch))?;
    let packages = entries.flatten().map(|entry| entry.path());
    packages.into_iter().find(|path| path.extension() == Some(OsStr::new("tgz"))).ok_or_else(failed)
}

/// A program of this system, which does not need the owner's credentials.
fn command(program: &str, environment: &Environment) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(environment.without_credentials()).stdin(Stdio::null());
    command
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

fn check(pin: &Pin, package: &Path) -> Result<(), ClaudeError> {
    let read = |mut file: File| digest::copy_raw::<Sha512>(&mut file, &mut io::sink(), u64::MAX);
    let found = File::open(package).and_then(read).map_err(ClaudeError::file(package))?;
    match format!("sha512-{}", STANDARD.encode(found)) == pin.integrity {
        true => Ok(()),
        false => Err(ClaudeError::Forged { package: pin.package, what: "its integrity" }),
    }
}

/// Takes the one file out of the package, beside it.
fn unpack(pin: &Pin, package: &Path, environment: &Environment) -> Result<PathBuf, ClaudeError> {
    let binary = package.with_file_name("claude");
    let failed = |said: String| ClaudeError::Unpack { package: pin.package, said };
    let mut tar = command("tar", environment);
    tar.arg("-xzOf").arg(package).arg("package/claude").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = tar.spawn().map_err(|error| failed(error.to_string()))?;
    let mut stdout = child.stdout.take().expect("its standard output is a pipe");
    let copied = copy_synced(&mut stdout, &binary).map_err(ClaudeError::file(&binary));
    // A copy that failed leaves nobody to read what tar still has.
    drop(stdout);
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    match copied? {
        _ if !status.success() => Err(failed(status.to_string())),
        found if found != pin.sha256 => Err(ClaudeError::Forged { package: pin.package, what: "the binary" }),
        _ => Ok(binary),
    }
}

fn copy_synced(from: &mut impl io::Read, to: &Path) -> io::Result<String> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    let digest = digest::copy::<Sha256>(from, &mut file, BINARY_BYTES_MAX)?;
    file.sync_all()?;
    Ok(digest)
}

fn place(binary: &Path, into: &Path) -> io::Result<()> {
    let folder = into.parent().ok_or(io::ErrorKind::InvalidInput)?;
    digest::private(folder)?;
    fs::set_permissions(binary, Permissions::from_mode(0o755))?;
    fs::rename(binary, into)?;
    File::open(folder)?.sync_all()
}

/// The end of what a program said, in one line.
fn last_words(said: &[u8]) -> String {
    const LINES_MAX: usize = 4;
    const CHARS_MAX: usize = 600;
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES_MAX)..].join("; ");
    match Shown::line(&last, CHARS_MAX) {
        nothing if nothing.as_str().is_empty() => "it said nothing".to_owned(),
        last => last.to_string(),
    }
}
