//! `mayfly fly`: an orchestrator at Fly, made, looked at, renewed and unmade from here.
//!
//! What Fly has is the record of what is there. Kept here is only what opens the orchestrator, in a file of its own.

mod image;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use mayfly_engine::SystemClock;
use mayfly_provider_fly::deploy::{Deployment, Look, Step, Wanted};
use mayfly_server::{new_token, write_private};
use serde_json::json;

use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::machines::fly::{api, token};
use crate::printer::Printer;
use crate::values::{self, Regions, shell_word};
use image::Built;

const EXAMPLES: &str = "\
Examples:
  export FLY_API_TOKEN=$(fly tokens create org -o personal -x 2h)
  mayfly image build
  mayfly fly deploy --app my-mayfly --org personal --regions iad --dry-run
  mayfly fly deploy --app my-mayfly --org personal --regions iad
  mayfly fly status --app my-mayfly
  mayfly fly upgrade --app my-mayfly --push
  mayfly fly destroy --app my-mayfly

The image is the one of `mayfly image build`, which is pushed to the app's part of Fly's registry, or
one that is in a registry already, if --image names it.

Each can be run again at any time: it looks at what is there, and does what is left. The token stays
on this machine; the orchestrator is given one for its workers' app alone, for 90 days, which
`upgrade` renews.";

/// Deploy an orchestrator to Fly.io, with a VM there for each task
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FlyArgs {
    #[command(subcommand)]
    verb: FlyVerb,
}

#[derive(Debug, clap::Subcommand)]
enum FlyVerb {
    Deploy(DeployArgs),
    Status(StatusArgs),
    Upgrade(UpgradeArgs),
    Destroy(DestroyArgs),
}

/// Which one, and whose.
#[derive(Debug, clap::Args)]
struct WhichArgs {
    /// The orchestrator's app; its workers' is called so, and `-workers`
    #[arg(long, value_name = "APP", value_parser = values::fly_word)]
    app: String,
    /// The organisation, by its slug
    #[arg(long, value_name = "ORG", default_value = "personal", value_parser = values::fly_word)]
    org: String,
}

/// Bring an orchestrator about at Fly.io, or whatever of it is not there yet
#[derive(Debug, clap::Args)]
struct DeployArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Where machines may be, with commas between the codes; the orchestrator is in the first
    #[arg(long, value_name = "CODES", value_parser = values::regions)]
    regions: Regions,
    /// What the orchestrator and its workers boot, by its digest [default: the image of `mayfly image build`,
    /// which is pushed]
    #[arg(long, value_name = "IMAGE", value_parser = values::fly_word)]
    image: Option<String>,
    /// What the orchestrator's machine is, as one of Fly's sizes
    #[arg(long, value_name = "SIZE", default_value = "shared-cpu-2x", value_parser = values::fly_size)]
    size: String,
    /// The size of the volume for its data, in GB
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=500))]
    volume_gb: u32,
    /// Do nothing: print what is there, and what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Look at what is there
#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,
}

/// Renew the orchestrator's token, and start it anew, from another image if one is named
#[derive(Debug, clap::Args)]
struct UpgradeArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// What the orchestrator and its workers boot from now on, by its digest [default: what it boots now]
    #[arg(long, value_name = "IMAGE", value_parser = values::fly_word)]
    image: Option<String>,
    /// Push the image of `mayfly image build`, and have them boot that
    #[arg(long, conflicts_with = "image")]
    push: bool,
}

/// Destroy both apps, with all machines, the volume, and the data on it
#[derive(Debug, clap::Args)]
struct DestroyArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn fly(args: FlyArgs, environment: &Environment) -> Result<Exit, Stop> {
    let mut interrupts = Interrupts::install()?;
    let json = matches!(args.verb, FlyVerb::Status(StatusArgs { json: true, .. }));
    let mut printer = Printer::of_lines(json, environment);
    let done = async {
        match args.verb {
            FlyVerb::Deploy(args) => deploy(args, environment, &mut printer).await,
            FlyVerb::Status(args) => status(&args, environment, &mut printer).await,
            FlyVerb::Upgrade(args) => upgrade(args, environment, &mut printer).await,
            FlyVerb::Destroy(args) => destroy(&args, environment, &mut printer).await,
        }
    };
    let done = interrupts.or_stop(Box::pin(done)).await;
    printer.end();
    printer.exit(done?)
}

async fn deploy(args: DeployArgs, environment: &Environment, printer: &mut Printer) -> Result<Exit, Stop> {
    let DeployArgs { which, regions: Regions(regions), image, size, volume_gb, dry_run } = args;
    let kept = Kept::of(environment, &which.app)?;
    let built = match &image {
        Some(_) => None,
        None => Some(Built::find(environment, &which.app)?),
    };
    let image = built.as_ref().map(Built::name).or(image).unwrap_or_default();
    // What cannot be is refused before there is a token for it.
    deployment(Wanted { regions: regions.clone(), image: image.clone(), ..which.wanted(environment) })?;
    // Before anything is made: whoever is asked for it later has it.
    let owner_token = match dry_run {
        true => String::new(),
        false => kept.token(printer)?,
    };
    let wanted = Wanted {
        regions,
        image,
        size,
        volume_gb,
        owner_token: owner_token.into(),
        ..which.wanted(environment)
    };
    let deployment = deployment(wanted)?;
    for step in Step::ALL {
        let look = deployment.look(step).await?;
        let has_app = !dry_run || matches!(look, Look::There(_));
        take(look, dry_run, printer, async || Ok(deployment.bring_about(step).await?)).await?;
        // The registry has a place for it once the app is there.
        if let (Step::App, Some(built)) = (step, &built) {
            let look = if has_app { built.look().await? } else { built.missing() };
            take(look, dry_run, printer, async || built.send().await).await?;
        }
    }
    if !dry_run {
        for line in [
            String::new(),
            format!("What opens it, the owner's token, is kept in {}.", kept.file.display()),
            "From now on tasks of this machine run there with:".to_owned(),
            format!("  mayfly tunnel --to {} --token-file {}", deployment.url(), word(&kept.file)),
        ] {
            printer.closing(&line);
        }
    }
    Ok(Exit::Success)
}

/// Tells of a step, and does it if it is not done.
async fn take(
    look: Look,
    dry_run: bool,
    printer: &mut Printer,
    act: impl AsyncFn() -> Result<String, Stop>,
) -> Result<(), Stop> {
    match look {
        Look::There(words) => printer.closing(&format!("there   {words}")),
        Look::Missing(words) if dry_run => printer.closing(&format!("would   {words}")),
        Look::Missing(words) => {
            printer.closing(&format!("now     {words}"));
            printer.closing(&format!("done    {}", act().await?));
        }
    }
    Ok(())
}

fn deployment(wanted: Wanted) -> Result<Deployment, Stop> {
    Deployment::new(wanted, Arc::new(SystemClock)).map_err(Stop::usage)
}

async fn status(args: &StatusArgs, environment: &Environment, printer: &mut Printer) -> Result<Exit, Stop> {
    let deployment = deployment(args.which.wanted(environment))?;
    let (mut exit, mut steps) = (Exit::Success, Vec::new());
    for step in Step::ALL {
        let look = deployment.look(step).await?;
        let (is_there, words) = match look {
            Look::There(words) => (true, words),
            Look::Missing(_) => (false, step.name().to_owned()),
        };
        if !is_there {
            exit = Exit::Trouble;
        }
        steps.push((is_there, words));
    }
    let workers = deployment.workers().await?;
    if args.json {
        let steps: Vec<_> = steps.iter().map(|(there, is)| json!({ "there": there, "is": is })).collect();
        printer.json(&json!({ "url": deployment.url(), "parts": steps, "workers": workers }));
        return Ok(exit);
    }
    for (is_there, words) in steps {
        printer.closing(&format!("{}  {words}", if is_there { "there  " } else { "missing" }));
    }
    printer.closing(&format!("{workers} machines of workers"));
    Ok(exit)
}

async fn upgrade(args: UpgradeArgs, environment: &Environment, printer: &mut Printer) -> Result<Exit, Stop> {
    let UpgradeArgs { which, image, push } = args;
    let kept = Kept::of(environment, &which.app)?;
    let nothing = which.wanted(environment);
    let there = deployment(nothing.clone())?;
    let now = there.current().await?;
    let image = match push {
        true => {
            let built = Built::find(environment, &which.app)?;
            take(built.look().await?, false, printer, async || built.send().await).await?;
            Some(built.name())
        }
        false => image,
    };
    let wanted = Wanted {
        regions: now.regions,
        image: image.unwrap_or(now.image),
        size: now.size,
        owner_token: kept.token(printer)?.into(),
        ..nothing
    };
    let image = wanted.image.clone();
    let deployment = deployment(wanted)?;
    printer.closing(&format!("now     renew its secrets, and start it anew from {image}"));
    deployment.upgrade().await?;
    for step in [Step::Machine, Step::Ready] {
        printer.closing(&format!("done    {}", deployment.bring_about(step).await?));
    }
    Ok(Exit::Success)
}

async fn destroy(args: &DestroyArgs, environment: &Environment, printer: &mut Printer) -> Result<Exit, Stop> {
    let app = &args.which.app;
    let kept = Kept::of(environment, app)?;
    let deployment = deployment(args.which.wanted(environment))?;
    let workers = deployment.workers().await?;
    if !args.yes && !agreed(app, workers).await? {
        return Err(Stop::wrong("nothing was destroyed"));
    }
    deployment.destroy().await?;
    kept.forget()?;
    printer.closing(&format!("`{app}` and `{app}-workers` are gone, with all that they had"));
    Ok(Exit::Success)
}

/// Whether who is asked on the terminal types the name.
async fn agreed(app: &str, workers: usize) -> Result<bool, Stop> {
    if !io::stdin().is_terminal() {
        return Err(Stop::wrong("nobody can be asked here: --yes says that all of it is to be destroyed"));
    }
    let words = format!(
        "This destroys `{app}` and `{app}-workers`: the orchestrator, its data, and {workers} machines of workers.\n\
         Type the name of the app to go on: "
    );
    let typed = tokio::task::spawn_blocking(move || {
        io::Write::write_all(&mut io::stderr(), words.as_bytes())?;
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    Ok(typed.await?.context("the terminal cannot be read")?.trim() == app)
}

impl WhichArgs {
    /// As far as it is known without looking.
    fn wanted(&self, environment: &Environment) -> Wanted {
        Wanted {
            api: api(environment),
            token: token(environment).into(),
            organisation: self.org.clone(),
            app: self.app.clone(),
            regions: Vec::new(),
            image: String::new(),
            volume_gb: 0,
            size: String::new(),
            owner_token: String::new().into(),
        }
    }
}

/// What is kept here of a deployment: what opens it.
struct Kept {
    file: PathBuf,
}

impl Kept {
    fn of(environment: &Environment, app: &str) -> Result<Self, Stop> {
        let folder = environment
            .config_folder()
            .ok_or_else(|| Stop::wrong("cannot tell where to keep what opens the orchestrator: set HOME"))?;
        Ok(Self { file: folder.join("fly").join(format!("{app}.token")) })
    }

    /// The one that is kept, or a new one, which is shown this once.
    fn token(&self, printer: &mut Printer) -> Result<String, Stop> {
        let shown = self.file.display();
        match fs::read_to_string(&self.file) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = new_token().context("no random bytes can be had")?;
                let write = || {
                    fs::create_dir_all(self.file.parent().unwrap_or(Path::new("/")))?;
                    write_private(&self.file, made.as_bytes())
                };
                write().with_context(|| format!("cannot write `{shown}`"))?;
                printer.closing(&format!("made    the owner's token, which is not shown again: {made}"));
                Ok(made)
            }
            Err(error) => {
                Err(Stop::from(anyhow::Error::new(error).context(format!("cannot read `{shown}`"))))
            }
        }
    }

    fn forget(&self) -> Result<(), Stop> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn word(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}
