//! What Fly's proxy says of the machine that a request comes from, held against the attempt whose token came with it.
//!
//! ```text
//! Fly-Src: instance=<machine>;app=<app>;org=<organisation>;ts=<seconds since 1970>
//! Fly-Src-Signature: <Ed25519 over the value of the other, in base64>
//! ```
//!
//! A request that has none of it is as good as its token: a machine elsewhere than behind that proxy has none. One that has it
//! must be signed with Fly's key, where that is known; be of the workers' app and of now; and be of a machine that can be the
//! attempt's. It proves which VM a request comes from, and not which program of it.
//!
//! Bound: [`AGE_MAX`].

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use ring::signature::{ED25519, UnparsedPublicKey};

const SOURCE: HeaderName = HeaderName::from_static("fly-src");
const SIGNATURE: HeaderName = HeaderName::from_static("fly-src-signature");
/// How old it may be, or how far ahead by another clock.
const AGE_MAX: Duration = Duration::from_secs(60);
/// The length of a key.
const KEY_BYTES: usize = 32;

/// What must be so of a request that says where at Fly it comes from.
#[derive(Debug, Clone)]
pub struct FlySrc {
    app: String,
    key: Option<[u8; KEY_BYTES]>,
}

/// Why a request is not from where it says, or from nowhere that it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFrom {
    /// Fly always says all of it.
    #[error("what it says of where it comes from is not as Fly's proxy says it")]
    Shape,
    #[error("Fly's proxy has not signed what it says of where it comes from")]
    Signature,
    #[error("what it says of where it comes from is not of now")]
    Age,
    #[error("it comes from another app than the workers'")]
    App,
    #[error("it comes from another machine than its attempt's")]
    Machine,
}

impl FlySrc {
    /// For machines of this app; with Fly's key in hex, as a VM has it, where it is known. None: that is no key.
    pub fn of_app(app: &str, key: Option<&str>) -> Option<Self> {
        let key = match key {
            Some(key) => Some(hex::decode(key.trim()).ok()?.try_into().ok()?),
            None => None,
        };
        Some(Self { app: app.to_owned(), key })
    }

    /// The id of the machine that a request comes from, if it says so.
    pub(crate) fn machine(&self, headers: &HeaderMap, now: Timestamp) -> Result<Option<String>, NotFrom> {
        let (source, signature) = match (only(headers, &SOURCE)?, only(headers, &SIGNATURE)?) {
            (None, None) => return Ok(None),
            (Some(source), Some(signature)) => (source, signature),
            _ => return Err(NotFrom::Shape),
        };
        let signature = STANDARD.decode(signature).map_err(|_| NotFrom::Shape)?;
        if let Some(key) = &self.key {
            let key = UnparsedPublicKey::new(&ED25519, key);
            key.verify(source.as_bytes(), &signature).map_err(|_| NotFrom::Signature)?;
        }
        let said = |name: &str| {
            let mut parts = source.split(';').filter_map(|part| part.split_once('='));
            let (_, value) = parts.find(|(is, _)| *is == name)?;
            Some(value).filter(|value| !value.is_empty())
        };
        let (Some(machine), Some(app), Some(at)) = (said("instance"), said("app"), said("ts")) else {
            return Err(NotFrom::Shape);
        };
        let at: i64 = at.parse().map_err(|_| NotFrom::Shape)?;
        if now.as_second().abs_diff(at) > AGE_MAX.as_secs() {
            return Err(NotFrom::Age);
        }
        if app != self.app {
            return Err(NotFrom::App);
        }
        Ok(Some(machine.to_owned()))
    }
}

/// The one header of this name, if there is one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, NotFrom> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| NotFrom::Shape),
        (Some(_), Some(_)) => Err(NotFrom::Shape),
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn key() -> Ed25519KeyPair {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random bytes");
        Ed25519KeyPair::from_pkcs8(made.as_ref()).expect("a key")
    }

    fn signed(key: &Ed25519KeyPair, source: &str) -> HeaderMap {
        let signature = STANDARD.encode(key.sign(source.as_bytes()));
        [(SOURCE, source.parse().expect("a value")), (SIGNATURE, signature.parse().expect("a value"))]
            .into_iter()
            .collect()
    }

    fn source(app: &str, ts: i64) -> String {
        format!("instance=148e;app={app};org=acme;ts={ts}")
    }

    #[test]
    fn what_fly_has_signed_is_believed_and_nothing_else() {
        let (key, other) = (key(), key());
        let public = hex::encode(key.public_key());
        let known = FlySrc::of_app("workers", Some(&public)).expect("a key");
        let unknown = FlySrc::of_app("workers", None).expect("no key");
        let now = Timestamp::from_second(NOW).expect("a time");
        let good = signed(&key, &source("workers", NOW - 5));
        for checks in [&known, &unknown] {
            assert_eq!(checks.machine(&HeaderMap::new(), now), Ok(None));
            assert_eq!(checks.machine(&good, now), Ok(Some("148e".to_owned())));
            let says = |source: &str| checks.machine(&signed(&key, source), now);
            assert_eq!(says(&source("others", NOW)), Err(NotFrom::App));
            assert_eq!(says(&source("workers", NOW - 61)), Err(NotFrom::Age));
            assert_eq!(says(&source("workers", NOW + 61)), Err(NotFrom::Age));
            for odd in ["", "instance=148e", "instance=;app=workers;ts=1", "instance=148e;app=workers;ts=now"]
            {
                assert_eq!(says(odd), Err(NotFrom::Shape), "{odd}");
            }
            for half in [SOURCE, SIGNATURE] {
                let mut headers = good.clone();
                headers.remove(&half);
                assert_eq!(checks.machine(&headers, now), Err(NotFrom::Shape));
            }
            let mut twice = good.clone();
            twice.append(SOURCE, source("workers", NOW).parse().expect("a value"));
            assert_eq!(checks.machine(&twice, now), Err(NotFrom::Shape));
        }
        let forged = signed(&other, &source("workers", NOW));
        assert_eq!(known.machine(&forged, now), Err(NotFrom::Signature));
        assert_eq!(
            unknown.machine(&forged, now),
            Ok(Some("148e".to_owned())),
            "there is nothing to hold it against"
        );
        let mut changed = good;
        changed.insert(SOURCE, source("workers", NOW).parse().expect("a value"));
        assert_eq!(known.machine(&changed, now), Err(NotFrom::Signature));
    }

    #[test]
    fn what_is_no_key_is_none() {
        for bad in ["", "zz", "00", &"00".repeat(33)] {
            assert!(FlySrc::of_app("workers", Some(bad)).is_none(), "{bad}");
        }
        assert!(FlySrc::of_app("workers", Some(&format!("{}\n", "00".repeat(32)))).is_some());
    }
}
