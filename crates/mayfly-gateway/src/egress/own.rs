//! The addresses of this host: of all its interfaces, as they are when it is asked.

#![expect(unsafe_code, reason = "the system's list of interfaces has no safe wrapper")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// All of them, by `getifaddrs(3)`.
pub(super) fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut first = ptr::null_mut();
    // SAFETY: it writes one pointer, to a list that is ours until it is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut addresses, mut at) = (Vec::new(), first);
    // SAFETY: each entry is valid or null, and so is what it points to, as long as the list is not freed.
    while let Some(entry) = unsafe { at.as_ref() } {
        // SAFETY: as above; an address is as long as its family says.
        addresses.extend(unsafe { address(entry.ifa_addr) });
        at = entry.ifa_next;
    }
    // SAFETY: it is the list of above, and nothing points into it any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(addresses)
}

/// The address, if it is one of IP.
///
/// # Safety
///
/// `at` is null, or points to an address of the family that it says.
unsafe fn address(at: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise, here and below.
    match libc::c_int::from(unsafe { at.as_ref() }?.sa_family) {
        libc::AF_INET => {
            let address = unsafe { at.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            let address = unsafe { at.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// S18: each of them is one that a socket of this host can have.
    #[test]
    fn the_addresses_of_this_host_are_its_own() {
        let own = addresses().expect("listed");
        assert!(own.contains(&Ipv4Addr::LOCALHOST.into()), "{own:?}");
        assert!(!own.contains(&Ipv4Addr::new(192, 0, 2, 1).into()), "{own:?}");
        for address in own.iter().filter(|address| address.is_ipv4()) {
            UdpSocket::bind((*address, 0)).unwrap_or_else(|error| panic!("{address}: {error}"));
        }
    }
}
