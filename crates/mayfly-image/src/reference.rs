//! What an image is called in a registry: `HOST[:PORT]/NAME[/NAME…][:TAG]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What is meant without a tag.
const TAG: &str = "latest";
/// The longest tag, and the longest name with its slashes.
const TAG_BYTES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 255;

/// A place in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry, with its port if it has another than the usual one.
    pub host: String,
    /// The repository in it.
    pub repository: String,
    /// The name in that.
    pub tag: String,
}

impl Reference {
    /// Where the registry is asked: without TLS on this machine alone.
    pub(crate) fn base(&self) -> String {
        let scheme = if is_here(self.host.rsplit_once(':').map_or(&self.host, |(host, _)| host)) {
            "http"
        } else {
            "https"
        };
        format!("{scheme}://{}/v2/{}", self.host, self.repository)
    }
}

/// Whether a host is this machine.
pub(crate) fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl FromStr for Reference {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "expected a place in a registry such as registry.example/app:v1, in lower case";
        let (host, rest) = text.split_once('/').ok_or(EXPECTED)?;
        let (repository, tag) = rest.split_once(':').unwrap_or((rest, TAG));
        let is_host = host.contains(['.', ':']) || host == "localhost";
        let plain_host =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
        let is_host = is_host && host.bytes().all(plain_host) && !host.starts_with([':', '-', '.']);
        let is_tag = tag.len() <= TAG_BYTES_MAX
            && tag.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        match is_host && is_tag && repository.len() <= NAME_BYTES_MAX && repository.split('/').all(is_name) {
            true => {
                Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag: tag.to_owned() })
            }
            false => Err(EXPECTED),
        }
    }
}

fn is_name(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [part.bytes().next(), part.bytes().last()];
    ends.into_iter().all(|byte| byte.is_some_and(plain))
        && part.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, tag } = self;
        write!(f, "{host}/{repository}:{tag}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_registry_is_read_in_its_parts() {
        for (text, host, repository, tag) in [
            ("registry.example/app", "registry.example", "app", "latest"),
            ("registry.example:5000/team/app:v1.2", "registry.example:5000", "team/app", "v1.2"),
            ("localhost/a:b", "localhost", "a", "b"),
            ("[::1]:5000/a-b_c", "[::1]:5000", "a-b_c", "latest"),
        ] {
            let read: Reference = text.parse().expect(text);
            assert_eq!((&*read.host, &*read.repository, &*read.tag), (host, repository, tag));
        }
        let digest = format!("registry.example/a@sha256:{}", "a".repeat(64));
        for bad in [
            "app",
            "app/x",
            "registry.example/",
            "registry.example/A",
            "registry.example/a/../b",
            "registry.example/a:",
            "https://registry.example/a",
            "user@registry.example/a",
            "registry.example//a",
            ":5000/a",
            "r.example/a:-x",
            "r.example/-a",
            &digest,
        ] {
            bad.parse::<Reference>().expect_err(bad);
        }
    }

    #[test]
    fn a_registry_is_asked_without_tls_on_this_machine_alone() {
        for (text, base) in [
            ("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a"),
            ("localhost:1/a", "http://localhost:1/v2/a"),
            ("[::1]:5000/a", "http://[::1]:5000/v2/a"),
            ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/a"),
            ("localhost.example/a", "https://localhost.example/v2/a"),
        ] {
            assert_eq!(text.parse::<Reference>().expect(text).base(), base);
        }
    }
}
