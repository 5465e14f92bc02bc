//! The port's certificate: from the owner's files, or one of our own that signs itself.
//!
//! One of our own is made once and stays, since it is known by its fingerprint: that is what the other side is told,
//! and what it pins. A key that others could read is refused, and one that does not fit its certificate, before anybody
//! is let in.
//!
//! TLS 1.2 and 1.3, and HTTP/1.1 alone. Bound: [`PEM_BYTES_MAX`].

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::data::{DataError, DataFolder};

/// The longest file of a key or of a chain of certificates.
const PEM_BYTES_MAX: u64 = 1024 * 1024;
/// The bits of a mode that let others than the owner do anything.
const OTHERS: u32 = 0o077;

/// Where the port's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Made once, in the data folder. The other side has to know its fingerprint.
    SelfSigned,
    /// The owner's, in PEM.
    Files {
        /// The certificate, and those that lead from it to one that others know.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can read the key.
    #[error("the key {} can be read by others (mode {mode:o}): run `chmod 600` on it", path.display())]
    OpenKey {
        /// Its file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is none of these in the file.
    #[error("there is no {what} in {}: a file in PEM with one is wanted", path.display())]
    Missing {
        /// A certificate or a key.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// They cannot be used, or not together.
    #[error("the certificate {} cannot be used with the key {}", cert.display(), key.display())]
    Unfit {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// Our own cannot be kept.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// What a port shows of itself.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) tls: Arc<ServerConfig>,
    /// How the other side knows it, where it signed itself: `sha256:` and hex digits.
    pub(crate) fingerprint: Option<String>,
}

impl Tls {
    /// The identity of an orchestrator that is called by these names.
    pub(crate) fn identity(&self, data: &DataFolder, names: Vec<String>) -> Result<Identity, TlsError> {
        match self {
            Self::SelfSigned => {
                let (path, pem) = data.tls(|| self_signed(names).map_err(io::Error::other))?;
                let certs = certs(&pem, &path)?;
                let fingerprint = Some(fingerprint(&certs[0]));
                Ok(Identity { tls: config(certs, key(&pem, &path)?, &path, &path)?, fingerprint })
            }
            Self::Files { cert, key } => Ok(Identity { tls: of_files(cert, key)?, fingerprint: None }),
        }
    }

    /// Looks at the owner's files, and makes nothing.
    ///
    /// # Errors
    /// If no port could show them.
    pub fn check(&self) -> Result<(), TlsError> {
        match self {
            Self::SelfSigned => Ok(()),
            Self::Files { cert, key } => of_files(cert, key).map(drop),
        }
    }
}

/// A key and a certificate for it, in PEM. It is valid for as long as anybody may care: what counts is that it is the
/// same.
fn self_signed(names: Vec<String>) -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut about = CertificateParams::new(names)?;
    about.distinguished_name.push(DnType::CommonName, "mayfly");
    Ok((key.serialize_pem() + &about.self_signed(&key)?.pem()).into_bytes())
}

fn of_files(cert: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let certs = certs(&read(cert, false)?, cert)?;
    let key = key(&read(key_file, true)?, key_file)?;
    config(certs, key, cert, key_file)
}

fn fingerprint(cert: &CertificateDer<'_>) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(cert) {
        write!(text, "{byte:02x}").expect("a string takes it");
    }
    text
}

fn config(
    certs: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
    cert: &Path,
    key: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let unfit = |source| TlsError::Unfit { cert: cert.to_owned(), key: key.to_owned(), source };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(unfit)?;
    let mut config = config.with_no_client_auth().with_single_cert(certs, private).map_err(unfit)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certs(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let missing = || TlsError::Missing { what: "certificate", path: path.to_owned() };
    let certs: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| missing())?;
    if certs.is_empty() { Err(missing()) } else { Ok(certs) }
}

fn key(pem: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| TlsError::Missing { what: "private key", path: path.to_owned() })
}

fn read(path: &Path, private: bool) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if private && mode & OTHERS != 0 {
        return Err(TlsError::OpenKey { path: path.to_owned(), mode });
    }
    let mut pem = Vec::new();
    file.take(PEM_BYTES_MAX).read_to_end(&mut pem).map_err(failed)?;
    Ok(pem)
}
