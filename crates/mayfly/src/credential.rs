//! The owner's credential for the model: which one a task uses, and that it is what it should be.
//!
//! ```text
//! --credential NAME ──► the environment ──► `credential` in [task] ──► the pool's `default`, or its only one
//! ```
//!
//! Of several in the environment the first is used, in this order, and the user is told which:
//!
//! 1. `ANTHROPIC_AUTH_TOKEN`, a gateway's own token, which needs `ANTHROPIC_BASE_URL`
//! 2. `CLAUDE_CODE_OAUTH_TOKEN`, from `claude setup-token`
//! 3. `ANTHROPIC_API_KEY`
//!
//! `ANTHROPIC_BASE_URL` says where any of them goes. Nothing here repeats a value in a message.

use mayfly_wire::api::{Credential, CredentialKind, PooledCredential};
use mayfly_wire::secret::Secret;

use crate::config::{Settings, Source};
use crate::contact::Contact;
use crate::environment::Environment;
use crate::exit::Stop;
use crate::printer::Printer;
use crate::values;

const AUTH_TOKEN: &str = "ANTHROPIC_AUTH_TOKEN";
const OAUTH_TOKEN: &str = "CLAUDE_CODE_OAUTH_TOKEN";
const API_KEY: &str = "ANTHROPIC_API_KEY";
const BASE_URL: &str = "ANTHROPIC_BASE_URL";

/// Each variable with the kind of what it holds; the first that is set is used.
const PLACES: [(&str, CredentialKind); 3] = [
    (AUTH_TOKEN, CredentialKind::Bearer),
    (OAUTH_TOKEN, CredentialKind::OauthToken),
    (API_KEY, CredentialKind::ApiKey),
];

/// What a secret can be instead of what its variable is for.
const AN_API_KEY: &str = "an API key";
const AN_OAUTH_TOKEN: &str = "an OAuth token";

/// The longest credential, in bytes.
pub(crate) const SECRET_BYTES_MAX: usize = 8 * 1024;

/// A credential and where it was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The credential.
    pub(crate) credential: Credential,
    /// What to tell the user about it, if there was a choice.
    pub(crate) note: Option<String>,
}

/// The credential of this environment.
pub(crate) fn find(environment: &Environment) -> Result<Found, BadCredential> {
    let set: Vec<_> = PLACES.into_iter().filter(|(name, _)| environment.get(name).is_some()).collect();
    let &(name, kind) = set.first().ok_or(BadCredential::None)?;
    let base_url = base_url(environment)?;
    if kind == CredentialKind::Bearer && base_url.is_none() {
        return Err(BadCredential::NoBaseUrl);
    }
    let secret = secret(environment, name, kind)?;
    let others: Vec<&str> = set[1..].iter().map(|(name, _)| *name).collect();
    let note = (!others.is_empty()).then(|| format!("using {name}; {} is not used", others.join(" and ")));
    Ok(Found { credential: Credential::new(kind, secret, base_url), note })
}

fn secret(
    environment: &Environment,
    name: &'static str,
    kind: CredentialKind,
) -> Result<Secret, BadCredential> {
    let text = text(environment, name)?.unwrap_or_default();
    let wrong = |is, instead| Err(BadCredential::WrongKind { name, is, instead });
    match kind {
        _ if text.len() > SECRET_BYTES_MAX => return Err(BadCredential::TooLong { name }),
        _ if text.starts_with("sk-ant-ort") => {
            return wrong(
                "a refresh token",
                "run `claude setup-token` and put what it prints into CLAUDE_CODE_OAUTH_TOKEN",
            );
        }
        CredentialKind::OauthToken if text.starts_with("sk-ant-api") => {
            return wrong(AN_API_KEY, "put it into ANTHROPIC_API_KEY");
        }
        CredentialKind::ApiKey if text.starts_with("sk-ant-oat") => {
            return wrong(AN_OAUTH_TOKEN, "put it into CLAUDE_CODE_OAUTH_TOKEN");
        }
        _ => {}
    }
    Ok(Secret::from(text))
}

fn base_url(environment: &Environment) -> Result<Option<String>, BadCredential> {
    let Some(url) = text(environment, BASE_URL)? else { return Ok(None) };
    values::base_url(&url).map(Some).map_err(|_| BadCredential::BadBaseUrl)
}

/// The value of a variable that can stand in a header: printable ASCII without spaces.
fn text(environment: &Environment, name: &'static str) -> Result<Option<String>, BadCredential> {
    let Some(value) = environment.get(name) else { return Ok(None) };
    match value.to_str() {
        Some(text) if text.chars().all(|c| c.is_ascii_graphic()) => Ok(Some(text.to_owned())),
        Some(text) if text.chars().any(char::is_whitespace) => Err(BadCredential::Space { name }),
        _ => Err(BadCredential::NotPlain { name }),
    }
}

/// What a task is to use that says nothing of a credential.
#[derive(Debug)]
pub(crate) enum Choice {
    /// That of the environment.
    Own(Found),
    /// That of this name in the orchestrator's pool, or whichever the pool has for those that name none.
    Pool(Option<String>),
}

/// The flag comes before the environment, and that before the configuration's name.
pub(crate) fn choose(settings: &Settings, environment: &Environment) -> Result<Choice, BadCredential> {
    let named = settings.values.credential.as_ref();
    if let Some(given) = named.filter(|given| given.from == Source::Flag) {
        return Ok(Choice::Pool(Some(given.value.clone())));
    }
    match find(environment) {
        Ok(mut found) => {
            found.credential.mode = settings.values.credential_mode.value;
            Ok(Choice::Own(found))
        }
        Err(BadCredential::None) => Ok(Choice::Pool(named.map(|given| given.value.clone()))),
        Err(error) => Err(error),
    }
}

/// Checks that the pool has what tasks want of it, by their names; none is for one that names none.
pub(crate) async fn check_pool(
    contact: &Contact,
    printer: &mut Printer,
    wanted: impl IntoIterator<Item = Option<&str>>,
) -> Result<(), Stop> {
    let mut wanted = wanted.into_iter().peekable();
    if wanted.peek().is_none() {
        return Ok(());
    }
    let pool = contact.ask(printer, async |client| client.credentials().await).await?;
    let pool: Vec<_> = pool.iter().filter(|pooled| is_for_model(pooled)).collect();
    let has = |name: &str| pool.iter().any(|pooled| pooled.name == name);
    for wanted in wanted {
        match wanted {
            Some(name) if has(name) => {}
            Some(name) => return Err(Stop::usage(BadCredential::NotInPool { name: name.to_owned() })),
            None if pool.len() == 1 || has("default") => {}
            None if pool.is_empty() => return Err(Stop::usage(BadCredential::None)),
            None => return Err(Stop::usage(BadCredential::Several)),
        }
    }
    Ok(())
}

/// Whether a task can use it for the model.
pub(crate) fn is_for_model(pooled: &PooledCredential) -> bool {
    pooled.about.as_ref().is_none_or(|about| about.kind != CredentialKind::Secret)
}

/// The kind of a secret that goes into the pool: as it was said, if the secret does not look like another, or as it
/// looks; what goes to an address of its own and looks like nothing is its gateway's.
pub(crate) fn kind_of(
    said: Option<CredentialKind>,
    secret: &Secret,
    has_base_url: bool,
) -> Result<CredentialKind, BadSecret> {
    use CredentialKind::{ApiKey, Bearer, OauthToken};
    let text = secret.expose();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadSecret::NotPlain);
    }
    let looks = match text {
        _ if said == Some(CredentialKind::Secret) => None,
        _ if text.starts_with("sk-ant-ort") => return Err(BadSecret::RefreshToken),
        _ if text.starts_with("sk-ant-oat") => Some(OauthToken),
        _ if text.starts_with("sk-ant-api") => Some(ApiKey),
        _ => None,
    };
    match (said, looks) {
        (Some(OauthToken), Some(ApiKey)) => Err(BadSecret::WrongKind { is: AN_API_KEY }),
        (Some(ApiKey), Some(OauthToken)) => Err(BadSecret::WrongKind { is: AN_OAUTH_TOKEN }),
        (Some(Bearer), _) if !has_base_url => Err(BadSecret::NoBaseUrl),
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) if has_base_url => Ok(Bearer),
        (None, None) => Err(BadSecret::Unknown),
    }
}

/// Why a secret cannot go into the pool. No text repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSecret {
    #[error("the secret has characters that none has, such as spaces: give the bare value, on one line")]
    NotPlain,
    #[error(
        "the secret is a refresh token, which mayfly never uses: run `claude setup-token` and give what it prints"
    )]
    RefreshToken,
    #[error("the secret looks like {is}: leave out --kind")]
    WrongKind { is: &'static str },
    #[error("a gateway's own token needs the gateway: say --base-url URL")]
    NoBaseUrl,
    #[error(
        "the secret looks like none of Anthropic's: say --kind oauth-token or api-key, or --base-url URL of a gateway"
    )]
    Unknown,
}

/// Why there is no credential to use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCredential {
    #[error(
        "no credential for the model. Set one of:\n  \
         CLAUDE_CODE_OAUTH_TOKEN   run `claude setup-token` and export what it prints\n  \
         ANTHROPIC_API_KEY         a key of the Anthropic API\n  \
         ANTHROPIC_BASE_URL and ANTHROPIC_AUTH_TOKEN   a gateway of your own\n\
         Or keep one in the orchestrator's pool:\n  \
         mayfly credential add NAME   asks for it, and seals it on the disk\n\
         Or try `mayfly demo`, which needs none."
    )]
    None,
    #[error(
        "no credential `{name}` is in the pool: `mayfly credential ls` lists those that are, and `mayfly credential add {name}` adds it"
    )]
    NotInPool { name: String },
    #[error(
        "the pool has several credentials, and none of them is called `default`: choose one with --credential NAME; `mayfly credential ls` lists them"
    )]
    Several,
    #[error(
        "ANTHROPIC_AUTH_TOKEN is a gateway's token: set ANTHROPIC_BASE_URL to the gateway too, or unset it"
    )]
    NoBaseUrl,
    #[error("ANTHROPIC_BASE_URL is not a URL such as https://gateway.example: correct it, or unset it")]
    BadBaseUrl,
    #[error("{name} holds {is}: {instead}")]
    WrongKind { name: &'static str, is: &'static str, instead: &'static str },
    #[error("{name} has white space or a newline in it: set it again to the bare value, on one line")]
    Space { name: &'static str },
    #[error("{name} has characters that no such value has: set it again, to exactly what you were given")]
    NotPlain { name: &'static str },
    #[error("{name} is too long for what it should be: set it again, to exactly what you were given")]
    TooLong { name: &'static str },
}

impl BadCredential {
    /// The command that puts it right: without a credential no task runs, so one that is only in the wrong place is
    /// moved.
    pub(crate) fn fix(&self) -> Option<String> {
        Some(match self {
            Self::None | Self::NotInPool { .. } | Self::Several => return None,
            Self::NoBaseUrl => {
                format!("export {BASE_URL}=...   # the gateway, such as https://gateway.example")
            }
            Self::BadBaseUrl => format!("unset {BASE_URL}"),
            Self::WrongKind { name, is: AN_API_KEY, .. } => moved(name, API_KEY),
            Self::WrongKind { name, is: AN_OAUTH_TOKEN, .. } => moved(name, OAUTH_TOKEN),
            Self::WrongKind { name, .. } => {
                format!(
                    "claude setup-token\nunset {name}\nexport {OAUTH_TOKEN}=...   # the token that it prints"
                )
            }
            Self::Space { name } | Self::NotPlain { name } | Self::TooLong { name } => {
                format!("export {name}=...   # the bare value, on one line")
            }
        })
    }
}

fn moved(from: &str, to: &str) -> String {
    format!("export {to}=\"${from}\"\nunset {from}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: (&str, &str) = (BASE_URL, "https://gateway.example/");
    const OAUTH: (&str, &str) = (OAUTH_TOKEN, "sk-ant-oat01-made-up");
    const KEY: (&str, &str) = (API_KEY, "sk-ant-api03-made-up");

    fn kind<const N: usize>(vars: [(&str, &str); N]) -> Result<CredentialKind, BadCredential> {
        find(&Environment::from(vars)).map(|found| found.credential.kind)
    }

    #[test]
    fn each_variable_holds_its_kind() {
        assert_eq!(kind([OAUTH]), Ok(CredentialKind::OauthToken));
        assert_eq!(kind([KEY]), Ok(CredentialKind::ApiKey));
        assert_eq!(kind([GATEWAY, (AUTH_TOKEN, "anything")]), Ok(CredentialKind::Bearer));
        assert_eq!(kind([KEY, (OAUTH_TOKEN, "")]), Ok(CredentialKind::ApiKey), "empty is unset");
    }

    #[test]
    fn a_base_url_goes_with_any_of_them_and_loses_its_last_slash() {
        let found = find(&Environment::from([KEY, GATEWAY])).expect("a credential");
        assert_eq!(found.credential.base_url.as_deref(), Some("https://gateway.example"));
        for url in
            ["gateway.example", "ftp://x", "https://", "https:///x", "https://user:word@host", "file:///x"]
        {
            assert_eq!(kind([KEY, (BASE_URL, url)]), Err(BadCredential::BadBaseUrl), "{url}");
        }
    }

    #[test]
    fn of_several_the_first_is_used_and_the_user_is_told() {
        let found = find(&Environment::from([OAUTH, KEY])).expect("a credential");
        assert_eq!(found.credential.kind, CredentialKind::OauthToken);
        assert_eq!(
            found.note.as_deref(),
            Some("using CLAUDE_CODE_OAUTH_TOKEN; ANTHROPIC_API_KEY is not used")
        );
        assert_eq!(find(&Environment::from([OAUTH])).expect("a credential").note, None);
    }

    #[test]
    fn a_credential_of_the_wrong_kind_is_named_and_never_repeated() {
        let cases = [
            (OAUTH_TOKEN, "sk-ant-api03-canary", "an API key: put it into ANTHROPIC_API_KEY"),
            (API_KEY, "sk-ant-oat01-canary", "an OAuth token: put it into CLAUDE_CODE_OAUTH_TOKEN"),
            (OAUTH_TOKEN, "sk-ant-ort01-canary", "a refresh token"),
            (API_KEY, "sk-ant-api03-can\nary", "white space"),
            (API_KEY, " sk-ant-api03-canary", "white space"),
            (API_KEY, "sk-ant-api03-canary\u{1b}", "characters"),
            (API_KEY, "sk-ant-api03-canäry", "characters"),
        ];
        for (name, value, expected) in cases {
            let error = kind([(name, value)]).expect_err(value).to_string();
            assert!(error.contains(name) && error.contains(expected) && !error.contains("can"), "{error}");
        }
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        assert_eq!(kind([(API_KEY, &long)]), Err(BadCredential::TooLong { name: API_KEY }));
    }

    #[test]
    fn a_gateways_token_needs_the_gateway() {
        assert_eq!(kind([(AUTH_TOKEN, "anything")]), Err(BadCredential::NoBaseUrl));
        assert_eq!(kind([]), Err(BadCredential::None));
        assert_eq!(kind([GATEWAY]), Err(BadCredential::None));
    }
}
