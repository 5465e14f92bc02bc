//! `mayfly serve`: the orchestrator, until a signal or until there was nothing to do for long enough.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use mayfly_server::ServerConfig;

use crate::claude;
use crate::cli::ServeArgs;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::log;
use crate::orchestrator::Orchestrator;

/// Where the API is served unless another address was asked for: "MAYF" on a telephone.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6293);

pub(crate) async fn serve(
    args: ServeArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    if args.background {
        rustix::process::setsid().context("cannot leave the terminal's session")?;
    }
    log::to_stderr(environment.get("MAYFLY_LOG"));
    let data = environment.data_folder(settings.data())?;
    let mut interrupts = Interrupts::install()?;
    let claude = interrupts.or_stop(claude::find(settings.claude(), environment)).await?;
    let mut config = ServerConfig::in_dir(data);
    settings.bound_machines(&mut config.rules);
    settings.bound_tasks(&mut config.rules);
    // Nobody knows of one in the background; the socket is enough for who started it.
    config.listen = settings.listen().or((!args.background).then_some(LISTEN));
    let Orchestrator { server, .. } = Orchestrator::start(config, claude).await?;
    ready(&server)?;
    tokio::select! {
        () = interrupts.next() => {}
        () = async {
            match settings.idle_exit() {
                Some(idle) => server.idle_for(idle).await,
                None => std::future::pending().await,
            }
        } => {}
    }
    server.stop().await;
    Ok(Exit::Success)
}

/// The first line of standard output says that we are ready: who started us may be waiting for it.
fn ready(server: &mayfly_server::Server) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "serving on {}", server.socket().display())?;
    if let Some(address) = server.listening() {
        let token = server.token_file();
        writeln!(stdout, "       and http://{address}, with the token in {}", token.display())?;
    }
    stdout.flush()
}
