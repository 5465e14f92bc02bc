//! What is tried, one function each, in the order in which a task comes to need it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mayfly_core::causes;
use mayfly_provider::Provider as _;
use mayfly_provider_sandbox::{Layer, LayerState, Sandbox, SandboxConfig};
use mayfly_wire::api::CredentialKind;
use tempfile::TempDir;

use super::place;
use super::report::Check;
use crate::claude::{self, Claude, ClaudeError, pin};
use crate::config::Settings;
use crate::credential::{self, BadCredential, Found};
use crate::environment::Environment;
use crate::exit::Stop;

/// Tries everything.
pub(super) async fn all(settings: &Settings, environment: &Environment) -> Result<Vec<Check>, Stop> {
    let data = environment.data_folder(settings.data())?;
    let unmade = Unmade::before(&data);
    let seen = claude::look(settings.claude(), environment).await;
    let mut checks = vec![configuration(settings, environment)];
    checks.extend(place::all(&data, settings).await);
    checks.extend(machines(&data, seen.as_ref().ok().and_then(Option::as_ref)).await?);
    checks.extend([git(environment).await, cli(seen, environment), credential(environment)]);
    drop(unmade);
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

/// The sandbox's layers, and the whole of it: a machine is made and unmade.
async fn machines(data: &Path, claude: Option<&Claude>) -> Result<Vec<Check>, Stop> {
    let folder = scratch(data)?;
    let mayfly = std::env::current_exe().context("cannot tell where this program is")?;
    // A CLI that is not here yet has a stand-in: this program is one that a machine can show.
    let claude = claude.map_or_else(|| mayfly.clone(), |claude| claude.path.clone());
    let (machines, bases) = (folder.path().join("machines"), folder.path().join("bases"));
    let sandbox = Sandbox::new(SandboxConfig { machines, bases, claude, mayfly });
    let mut checks = match sandbox.layers().await {
        Ok(layers) => layers.into_iter().map(Check::from).collect(),
        Err(error) => vec![Check::failed("layers", causes(&error), None)],
    };
    checks.push(match sandbox.probe().await {
        Ok(()) => Check::ok("sandbox", "a machine was made, and unmade"),
        Err(error) => Check::failed("sandbox", causes(&error), None),
    });
    Ok(checks)
}

/// Where machines are to be, and out of the way of those that are there.
fn scratch(data: &Path) -> Result<TempDir, Stop> {
    let mut builder = tempfile::Builder::new();
    let made = builder.prefix("doctor-").tempdir_in(data).or_else(|_| builder.tempdir());
    made.context("cannot make a temporary folder (is TMPDIR right, and has it room?)").map_err(Stop::from)
}

impl From<Layer> for Check {
    fn from(Layer { name, state, detail, fix }: Layer) -> Self {
        match state {
            LayerState::Works => Self::ok(&name, detail),
            LayerState::Limited => Self::warning(&name, detail, fix),
            LayerState::Missing => Self::failed(&name, detail, fix),
        }
    }
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

/// Its kind, and never its value.
fn credential(environment: &Environment) -> Check {
    const SETUP: &str = "claude setup-token\nexport CLAUDE_CODE_OAUTH_TOKEN=...   # the token that it prints";
    let name = "credential";
    match credential::find(environment) {
        Ok(Found { credential, note }) => {
            let kind = match credential.kind {
                CredentialKind::OauthToken => "a token of `claude setup-token`",
                CredentialKind::ApiKey => "a key of the Anthropic API",
                CredentialKind::Bearer => "a token of your own gateway",
            };
            let to = if credential.base_url.is_some() { ", for ANTHROPIC_BASE_URL" } else { "" };
            let note = note.map_or_else(String::new, |note| format!("; {note}"));
            Check::ok(name, format!("{kind}{to}{note}"))
        }
        Err(BadCredential::None) if logged_in(environment) => {
            let detail = "`claude` is logged in here, but its login is its own: mayfly never reads it, and needs a token";
            Check::failed(name, detail, Some(SETUP.to_owned()))
        }
        Err(BadCredential::None) => {
            Check::failed(name, "there is none for the model in the environment", Some(SETUP.to_owned()))
        }
        Err(error) => {
            let fix = error.variable().map(|name| format!("unset {name}"));
            Check::failed(name, error.to_string(), fix)
        }
    }
}

/// Whether the user's own `claude` is. The file is not read.
fn logged_in(environment: &Environment) -> bool {
    let own = environment.get("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    let folder = own.or_else(|| Some(environment.home()?.join(".claude")));
    folder.is_some_and(|folder| folder.join(".credentials.json").exists())
}

/// Folders that were not there: those of them that are empty are removed again.
struct Unmade(Vec<PathBuf>);

impl Unmade {
    fn before(path: &Path) -> Self {
        Self(path.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect())
    }
}

impl Drop for Unmade {
    fn drop(&mut self) {
        for path in &self.0 {
            // One that was not made, or has something in it by now, stays as it is.
            let _ = fs::remove_dir(path);
        }
    }
}
