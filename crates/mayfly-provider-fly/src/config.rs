//! What the provider is told, and what of it cannot be.

use std::time::Duration;

use mayfly_wire::endpoint::Endpoint;
use reqwest::Url;
use secrecy::SecretString;

use crate::api::{ANSWER_MAX, BadToken, Guest, Token};
use crate::guest::BadGuest;

/// Where the Machines API is.
pub const API: &str = "https://api.machines.dev";
/// What no machine may get through to, and tries: public addresses, and the API that is in each of Fly's private networks.
pub const CLOSED_TO: [&str; 3] = ["1.1.1.1:443", "[2606:4700:4700::1111]:443", "_api.internal:4280"];
/// The longest name of an app, and of a deployment in the name of a machine.
const APP_BYTES_MAX: usize = 63;
const DEPLOYMENT_BYTES_MAX: usize = 12;

/// Machines as VMs of Fly.io, all in one app.
#[derive(Debug, Clone)]
pub struct FlyConfig {
    /// Where the Machines API is: [`API`], or a stand-in.
    pub api: String,
    /// A deploy token of the app.
    pub token: SecretString,
    /// The app that has the machines, and nothing else.
    pub app: String,
    /// Tells this orchestrator's machines from another's; lower-case letters and digits.
    pub deployment: String,
    /// What machines boot, by its digest.
    pub image: String,
    /// Where machines may be, the most wanted first; codes such as `iad`.
    pub regions: Vec<String>,
    /// One of Fly's presets.
    pub size: Option<String>,
    /// What a machine is made of; none of the two is the smallest that holds a task's limits.
    pub guest: Option<Guest>,
    /// Where a machine reaches the orchestrator.
    pub orchestrator: Endpoint,
    /// Where a machine may not get through to, as `HOST:PORT`: it tries, and runs nothing if it does. Default: [`CLOSED_TO`].
    pub closed_to: Vec<String>,
    /// How long a machine may take to boot. Default: 2 min.
    pub boot_max: Duration,
    /// How long a machine may live at all, whatever its orchestrator says. Default: 24 h.
    pub life_max: Duration,
    /// How long Fly may take to answer. Default: 30 s.
    pub answer_max: Duration,
}

impl FlyConfig {
    /// What has a default has it.
    pub fn new(app: &str, token: SecretString, deployment: &str, orchestrator: Endpoint) -> Self {
        Self {
            api: API.to_owned(),
            token,
            app: app.to_owned(),
            deployment: deployment.to_owned(),
            image: String::new(),
            regions: Vec::new(),
            size: None,
            guest: None,
            orchestrator,
            closed_to: CLOSED_TO.map(str::to_owned).to_vec(),
            boot_max: Duration::from_secs(120),
            life_max: Duration::from_secs(24 * 60 * 60),
            answer_max: ANSWER_MAX,
        }
    }
}

/// Why nothing can be made with this configuration. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BadFlyConfig {
    /// There is no token.
    #[error("there is no Fly token: make one with `{make}`, and set it as {token}", token = crate::TOKEN)]
    NoToken {
        /// The command that makes one.
        make: String,
    },
    /// It has characters that no token has.
    #[error(
        "the Fly token has characters that no token has: copy it again from `fly tokens create deploy`, on one line"
    )]
    BadToken,
    /// Not the address of an API.
    #[error("`{0}` is no address of a Machines API: leave it out, or give one such as {API}")]
    Api(String),
    /// Not a name that an app can have.
    #[error(
        "`{0}` is no name of a Fly app: lower-case letters, digits and dashes, as `fly apps list` shows it"
    )]
    App(String),
    /// Not a name that can be in a machine's.
    #[error("`{0}` is no name of a deployment: 1 to {DEPLOYMENT_BYTES_MAX} lower-case letters and digits")]
    Deployment(String),
    /// What it is can change.
    #[error(
        "the image `{0}` has no digest: name it as `registry.fly.io/APP@sha256:…`, so that all machines boot the same \
         (`docker buildx imagetools inspect` shows it)"
    )]
    Image(String),
    /// Nowhere.
    #[error("no region is named: give one or more, such as [\"iad\"] (`fly platform regions` lists them)")]
    NoRegion,
    /// Not the code of one.
    #[error("`{0}` is no code of a region, such as `iad` (`fly platform regions` lists them)")]
    Region(String),
    /// Two words for one thing.
    #[error("`guest` and `size` both say what a machine is made of: leave one of them out")]
    GuestAndSize,
    /// Not one that Fly has.
    #[error(transparent)]
    Guest(#[from] BadGuest),
    /// It is not on this box.
    #[error(
        "a machine on Fly cannot reach {0}: give an address of the orchestrator such as `http://APP.flycast`"
    )]
    Orchestrator(String),
    /// Nothing can be asked of anybody.
    #[error("no HTTP client can be made")]
    Http(#[source] reqwest::Error),
}

/// What is left of the configuration once it is known to be good.
pub(crate) struct Checked {
    pub(crate) base: Url,
    pub(crate) token: Token,
    pub(crate) guest: Option<Guest>,
}

impl FlyConfig {
    pub(crate) fn checked(&self) -> Result<Checked, BadFlyConfig> {
        if !is_app(&self.app) {
            return Err(BadFlyConfig::App(self.app.clone()));
        }
        let deployment = &self.deployment;
        if deployment.is_empty() || deployment.len() > DEPLOYMENT_BYTES_MAX || !plain(deployment, "") {
            return Err(BadFlyConfig::Deployment(deployment.clone()));
        }
        let make = format!("fly tokens create deploy -a {} -x 720h", self.app);
        let (base, token) = base(&self.api, &self.token, &make)?;
        if !has_digest(&self.image) {
            return Err(BadFlyConfig::Image(self.image.clone()));
        }
        if self.regions.is_empty() {
            return Err(BadFlyConfig::NoRegion);
        }
        let is_code = |region: &&String| region.len() == 3 && plain(region, "");
        if let Some(bad) = self.regions.iter().find(|region| !is_code(region)) {
            return Err(BadFlyConfig::Region(bad.clone()));
        }
        if let Endpoint::Unix(_) | Endpoint::Vsock(_) = &self.orchestrator {
            return Err(BadFlyConfig::Orchestrator(self.orchestrator.to_string()));
        }
        let guest = match (&self.guest, &self.size) {
            (Some(_), Some(_)) => return Err(BadFlyConfig::GuestAndSize),
            (Some(guest), None) => Some(guest.clone().checked()?),
            (None, Some(size)) => Some(Guest::preset(size)?),
            (None, None) => None,
        };
        Ok(Checked { base, token, guest })
    }
}

/// Where the API is, and the token for it, which the command `make` makes.
pub(crate) fn base(api: &str, token: &SecretString, make: &str) -> Result<(Url, Token), BadFlyConfig> {
    let token = Token::new(token).map_err(|bad| match bad {
        BadToken::Empty => BadFlyConfig::NoToken { make: make.to_owned() },
        BadToken::Unsendable => BadFlyConfig::BadToken,
    })?;
    let base = api.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    Ok((base.ok_or_else(|| BadFlyConfig::Api(api.to_owned()))?, token))
}

/// Whether an app can be called so.
pub(crate) fn is_app(name: &str) -> bool {
    !name.is_empty() && name.len() <= APP_BYTES_MAX && plain(name, "-")
}

fn plain(text: &str, more: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
}

/// Whether it says by its digest what it is.
pub(crate) fn has_digest(image: &str) -> bool {
    let digest = image.rsplit_once("@sha256:").map(|(_, digest)| digest);
    digest.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FlyConfig {
        let orchestrator = "http://mayfly.flycast".parse().unwrap();
        let mut config = FlyConfig::new("workers", "fm2_x".to_owned().into(), "d1", orchestrator);
        config.image = format!("registry.fly.io/workers@sha256:{}", "a".repeat(64));
        config.regions = vec!["iad".to_owned()];
        config
    }

    fn refused(adjust: impl FnOnce(&mut FlyConfig)) -> String {
        let mut config = config();
        adjust(&mut config);
        config.checked().err().expect("a refusal").to_string()
    }

    #[test]
    fn what_is_whole_is_taken() {
        assert!(config().checked().is_ok());
        let mut sized = config();
        sized.size = Some("performance-2x".to_owned());
        assert_eq!(sized.checked().ok().unwrap().guest.unwrap().memory_mb, 4096);
    }

    #[test]
    fn no_token_says_how_to_make_one() {
        let words = "there is no Fly token: make one with `fly tokens create deploy -a workers -x 720h`, and set it as FLY_API_TOKEN";
        assert_eq!(refused(|config| config.token = String::new().into()), words);
        let words = refused(|config| config.token = "a\nb".to_owned().into());
        assert!(
            words.starts_with("the Fly token has characters that no token has") && !words.contains("a\nb")
        );
    }

    #[test]
    fn guest_and_size_are_two_words_for_one_thing() {
        let words = refused(|config| {
            config.size = Some("performance-2x".to_owned());
            config.guest = Some(Guest { cpu_kind: "shared".to_owned(), cpus: 1, memory_mb: 256 });
        });
        assert_eq!(words, "`guest` and `size` both say what a machine is made of: leave one of them out");
    }

    #[test]
    fn what_fly_would_refuse_is_refused_here_by_its_name() {
        assert!(
            refused(|config| config.size = Some("huge".to_owned())).starts_with("`huge` is no size of Fly's")
        );
        assert!(
            refused(|config| config.app = "My App".to_owned())
                .starts_with("`My App` is no name of a Fly app")
        );
        assert!(
            refused(|config| config.image = "x:latest".to_owned())
                .starts_with("the image `x:latest` has no digest")
        );
        assert!(refused(|config| config.regions.clear()).starts_with("no region is named"));
        assert!(
            refused(|config| config.regions.push("Mars".to_owned()))
                .starts_with("`Mars` is no code of a region")
        );
        assert!(refused(|config| config.api = "ftp://x".to_owned()).starts_with("`ftp://x` is no address"));
        assert!(
            refused(|config| config.deployment = "a-b".to_owned())
                .starts_with("`a-b` is no name of a deployment")
        );
        let socket = "unix:/run/x.sock".parse().unwrap();
        assert!(
            refused(|config| config.orchestrator = socket)
                .starts_with("a machine on Fly cannot reach unix:/run/x.sock:")
        );
    }
}
