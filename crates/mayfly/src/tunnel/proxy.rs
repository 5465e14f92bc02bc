//! Which HTTP proxy the environment names for an orchestrator, by the custom of other programs.
//!
//! `HTTPS_PROXY` is for `https`, `http_proxy` for `http` (in lower case alone, as curl has it), `ALL_PROXY` for both;
//! `NO_PROXY` lists hosts that are reached without one: a name stands for what is below it too, `*` for all.

use mayfly_link::{Address, Endpoint, Proxy};

use crate::environment::Environment;
use crate::exit::Stop;

/// The proxy on the way to `endpoint`, if there is to be one.
pub(crate) fn proxy_for(endpoint: &Endpoint, environment: &Environment) -> Result<Option<Proxy>, Stop> {
    let (address, names): (&Address, &[&str]) = match endpoint {
        Endpoint::Unix(_) | Endpoint::Vsock(_) => return Ok(None),
        Endpoint::Tcp(address) => (address, &["http_proxy", "all_proxy", "ALL_PROXY"]),
        Endpoint::Tls { address, .. } => (address, &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
    };
    let set = names.iter().find_map(|name| Some((*name, environment.get(name)?)));
    let Some((name, value)) = set.filter(|_| !is_exempt(address.host(), environment)) else {
        return Ok(None);
    };
    let proxy = value.to_str().map(str::parse::<Proxy>).transpose();
    match proxy {
        Ok(Some(proxy)) => Ok(Some(proxy)),
        Ok(None) => Err(Stop::wrong(format!("{name} is not a text"))),
        Err(error) => Err(Stop::usage(anyhow::Error::new(error).context(format!("{name} cannot be used")))),
    }
}

fn is_exempt(host: &str, environment: &Environment) -> bool {
    let list = ["no_proxy", "NO_PROXY"].iter().find_map(|name| environment.get(name)?.to_str());
    let below = |name: &str| {
        let name = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        host == name || host.strip_suffix(&name).is_some_and(|rest| !name.is_empty() && rest.ends_with('.'))
    };
    list.is_some_and(|list| list.split(',').map(str::trim).any(|name| name == "*" || below(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_proxy<const N: usize>(to: &str, vars: [(&str, &str); N]) -> Option<bool> {
        let endpoint: Endpoint = to.parse().expect("an endpoint");
        proxy_for(&endpoint, &Environment::from(vars)).ok().map(|proxy| proxy.is_some())
    }

    #[test]
    fn the_environment_names_the_proxy_and_who_needs_none() {
        let proxy = "http://proxy.example:3128";
        assert_eq!(has_proxy("https://box.example", [("HTTPS_PROXY", proxy)]), Some(true));
        assert_eq!(has_proxy("https://box.example", [("https_proxy", "proxy.example:3128")]), Some(true));
        assert_eq!(has_proxy("https://box.example", [("http_proxy", proxy)]), Some(false));
        assert_eq!(has_proxy("http://box.example", [("http_proxy", proxy)]), Some(true));
        assert_eq!(has_proxy("http://box.example", [("HTTP_PROXY", proxy)]), Some(false));
        assert_eq!(has_proxy("unix:/run/s", [("ALL_PROXY", proxy)]), Some(false));
        for (list, exempt) in
            [("*", true), ("a.example, .example", true), ("box.example", true), ("ox.example", false)]
        {
            let vars = [("ALL_PROXY", proxy), ("NO_PROXY", list)];
            assert_eq!(has_proxy("https://box.example", vars), Some(!exempt), "{list}");
        }
    }

    /// S30: what is wrong with a proxy's address is said without its password.
    #[test]
    fn a_proxy_that_is_none_is_refused_by_its_variable() {
        let environment = Environment::from([("HTTPS_PROXY", "socks5://user:canary@proxy.example:1080")]);
        let stop = proxy_for(&"https://box.example".parse().expect("an endpoint"), &environment);
        let lines: Vec<String> =
            stop.expect_err("no HTTP proxy").lines().iter().map(ToString::to_string).collect();
        assert!(lines[0].contains("HTTPS_PROXY") && !lines[0].contains("canary"), "{lines:?}");
    }
}
