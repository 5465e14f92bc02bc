//! The loopback interface, which a machine that has just started has down.

use std::io;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`, `IFF_UP` and `NLMSG_ERROR`, as rtnetlink(7) and netlink(7) have them.
const NEW_LINK: u16 = 16;
const REQUEST_WITH_ANSWER: u16 = 1 | 4;
const UP: u32 = 1;
const ERROR: u16 = 2;
/// The first interface of every network namespace.
const LOOPBACK: i32 = 1;
/// A header of netlink, and one of a link.
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = 2 * HEADER_BYTES;

/// Asks the kernel for it, and reads its answer.
pub(super) fn bring_up() -> io::Result<()> {
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sendto(&socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 4096];
    let (_, read) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answered(&answer[..read])
}

fn request() -> Vec<u8> {
    let length = u32::try_from(REQUEST_BYTES).expect("a few bytes");
    let header = [&length.to_ne_bytes()[..], &NEW_LINK.to_ne_bytes(), &REQUEST_WITH_ANSWER.to_ne_bytes()];
    let numbers = [1_u32.to_ne_bytes(), 0_u32.to_ne_bytes()];
    let link = [[0; 4], LOOPBACK.to_ne_bytes(), UP.to_ne_bytes(), UP.to_ne_bytes()];
    header
        .into_iter()
        .chain(numbers.iter().map(|number| &number[..]))
        .chain(link.iter().map(|part| &part[..]))
        .flatten()
        .copied()
        .collect()
}

/// The answer is an error's number, negated, and 0 if there was none.
fn answered(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let number = answer.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|bytes| bytes.try_into().ok());
    match (kind, number.map(i32::from_ne_bytes)) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(number)) => Err(Errno::from_raw_os_error(-number).into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_number() {
        let answer = |kind: u16, number: i32| {
            let mut answer = vec![0; 4];
            answer.extend(kind.to_ne_bytes());
            answer.resize(HEADER_BYTES, 0);
            answer.extend(number.to_ne_bytes());
            answered(&answer)
        };
        assert!(answer(ERROR, 0).is_ok());
        assert_eq!(answer(ERROR, -1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(answer(NEW_LINK, 0).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(answered(&[]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
