//! The words of each error about which a start or the store can say no, kept as they are.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use mayfly_core::causes;
use mayfly_provider::ProviderError;
use mayfly_store::StoreError;
use mayfly_test_needs::one_of_each;

use crate::data::BadSecret;
use crate::data::DataError;
use crate::server::StartError;
use crate::tls::TlsError;

fn path(name: &str) -> PathBuf {
    PathBuf::from("/data").join(name)
}

fn denied() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

/// What SQLite says.
fn sqlite(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

pub(crate) fn store_errors() -> Vec<StoreError> {
    one_of_each![StoreError:
        StoreError::Full(_) => StoreError::Full(sqlite(rusqlite::ffi::SQLITE_FULL)),
        StoreError::Open { .. } => StoreError::Open { path: path("mayfly.db"), source: denied() },
        StoreError::Foreign(_) => StoreError::Foreign(path("mayfly.db")),
        StoreError::Damaged(_) => StoreError::Damaged(path("mayfly.db")),
        StoreError::Newer { .. } => StoreError::Newer { path: path("mayfly.db"), found: 9, known: 2 },
        StoreError::KeyConflict => StoreError::KeyConflict,
        StoreError::Pruned(_) => StoreError::Pruned("1a2b3c4d".to_owned()),
        StoreError::NoCredential(_) => StoreError::NoCredential(None),
        StoreError::Broken(_) => StoreError::Broken(sqlite(rusqlite::ffi::SQLITE_CORRUPT)),
        StoreError::Sqlite(_) => StoreError::Sqlite(sqlite(rusqlite::ffi::SQLITE_BUSY)),
        StoreError::Corrupt(_) => StoreError::Corrupt("a state `flying`".to_owned()),
        StoreError::Closed => StoreError::Closed,
    ]
}

fn data_errors() -> Vec<DataError> {
    one_of_each![DataError:
        DataError::Foreign { .. } => DataError::Foreign { path: path(""), owner: 1000, user: 1001 },
        DataError::Shared { .. } => DataError::Shared { path: path(""), mode: 0o777 },
        DataError::NoFolder { .. } => DataError::NoFolder { path: path("") },
        DataError::Others { .. } => DataError::Others { path: path("") },
        DataError::Closed { .. } => DataError::Closed { path: path("new"), above: path("") },
        DataError::NoFile { .. } => DataError::NoFile { path: path("lock") },
        DataError::LostKey { .. } => DataError::LostKey { path: path("key"), tasks: 2 },
        DataError::Locked { .. } => DataError::Locked { path: path(""), pid: "4711".to_owned() },
        DataError::Secret { .. } => DataError::Secret { path: path("key"), reason: BadSecret::Open },
        DataError::Io { .. } => DataError::Io { verb: "open", path: path("lock"), source: denied() },
    ]
}

fn start_errors() -> Vec<StartError> {
    let address = "127.0.0.1:6293".parse().expect("an address");
    let provider = || ProviderError::Refused {
        provider: "sandbox",
        reason: "user namespaces are off here".to_owned(),
        source: None,
    };
    let no_url = reqwest::Proxy::all("http://:").expect_err("no URL");
    one_of_each![StartError:
        StartError::Data(_) => StartError::Data(DataError::NoFolder { path: path("") }),
        StartError::LongPath { .. } => StartError::LongPath { path: path("api.sock") },
        StartError::Provider(_) => StartError::Provider(provider()),
        StartError::Store { .. } => {
            StartError::Store { path: path("mayfly.db"), source: StoreError::Damaged(path("mayfly.db")) }
        },
        StartError::Engine(_) => StartError::Engine(mayfly_engine::StartError::Provider(provider())),
        StartError::Tokens(_) => StartError::Tokens(Box::new(denied())),
        StartError::Certificate(_) => StartError::Certificate(TlsError::OpenKey { path: path("key.pem"), mode: 0o644 }),
        StartError::Tls(_) => StartError::Tls(no_url),
        StartError::Exposed(_) => StartError::Exposed("0.0.0.0:80".parse().expect("an address")),
        StartError::Port { .. } => StartError::Port { address, source: io::ErrorKind::AddrInUse.into() },
        StartError::Listen { .. } => StartError::Listen { path: path("api.sock"), source: denied() },
    ]
}

fn tls_errors() -> Vec<TlsError> {
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    one_of_each![TlsError:
        TlsError::File { .. } => TlsError::File { path: path("cert.pem"), source: denied() },
        TlsError::OpenKey { .. } => TlsError::OpenKey { path: path("key.pem"), mode: 0o644 },
        TlsError::Missing { .. } => TlsError::Missing { what: "certificate", path: path("cert.pem") },
        TlsError::Unfit { .. } => {
            let source = rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch);
            TlsError::Unfit { cert, key, source }
        },
        TlsError::Data(_) => TlsError::Data(DataError::Io { verb: "make", path: path("tls.pem"), source: denied() }),
    ]
}

/// The name of its variant.
pub(crate) fn variant(error: &impl Error) -> String {
    format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// A line each.
fn lines<E: Error>(errors: &[E]) -> String {
    let line = |error: &E| format!("{}: {}", variant(error), causes(error));
    errors.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_wrong_with_a_database_is_told_in_these_words() {
    insta::assert_snapshot!(lines(&store_errors()));
}

#[test]
fn what_is_wrong_with_a_data_folder_is_told_in_these_words() {
    insta::assert_snapshot!(lines(&data_errors()));
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_in_these_words() {
    insta::assert_snapshot!(lines(&tls_errors()));
}

#[test]
fn why_an_orchestrator_does_not_start_is_told_in_these_words() {
    insta::assert_snapshot!(lines(&start_errors()));
}
