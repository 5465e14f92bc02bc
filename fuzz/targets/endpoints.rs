//! The names of orchestrators and proxies: no text makes their readers panic, and an endpoint reads back as it is
//! written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_link::Proxy;
use mayfly_wire::endpoint::Endpoint;

fuzz_target!(|text: &str| {
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint.clone()));
        let host = endpoint.host_header();
        assert!(!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()), "{host:?}");
    }
    let _ = text.parse::<Proxy>();
});
