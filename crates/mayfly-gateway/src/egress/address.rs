//! Which addresses are public, which an owner can allow all the same, and which nobody is sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Of the internet.
    Public,
    /// Of this host, or of a network that it is in.
    Private,
    /// Of the link, such as where clouds answer with credentials; of many hosts at once; of another address in
    /// disguise; of nobody.
    Never,
}

/// Where clouds answer with credentials, outside the ranges for such.
const METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// The same in IPv6: the first 32 bits.
const METADATA_6: u128 = 0xfd00_0ec2;

/// The scope of an address.
pub(super) fn scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(address) => scope_4(address),
        IpAddr::V6(address) => scope_6(address),
    }
}

fn scope_4(address: Ipv4Addr) -> Scope {
    if METADATA.contains(&address) {
        return Scope::Never;
    }
    match address.octets() {
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Scope::Private,
        // This network, many hosts, reserved, the link, protocol assignments, documentation, 6to4 relays, measuring.
        [0 | 224..=255, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Scope::Never,
        _ => Scope::Public,
    }
}

fn scope_6(address: Ipv6Addr) -> Scope {
    let bits = u128::from(address);
    let begins = |prefix: u128, length: u32| bits >> (128 - length) == prefix;
    if begins(METADATA_6, 32) {
        return Scope::Never;
    }
    if address == Ipv6Addr::LOCALHOST || begins(0b111_1110, 7) {
        return Scope::Private;
    }
    // 6to4, and what begins with 2001::/23: Teredo among it; documentation.
    let disguised = begins(0x2002, 16) || begins(0x2001_0000 >> 9, 23);
    let documentation = begins(0x2001_0db8, 32) || begins(0x3_fff0, 20);
    match begins(0b001, 3) && !disguised && !documentation {
        true => Scope::Public,
        // Mapped and compatible IPv4, NAT64, the link, many hosts, all that is not handed out.
        false => Scope::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Scope {
        scope(text.parse().unwrap_or_else(|_| panic!("{text}")))
    }

    /// S18.
    #[test]
    fn only_the_internet_is_public() {
        for public in ["1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.0.1", "172.32.0.1", "192.0.1.1"] {
            assert_eq!(of(public), Scope::Public, "{public}");
        }
        for public in
            ["100.63.255.255", "100.128.0.0", "223.255.255.255", "2606:4700::1", "2a00::1", "2001:200::1"]
        {
            assert_eq!(of(public), Scope::Public, "{public}");
        }
        for private in ["127.0.0.1", "127.255.255.255", "10.0.0.1", "172.16.0.1", "172.31.255.255"] {
            assert_eq!(of(private), Scope::Private, "{private}");
        }
        for private in ["192.168.0.1", "100.64.0.1", "100.127.255.255", "::1", "fc00::1", "fdaa::3"] {
            assert_eq!(of(private), Scope::Private, "{private}");
        }
    }

    /// S18: what no owner can allow.
    #[test]
    fn the_link_and_addresses_in_disguise_are_for_nobody() {
        for never in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "5f00::1",
            "4000::1",
        ] {
            assert_eq!(of(never), Scope::Never, "{never}");
        }
    }
}
