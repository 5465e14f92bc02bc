//! Where else than on its socket an orchestrator is to be reached, and how it tells so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use mayfly_server::{Server, ServerConfig, Tls};

use crate::config::Settings;
use crate::exit::Stop;
use crate::values::HostNames;

/// Where the API is served unless another address was asked for: "MAYF" on a telephone.
pub(crate) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6293);

/// Sets where to listen and what to show there; `usual` is whether also if nobody asked.
pub(crate) fn set(config: &mut ServerConfig, settings: &Settings, usual: bool) -> Result<(), Stop> {
    let values = &settings.values;
    let asked = values.listen.as_ref().map(|given| given.value);
    config.listen = asked.or(usual.then_some(LISTEN));
    config.listen_without_tls = values.listen_without_tls.value;
    let names = values.host_names.as_ref().map(|given| given.value.clone());
    config.host_names = names.map(|HostNames(names)| names).unwrap_or_default();
    config.tls = tls(settings)?;
    config.check_listen().map_err(Stop::usage)
}

/// Half of a certificate is none, and two are one too many.
fn tls(settings: &Settings) -> Result<Option<Tls>, Stop> {
    let values = &settings.values;
    let cert = values.tls_cert.as_ref().map(|given| given.value.clone());
    let key = values.tls_key.as_ref().map(|given| given.value.clone());
    match (&values.tls, cert, key) {
        (None, None, None) => Ok(None),
        (Some(_), None, None) => Ok(Some(Tls::SelfSigned)),
        (None, Some(cert), Some(key)) => Ok(Some(Tls::Files { cert, key })),
        (Some(_), ..) => Err(Stop::wrong(
            "there is a certificate (--tls-cert, --tls-key) and one of its own is asked for (--tls): choose one, in the \
             flags and in mayfly.toml",
        )),
        (None, Some(_), None) => Err(Stop::wrong("a certificate (--tls-cert) needs its key: --tls-key FILE")),
        (None, None, Some(_)) => Err(Stop::wrong("a key (--tls-key) needs its certificate: --tls-cert FILE")),
    }
}

/// What to tell of the address beside the socket; `host` is what it is called.
pub(crate) fn words(server: &Server, host: Option<&str>) -> String {
    let Some(address) = server.listening() else { return String::new() };
    told(address, server.tls(), &server.token_file(), server.fingerprint(), host)
}

fn told(
    address: SocketAddr,
    tls: bool,
    token: &Path,
    fingerprint: Option<&str>,
    host: Option<&str>,
) -> String {
    let scheme = if tls { "https" } else { "http" };
    let token = token.display();
    let listening = format!("       and {scheme}://{address}, with the token in {token}\n");
    let Some(fingerprint) = fingerprint else { return listening };
    let port = address.port();
    let at = match host {
        Some(host) => format!("{host}:{port}"),
        None if address.ip().is_unspecified() => format!("HOST:{port}"),
        None => address.to_string(),
    };
    let named = match host {
        None if address.ip().is_unspecified() => {
            "       where HOST is an IP address of this machine, or a name that --host-names has\n"
        }
        _ => "",
    };
    format!(
        "{listening}       another machine, with a token of `mayfly token add`, takes:\n       \
         mayfly tunnel --to 'https://{at}#{fingerprint}' --token-file FILE\n{named}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use crate::values::SelfSigned;

    #[test]
    fn half_of_a_certificate_is_none_and_two_are_too_many() {
        let file = || Some("/f".into());
        let tls = |tls, tls_cert, tls_key| {
            let settings = Settings::of(Flags { tls, tls_cert, tls_key, ..Flags::default() });
            let mut config = ServerConfig::in_dir("/d");
            set(&mut config, &settings, false)
                .map(|()| config.tls)
                .map_err(|stop| stop.into_error().to_string())
        };
        assert_eq!(tls(None, None, None), Ok(None));
        assert_eq!(tls(Some(SelfSigned), None, None), Ok(Some(Tls::SelfSigned)));
        let files = Tls::Files { cert: "/f".into(), key: "/f".into() };
        assert_eq!(tls(None, file(), file()), Ok(Some(files)));
        for (own, cert, key, word) in [
            (None, file(), None, "needs its key"),
            (None, None, file(), "needs its certificate"),
            (Some(SelfSigned), file(), file(), "choose one"),
            (Some(SelfSigned), None, file(), "choose one"),
        ] {
            let error = tls(own, cert, key).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn another_machine_is_told_what_to_type() {
        let print = Some("sha256:00");
        let told = |address: &str, fingerprint, host| {
            told(
                address.parse().expect("an address"),
                fingerprint == print,
                Path::new("/d/token"),
                fingerprint,
                host,
            )
        };
        let all = [
            told("127.0.0.1:6293", None, None),
            told("0.0.0.0:6293", print, None),
            told("0.0.0.0:6293", print, Some("box.example")),
            told("[2001:db8::1]:1", print, None),
        ];
        insta::assert_snapshot!(all.concat());
    }
}
