//! TLS towards an orchestrator, and whose certificate is accepted.
//!
//! One that is not accepted is told by its [`Fingerprint`], so that a person can compare it with the one that the
//! orchestrator printed, and pin it. A pin replaces what a chain of issuers would say, name and dates with it; that
//! the other side has the key of its certificate is checked in either case.

use std::sync::Arc;

use mayfly_wire::endpoint::{Fingerprint, Trust};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

use crate::{ByteStream, LinkError};

/// The one protocol that is spoken inside.
const HTTP_1: &[u8] = b"http/1.1";

/// What a person compares and a pin names: the SHA-256 of a certificate in DER.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint(Sha256::digest(der).into())
}

/// How to speak TLS with those that `trust` accepts. The roots of this system are read now.
pub(crate) fn config(trust: &Trust) -> Arc<ClientConfig> {
    let crypto = Arc::new(ring::default_provider());
    let accepted = match trust {
        Trust::Pinned(pin) => Accepted::Pin(*pin),
        Trust::System => Accepted::issued(system_roots(), &crypto),
    };
    accepting(accepted, crypto)
}

fn accepting(accepted: Accepted, crypto: Arc<CryptoProvider>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::clone(&crypto))
        .with_safe_default_protocol_versions()
        .expect("the provider has all that its versions need");
    let mut config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { accepted, crypto }))
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    Arc::new(config)
}

/// Shakes hands with `host` over `stream`.
pub(crate) async fn wrap(
    config: Arc<ClientConfig>,
    host: &str,
    stream: Box<dyn ByteStream>,
) -> Result<Box<dyn ByteStream>, LinkError> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| LinkError::Tls(std::io::Error::other(error)))?;
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(sort(error)),
    }
}

/// Finds out whether the certificate was at fault.
fn sort(error: std::io::Error) -> LinkError {
    let fault = error.get_ref().and_then(|source| source.downcast_ref::<Error>());
    if let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))) = fault
        && let Some(Refusal { presented, pinned, reason }) = refusal.downcast_ref::<Refusal>()
    {
        return LinkError::Untrusted {
            presented: *presented,
            pinned: *pinned,
            source: Box::new(reason.clone()),
        };
    }
    LinkError::Tls(error)
}

/// The roots that this system has; unreadable ones vouch for nobody.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Whose certificate is accepted.
#[derive(Debug)]
enum Accepted {
    Pin(Fingerprint),
    Issued(Arc<WebPkiServerVerifier>),
    /// There are no roots: nobody's.
    Nobodys,
}

impl Accepted {
    fn issued(roots: RootCertStore, crypto: &Arc<CryptoProvider>) -> Self {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(crypto));
        verifier.build().map_or(Self::Nobodys, Self::Issued)
    }
}

#[derive(Debug)]
struct Verifier {
    accepted: Accepted,
    crypto: Arc<CryptoProvider>,
}

/// A certificate that was not accepted, on its way through rustls.
#[derive(Debug, thiserror::Error)]
#[error("a certificate that is not accepted")]
struct Refusal {
    presented: Fingerprint,
    pinned: Option<Fingerprint>,
    #[source]
    reason: Error,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = fingerprint(end_entity);
        let judged = match &self.accepted {
            Accepted::Pin(pin) if *pin == presented => Ok(ServerCertVerified::assertion()),
            Accepted::Pin(_) => Err(Error::General("it is not the pinned one".to_owned())),
            Accepted::Issued(roots) => roots.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            Accepted::Nobodys => Err(Error::General("this system has no roots to trust".to_owned())),
        };
        let pinned = match &self.accepted {
            Accepted::Pin(pin) => Some(*pin),
            Accepted::Issued(_) | Accepted::Nobodys => None,
        };
        judged.map_err(|reason| {
            let refusal = OtherError(Arc::new(Refusal { presented, pinned, reason }));
            Error::InvalidCertificate(CertificateError::Other(refusal))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.crypto.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::duplex;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A root, and a server's certificate that it issued for `orchestrator.test`.
    fn issued() -> (RootCertStore, TlsAcceptor, Fingerprint) {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(ca.self_signed(&ca_key).expect("a root").der().clone()).expect("a root");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["orchestrator.test".to_owned()]).expect("a name");
        let leaf = params.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("its key");
        (roots, TlsAcceptor::from(Arc::new(config)), fingerprint(leaf.der()))
    }

    async fn dialled(accepted: Accepted, host: &str, acceptor: TlsAcceptor) -> Result<(), LinkError> {
        let (near, far) = duplex(64 * 1024);
        let config = accepting(accepted, Arc::new(ring::default_provider()));
        let (wrapped, _) = tokio::join!(wrap(config, host, Box::new(near)), acceptor.accept(far));
        wrapped.map(|_| ())
    }

    #[tokio::test]
    async fn a_root_vouches_for_its_own_and_for_the_name_that_it_gave() {
        let crypto = Arc::new(ring::default_provider());
        let (roots, acceptor, presented) = issued();
        let good = Accepted::issued(roots.clone(), &crypto);
        dialled(good, "orchestrator.test", acceptor.clone()).await.expect("an issued one");
        let (other_roots, ..) = issued();
        for (roots, host) in [
            (roots, "elsewhere.test"),
            (other_roots, "orchestrator.test"),
            (RootCertStore::empty(), "orchestrator.test"),
        ] {
            let got = dialled(Accepted::issued(roots, &crypto), host, acceptor.clone()).await;
            let Err(LinkError::Untrusted { presented: told, .. }) = got else { panic!("{host}: {got:?}") };
            assert_eq!(told, presented);
        }
    }
}
