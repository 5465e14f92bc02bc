//! What is tried, one function each, in the order in which a task comes to need it.

use std::path::{Path, PathBuf};

use mayfly_client::Client;
use mayfly_core::causes;
use mayfly_server::ServerConfig;
use mayfly_wire::api::{CredentialKind, CredentialMode};

use super::place;
use super::report::Check;
use crate::claude::{self, Claude, ClaudeError, pin};
use crate::config::Settings;
use crate::credential::{self, BadCredential, Found};
use crate::environment::Environment;
use crate::exit::Stop;
use crate::machines;
use crate::values::{ProviderName, mode_name};

/// What the check of the credential is called.
const CREDENTIAL: &str = "credential";

/// Tries everything.
pub(super) async fn all(settings: &Settings, environment: &Environment) -> Result<Vec<Check>, Stop> {
    let data = environment.data_folder(settings.data())?;
    let seen = claude::look(settings.claude(), environment).await;
    let mut checks = vec![configuration(settings, environment)];
    checks.extend(place::all(&data, settings).await);
    let claude = seen.as_ref().ok().and_then(Option::as_ref);
    checks.extend(machines::checks(settings, environment, &data, claude).await?);
    checks.push(git(environment).await);
    // Other machines have it in their image.
    if settings.provider() == ProviderName::Sandbox || settings.claude().is_some() {
        checks.push(cli(seen, environment));
    }
    checks.push(credential(&data, settings, environment).await);
    Ok(checks)
}

fn configuration(settings: &Settings, environment: &Environment) -> Check {
    let usual = environment.config_folder().map(|folder| folder.join("mayfly.toml").display().to_string());
    let detail = match (settings.file(), usual) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(usual)) => format!("all as by default: there is no {usual}"),
        (None, None) => "all as by default: there is no home to look for one in".to_owned(),
    };
    Check::ok("configuration", detail)
}

async fn git(environment: &Environment) -> Check {
    let mut command = tokio::process::Command::new("git");
    command.arg("--version").env_clear().env("PATH", environment.path());
    match command.output().await {
        Ok(output) if output.status.success() => {
            Check::ok("git", String::from_utf8_lossy(&output.stdout).trim())
        }
        Ok(output) => {
            Check::failed("git", format!("`git --version`: {}", output.status), Some(install("git")))
        }
        Err(error) => Check::failed("git", format!("cannot run `git`: {error}"), Some(install("git"))),
    }
}

fn cli(seen: Result<Option<Claude>, ClaudeError>, environment: &Environment) -> Check {
    let (name, version) = ("claude", pin::VERSION);
    match seen {
        Ok(Some(Claude { path, version: Some(version) })) => {
            Check::ok(name, format!("{}, version {version}, its digest the pinned one", path.display()))
        }
        Ok(Some(Claude { path, version: None })) => {
            let path = path.display();
            let detail =
                format!("{path}, whose digest is not that of {version}, with which mayfly is tested");
            Check::warning(
                name,
                detail,
                Some("leave out --claude, and `claude` of the configuration".to_owned()),
            )
        }
        Ok(None) => match claude::on_path("npm", environment) {
            Some(npm) => Check::ok(
                name,
                format!("{version} is not here; the first run fetches it, once, with {}", npm.display()),
            ),
            None => Check::failed(
                name,
                format!("{version} is not here, and neither is npm, which could fetch it"),
                Some(install("npm")),
            ),
        },
        Err(error) => Check::failed(name, causes(&error), None),
    }
}

fn install(package: &str) -> String {
    let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
    format!("{sudo}apt-get install {package}")
}

/// Its kind, and never its value; that of the environment, else what the orchestrator's pool has.
async fn credential(data: &Path, settings: &Settings, environment: &Environment) -> Check {
    const SETUP: &str = "claude setup-token\nexport CLAUDE_CODE_OAUTH_TOKEN=...   # the token that it prints";
    let name = CREDENTIAL;
    match credential::find(environment) {
        Ok(Found { credential, note }) => {
            let kind = match credential.kind {
                CredentialKind::OauthToken => "a token of `claude setup-token`",
                CredentialKind::ApiKey => "a key of the Anthropic API",
                CredentialKind::Bearer => "a token of your own gateway",
                CredentialKind::Secret => "none for the model",
            };
            let to = if credential.base_url.is_some() { ", for ANTHROPIC_BASE_URL" } else { "" };
            let note = note.map_or_else(String::new, |note| format!("; {note}"));
            told(format!("{kind}{to}{note}"), settings.values.credential_mode.value)
        }
        Err(BadCredential::None) if ServerConfig::in_dir(data).database().exists() => pool(data).await,
        Err(BadCredential::None) if logged_in(environment) => {
            let detail = "`claude` is logged in here, but its login is its own: mayfly never reads it, and needs a token";
            Check::failed(name, detail, Some(SETUP.to_owned()))
        }
        Err(BadCredential::None) => {
            Check::failed(name, "there is none for the model in the environment", Some(SETUP.to_owned()))
        }
        Err(error) => {
            let fix = error.fix();
            Check::failed(name, error.to_string(), fix)
        }
    }
}

/// What the pool has, as the orchestrator that runs says.
async fn pool(data: &Path) -> Check {
    let client = Client::new(&ServerConfig::in_dir(data).socket());
    let Ok(pool) = client.credentials().await else {
        let detail =
            "there is none in the environment, and no orchestrator runs that could tell what is in its pool";
        return Check::warning(
            CREDENTIAL,
            detail,
            Some("mayfly credential ls   # starts one, and asks it".to_owned()),
        );
    };
    let pool: Vec<_> = pool.into_iter().filter(credential::is_for_model).collect();
    if pool.is_empty() {
        let detail = "there is none for the model, neither in the environment nor in the orchestrator's pool";
        return Check::failed(
            CREDENTIAL,
            detail,
            Some("mayfly credential add NAME   # asks for it".to_owned()),
        );
    }
    let names: Vec<String> = pool.iter().map(|pooled| format!("`{}`", pooled.name)).collect();
    let modes = pool.iter().filter_map(|pooled| Some(pooled.about.as_ref()?.mode));
    let handed = modes.max_by_key(|mode| *mode != CredentialMode::Broker).unwrap_or_default();
    told(format!("in the orchestrator's pool: {}", names.join(", ")), handed)
}

/// What its mode gives up is said too.
fn told(detail: String, mode: CredentialMode) -> Check {
    match mode {
        CredentialMode::Broker => Check::ok(CREDENTIAL, detail),
        CredentialMode::Inject | CredentialMode::InjectDescriptor => Check::warning(
            CREDENTIAL,
            format!(
                "{detail}; by `{}` it is handed to machines, where the agent, and whoever takes it over, can read it and \
                 use it elsewhere, also when the task is over",
                mode_name(mode)
            ),
            Some("take credential_mode out of mayfly.toml, and add again what was added with it".to_owned()),
        ),
    }
}

/// Whether the user's own `claude` is. The file is not read.
fn logged_in(environment: &Environment) -> bool {
    let own = environment.get("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    let folder = own.or_else(|| Some(environment.home()?.join(".claude")));
    folder.is_some_and(|folder| folder.join(".credentials.json").exists())
}
