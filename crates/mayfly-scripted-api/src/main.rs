//! The scripted Messages API as a program: prints its URL, and serves until it is interrupted.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use mayfly_scripted_api::{Accepted, SCENARIOS, ScriptedApi};

const ABOUT: &str = "A Messages API that plays a script: no model, no account, no internet.

Prints one line, its URL, and serves until Ctrl-C. Point the claude CLI at it and put a directive into the prompt:

  mayfly-scripted-api --accept-bearer dummy
  ANTHROPIC_BASE_URL=http://127.0.0.1:PORT ANTHROPIC_AUTH_TOKEN=dummy claude -p 'Hello [script: text]'

The last directive in the user's own words picks the scenario; the assistant messages after it are its steps:

  [script: NAME]    [script: NAME key=value key=\"quoted\" key=[\"any\", \"JSON\"]]    [script: NAME {\"key\": \"value\"}]

In tool inputs, {cwd} stands for the agent's working directory.";

/// What the program was asked.
#[derive(Debug, Parser)]
#[command(version, about = "A Messages API that plays a script", long_about = ABOUT, after_long_help = scenarios())]
struct Args {
    /// Where to listen; port 0 is any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Factor for every pause of every script; 0 is no pause
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pace: f64,
    #[command(flatten)]
    accept: Accept,
}

/// The credential that opens the API.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Accept {
    /// Take this token as an OAuth token, `CLAUDE_CODE_OAUTH_TOKEN`; never a real one
    #[arg(long = "accept-oauth", value_name = "TOKEN")]
    oauth: Option<String>,
    /// Take this key, `ANTHROPIC_API_KEY`; never a real one
    #[arg(long = "accept-api-key", value_name = "KEY")]
    api_key: Option<String>,
    /// Take this token as a plain bearer token, `ANTHROPIC_AUTH_TOKEN`; never a real one
    #[arg(long = "accept-bearer", value_name = "TOKEN")]
    bearer: Option<String>,
}

impl Accept {
    fn accepted(self) -> Option<Accepted> {
        let oauth = self.oauth.map(Accepted::Oauth);
        let key = self.api_key.map(Accepted::ApiKey);
        oauth.or(key).or(self.bearer.map(Accepted::Bearer))
    }
}

fn scenarios() -> String {
    let lines = SCENARIOS.iter().flat_map(|scenario| {
        let call = format!("{} {}", scenario.name, scenario.keys);
        [format!("  {}", call.trim_end()), format!("          {}", scenario.does)]
    });
    let heading = String::from("Scenarios, with their keys and defaults:");
    [heading].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let accepted = args.accept.accepted().context("clap lets exactly one credential through")?;
    let api = ScriptedApi::start_paced(args.listen, accepted, args.pace)
        .await
        .with_context(|| format!("cannot start on {}", args.listen))?;
    writeln!(std::io::stdout(), "{}", api.base_url()).context("cannot print the URL")?;
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    api.stop().await;
    Ok(())
}
