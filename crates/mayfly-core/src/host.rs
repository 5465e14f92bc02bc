//! Names of hosts, and which of them a rule means: label by label, never by how a text begins or ends.
//!
//! ```text
//! a.example          ports 443 and 80 of a.example        a.example:8443     that port of it alone
//! *.a.example        the same of all names below it, at any depth, and not of a.example itself
//! ```
//!
//! A [`Host`] is a name and never an address, in whichever way that may be written: what ends in a number is none.
//! It is kept in one form, in lower case and without the dot of the root. Names of other scripts come as `xn--`
//! labels, as they are on the wire; they are compared as such.
//!
//! Bounds: those of the DNS, [`NAME_BYTES_MAX`] and [`LABEL_BYTES_MAX`].

use std::fmt;
use std::str::FromStr;

/// The longest name.
pub const NAME_BYTES_MAX: usize = 253;
/// The longest label of a name.
pub const LABEL_BYTES_MAX: usize = 63;
/// The ports of a rule that names none.
pub const USUAL_PORTS: [u16; 2] = [443, 80];

/// The name of a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

/// Somewhere to go: a host, and one port of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its name.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// Where one may go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    host: Host,
    /// Whether it is about the names below `host`, and not about that itself.
    below: bool,
    /// None: the [`USUAL_PORTS`].
    port: Option<u16>,
}

/// Why a text is no host, no target or no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// An address, in one of the ways to write one.
    #[error("an address is none: name the host, such as example.com")]
    Address,
    /// Something that no name has in it.
    #[error("a host is a name such as example.com, or example.com:8443, without a scheme, a user or a path")]
    Name,
    /// Letters beyond ASCII.
    #[error("a name in another script is written in its xn-- form")]
    Script,
    /// A port that does not exist.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// No port where one must be.
    #[error("the port is missing")]
    NoPort,
    /// A star that means too much, or not at the beginning.
    #[error("a star stands for all names below one, such as *.example.com: at least two labels follow it")]
    Star,
}

impl Host {
    /// Its one form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_below(&self, other: &Self) -> bool {
        self.0.strip_suffix(&other.0).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
    }
}

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        if !text.is_ascii() {
            return Err(BadHost::Script);
        }
        if text.contains(['[', ']', ':']) {
            return Err(BadHost::Address);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
            return Err(BadHost::Name);
        }
        match name.rsplit('.').next().is_some_and(is_number) {
            true => Err(BadHost::Address),
            false => Ok(Self(name)),
        }
    }
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether systems take what ends in this label for an address: decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || label.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// Reads `host:port`, or `host` alone where `usual` says which port that means.
    pub fn parse(authority: &str, usual: Option<u16>) -> Result<Self, BadHost> {
        let (host, port) = split(authority)?;
        Ok(Self { host: host.parse()?, port: port.or(usual).ok_or(BadHost::NoPort)? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Rule {
    /// Whether one may go there.
    pub fn allows(&self, target: &Target) -> bool {
        let port = match self.port {
            Some(port) => target.port == port,
            None => USUAL_PORTS.contains(&target.port),
        };
        let host = match self.below {
            true => target.host.is_below(&self.host),
            false => target.host == self.host,
        };
        port && host
    }
}

impl FromStr for Rule {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        let (name, port) = split(text)?;
        let below = name.strip_prefix("*.");
        let host = below.unwrap_or(name);
        let wide = below.is_some_and(|below| !below.trim_end_matches('.').contains('.'));
        match wide || host.contains('*') {
            true => Err(BadHost::Star),
            false => Ok(Self { host: host.parse()?, below: below.is_some(), port }),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.below { "*." } else { "" };
        write!(f, "{star}{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The name and the port, if there is one.
fn split(text: &str) -> Result<(&str, Option<u16>), BadHost> {
    let Some((name, port)) = text.split_once(':') else { return Ok((text, None)) };
    if name.starts_with('[') || port.contains(':') {
        return Err(BadHost::Address);
    }
    let plain = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port @ 1..) if plain && !text.contains(":0") => Ok((name, Some(port))),
        _ => Err(BadHost::Port),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn target(text: &str) -> Target {
        Target::parse(text, Some(443)).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// S21: a name is compared label by label, whatever another begins or ends with.
    #[test]
    fn a_rule_means_its_own_name_alone() {
        let own = rule("api.example.test");
        for same in ["api.example.test", "API.Example.TEST", "api.example.test.", "api.example.test:80"] {
            assert!(own.allows(&target(same)), "{same}");
        }
        for other in [
            "api.example.test.evil.test",
            "evilapi.example.test",
            "evil.api.example.test",
            "example.test",
            "api-example.test",
            "api.example.test:8443",
            "xn--api-example.test",
            "api.example.tes",
        ] {
            assert!(!own.allows(&target(other)), "{other}");
        }
    }

    /// S21: a star is about what is below a name, and not about the name.
    #[test]
    fn a_star_means_what_is_below() {
        let star = rule("*.example.test:443");
        for below in ["a.example.test", "b.a.example.test", "A.EXAMPLE.TEST."] {
            assert!(star.allows(&target(below)), "{below}");
        }
        for other in ["example.test", "aexample.test", "a.example.test:80", "example.test.a.test"] {
            assert!(!star.allows(&target(other)), "{other}");
        }
        for bad in ["*", "*.", "*.test", "*.*.test", "a.*.test", "*a.example.test", "a*.example.test"] {
            assert_eq!(bad.parse::<Rule>(), Err(BadHost::Star), "{bad}");
        }
    }

    /// S20, S21: an address is no host, in whichever way it is written.
    #[test]
    fn no_address_is_a_name() {
        for address in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0X7F.0.0.0x1",
            "017700000001",
            "0177.0.0.1",
            "1.2.3.4.",
            "a.0x",
            "[::1]",
            "::1",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]:80",
            "fe80::1",
            "169.254.169.254:80",
        ] {
            for read in [address.parse::<Rule>().map(drop), Target::parse(address, Some(80)).map(drop)] {
                assert_eq!(read, Err(BadHost::Address), "{address}");
            }
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_part_that_is_wrong() {
        let long = format!("{}.test", "a".repeat(LABEL_BYTES_MAX + 1));
        let longer = "a.".repeat(NAME_BYTES_MAX / 2 + 1) + "test";
        for (text, wrong) in [
            ("", BadHost::Name),
            (".", BadHost::Name),
            ("a..test", BadHost::Name),
            (".a.test", BadHost::Name),
            ("a.test..", BadHost::Name),
            ("-a.test", BadHost::Name),
            ("a-.test", BadHost::Name),
            ("user@a.test", BadHost::Name),
            ("a.test@evil.test", BadHost::Name),
            ("http://a.test", BadHost::Port),
            ("a.test/x", BadHost::Name),
            ("a.test?x", BadHost::Name),
            ("a.test#x", BadHost::Name),
            ("a b.test", BadHost::Name),
            ("a.test\n", BadHost::Name),
            ("a.test\0", BadHost::Name),
            ("a%2etest", BadHost::Name),
            (&long, BadHost::Name),
            (&longer, BadHost::Name),
            ("ä.test", BadHost::Script),
            ("а.test", BadHost::Script),
            ("a.test。", BadHost::Script),
            ("a.test:", BadHost::Port),
            ("a.test:0", BadHost::Port),
            ("a.test:0443", BadHost::Port),
            ("a.test:+443", BadHost::Port),
            ("a.test:65536", BadHost::Port),
            ("a.test:443x", BadHost::Port),
            ("user:word@a.test", BadHost::Port),
        ] {
            assert_eq!(text.parse::<Rule>(), Err(wrong), "{text}");
            assert_eq!(Target::parse(text, Some(443)), Err(wrong), "{text}");
        }
        assert_eq!(Target::parse("a.test", None), Err(BadHost::NoPort));
    }

    #[test]
    fn the_usual_ports_are_those_of_the_web() {
        let allowed = |text, at: &str| rule(text).allows(&target(at));
        assert!(allowed("a.test", "a.test:80") && allowed("a.test", "a.test:443"));
        assert!(!allowed("a.test", "a.test:22") && !allowed("a.test", "a.test:8080"));
        assert!(allowed("a.test:22", "a.test:22") && !allowed("a.test:22", "a.test:443"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_in_one_form_that_reads_back(text in "\\PC{0,40}|(\\*\\.)?[a-zA-Z0-9.-]{1,30}(:[0-9]{1,6})?") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            }
            if let Ok(target) = Target::parse(&text, Some(443)) {
                prop_assert_eq!(Target::parse(&target.to_string(), None), Ok(target));
            }
        }

        #[test]
        fn a_rule_of_one_name_allows_no_other(name in "[a-c.]{1,9}", other in "[a-c.]{1,9}") {
            let (Ok(rule), Ok(target)) = (name.parse::<Rule>(), Target::parse(&other, Some(443))) else { return Ok(()) };
            prop_assert_eq!(rule.allows(&target), name.trim_end_matches('.') == other.trim_end_matches('.'));
        }
    }
}
