//! Where an orchestrator is to be: its folder, its database and its port, by the very checks of a start.
//!
//! One that runs in the folder already has shown that they are right; it is told apart from other programs by the
//! socket of the folder, whose other end the kernel knows.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mayfly_core::causes;
use mayfly_engine::StoreError;
use mayfly_server::{
    BadSecret, DataError, Database, ServerConfig, StartError, Tls, check_data_folder, check_database,
    check_port, check_socket,
};
use rustix::fs::statvfs;
use tokio::net::UnixStream;

use super::report::{Check, State};
use crate::config::Settings;
use crate::exit::Stop;
use crate::listening::{self, LISTEN};
use crate::values::shell_word;

/// With less room than this, a few tasks fill the disk.
const ROOM_BYTES_MIN: u64 = 1 << 30;
/// The state of a socket that listens, as the kernel lists it.
const LISTENING: &str = "0A";
/// What to do about a folder that cannot be had.
const OTHER_FOLDER: &str = "mayfly run --data DIR, with a folder of yours";

/// The folder, the database if the folder can be used, and the port.
pub(super) async fn all(data: &Path, settings: &Settings) -> Vec<Check> {
    let mut checks = vec![data_folder(data)];
    let mut orchestrator = None;
    if checks.iter().all(|check| check.state != State::Failed) {
        orchestrator = orchestrator_of(data).await;
        checks.push(database(data, orchestrator));
    }
    checks.push(port(data, settings, orchestrator));
    checks
}

fn data_folder(data: &Path) -> Check {
    let (name, shown) = ("data folder", data.display());
    let config = ServerConfig::in_dir(data);
    let looked = check_data_folder(data).map_err(StartError::from);
    if let Err(error) = check_socket(&config).and(looked) {
        let fix = match &error {
            StartError::Data(error) => folder_fix(data, error),
            _ => OTHER_FOLDER.to_owned(),
        };
        return Check::failed(name, causes(&error), Some(fix));
    }
    let there = data.ancestors().find(|above| above.exists()).unwrap_or(data);
    match statvfs(there).map(|room| room.f_bavail.saturating_mul(room.f_frsize)) {
        Ok(free) if free < ROOM_BYTES_MIN => {
            let detail = format!("{shown}, with {} MiB free, which a few tasks fill", free >> 20);
            Check::warning(
                name,
                detail,
                Some("mayfly run --data DIR, with a folder on a bigger disk".to_owned()),
            )
        }
        Ok(free) => Check::ok(name, format!("{shown}, {} GiB free", free >> 30)),
        Err(errno) => Check::failed(name, format!("cannot look at {shown}: {errno}"), None),
    }
}

/// The command that puts a folder right.
fn folder_fix(data: &Path, error: &DataError) -> String {
    let word = |path: &Path| shell_word(&path.to_string_lossy());
    match error {
        DataError::Secret { path, reason: BadSecret::Open } if path.ends_with("key") => {
            format!("chmod 600 {}   # if nobody else can have read it", word(path))
        }
        DataError::Secret { reason: BadSecret::NoKey, .. } | DataError::LostKey { .. } => give_up(data),
        DataError::Secret { path, .. } => format!("rm {}", word(path)),
        DataError::Shared { .. } => format!("chmod go-w {}", word(data)),
        DataError::NoFile { path } => format!("mv {} {}", word(path), word(&path.with_extension("away"))),
        _ => OTHER_FOLDER.to_owned(),
    }
}

/// The command that gives up what is in a folder, and keeps it.
fn give_up(data: &Path) -> String {
    let lost = data.with_extension("lost");
    let word = |path: &Path| shell_word(&path.to_string_lossy());
    format!("mv {} {}   # gives its tasks up; or put the key back", word(data), word(&lost))
}

/// The process that answers on the folder's socket.
async fn orchestrator_of(data: &Path) -> Option<i32> {
    let stream = UnixStream::connect(ServerConfig::in_dir(data).socket()).await.ok()?;
    stream.peer_cred().ok()?.pid()
}

fn database(data: &Path, orchestrator: Option<i32>) -> Check {
    let name = "database";
    if let Some(pid) = orchestrator {
        return Check::ok(
            name,
            format!("in use by the orchestrator or the tunnel of this folder, process {pid}"),
        );
    }
    match check_database(data) {
        Ok(Some(Database { path, whole: true })) => Check::ok(name, path.display().to_string()),
        Ok(Some(Database { path, whole: false })) => Check::ok(
            name,
            format!("{}, of which the logs were not read to their end: it is long", path.display()),
        ),
        Ok(None) => Check::ok(name, "there is none yet; the first start makes it"),
        Err(error) => {
            let fix = match &error {
                StartError::Store { path, source: StoreError::Damaged(_) } => put_away(data, path),
                StartError::Data(error) => folder_fix(data, error),
                StartError::Store { source: StoreError::Newer { .. }, .. } => {
                    "mayfly run --data DIR, with another folder, or the newer mayfly with this one".to_owned()
                }
                _ => OTHER_FOLDER.to_owned(),
            };
            Check::failed(name, causes(&error), Some(fix))
        }
    }
}

/// The command that moves a database away, with the files that belong to it.
fn put_away(data: &Path, database: &Path) -> String {
    let word = |path: &Path| shell_word(&path.to_string_lossy());
    let away = word(&data.join("damaged"));
    format!("mkdir {away} && mv {}* {away}", word(database))
}

/// A port that was asked for must be had; the usual one is that of a `mayfly serve` started by hand alone.
fn port(data: &Path, settings: &Settings, orchestrator: Option<i32>) -> Check {
    let name = "port";
    let mut config = ServerConfig::in_dir(data);
    let set = listening::set(&mut config, settings, true).map_err(Stop::into_error);
    let shown = set.and_then(|()| Ok(config.tls.as_ref().map_or(Ok(()), Tls::check)?));
    if let Err(error) = shown {
        return Check::failed(name, format!("{error:#}"), None);
    }
    let (asked, address) = (settings.values.listen.as_ref(), config.listen.unwrap_or(LISTEN));
    let Err(error) = check_port(address) else {
        return Check::ok(name, format!("{address} can be had"));
    };
    if let Some(pid) = orchestrator.filter(|pid| listens(*pid, address)) {
        return Check::ok(
            name,
            format!(
                "{address}, on which the orchestrator or the tunnel of this folder listens, process {pid}"
            ),
        );
    }
    let who = format!("ss -ltnp 'sport = :{}'   # shows the program that has it", address.port());
    if asked.is_none() {
        let detail = format!("{}; `mayfly run` needs no port", causes(&error));
        return Check::warning(
            name,
            detail,
            Some(format!("{who}\nmayfly serve --listen {}:0", address.ip())),
        );
    }
    let place = settings.rows().into_iter().find(|row| row.key == "serve.listen");
    let place = place.map_or_else(String::new, |row| format!(" at {}", settings.origin(&row)));
    Check::failed(name, causes(&error), Some(format!("{who}\nor another port for `listen`{place}")))
}

/// Whether a process of this user listens on an address.
fn listens(pid: i32, address: SocketAddr) -> bool {
    let Some(socket) = listener(address) else { return false };
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == Path::new(&socket))
}

/// The socket that listens on an address, as the kernel names it.
fn listener(address: SocketAddr) -> Option<String> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let local = format!("{}:{:04X}", hex(address.ip()), address.port());
    fs::read_to_string(table).ok()?.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let ours = columns.get(1) == Some(&local.as_str()) && columns.get(3) == Some(&LISTENING);
        ours.then(|| columns.get(9).map(|inode| format!("socket:[{inode}]")))?
    })
}

/// An address as the kernel lists it: words of 32 bits, each in the order of this processor.
fn hex(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (words, _) = bytes.as_chunks::<4>();
    let words: Vec<String> = words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect();
    words.concat()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_that_listens_is_told_from_one_that_does_not() {
        let own = std::process::id().cast_signed();
        let on = |at: &str| TcpListener::bind(at).expect("a port");
        let four = on("127.0.0.1:0");
        let address = four.local_addr().expect("an address");
        assert!(listens(own, address) && !listens(1, address));
        drop(four);
        assert!(!listens(own, address));
        // Not every host has it.
        if let Ok(six) = TcpListener::bind("[::1]:0") {
            assert!(listens(own, six.local_addr().expect("an address")));
        }
    }
}
