//! The real Fly, if there is a token for it: the configuration is tried, and a machine is booted.
//!
//! The machine is of the image that is to be tried, and its worker finds no orchestrator: it ends by itself, or is destroyed
//! here. What is measured is Fly's part, from the request to a VM that runs.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use mayfly_core::{Attempt, TaskId};
use mayfly_engine::SystemClock;
use mayfly_provider::{Limits, MachineSpec, Provider as _};
use mayfly_provider_fly::{API, Fly, FlyConfig};
use uuid::Uuid;

/// Where the token is.
const TOKEN: &str = "FLY_API_TOKEN";
/// What tells the machines of this check from those of others.
const DEPLOYMENT: &str = "smoke";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The app that is to have the machines
    #[arg(long, default_value = "mayfly-workers")]
    app: String,
    /// What they boot, by its digest
    #[arg(long, default_value = "")]
    image: String,
    /// Where they are, with commas between the codes
    #[arg(long, default_value = "iad", value_delimiter = ',')]
    regions: Vec<String>,
    /// How many are booted, one after another
    #[arg(long, default_value_t = 3)]
    machines: u32,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { app, image, regions, machines } = args;
    let Some(token) = std::env::var(TOKEN).ok().filter(|token| !token.is_empty()) else {
        println!("skipped: there is no Fly token ({TOKEN} is not set)");
        return Ok(ExitCode::SUCCESS);
    };
    // Nobody is there: the worker dials in vain.
    let nobody = "http://nobody.flycast".parse()?;
    let mut config = FlyConfig::new(&app, token.into(), DEPLOYMENT, nobody);
    config.api = std::env::var("FLY_FLAPS_BASE_URL").unwrap_or_else(|_| API.to_owned());
    (config.image, config.regions) = (image, regions);
    let fly = Fly::new(config, Arc::new(SystemClock))?;
    let start = Instant::now();
    fly.probe().await.context("no machine can be placed")?;
    println!("token, app, regions, image and room are as they should be ({:.1?})", start.elapsed());
    for number in 1..=machines {
        let booted = boot(&fly, number).await?;
        println!("machine {number} of {machines}: {booted}");
    }
    println!("{} machines left", fly.list().await?.len());
    Ok(ExitCode::SUCCESS)
}

async fn boot(fly: &Fly, number: u32) -> anyhow::Result<String> {
    let attempt = TaskId::new(Uuid::now_v7()).attempt(Attempt(number));
    let (ticket, way_out, limits) = ("smoke".to_owned().into(), "/".into(), Limits::default());
    let spec = MachineSpec { attempt, ticket, workspace: None, tools: Vec::new(), way_out, limits };
    let start = Instant::now();
    let tried = async {
        fly.create(&spec).await.context("no machine")?;
        let made = start.elapsed();
        let is_up = fly.has_booted(attempt).await.context("nobody knows where it stands")?;
        anyhow::Ok((made, start.elapsed(), is_up))
    };
    let tried = tried.await;
    let end = Instant::now();
    fly.destroy(attempt).await.context("it cannot be destroyed")?;
    let (made, booted, is_up) = tried?;
    let booted =
        if is_up { format!("booted after {booted:.1?}") } else { format!("not booted after {booted:.1?}") };
    Ok(format!("made after {made:.1?}, {booted}, gone {:.1?} after it was asked to be", end.elapsed()))
}
