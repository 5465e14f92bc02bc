//! Git repositories elsewhere, as a user names them: `https://…`, `ssh://…`, `file://…` or `user@host:path`, and after a
//! `#` what is meant there.

use crate::environment::Environment;
use crate::exit::Stop;
use std::ffi::OsStr;

/// How a repository may be reached: not by what can be changed on its way.
const SCHEMES: [&str; 3] = ["https", "ssh", "file"];
/// What of the environment git needs to reach one as the user would.
const WAYS: [&str; 7] =
    ["SSH_AUTH_SOCK", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

/// A repository elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitUrl {
    /// Without what stands after `#`.
    pub(crate) url: String,
    /// That.
    pub(crate) after: Option<String>,
}

impl GitUrl {
    /// `None`: it is a path.
    pub(crate) fn read(text: &str) -> Result<Option<Self>, Stop> {
        match text.split_once("://") {
            Some((scheme, rest)) => check(scheme, rest)?,
            None if is_short_ssh(text) => {}
            None => return Ok(None),
        }
        if text.contains(|c: char| c.is_control() || c == ' ') {
            return Err(Stop::wrong("a git repository's URL has no spaces and no control characters"));
        }
        let (url, after) = match text.split_once('#') {
            Some((url, after)) => (url, Some(after.to_owned())),
            None => (text, None),
        };
        Ok(Some(Self { url: url.to_owned(), after }))
    }
}

/// The variables by which the user reaches others.
pub(crate) fn ways(environment: &Environment) -> Vec<(&str, &OsStr)> {
    WAYS.iter().filter_map(|name| Some((*name, environment.get(name)?))).collect()
}

/// `user@host:path`, as git has it for ssh.
fn is_short_ssh(text: &str) -> bool {
    let Some((host, path)) = text.split_once(':') else { return false };
    let user = host.split_once('@').map(|(user, _)| user);
    user.is_some_and(|user| !user.is_empty() && !user.starts_with('-'))
        && !host.contains('/')
        && !path.is_empty()
}

fn check(scheme: &str, rest: &str) -> Result<(), Stop> {
    if !SCHEMES.contains(&scheme) {
        return Err(Stop::wrong(format!(
            "a git repository is reached by https://, ssh:// or file://, and not by `{}`",
            scheme.escape_debug()
        )));
    }
    if has_secret(scheme, rest) {
        return Err(Stop::wrong(
            "a git repository's URL holds no password and no token, which every program here could see: reach it by ssh://, \
             or by https:// with a credential helper of your git, or clone it yourself and name the folder",
        ));
    }
    Ok(())
}

/// Whether what stands before a URL's host may be a secret; for ssh a name alone is none.
fn has_secret(scheme: &str, rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| scheme != "ssh" || user.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_elsewhere_is_told_from_a_path() {
        let read = |text: &str| GitUrl::read(text).ok();
        let of = |url: &str, after: Option<&str>| {
            Some(Some(GitUrl { url: url.to_owned(), after: after.map(str::to_owned) }))
        };
        for path in ["./a#b", "a/b@c:d", "a:b", "@x:y", "-o@x:y", "x@y:"] {
            assert_eq!(read(path), Some(None), "{path}");
        }
        assert_eq!(read("https://x.example/a.git"), of("https://x.example/a.git", None));
        assert_eq!(read("https://x.example/a#b#c"), of("https://x.example/a", Some("b#c")));
        assert_eq!(read("ssh://git@x.example/a#main"), of("ssh://git@x.example/a", Some("main")));
        assert_eq!(read("git@x.example:me/a.git#v1"), of("git@x.example:me/a.git", Some("v1")));
        for url in ["http://x.example/a", "git://x.example/a", "ext::sh -c x://", "https://x.example/a\nb"] {
            assert_eq!(read(url), None, "{url}");
        }
    }

    #[test]
    fn a_url_with_a_secret_is_refused_and_not_shown() {
        for url in [
            "https://me:canary-1@x.example/a",
            "https://canary-1@x.example/a",
            "ssh://git:canary-1@x.example/a#../b",
        ] {
            let lines = format!("{:?}", GitUrl::read(url).expect_err("refused").lines());
            assert!(lines.contains("no password") && !lines.contains("canary"), "{lines}");
        }
        assert!(GitUrl::read("https://x.example/a@b:c#d@e").is_ok());
    }
}
