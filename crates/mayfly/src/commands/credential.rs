//! `mayfly credential`: the orchestrator's pool of credentials, of which no secret is ever shown again.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_wire::api::{AddCredential, Credential, CredentialKind, CredentialMode, PooledCredential};

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::{Contact, Origin};
use crate::credential;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::printer::{Printer, Shown};
use crate::secret_input::{self, Source};
use crate::values::{self, kind_name, mode_name};

/// The most characters of a cell, should the orchestrator have longer ones.
const CELL_CHARS_MAX: usize = 60;

const CREDENTIAL_EXAMPLES: &str = "\
Examples:
  claude setup-token                           # prints a token, for the next line to ask for
  mayfly credential add work
  mayfly credential add work --replace --command 'pass show anthropic'
  mayfly credential add mine --base-url https://gateway.example < token-file
  mayfly credential add tracker --kind secret  # for an MCP server of the library
  mayfly credential test work
  mayfly run --credential work \"fix the failing test\"

A task that names none uses that of the environment of `mayfly run`, else `credential` in [task]
of mayfly.toml, else the one called `default`, else the only one. A task that runs uses what is in
the pool by its next request: a replacement counts at once, and so does a removal.

It is sealed on the disk, with a key in the data folder that its owner alone can read, and no
machine gets it: the gateway puts it into requests. If credential_mode in [task] is `inject` when
it is added, machines get it in the environment of `claude`, or by a file descriptor if it is
`inject-descriptor`. Either way the agent, and whoever has taken it over, can read it there and
hand it on, and it stays good when the task is over.

With --kind secret it is none for the model: it is what `secrets` in the mayfly.toml of an MCP
server of the library names, and goes into the environment of that server alone, in machines
whose tasks have it, if `allow-secret-in-machine = true` stands there.";

/// Keep credentials for the model under names, and try them
#[derive(Debug, clap::Args)]
#[command(after_help = CREDENTIAL_EXAMPLES)]
pub(crate) struct CredentialArgs {
    #[command(subcommand)]
    verb: CredentialVerb,
}

#[derive(Debug, clap::Subcommand)]
enum CredentialVerb {
    Add(AddArgs),
    Ls(LsArgs),
    Test(NameArgs),
    #[command(about = "Take a credential out of the pool")]
    Remove(NameArgs),
}

/// Put a credential into the pool; its secret is asked for, or read from standard input
#[derive(Debug, clap::Args)]
struct AddArgs {
    /// What to call it
    #[arg(value_name = "NAME", value_parser = values::credential_name)]
    name: String,
    /// `oauth-token` of `claude setup-token`, `api-key`, or `bearer` of your own gateway [default: as the secret looks];
    /// or `secret`, which is none for the model, but for an MCP server of the library
    #[arg(long, value_name = "KIND", value_parser = values::credential_kind)]
    kind: Option<CredentialKind>,
    /// Where it goes [default: the Anthropic API]
    #[arg(long, value_name = "URL", value_parser = values::base_url)]
    base_url: Option<String>,
    /// Read the secret from this file; `-` is standard input
    #[arg(long, value_name = "PATH", conflicts_with = "command")]
    file: Option<PathBuf>,
    /// Take what this command prints as the secret
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// Take the place of one of this name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// List the credentials by name; what they are is shown to nobody
#[derive(Debug, clap::Args)]
struct LsArgs {
    /// Print the credentials, one JSON object a line, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Ask the model API whether it takes a credential, by a request that costs nothing
#[derive(Debug, clap::Args)]
struct NameArgs {
    /// Its name
    #[arg(value_name = "NAME", value_parser = values::credential_name)]
    name: String,
    #[command(flatten)]
    data: DataArgs,
}

impl CredentialArgs {
    pub(crate) fn data(&self) -> &DataArgs {
        match &self.verb {
            CredentialVerb::Add(AddArgs { data, .. })
            | CredentialVerb::Ls(LsArgs { data, .. })
            | CredentialVerb::Test(NameArgs { data, .. })
            | CredentialVerb::Remove(NameArgs { data, .. }) => data,
        }
    }
}

pub(crate) async fn credential(
    args: CredentialArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let mut interrupts = Interrupts::install()?;
    let json = matches!(args.verb, CredentialVerb::Ls(LsArgs { json: true, .. }));
    let mut printer = Printer::of_lines(json, environment);
    let mode = settings.values.credential_mode.value;
    let origin = Origin::new(settings, environment)?;
    let exit = match args.verb {
        CredentialVerb::Add(args) => {
            let add = wanted(args, mode, &mut interrupts).await?;
            let contact = interrupts.or_stop(Box::pin(Contact::join(origin))).await?.0;
            contact.ask_as_typed(&mut printer, async |client| client.add_credential(&add).await).await?;
            let by = match add.credential.kind {
                CredentialKind::Secret => "`secrets` of the library's servers".to_owned(),
                _ => format!("--credential {}", add.name),
            };
            printer.aside(&format!("`{}` is in the pool, to be used by {by}", add.name));
            Exit::Success
        }
        CredentialVerb::Ls(_) => {
            let contact = interrupts.or_stop(Box::pin(Contact::about_tasks(origin))).await?;
            let pool = contact.ask_as_typed(&mut printer, async |client| client.credentials().await).await?;
            match json {
                true => pool.iter().for_each(|one| printer.json(one)),
                false => table(&pool, Timestamp::now()).iter().for_each(|line| printer.closing(line)),
            }
            Exit::Success
        }
        CredentialVerb::Test(NameArgs { name, .. }) => {
            let contact = interrupts.or_stop(Box::pin(Contact::about_tasks(origin))).await?;
            let test = contact
                .ask_as_typed(&mut printer, async |client| client.test_credential(&name).await)
                .await?;
            printer.closing(&test.detail);
            if test.accepted { Exit::Success } else { Exit::Failed }
        }
        CredentialVerb::Remove(NameArgs { name, .. }) => {
            let contact = interrupts.or_stop(Box::pin(Contact::about_tasks(origin))).await?;
            contact.ask_as_typed(&mut printer, async |client| client.remove_credential(&name).await).await?;
            printer.aside("removed");
            Exit::Success
        }
    };
    printer.exit(exit)
}

/// Reads the secret, and checks that it is what it is to be.
async fn wanted(
    args: AddArgs,
    mode: CredentialMode,
    interrupts: &mut Interrupts,
) -> Result<AddCredential, Stop> {
    let AddArgs { name, kind, base_url, file, command, replace, .. } = args;
    let source = match (file, command) {
        (Some(path), _) => Source::File(path),
        (None, Some(command)) => Source::Command(command),
        (None, None) => Source::Asked,
    };
    let secret = secret_input::read(source, interrupts).await?;
    let kind = credential::kind_of(kind, &secret, base_url.is_some()).map_err(Stop::usage)?;
    // What is handed to a machine of a secret, the library says.
    let mode = if kind == CredentialKind::Secret { CredentialMode::Broker } else { mode };
    let credential = Credential { mode, ..Credential::new(kind, secret, base_url) };
    Ok(AddCredential { name, credential, replace })
}

/// A heading and a line for each.
fn table(pool: &[PooledCredential], now: Timestamp) -> Vec<String> {
    let mut rows = vec![["NAME", "KIND", "MODE", "AGE", "TO"].map(str::to_owned)];
    rows.extend(pool.iter().map(|one| {
        let age = Duration::try_from(now.duration_since(one.created_at)).unwrap_or_default();
        let age = values::span(age.as_secs());
        match &one.about {
            Some(about) => {
                let to = about.base_url.as_deref().unwrap_or("-");
                [&one.name, kind_name(about.kind), mode_name(about.mode), &age, to].map(str::to_owned)
            }
            None => [&one.name, "sealed with another key: add it again", "-", &age, "-"].map(str::to_owned),
        }
    }));
    let rows: Vec<_> =
        rows.into_iter().map(|row| row.map(|cell| Shown::line(&cell, CELL_CHARS_MAX).to_string())).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (a, b, c, d) = (width(0), width(1), width(2), width(3));
    rows.iter()
        .map(|[name, kind, mode, age, to]| format!("{name:a$}  {kind:b$}  {mode:c$}  {age:d$}  {to}"))
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use mayfly_wire::api::AboutCredential;

    use super::*;

    /// S45: what an orchestrator has is shown, and obeyed by no terminal.
    #[test]
    fn a_table_tells_which_credentials_there_are() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
        let one = |name: &str, about: Option<AboutCredential>| PooledCredential {
            name: name.to_owned(),
            created_at: "2026-01-01T00:00:00Z".parse().expect("a time"),
            about,
        };
        let about = |kind, base_url: Option<&str>, mode| {
            Some(AboutCredential { kind, base_url: base_url.map(str::to_owned), mode })
        };
        let pool = [
            one("work", about(CredentialKind::OauthToken, None, CredentialMode::Broker)),
            one(
                "gw",
                about(CredentialKind::Bearer, Some("https://gw.example/\u{1b}[2J"), CredentialMode::Inject),
            ),
            one("old", None),
        ];
        insta::assert_snapshot!(table(&pool, now).join("\n"));
    }
}
