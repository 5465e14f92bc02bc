//! Where an orchestrator is reached, as one line of text.
//!
//! ```text
//! unix:/run/mayfly/orchestrator.sock     a socket of this machine
//! http://host[:port]                     TCP, unencrypted
//! https://host[:port]                    TLS; the certificate is one that this system trusts
//! https://host[:port]#sha256:<64 hex>    TLS; the certificate is this one, and nothing else counts
//! vsock:port                             the host of this virtual machine, which needs no network for that
//! ```
//!
//! Nothing else is one: no path, no query, no credentials. What comes back as text parses to the same again.
//! How it is dialled is `mayfly-link`'s business.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name of a host, as DNS has it.
const HOST_BYTES_MAX: usize = 253;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// What a fingerprint's text begins with.
const SHA256: &str = "sha256:";

/// Where an orchestrator is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A unix socket, by its absolute path.
    Unix(PathBuf),
    /// TCP, unencrypted.
    Tcp(Address),
    /// TLS over TCP.
    Tls {
        /// Where it listens; its host is the name that the certificate must have.
        address: Address,
        /// Whose certificate is accepted.
        trust: Trust,
    },
    /// A port of the host, for a virtual machine on it.
    Vsock(u32),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Which certificate of the other side is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trust {
    /// One that the roots of this system vouch for.
    System,
    /// The one with this fingerprint, whoever issued it, for whatever name and time.
    Pinned(Fingerprint),
}

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Endpoint {
    /// What a request names as its host.
    pub fn host_header(&self) -> String {
        match self {
            // Neither has a name.
            Self::Unix(_) | Self::Vsock(_) => "mayfly".to_owned(),
            Self::Tcp(address) => address.authority(HTTP_PORT),
            Self::Tls { address, .. } => address.authority(HTTPS_PORT),
        }
    }
}

impl Address {
    /// Parses `host[:port]`; an IPv6 address stands in brackets.
    pub fn parse(text: &str, port: Option<u16>) -> Result<Self, BadEndpoint> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, after) = match bracketed {
            Some((host, after)) => (host, after),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let is_host = match bracketed {
            Some(_) => host.parse::<Ipv6Addr>().is_ok(),
            None => is_name(host),
        };
        if text.contains('@') {
            return Err(BadEndpoint::Credentials);
        }
        if !is_host {
            return Err(BadEndpoint::Host);
        }
        let port = match after.strip_prefix(':') {
            Some(digits) => parse_port(digits)?,
            None if after.is_empty() => port.ok_or(BadEndpoint::Port)?,
            None => return Err(BadEndpoint::Host),
        };
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// The name or the IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn authority(&self, usual: u16) -> String {
        let whole = self.to_string();
        match whole.strip_suffix(&format!(":{usual}")) {
            Some(host) => host.to_owned(),
            None => whole,
        }
    }
}

fn is_name(host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(plain) && host.split('.').all(label)
}

fn parse_port<N: FromStr + Default + PartialOrd>(digits: &str) -> Result<N, BadEndpoint> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port > N::default()).ok_or(BadEndpoint::Port)
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return if path.is_absolute() { Ok(Self::Unix(path.into())) } else { Err(BadEndpoint::Socket) };
        }
        if let Some(port) = text.strip_prefix("vsock:") {
            return Ok(Self::Vsock(parse_port(port)?));
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadEndpoint::Scheme)?;
        let (rest, pin) = match rest.split_once('#') {
            Some((rest, pin)) => (rest, Some(pin)),
            None => (rest, None),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?']) {
            return Err(BadEndpoint::Path);
        }
        match (scheme, pin) {
            ("http", None) => Ok(Self::Tcp(Address::parse(authority, Some(HTTP_PORT))?)),
            ("http", Some(_)) => Err(BadEndpoint::PinWithoutTls),
            ("https", pin) => Ok(Self::Tls {
                address: Address::parse(authority, Some(HTTPS_PORT))?,
                trust: pin.map_or(Ok(Trust::System), |pin| pin.parse().map(Trust::Pinned))?,
            }),
            _ => Err(BadEndpoint::Scheme),
        }
    }
}

impl FromStr for Fingerprint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let digits = text.strip_prefix(SHA256).ok_or(BadEndpoint::Fingerprint)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| BadEndpoint::Fingerprint)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock(port) => write!(f, "vsock:{port}"),
            Self::Tcp(_) => write!(f, "http://{}", self.host_header()),
            Self::Tls { trust: Trust::System, .. } => write!(f, "https://{}", self.host_header()),
            Self::Tls { trust: Trust::Pinned(pin), .. } => {
                write!(f, "https://{}#{pin}", self.host_header())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Endpoint {
    /// Without the fingerprint, which nobody reads twice.
    pub fn without_pin(&self) -> String {
        let text = self.to_string();
        text.split_once('#').map_or(text.clone(), |(address, _)| address.to_owned())
    }
}

impl Fingerprint {
    /// As much of it as people compare at a glance.
    pub fn short(&self) -> String {
        format!("{SHA256}{}…", hex::encode(&self.0[..4]))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SHA256}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unix(path) if path.to_str().is_none() => Err(S::Error::custom("the path is not UTF-8")),
            _ => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A text that names no orchestrator. It is not repeated here: it may hold what must not be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// It begins with something else.
    #[error("an orchestrator is named by unix:/path, http://host:port or https://host:port")]
    Scheme,
    /// The path of a socket is relative.
    #[error("the path after unix: does not begin with a slash")]
    Socket,
    /// Neither a name nor an IP address, or something else behind it.
    #[error("the host is neither a name nor an IP address (one of IPv6 stands in brackets)")]
    Host,
    /// No number from 1 to 65535, or none at all where there is no usual one.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// More than a host and a port.
    #[error("nothing may follow the host and the port, neither a path nor a query")]
    Path,
    /// A user's name or a password.
    #[error("credentials do not belong in an orchestrator's address: pass a token by itself")]
    Credentials,
    /// A fingerprint where there is no certificate.
    #[error("a fingerprint pins a certificate, and http has none: say https")]
    PinWithoutTls,
    /// No fingerprint.
    #[error("a fingerprint is sha256: and 64 hexadecimal digits")]
    Fingerprint,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIN: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn parse(text: &str) -> Result<Endpoint, BadEndpoint> {
        text.parse()
    }

    #[test]
    fn each_kind_is_read_and_written_in_one_way() {
        for (text, written, host) in [
            ("unix:/run/x y/s", "unix:/run/x y/s", "mayfly"),
            ("http://Box:6293", "http://box:6293", "box:6293"),
            ("http://127.0.0.1:80/", "http://127.0.0.1", "127.0.0.1"),
            ("https://mayfly.example", "https://mayfly.example", "mayfly.example"),
            ("https://[::1]:8443", "https://[::1]:8443", "[::1]:8443"),
            (&format!("https://h:1#{PIN}"), &format!("https://h:1#{PIN}"), "h:1"),
            ("vsock:70000", "vsock:70000", "mayfly"),
        ] {
            let endpoint = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((endpoint.to_string(), endpoint.host_header()), (written.to_owned(), host.to_owned()));
            assert_eq!(parse(written), Ok(endpoint.clone()));
            let json = serde_json::to_string(&endpoint).expect("a text");
            assert_eq!(serde_json::from_str::<Endpoint>(&json).expect("a text"), endpoint);
        }
        let pinned = Trust::Pinned(PIN.parse().expect("a fingerprint"));
        let endpoint = parse(&format!("https://h#{}", PIN.replace("aabb", "AABB"))).expect("capitals too");
        assert!(matches!(endpoint, Endpoint::Tls { trust, .. } if trust == pinned));
    }

    #[test]
    fn what_is_none_is_refused_with_the_part_that_is_wrong() {
        use BadEndpoint::*;
        for (text, wrong) in [
            ("", Scheme),
            ("/run/s", Scheme),
            ("ftp://h:1", Scheme),
            ("HTTP://h:1", Scheme),
            ("unix:run/s", Socket),
            ("http://", Host),
            ("http://:1", Host),
            ("http://::1:80", Host),
            ("http://[::1", Host),
            ("http://[::1]x", Host),
            ("http://[h]:1", Host),
            ("http://a b", Host),
            ("http://a..b", Host),
            ("http://-a", Host),
            ("http://h\r\nx: y", Host),
            ("http://h:0", Port),
            ("http://h:", Port),
            ("http://h:+1", Port),
            ("http://h:65536", Port),
            ("vsock:", Port),
            ("vsock:0", Port),
            ("vsock:4294967296", Port),
            ("https://h/v1", Path),
            ("https://h?x", Path),
            ("https://user:word@h", Credentials),
            (&format!("http://h#{PIN}"), PinWithoutTls),
            ("https://h#", Fingerprint),
            (&format!("https://h#{}", &PIN[..70]), Fingerprint),
            (&format!("https://h#{}", &PIN[7..]), Fingerprint),
        ] {
            assert_eq!(parse(text), Err(wrong), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_takes_reads_back(text in "(http://|https://|unix:/|vsock:)?\\PC{0,40}") {
            if let Ok(endpoint) = parse(&text) {
                prop_assert_eq!(parse(&endpoint.to_string()), Ok(endpoint));
            }
        }
    }
}
