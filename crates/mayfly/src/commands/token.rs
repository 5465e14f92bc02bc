//! `mayfly token`: who may come to the orchestrator by its port.

use std::time::Duration;

use jiff::Timestamp;
use mayfly_client::{Client, ClientError};
use mayfly_server::ServerConfig;
use mayfly_wire::api::OwnerToken;

use super::ps::unanswered;
use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::{Origin, wrong_as_typed};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::printer::{Printer, Shown};
use crate::tunnel::Saved;
use crate::values;

/// The most characters of a name, should the orchestrator take longer ones.
const NAME_CHARS_MAX: usize = 60;

const TOKEN_EXAMPLES: &str = "\
Examples:
  mayfly token add laptop         # prints the token, this once
  mayfly token ls
  mayfly token revoke laptop      # whatever came in with it is cut off within a second

A token opens all of the orchestrator's API on its port. On this machine none is needed: the socket
in the data folder is its owner's alone. The token `local` is in the file `token` of that folder,
for programs that take the port; revoked, it is replaced by a new one there. The tokens of an
orchestrator elsewhere are made and revoked on its machine, not through a tunnel.

It only asks the orchestrator that runs: it starts none, and exits with 3 if there is none.";

/// Make, list and revoke the tokens that open the API on a port
#[derive(Debug, clap::Args)]
#[command(after_help = TOKEN_EXAMPLES)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, clap::Subcommand)]
enum TokenVerb {
    Add(AddArgs),
    Ls(LsArgs),
    Revoke(RevokeArgs),
}

/// Make a token, and print it
#[derive(Debug, clap::Args)]
struct AddArgs {
    /// What to call it, such as the machine that it is for
    #[arg(value_name = "NAME", value_parser = values::token_name)]
    name: String,
    #[command(flatten)]
    data: DataArgs,
}

/// List the tokens by name; what they are is shown to nobody again
#[derive(Debug, clap::Args)]
struct LsArgs {
    /// Print the tokens, one JSON object a line, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// End a token, and whatever came in with it
#[derive(Debug, clap::Args)]
struct RevokeArgs {
    /// Its name
    #[arg(value_name = "NAME", value_parser = values::token_name)]
    name: String,
    #[command(flatten)]
    data: DataArgs,
}

impl TokenArgs {
    pub(crate) fn data(&self) -> &DataArgs {
        match &self.verb {
            TokenVerb::Add(AddArgs { data, .. })
            | TokenVerb::Ls(LsArgs { data, .. })
            | TokenVerb::Revoke(RevokeArgs { data, .. }) => data,
        }
    }
}

pub(crate) async fn token(
    args: TokenArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let origin = Origin::new(settings, environment)?;
    let client = Client::new(&ServerConfig::in_dir(&origin.data).socket());
    if let Some(to) = elsewhere(&client, &origin).await? {
        return Err(Stop::wrong(format!(
            "the tasks of this folder are at {to}, through a tunnel, and its tokens are made and revoked on that machine: \
             run `mayfly token` there"
        )));
    }
    let json = matches!(args.verb, TokenVerb::Ls(LsArgs { json: true, .. }));
    let mut printer = Printer::of_lines(json, environment);
    let done = match &args.verb {
        TokenVerb::Add(AddArgs { name, .. }) => add(name, &client, &mut printer).await,
        TokenVerb::Ls(_) => list(json, &client, &mut printer).await,
        TokenVerb::Revoke(RevokeArgs { name, .. }) => revoke(name, &client, &origin, &mut printer).await,
    };
    match done {
        Ok(()) => printer.exit(Exit::Success),
        // The name is what was typed.
        Err(error) => Err(wrong_as_typed(&error).unwrap_or_else(|| unanswered(error, &origin))),
    }
}

/// Where the tunnel of this folder leads, if it is one that answers here, or would.
async fn elsewhere(client: &Client, origin: &Origin) -> Result<Option<String>, Stop> {
    match client.tunnel_status().await {
        Ok(status) => Ok(Some(status.to)),
        Err(ClientError::Unreachable { .. }) => {
            Ok(Saved::load(&origin.data)?.map(|saved| saved.to.without_pin()))
        }
        // An orchestrator, which has none, or one that says for itself what is wrong.
        Err(_) => Ok(None),
    }
}

/// On standard output is the token and nothing else, for whoever keeps it.
async fn add(name: &str, client: &Client, printer: &mut Printer) -> Result<(), ClientError> {
    let token = client.add_token(name).await?;
    printer.closing(token.token.expose());
    printer.aside("keep it where only its user can read it: it is not shown again");
    Ok(())
}

async fn list(json: bool, client: &Client, printer: &mut Printer) -> Result<(), ClientError> {
    let tokens = client.tokens().await?;
    match json {
        true => tokens.iter().for_each(|token| printer.json(token)),
        false => table(&tokens, Timestamp::now()).iter().for_each(|line| printer.closing(line)),
    }
    Ok(())
}

async fn revoke(
    name: &str,
    client: &Client,
    origin: &Origin,
    printer: &mut Printer,
) -> Result<(), ClientError> {
    client.revoke_token(name).await?;
    let renewed = client.tokens().await?.iter().any(|token| token.name == name);
    printer.aside(&match renewed {
        true => {
            format!("revoked; {} has a new one", ServerConfig::in_dir(&origin.data).token_file().display())
        }
        false => "revoked".to_owned(),
    });
    Ok(())
}

/// A heading and a line for each.
fn table(tokens: &[OwnerToken], now: Timestamp) -> Vec<String> {
    let names: Vec<String> =
        tokens.iter().map(|token| Shown::line(&token.name, NAME_CHARS_MAX).to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("NAME".len());
    let age = |token: &OwnerToken| {
        let age = Duration::try_from(now.duration_since(token.created_at)).unwrap_or_default();
        values::span(age.as_secs())
    };
    let mut lines = vec![format!("{:width$}  AGE", "NAME")];
    lines.extend(names.iter().zip(tokens).map(|(name, token)| format!("{name:width$}  {}", age(token))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_which_tokens_there_are() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
        let token = |name: &str, created_at: &str| OwnerToken {
            name: name.to_owned(),
            created_at: created_at.parse().expect("a time"),
        };
        let tokens = [token("ci", "2026-01-01T23:59:30Z"), token("laptop\u{1b}", "2026-01-01T00:00:00Z")];
        // The clock that made it may be ahead of ours.
        let tokens = [&tokens[..], &[token("new", "2026-01-03T00:00:00Z")]].concat();
        insta::assert_snapshot!(table(&tokens, now).join("\n"), @r"
        NAME          AGE
        ci            30s
        laptop\u{1b}  24h00m
        new           0s
        ");
    }
}
