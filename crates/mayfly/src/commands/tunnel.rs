//! `mayfly tunnel`: stays connected to an orchestrator elsewhere, keeps what its tasks say on this machine, and
//! serves its API here, so that every other verb works as if it ran here.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use mayfly_client::{Client, ClientError};
use mayfly_core::Secrets;
use mayfly_link::{BackOff, Endpoint, Route};
use mayfly_server::{Front, ServerConfig, make_data_folder};
use mayfly_tunnel::{Tunnel, TunnelConfig};
use mayfly_wire::Secret;
use mayfly_wire::tunnel::Status;
use tokio::sync::watch;

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::listening::LISTEN;
use crate::log;
use crate::printer::Printer;
use crate::tunnel::{Saved, proxy_for};
use crate::values;

/// The variable that may hold the token.
const TOKEN: &str = "MAYFLY_TOKEN";
/// More than a token has.
const TOKEN_BYTES_MAX: u64 = 4096;
/// The folder of the logs, in the data folder.
const FOLDER: &str = "tunnel";

const TUNNEL_EXAMPLES: &str = "\
On the machine of the orchestrator:
  mayfly serve --listen 0.0.0.0:6293 --tls self-signed --host-names box.example
                                     # prints its address, with its fingerprint
  mayfly token add laptop > token    # once; bring it here

Here, once:
  mayfly tunnel --to https://box.example:6293#sha256:... --token-file token
and from then on:
  mayfly tunnel
  mayfly tunnel --token-file token   # with another token

By a name it is reached only if --host-names there has that name; by its IP address always.

While it runs, `mayfly run`, `ps`, `logs` and all others on this machine speak to that orchestrator,
and the messages of every task are written to logs here as they come. A cut, a sleep or a change of
network costs nothing but time, also if it is away when this starts. The token can also be in MAYFLY_TOKEN. A proxy is taken from
HTTPS_PROXY and NO_PROXY. Ctrl-C ends it; the tasks go on.";

/// Stay connected to an orchestrator elsewhere: its messages and its API, on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = TUNNEL_EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct TunnelArgs {
    #[command(subcommand)]
    verb: Option<TunnelVerb>,
    /// The orchestrator, as in `https://HOST[:PORT][#sha256:FINGERPRINT]` [default: the one of the last time]
    #[arg(long, value_name = "URL", value_parser = values::endpoint)]
    to: Option<Endpoint>,
    /// The file of the token that opens it; `-` is standard input [default: the one of the last time]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Send the token to another machine without TLS too, where others could read it on its way
    #[arg(long, requires = "to")]
    to_without_tls: bool,
    /// Serve the API on this port of the loopback; 0 is any port [default: 127.0.0.1:6293]
    #[arg(long, value_name = "ADDR", value_parser = values::address)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    data: DataArgs,
}

impl TunnelArgs {
    /// The data folder that was named, by whichever verb.
    pub(crate) fn data(&self) -> Option<PathBuf> {
        match &self.verb {
            Some(TunnelVerb::Status(args)) => args.data.folder.clone(),
            None => self.data.folder.clone(),
        }
    }
}

#[derive(Debug, clap::Subcommand)]
enum TunnelVerb {
    Status(StatusArgs),
}

/// Tell what the tunnel is connected to, and how far behind it is
#[derive(Debug, clap::Args)]
struct StatusArgs {
    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

pub(crate) async fn tunnel(
    args: TunnelArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let data = environment.data_folder(settings.data())?;
    match &args.verb {
        Some(TunnelVerb::Status(status)) => show(&data, status.json, environment).await,
        None => keep(args, &data, environment).await,
    }
}

/// Keeps it up until a signal.
async fn keep(args: TunnelArgs, data: &Path, environment: &Environment) -> Result<Exit, Stop> {
    let secrets = Secrets::default();
    log::to_stderr(environment.get("MAYFLY_LOG").or(Some("warn".as_ref())), secrets.clone());
    let listen = args.listen.unwrap_or(LISTEN);
    if !listen.ip().is_loopback() {
        return Err(Stop::wrong(format!(
            "the tunnel is for this machine alone, and others could reach {listen}: --listen 127.0.0.1:PORT"
        )));
    }
    let known = Saved::load(data)?;
    let saved = wanted(args, known, environment)?;
    secrets.set("tunnel", saved.token.iter().map(|token| token.expose().to_owned()));
    let way = Arc::new(Route::new(saved.to.clone(), proxy_for(&saved.to, environment)?));
    make_data_folder(data).map_err(Stop::usage)?;
    let mut interrupts = Interrupts::install()?;
    let front = Front::open(data, Some(listen)).await?;
    let tunnel = Tunnel::start(TunnelConfig {
        way,
        to: saved.to.without_pin(),
        token: saved.token.clone(),
        folder: data.join(FOLDER),
        back_off: BackOff::new(|| fastrand::u64(..)),
    });
    let tunnel = tunnel.map_err(Stop::usage)?;
    let mut status = tunnel.status();
    let first = interrupts.or_stop(first_answer(&mut status)).await;
    if let Err(stop) = first {
        tunnel.stop().await;
        return Err(stop);
    }
    saved.save(data)?;
    ready(&front, &status.borrow());
    let serving = front.serve(tunnel.api());
    tokio::select! {
        () = interrupts.next() => {}
        () = tell_changes(status) => {}
    }
    tokio::select! {
        () = async { tunnel.stop().await; serving.stop().await } => {}
        () = interrupts.next() => {}
    }
    Ok(Exit::Success)
}

/// What is asked for, else what is remembered.
fn wanted(args: TunnelArgs, known: Option<Saved>, environment: &Environment) -> Result<Saved, Stop> {
    let without_tls = args.to_without_tls
        || known
            .as_ref()
            .is_some_and(|known| known.without_tls && args.to.as_ref().is_none_or(|to| *to == known.to));
    let Some(to) = args.to.or_else(|| known.as_ref().map(|known| known.to.clone())) else {
        return Err(Stop::wrong(
            "no orchestrator is known yet: name it with --to https://HOST:PORT, and its token with --token-file FILE",
        ));
    };
    if shows_token(&to) && !without_tls {
        return Err(Stop::wrong(format!(
            "`{to}` is another machine, and without TLS others could read the token on its way: `mayfly serve --tls \
             self-signed` there prints an https:// address; or say --to-without-tls"
        )));
    }
    let token = match &args.token_file {
        Some(path) => Some(read_token(path)?),
        None => token_of(environment)?.or_else(|| known.filter(|known| known.to == to)?.token),
    };
    if token.is_none() && !matches!(to, Endpoint::Unix(_)) {
        return Err(Stop::wrong(format!(
            "`{}` wants a token: `mayfly token add NAME` on its machine prints one; give it with --token-file FILE or in {TOKEN}",
            to.without_pin()
        )));
    }
    Ok(Saved { to, token, without_tls })
}

/// Whether what is sent there passes others, who can read it.
fn shows_token(to: &Endpoint) -> bool {
    let Endpoint::Tcp(address) = to else { return false };
    let ip = address.host().parse::<IpAddr>();
    address.host() != "localhost" && !ip.is_ok_and(|ip| ip.is_loopback())
}

fn token_of(environment: &Environment) -> Result<Option<Secret>, Stop> {
    let Some(value) = environment.get(TOKEN) else { return Ok(None) };
    let text = value.to_str().ok_or_else(|| Stop::wrong(format!("{TOKEN} is not a text")))?;
    Ok(Some(Secret::from(text.trim().to_owned())))
}

fn read_token(path: &Path) -> Result<Secret, Stop> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text),
        false => {
            std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
        }
    };
    read.with_context(|| format!("cannot read the token from `{}`", path.display())).map_err(Stop::usage)?;
    match text.trim() {
        "" => Err(Stop::wrong(format!("`{}` has no token in it", path.display()))),
        token => Ok(Secret::from(token.to_owned())),
    }
}

/// Waits for the first word of the orchestrator, or of trouble. Trouble that stays is told at once; one who is only
/// away is dialled until he is back.
async fn first_answer(status: &mut watch::Receiver<Status>) -> Result<(), Stop> {
    let known = status.wait_for(|status| status.connected || status.trouble.is_some()).await;
    let status = known.context("the tunnel ended")?.clone();
    match status.trouble {
        Some(trouble) if status.lasting => {
            Err(anyhow::anyhow!("no tunnel to {}: {trouble}", status.to).into())
        }
        _ => Ok(()),
    }
}

/// The first line of standard output says that the API is there: a script may wait for it.
fn ready(front: &Front, status: &Status) {
    let port = front.listening().map(|address| {
        format!("       and http://{address}, with the token in {}\n", front.token_file().display())
    });
    let text = format!("serving on {}\n{}", front.socket().display(), port.unwrap_or_default());
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    say(&line(status));
}

/// Says each time that the link comes or goes, and once while it is away if somebody must do something about that.
async fn tell_changes(mut status: watch::Receiver<Status>) {
    let told = |status: &Status| (status.connected, status.trouble.clone().filter(|_| status.lasting));
    let mut last = told(&status.borrow_and_update());
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        let news = told(&now);
        // What passes says no more than the line before it.
        let is_news = news.0 != last.0 || news.1.is_some() && news.1 != last.1;
        if is_news {
            say(&line(&now));
            last = news;
        }
    }
}

fn line(status: &Status) -> String {
    let Status { to, position, head, .. } = status;
    match &status.trouble {
        None => match head.saturating_sub(*position) {
            0 => format!("connected to {to}"),
            behind => format!("connected to {to}; {behind} events are on their way"),
        },
        Some(trouble) => format!("no link to {to}: {trouble}; dialling again"),
    }
}

/// On standard error, whether or not somebody still reads it.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// `mayfly tunnel status`.
async fn show(data: &Path, json: bool, environment: &Environment) -> Result<Exit, Stop> {
    let mut printer = Printer::of_lines(json, environment);
    let client = Client::new(&ServerConfig::in_dir(data).socket());
    let status = match client.tunnel_status().await {
        Ok(status) => status,
        Err(ClientError::Unreachable { .. }) => {
            let next = match Saved::load(data)? {
                Some(saved) => {
                    format!("to {} runs now: start it with `mayfly tunnel`", saved.to.without_pin())
                }
                None => "was ever opened here: `mayfly tunnel --to URL` opens one".to_owned(),
            };
            return Err(anyhow::anyhow!("no tunnel {next}").into());
        }
        Err(ClientError::Refused(problem)) if problem.status == 404 => {
            return Err(anyhow::anyhow!(
                "there is no tunnel: the orchestrator of `{}` runs on this machine",
                data.display()
            )
            .into());
        }
        Err(error) => return Err(error.into()),
    };
    match json {
        true => printer.json(&status),
        false => table(&status).iter().for_each(|line| printer.closing(line)),
    }
    printer.exit(if status.connected { Exit::Success } else { Exit::Trouble })
}

fn table(status: &Status) -> Vec<String> {
    let Status { to, since, version, position, head, connections, logs, .. } = status;
    let link = match (&status.trouble, status.connected) {
        (_, true) => format!("connected since {since:.0}"),
        (Some(trouble), false) => format!("none since {since:.0}: {trouble}"),
        (None, false) => "being made".to_owned(),
    };
    let version = version.as_ref().map(|version| format!(" (mayfly {version})")).unwrap_or_default();
    let behind = head.saturating_sub(*position);
    let skipped = match status.skipped {
        0 => String::new(),
        skipped => format!("; {skipped} were not kept there any more"),
    };
    let damaged = match (status.damaged, status.mended) {
        (0, _) => String::new(),
        (damaged, mended) => {
            format!("; {damaged} were damaged and set aside, {mended} of them fetched again")
        }
    };
    vec![
        format!("to      {to}{version}"),
        format!("link    {link}"),
        format!("events  {position} here, {behind} behind{skipped}"),
        format!("links   {connections} since the tunnel was started"),
        format!("asked   {} requests are on their way", status.forwarding),
        format!("logs    {logs}{damaged}"),
    ]
}
