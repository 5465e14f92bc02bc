//! What a machine asked for: the target in a request's head, and how it is told of.

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, Method, Uri};
use mayfly_core::egress::{Failing, Refusal, Verdict};
use mayfly_core::host::{NAME_BYTES_MAX, Target};

/// The port of plain HTTP.
pub(super) const HTTP_PORT: u16 = 80;

/// A decision, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The host, or the beginning of what was there in its place, without control characters.
    pub host: String,
    /// The port; 0 if none can be read.
    pub port: u16,
    /// What was decided.
    pub verdict: Verdict,
}

impl Asked {
    /// What came cannot be read at all.
    pub(super) fn nothing() -> Self {
        Self { host: String::new(), port: 0, verdict: Verdict::Denied(Refusal::BadRequest) }
    }

    pub(super) fn of(target: &Target, verdict: Verdict) -> Self {
        Self { host: target.host.to_string(), port: target.port, verdict }
    }

    /// Without a user and a password before the host.
    fn bad(text: &str, refusal: Refusal) -> Self {
        let host = text.rsplit('@').next().unwrap_or_default();
        let plain = host.chars().take(NAME_BYTES_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c });
        Self { host: plain.collect(), port: 0, verdict: Verdict::Denied(refusal) }
    }

    /// What the machine and its owner are told of a refusal or a failure.
    pub fn words(&self) -> String {
        let Self { host, port, .. } = self;
        match self.verdict {
            Verdict::Allowed => format!("{host}:{port} is allowed"),
            Verdict::Denied(Refusal::NotListed) => format!(
                "{host}:{port} is not allowed to this task: its owner can allow it, with `mayfly allow TASK {host}:{port}`"
            ),
            Verdict::Denied(Refusal::NotAName) => {
                "what was asked for is not named by a host's name: addresses are not gone to".to_owned()
            }
            Verdict::Denied(Refusal::BadRequest) => {
                "this is no request that a proxy takes: it takes CONNECT and plain HTTP".to_owned()
            }
            Verdict::Denied(Refusal::OtherHost) => {
                format!("a request to {host}:{port} has another `Host`, or several")
            }
            Verdict::Denied(Refusal::NoTls) => {
                format!("what was sent to {host}:{port} is no TLS: through a tunnel nothing else goes")
            }
            Verdict::Denied(Refusal::OtherName) => {
                format!("TLS to {host}:{port} names another host, or none")
            }
            Verdict::Denied(Refusal::PrivateAddress) => format!(
                "{host} leads to an address that is not a public one, or is the orchestrator's own: its owner can name \
                 the host in `allow_private`"
            ),
            Verdict::Denied(Refusal::Undecided) => {
                format!("nobody can tell now whether {host}:{port} is allowed: ask again")
            }
            Verdict::Failed(Failing::Unresolved) => format!("{host} cannot be resolved"),
            Verdict::Failed(Failing::Unreachable) => format!("{host}:{port} cannot be reached"),
        }
    }
}

/// Where a request wants to go.
pub(super) fn target(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Target, Asked> {
    let Some(authority) = uri.authority().map(http::uri::Authority::as_str) else {
        return Err(Asked::bad("", Refusal::BadRequest));
    };
    let usual = if *method == Method::CONNECT { None } else { Some(HTTP_PORT) };
    let target = Target::parse(authority, usual).map_err(|_| Asked::bad(authority, Refusal::NotAName))?;
    if usual.is_some() {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(Asked::bad(authority, Refusal::BadRequest));
        }
        if !names(headers, &target) {
            return Err(Asked::of(&target, Verdict::Denied(Refusal::OtherHost)));
        }
    }
    Ok(target)
}

/// Whether the request says the same to whom it is for.
fn names(headers: &HeaderMap, target: &Target) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let same = |host: &http::HeaderValue| {
        host.to_str().is_ok_and(|host| Target::parse(host, Some(HTTP_PORT)).as_ref() == Ok(target))
    };
    hosts.next().is_none_or(same) && hosts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, hosts: &[&str]) -> Result<String, (String, Refusal)> {
        let (method, uri) = line.split_once(' ').expect("two words");
        let headers = hosts.iter().map(|host| (HOST, host.parse().expect("a value"))).collect();
        let uri = uri.parse::<Uri>().map_err(|_| (uri.to_owned(), Refusal::BadRequest))?;
        match target(&method.parse().expect("a method"), &uri, &headers) {
            Ok(target) => Ok(target.to_string()),
            Err(Asked { host, verdict: Verdict::Denied(refusal), .. }) => Err((host, refusal)),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_target_is_what_the_first_line_says_if_the_host_says_the_same() {
        assert_eq!(asked("CONNECT A.test:443", &["other.test"]), Ok("a.test:443".to_owned()));
        for host in [&[][..], &["a.test"], &["A.TEST.:80"]] {
            assert_eq!(asked("GET http://a.test/x?y", host), Ok("a.test:80".to_owned()), "{host:?}");
        }
        assert_eq!(asked("PUT http://a.test:8080", &["a.test:8080"]), Ok("a.test:8080".to_owned()));
    }

    /// S20, S21.
    #[test]
    fn what_says_two_things_or_none_is_refused() {
        let refused = |line, hosts: &[&str]| asked(line, hosts).expect_err(line).1;
        for hosts in [&["b.test"][..], &["a.test:8080"], &["a.test", "a.test"], &["a.test, b.test"], &[""]] {
            assert_eq!(refused("GET http://a.test/", hosts), Refusal::OtherHost, "{hosts:?}");
        }
        for line in ["GET /x", "OPTIONS *", "GET https://a.test/", "GET ftp://a.test/", "CONNECT /x"] {
            assert_eq!(refused(line, &[]), Refusal::BadRequest, "{line}");
        }
        for line in [
            "CONNECT a.test",
            "CONNECT 127.0.0.1:443",
            "CONNECT [::1]:443",
            "CONNECT 2130706433:443",
            "CONNECT user@a.test:443",
            "CONNECT a.test:0",
            "GET http://user:word@a.test/",
            "GET http://0x7f.1/",
            "GET http://[::ffff:127.0.0.1]/",
        ] {
            assert_eq!(refused(line, &[]), Refusal::NotAName, "{line}");
        }
    }

    #[test]
    fn what_is_told_of_it_is_bounded_and_plain() {
        let long = format!("CONNECT {}:443", "a".repeat(5000));
        assert_eq!(asked(&long, &[]).expect_err("no name").0.len(), NAME_BYTES_MAX);
        for line in ["GET http://user:word@a.test:80/", "CONNECT user:wo@rd@a.test:80"] {
            assert_eq!(asked(line, &[]).expect_err("it names a user").0, "a.test:80", "{line}");
        }
        assert_eq!(Asked::bad("a\u{1b}[2Jb", Refusal::NotAName).host, "a\u{fffd}[2Jb");
    }
}
