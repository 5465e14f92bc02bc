//! What keeps web pages away: no page has business here, whichever browser of the owner's it is in.
//!
//! A page of another origin says so (`Origin`). One that had its own name lead to our address (DNS rebinding) is of
//! our origin, but still calls us by that name (`Host`): it must be an address, `localhost`, or a name that the owner
//! listed. On the unix socket the name is a word of the client's, and is not looked at.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Uri;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;

use super::problem::Problem;

/// What a port may be called.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    names: Arc<[String]>,
    /// Whether only this machine can come.
    loopback: bool,
}

impl Hosts {
    /// For a port that listens on `address` and is called by these names too.
    pub(crate) fn new(names: &[String], address: IpAddr) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { names, loopback: address.is_loopback() }
    }

    /// Behind a port that others can reach may be any address, since one that is translated on the way is not known
    /// here; no page can be at an address that leads here but ours.
    fn know(&self, host: &str) -> bool {
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if self.loopback => address.is_loopback(),
            Ok(address) => !address.is_unspecified(),
            Err(_) => {
                let host = host.to_ascii_lowercase();
                host == "localhost" || self.names.contains(&host)
            }
        }
    }

    /// Whether all that a request calls us is what we are called, and it calls us something.
    fn fit(&self, request: &Request) -> bool {
        let mut named = request.headers().get_all(HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else { return false };
        let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
        let fits = |authority: &Authority| {
            !authority.as_str().contains('@') && self.know(authority.host().trim_end_matches('.'))
        };
        host.as_ref().is_some_and(fits) && Uri::authority(request.uri()).is_none_or(fits)
    }
}

/// Refuses what a page asks for.
pub(super) async fn no_page(request: Request, next: Next) -> Response {
    match request.headers().contains_key(ORIGIN) {
        true => Problem::page().into_response(),
        false => next.run(request).await,
    }
}

/// Refuses what is meant for somebody else.
pub(super) async fn known(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    match hosts.fit(&request) {
        true => next.run(request).await,
        false => Problem::unknown_host().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(hosts: &[&str]) -> Request {
        let request = hosts.iter().fold(Request::get("/"), |request, host| request.header(HOST, *host));
        request.body(Body::empty()).expect("a request")
    }

    /// S39
    #[test]
    fn a_port_of_the_loopback_is_called_by_its_address_localhost_or_a_listed_name() {
        let hosts = Hosts::new(&["Box.example".to_owned()], "127.0.0.1".parse().expect("an address"));
        for host in [
            "127.0.0.1",
            "127.0.0.1:6293",
            "[::1]:1",
            "[::ffff:127.0.0.1]:6293",
            "localhost:6293",
            "LOCALHOST",
            "localhost.",
            "box.EXAMPLE:1",
        ] {
            assert!(hosts.fit(&request(&[host])), "{host}");
        }
        for host in [
            "evil.test",
            "evil.test:6293",
            "localhost.evil.test",
            "notlocalhost",
            "x.box.example",
            "127.0.0.1.evil.test",
            "0.0.0.0:6293",
            "[::]",
            "[::ffff:0.0.0.0]",
            "[::ffff:192.0.2.1]",
            "2130706433:6293",
            "0x7f.1",
            "192.0.2.1",
            "localhost@evil.test",
            "evil@localhost",
            "evil.test,localhost",
            "evil.test localhost",
            "",
            ":1",
        ] {
            assert!(!hosts.fit(&request(&[host])), "{host}");
        }
        assert!(!hosts.fit(&request(&[])) && !hosts.fit(&request(&["localhost", "localhost"])));
    }

    #[test]
    fn a_name_in_the_target_counts_as_well() {
        let hosts = Hosts::new(&[], "::1".parse().expect("an address"));
        for (uri, fits) in [("http://evil.test/", false), ("http://localhost/", true)] {
            let mut request = request(&["localhost"]);
            *request.uri_mut() = uri.parse().expect("a URI");
            assert_eq!(hosts.fit(&request), fits, "{uri}");
        }
    }

    #[test]
    fn a_port_that_others_reach_is_called_by_any_address() {
        let hosts = Hosts::new(&[], "0.0.0.0".parse().expect("an address"));
        for (host, fits) in [
            ("192.0.2.1:1", true),
            ("[2001:db8::1]", true),
            ("[::ffff:192.0.2.1]", true),
            ("0.0.0.0", false),
            ("[::ffff:0.0.0.0]", false),
            ("[::]:1", false),
            ("evil.test", false),
        ] {
            assert_eq!(hosts.fit(&request(&[host])), fits, "{host}");
        }
    }
}
