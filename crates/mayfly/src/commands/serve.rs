//! `mayfly serve`: the orchestrator, until a signal or until there was nothing to do for long enough.
//!
//! ```text
//! serving ── signal ──► draining ── nothing runs, the time is over, or a second signal ──► stopped
//!    │└───── idle for long enough ─────────────────────────────────────────────────────────────┤
//!    └────── in the background, and one by hand wants the folder (`give_way`) ─────────────────┘
//! ```

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use mayfly_core::Secrets;
use mayfly_server::{STOP_MAX, Server, ServerConfig, make_data_folder};
use mayfly_wire::Secret;
use mayfly_wire::boot::OWNER_TOKEN;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::orchestrator::Orchestrator;
use crate::values::ProviderName;
use crate::{give_way, last, listening, log, machines};

pub(crate) async fn serve(
    args: ServeArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    machines::can_be_made(settings, environment, "mayfly serve")?;
    if args.background {
        rustix::process::setsid().context("cannot leave the terminal's session")?;
    }
    let secrets = Secrets::default();
    log::to_stderr(environment.get("MAYFLY_LOG"), secrets.clone());
    let data = environment.data_folder(settings.data())?;
    let mut config = ServerConfig { secrets, ..ServerConfig::in_dir(&data) };
    // Nobody knows of one in the background but machines elsewhere; the socket is enough for who started it.
    listening::set(&mut config, settings, !args.background || settings.provider() == ProviderName::Fly)?;
    make_data_folder(&data).map_err(Stop::usage)?;
    let mut interrupts = Interrupts::install()?;
    let mut asked_to_go = signal(SignalKind::from_raw(give_way::GO))?;
    let claude = interrupts.or_stop(machines::cli(settings, settings.claude(), environment)).await?;
    let program = claude.as_ref().map(|claude| claude.path.as_path());
    // Whoever started one in the background has the turn.
    let turn = match args.background {
        true => None,
        false => Some(interrupts.or_stop(give_way::turn(&data)).await?),
    };
    settings.bound_machines(&mut config.rules);
    settings.bound_tasks(&mut config.rules);
    settings.lend(&mut config);
    config.git = environment.git();
    config.network = settings.network();
    config.owner_token = owner_token(environment)?;
    mayfly_server::raise_open_files();
    let host = config.host_names.first().cloned();
    let provider = machines::provider(settings, environment, claude.as_ref(), &mut config)?;
    let Orchestrator { server, .. } = Orchestrator::start(config, claude.as_ref(), provider).await?;
    note(last::remember(&data, settings, program, server.listening()));
    drop(turn);
    ready(&server, host.as_deref());
    let idle = async {
        match settings.idle_exit() {
            Some(idle) => server.idle_for(idle).await,
            None => std::future::pending().await,
        }
    };
    let left = tokio::select! {
        () = interrupts.next() => drain(&server, settings.drain(), &mut interrupts).await,
        () = idle => Ok(0),
        // The next one knows better what it is to be like.
        _ = asked_to_go.recv(), if args.background => {
            server.stop().await;
            return Ok(Exit::Success);
        }
    };
    note(last::end(&data, settings, program, server.unfinished()));
    tokio::select! {
        () = server.stop() => {}
        // Whatever it is in the middle of, the next one takes up.
        () = interrupts.next() => {}
    }
    match left.context("cannot tell how many machines go on")? {
        0 => {}
        1 => say("1 machine goes on; the next `mayfly serve` takes it over"),
        left => say(&format!("{left} machines go on; the next `mayfly serve` takes them over")),
    }
    Ok(Exit::Success)
}

/// What opens the port for whoever started us, if they have said so: a file could not be given to a machine elsewhere.
fn owner_token(environment: &Environment) -> Result<Option<Secret>, Stop> {
    const LENGTH_MIN: usize = 32;
    let Some(token) = environment.get(OWNER_TOKEN) else { return Ok(None) };
    let good = token
        .to_str()
        .filter(|token| token.len() >= LENGTH_MIN && token.bytes().all(|byte| byte.is_ascii_graphic()));
    let good = good.ok_or_else(|| {
        Stop::wrong(format!(
            "{OWNER_TOKEN} is to have {LENGTH_MIN} or more letters, digits and signs, and no white space"
        ))
    });
    good.map(|token| Some(Secret::from(token.to_owned())))
}

/// Begins no more tasks, and waits for those that run: until they have ended, the time is over, or somebody
/// insists. Gives how many are left.
async fn drain(
    server: &Server,
    time: Duration,
    interrupts: &mut Interrupts,
) -> Result<usize, mayfly_engine::StoreError> {
    let run = match server.drain().await? {
        0 => return Ok(0),
        1 => "1 task runs".to_owned(),
        alive => format!("{alive} tasks run"),
    };
    let (wait, hang_up) = (time.as_secs(), STOP_MAX.as_secs());
    say(&format!("draining: {run}; waiting up to {wait}s, and {hang_up}s to hang up; once more stops now"));
    tokio::select! {
        drained = server.drained() => drained?,
        () = tokio::time::sleep(time) => {}
        () = interrupts.next() => {}
    }
    server.alive().await
}

/// An orchestrator does its work also where the next one will not know what it was like.
fn note(remembered: io::Result<()>) {
    if let Err(error) = remembered {
        tracing::warn!(%error, "what this orchestrator is like cannot be remembered in the data folder");
    }
}

/// On standard error, whether or not somebody still reads it.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The first line of standard output says that we are ready: who started us may be waiting for it. Nobody else
/// need read what comes out there, and so an error is none.
fn ready(server: &Server, host: Option<&str>) {
    let text = format!("serving on {}\n{}", server.socket().display(), listening::words(server, host));
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
