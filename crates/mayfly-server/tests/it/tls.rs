//! The port with TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mayfly_server::{Server, StartError, Tls, TlsError};
use rcgen::KeyPair;
use reqwest::Certificate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::port::start_with;

async fn self_signed(data: &TempDir) -> Server {
    start_with(data, |config| config.tls = Some(Tls::SelfSigned)).await.unwrap()
}

/// A client that trusts this certificate and no other.
fn client(pem: &[u8]) -> reqwest::Client {
    let only = Certificate::from_pem(pem).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([only]).build().unwrap()
}

async fn status(server: &Server, pem: &[u8]) -> u16 {
    let token = fs::read_to_string(server.token_file()).unwrap();
    let url = format!("https://localhost:{}/v1/tasks", server.listening().unwrap().port());
    client(pem).get(url).bearer_auth(token.trim_end()).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_made_once_and_known_by_its_fingerprint() {
    let data = tempfile::tempdir().unwrap();
    let server = self_signed(&data).await;
    let file = data.path().join("tls.pem");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let pem = fs::read(&file).unwrap();
    let cert = CertificateDer::from_pem_slice(&pem).unwrap();
    let fingerprint = format!("sha256:{}", hex::encode(Sha256::digest(&cert)));
    assert_eq!(server.fingerprint(), Some(fingerprint.as_str()));
    assert_eq!(status(&server, &pem).await, 200);
    let without = format!("https://localhost:{}/v1/tasks", server.listening().unwrap().port());
    assert_eq!(client(&pem).get(without).send().await.unwrap().status(), 401);
    server.stop().await;
    let server = self_signed(&data).await;
    assert_eq!(server.fingerprint(), Some(fingerprint.as_str()), "it stays");
    assert_eq!(status(&server, &pem).await, 200);
}

#[tokio::test]
async fn a_port_with_tls_says_nothing_without() {
    let data = tempfile::tempdir().unwrap();
    let server = self_signed(&data).await;
    let url = format!("http://{}/healthz", server.listening().unwrap());
    reqwest::get(url).await.unwrap_err();
}

fn write(folder: &Path, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let about = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (about.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

async fn start(data: &TempDir, cert: &Path, key: &Path) -> Result<Server, StartError> {
    let tls = Tls::Files { cert: cert.to_owned(), key: key.to_owned() };
    start_with(data, |config| config.tls = Some(tls)).await
}

#[tokio::test]
async fn the_owners_certificate_is_shown() {
    let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (cert, key) = pair();
    let (cert_file, key_file) =
        (write(files.path(), "cert", &cert, 0o644), write(files.path(), "key", &key, 0o600));
    let server = start(&data, &cert_file, &key_file).await.unwrap();
    assert_eq!((status(&server, cert.as_bytes()).await, server.fingerprint()), (200, None));
}

/// S32, S64: before anybody is let in, and with what to do.
#[tokio::test]
async fn a_certificate_that_cannot_be_used_stops_the_start() {
    let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ((cert, key), (_, other)) = (pair(), pair());
    let file = |name: &str, content: &str, mode| write(files.path(), name, content, mode);
    let (cert, key) = (file("cert", &cert, 0o644), file("key", &key, 0o600));
    let error = async |cert: &Path, key: &Path| match start(&data, cert, key).await {
        Err(StartError::Certificate(error)) => error,
        other => panic!("{other:?}"),
    };
    let none = files.path().join("none");
    assert!(matches!(error(&none, &key).await, TlsError::File { path, .. } if path == none));
    assert!(matches!(error(&cert, &none).await, TlsError::File { path, .. } if path == none));
    let other = file("other", &other, 0o600);
    assert!(matches!(error(&cert, &other).await, TlsError::Unfit { .. }));
    for (cert, key) in [(&file("empty", "", 0o600), &key), (&key, &key), (&cert, &file("text", "x", 0o600))] {
        assert!(matches!(error(cert, key).await, TlsError::Missing { .. }), "{cert:?} {key:?}");
    }
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let open = error(&cert, &key).await;
        assert!(matches!(open, TlsError::OpenKey { mode: found, .. } if found == mode), "{open}");
        assert!(open.to_string().contains("chmod 600"), "{open}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    start(&data, &cert, &key).await.expect("nothing of those that failed is left");
}
