//! Seals owners' credentials, so that they can wait on the disk for an orchestrator that starts again.
//!
//! `nonce, 12 bytes | ChaCha20-Poly1305 of the credential as JSON`, bound to the task that it came with,
//! or to its name in the pool. The key comes from the data
//! folder's own, which is in a file beside the database: a copy of the database alone opens nothing.

use std::fmt;

use mayfly_wire::api::Credential;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Seals and opens.
pub(crate) struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// With a key of its own, made from the data folder's.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let secret = Salt::new(HKDF_SHA256, b"mayfly").extract(key);
        let expanded = secret.expand(&[b"credentials"], &CHACHA20_POLY1305).expect("a key is short enough");
        Self { key: LessSafeKey::new(UnboundKey::from(expanded)), random: SystemRandom::new() }
    }

    /// The credential as only [`open`](Self::open) can read it, and only for this place.
    pub(crate) fn close(&self, place: &str, credential: &Credential) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).expect("the system has randomness");
        let mut text = serde_json::to_vec(credential).expect("it has only what JSON has");
        let sealed = self.key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place),
            &mut text,
        );
        sealed.expect("a credential is short");
        [&nonce[..], &text].concat()
    }

    /// `None`: it was sealed for another place, with another key, or not by us.
    pub(crate) fn open(&self, place: &str, sealed: &[u8]) -> Option<Credential> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(place), &mut text).ok()?;
        serde_json::from_slice(opened).ok()
    }
}

#[cfg(test)]
mod tests {
    use mayfly_wire::Secret;
    use mayfly_wire::api::CredentialKind;

    use super::*;

    const PLACE: &str = "0193b2c4-0000-7000-8000-000000000001";

    fn credential() -> Credential {
        let secret = Secret::from("canary".to_owned());
        Credential::new(CredentialKind::ApiKey, secret, None)
    }

    /// S32
    #[test]
    fn what_is_sealed_is_opened_for_its_place_with_its_key_alone() {
        let seal = Seal::new(&[1; 32]);
        let sealed = seal.close(PLACE, &credential());
        assert!(!sealed.windows(6).any(|part| part == b"canary"));
        let opened = Seal::new(&[1; 32]).open(PLACE, &sealed).expect("the same key");
        assert_eq!(opened.secret.expose(), "canary");
        assert!(seal.open("pool/work", &sealed).is_none(), "another place");
        assert!(Seal::new(&[2; 32]).open(PLACE, &sealed).is_none(), "another key");
        let mut changed = sealed.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        assert!(seal.open(PLACE, &changed).is_none(), "another text");
        assert!(seal.open(PLACE, &sealed[..NONCE_LEN - 1]).is_none(), "hardly any text");
        assert_ne!(sealed, seal.close(PLACE, &credential()), "each has a nonce of its own");
    }
}
