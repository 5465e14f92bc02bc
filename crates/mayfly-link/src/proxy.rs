//! The way through an HTTP proxy: `CONNECT`, and from then on bytes.
//!
//! Which proxy, if any, is for the caller to settle; here it is one address with, perhaps, a user's name and
//! password, which no message shows. The proxy itself is spoken to unencrypted.
//!
//! Bound: [`ANSWER_BYTES_MAX`] of the proxy's answer.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly_wire::Secret;
use mayfly_wire::endpoint::{Address, BadEndpoint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{ByteStream, LinkError};

/// The longest answer to a `CONNECT`, up to the empty line.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Where a proxy listens whose address names no port.
const PROXY_PORT: u16 = 80;

/// An HTTP proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub(crate) address: Address,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Secret>,
}

impl FromStr for Proxy {
    type Err = BadProxy;

    /// Parses `http://[user[:password]@]host[:port]`; the scheme may be left out, as is the custom.
    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(BadProxy::Scheme),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let address = Address::parse(host, Some(PROXY_PORT))?;
        Ok(Self { address, authorization: user.map(basic).transpose()? })
    }
}

/// `Basic` for the percent-encoded `user[:password]` of a URL.
fn basic(user: &str) -> Result<Secret, BadProxy> {
    let (name, word) = user.split_once(':').unwrap_or((user, ""));
    let name = decoded(name)?;
    if name.contains(&b':') {
        return Err(BadProxy::Credentials);
    }
    let both = [name, decoded(word)?].join(&b':');
    Ok(Secret::from(format!("Basic {}", STANDARD.encode(both))))
}

fn decoded(text: &str) -> Result<Vec<u8>, BadProxy> {
    let (mut bytes, mut left) = (Vec::new(), text.as_bytes());
    while let [first, rest @ ..] = left {
        let (byte, rest) = match (first, rest) {
            (b'%', [high, low, rest @ ..]) => (hex(*high)? * 16 + hex(*low)?, rest),
            (b'%', _) => return Err(BadProxy::Credentials),
            (byte, rest) => (*byte, rest),
        };
        bytes.push(byte);
        left = rest;
    }
    Ok(bytes)
}

fn hex(digit: u8) -> Result<u8, BadProxy> {
    let value = char::from(digit).to_digit(16).ok_or(BadProxy::Credentials)?;
    Ok(u8::try_from(value).expect("below 16"))
}

/// A text that names no proxy. It is not repeated here: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadProxy {
    /// Another kind of proxy.
    #[error("only a proxy of the form http://[user:password@]host:port can be used")]
    Scheme,
    /// A percent sign that two hexadecimal digits do not follow, or a colon in the name.
    #[error("the proxy's user and password are not encoded as in a URL")]
    Credentials,
    /// No host and port.
    #[error("the proxy's address is none")]
    Address(#[from] BadEndpoint),
}

impl Proxy {
    /// Asks for the way to `to`. What follows in `stream` is between the caller and that side.
    pub(crate) async fn connect(&self, to: &Address, stream: &mut dyn ByteStream) -> Result<(), LinkError> {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(authorization) = &self.authorization {
            request.extend(["Proxy-Authorization: ", authorization.expose(), "\r\n"]);
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(LinkError::Unreachable)?;
        stream.flush().await.map_err(LinkError::Unreachable)?;
        match status(&answer(stream).await?) {
            Some(status) if (200..300).contains(&status) => Ok(()),
            Some(407) => Err(refused("the proxy asks for other credentials (407)".to_owned())),
            Some(status) => Err(refused(format!("the proxy answers {status} instead of a way to {to}"))),
            None => Err(refused("what answers is no HTTP proxy".to_owned())),
        }
    }
}

fn refused(reason: String) -> LinkError {
    LinkError::Proxy { reason }
}

/// Reads up to the empty line, and not a byte more: those belong to the other side.
async fn answer(stream: &mut dyn ByteStream) -> Result<Vec<u8>, LinkError> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == ANSWER_BYTES_MAX {
            return Err(refused(format!("the proxy's answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
        answer.push(stream.read_u8().await.map_err(LinkError::Unreachable)?);
    }
    Ok(answer)
}

fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    match rest {
        [b'0' | b'1', b' ', digits @ ..] if digits.len() > 3 && !digits[3].is_ascii_alphanumeric() => {
            std::str::from_utf8(&digits[..3]).ok()?.parse().ok().filter(|status| *status >= 100)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let proxy: Proxy = "http://us%40er:p%3Ass@box:3128/".parse().expect("a proxy");
        assert_eq!(proxy.address.to_string(), "box:3128");
        let expected = format!("Basic {}", STANDARD.encode("us@er:p:ss"));
        assert_eq!(proxy.authorization.as_ref().expect("credentials").expose(), expected);
        assert!(!format!("{proxy:?}").contains(&expected[6..]));
        let plain: Proxy = "box".parse().expect("a proxy");
        assert_eq!((plain.address.port(), plain.authorization.is_none()), (80, true));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        for text in [
            "socks5://canary@h",
            "https://canary@h",
            "http://canary%4@h",
            "http://canary%3a@h",
            "http://canary@",
        ] {
            let error = text.parse::<Proxy>().expect_err(text);
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }

    async fn answered(answer: &'static [u8]) -> (Result<(), LinkError>, String, Vec<u8>) {
        let (near, mut far) = duplex(64 * 1024);
        let mut near: Box<dyn ByteStream> = Box::new(near);
        far.write_all(answer).await.expect("it fits");
        let proxy: Proxy = "user:word@box".parse().expect("a proxy");
        let to = Address::parse("[::1]:8443", None).expect("an address");
        let got = proxy.connect(&to, &mut *near).await;
        let mut asked = vec![0; 4096];
        let len = far.read(&mut asked).await.expect("a request");
        drop(far);
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.expect("the rest");
        (got, String::from_utf8_lossy(&asked[..len]).into_owned(), rest)
    }

    #[tokio::test]
    async fn after_the_answer_every_byte_is_the_other_sides() {
        let (got, asked, rest) = answered(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n\r\nmore").await;
        got.expect("a way");
        assert_eq!(
            asked,
            "CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\nProxy-Authorization: Basic dXNlcjp3b3Jk\r\n\r\n"
        );
        assert_eq!(rest, b"\r\nmore");
    }

    #[tokio::test]
    async fn a_refusal_and_what_is_no_answer_are_errors_in_words() {
        static ENDLESS: [u8; ANSWER_BYTES_MAX + 1] = [b'x'; ANSWER_BYTES_MAX + 1];
        for (answer, word) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "credentials"),
            (b"HTTP/1.0 403 No\r\n\r\n", "403"),
            (b"HTTP/1.1 2000 No\r\n\r\n", "no HTTP proxy"),
            (b"HTTP/2 200 \r\n\r\n", "no HTTP proxy"),
            (b"\r\n\r\n", "no HTTP proxy"),
            (&ENDLESS, "more than"),
        ] {
            let (got, ..) = answered(answer).await;
            let Err(LinkError::Proxy { reason }) = got else { panic!("{got:?}") };
            assert!(reason.contains(word), "{reason}");
        }
    }
}
