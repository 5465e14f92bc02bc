//! Machines as VMs of Fly.io, put together from `[fly]` and the environment.
//!
//! The token is in `FLY_API_TOKEN` alone, and `FLY_FLAPS_BASE_URL` is another place of the Machines API, as for Fly's own
//! programs. The orchestrator's data folder keeps which of a Fly app's machines are its own.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use anyhow::Context as _;
use mayfly_engine::SystemClock;
use mayfly_provider::Provider;
use mayfly_provider_fly::{API, BASE_URL, Fly, FlyConfig, REGISTRY_HOST, SOURCE_KEY_FILE, TOKEN};
use mayfly_server::{FlySrc, ServerConfig, write_private};
use uuid::Uuid;

use super::{HELLO_MAX, tried};
use crate::commands::doctor::Check;
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::Stop;

/// Where images are pushed to.
const REGISTRY: &str = "registry.fly.io";
/// What in the data folder tells this orchestrator's machines from another's, and its length.
const DEPLOYMENT: &str = "fly-deployment";
const DEPLOYMENT_BYTES: usize = 12;
/// What stands for it where no machine is started.
const TRIAL: &str = "trial";

/// What makes the machines of an orchestrator. They come by its port, and have the time that Fly needs.
pub(super) fn provider(
    settings: &Settings,
    environment: &Environment,
    config: &mut ServerConfig,
) -> Result<Arc<dyn Provider>, Stop> {
    let fly = fly(settings, environment, &deployment(&config.data)?)?;
    for secret in token(environment).split([' ', ',']) {
        config.secrets.add("fly", secret);
    }
    config.machines_by_port = true;
    config.fly_src = Some(fly_src(settings, Path::new(SOURCE_KEY_FILE))?);
    config.rules.launch_max = settings.values.boot_timeout.value + HELLO_MAX;
    let swept = fly.clone();
    // For as long as this process is there.
    tokio::spawn(async move { swept.keep_swept().await });
    Ok(Arc::new(fly))
}

/// Refuses settings with which none can be made, before anything is asked of Fly.
pub(super) fn can_be_made(settings: &Settings, environment: &Environment) -> Result<(), Stop> {
    fly(settings, environment, TRIAL).map(drop)
}

/// What the doctor says: a machine is placed, which is not started, and destroyed.
pub(super) async fn checks(
    settings: &Settings,
    environment: &Environment,
    data: &Path,
) -> Result<Vec<Check>, Stop> {
    let deployment = kept(data)?.unwrap_or_else(|| TRIAL.to_owned());
    let fly = fly(settings, environment, &deployment);
    let good =
        async |_: &Fly| Ok(Check::ok("fly", "a machine was placed, and destroyed before it was started"));
    Ok(vec![tried("fly", fly, good).await])
}

fn fly(settings: &Settings, environment: &Environment, deployment: &str) -> Result<Fly, Stop> {
    let values = &settings.values;
    let needed = |key: &str, example: &str| {
        Stop::wrong(format!(
            "machines on Fly need `{key}` in [fly] of mayfly.toml, such as {key} = \"{example}\": `mayfly fly deploy` \
             writes it"
        ))
    };
    let app = values.app.as_ref().ok_or_else(|| needed("app", "mayfly-workers"))?;
    let image = values.image.as_ref().ok_or_else(|| needed("image", "registry.fly.io/APP@sha256:..."))?;
    let regions = values.regions.as_ref().ok_or_else(|| needed("regions", "iad,ord"))?;
    let way = values.orchestrator.as_ref().ok_or_else(|| needed("orchestrator", "http://APP.flycast"))?;
    let mut config = FlyConfig::new(&app.value, token(environment).into(), deployment, way.value.clone());
    config.api = api(environment);
    config.image.clone_from(&image.value);
    config.regions.clone_from(&regions.value.0);
    config.size = values.size.as_ref().map(|given| given.value.clone());
    config.guest = values.guest.as_ref().map(|given| given.value.clone());
    config.closed_to.clone_from(&values.closed_to.value);
    (config.boot_max, config.life_max) = (values.boot_timeout.value, values.lifetime.value);
    Fly::new(config, Arc::new(SystemClock)).map_err(Stop::usage)
}

/// The token, or nothing.
pub(crate) fn token(environment: &Environment) -> String {
    word(environment, TOKEN).unwrap_or_default()
}

/// What must be so of machines that come by Fly's proxy. The key is in each VM of Fly's, and nowhere else.
fn fly_src(settings: &Settings, key_file: &Path) -> Result<FlySrc, Stop> {
    let shown = key_file.display();
    let key = match fs::read_to_string(key_file) {
        Ok(key) => Some(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(anyhow::Error::new(error).context(format!("cannot read `{shown}`")).into()),
    };
    let app = settings.values.app.as_ref().map_or("", |app| &app.value);
    FlySrc::of_app(app, key.as_deref()).ok_or_else(|| {
        anyhow::anyhow!("`{shown}` has no key of Fly's, 64 digits in hex: no machine could be believed")
            .into()
    })
}

/// Where images are pushed to.
pub(crate) fn registry(environment: &Environment) -> String {
    word(environment, REGISTRY_HOST).unwrap_or_else(|| REGISTRY.to_owned())
}

/// Where the Machines API is.
pub(crate) fn api(environment: &Environment) -> String {
    word(environment, BASE_URL).unwrap_or_else(|| API.to_owned())
}

/// What is no text is none of Fly's.
fn word(environment: &Environment, name: &str) -> Option<String> {
    environment.get(name).map(|value| value.to_string_lossy().into_owned())
}

/// The word in the names of this data folder's machines. It is made once.
fn deployment(data: &Path) -> Result<String, Stop> {
    if let Some(kept) = kept(data)? {
        return Ok(kept);
    }
    let uuid = Uuid::now_v7().simple().to_string();
    // Its end is random.
    let made = uuid[uuid.len() - DEPLOYMENT_BYTES..].to_owned();
    let path = data.join(DEPLOYMENT);
    write_private(&path, made.as_bytes()).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(made)
}

fn kept(data: &Path) -> Result<Option<String>, Stop> {
    let path = data.join(DEPLOYMENT);
    let kept = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        kept => kept.with_context(|| format!("cannot read `{}`", path.display()))?,
    };
    let is_whole = kept.len() == DEPLOYMENT_BYTES && kept.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_whole {
        true => Ok(Some(kept)),
        false => Err(Stop::wrong(format!(
            "`{}` is not as mayfly wrote it, and says which machines on Fly are this folder's: put it back, or delete it \
             once `fly machine list` shows none",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use crate::values::{ProviderName, Regions};

    fn flags() -> Flags {
        Flags {
            provider: Some(ProviderName::Fly),
            app: Some("workers".to_owned()),
            image: Some(format!("registry.fly.io/workers@sha256:{}", "a".repeat(64))),
            regions: Some(Regions(vec!["iad".to_owned()])),
            orchestrator: "http://mayfly.flycast".parse().ok(),
            ..Flags::default()
        }
    }

    fn refused(flags: Flags, environment: &[(&str, &str)]) -> String {
        let refused = fly(&Settings::of(flags), &Environment::of(environment), "d1").expect_err("a refusal");
        assert_eq!(refused.exit, crate::exit::Exit::Usage);
        format!("{:#}", refused.into_error())
    }

    const SET: &[(&str, &str)] = &[(TOKEN, "FlyV1 fm2_x")];

    #[test]
    fn what_is_missing_is_named_with_an_example() {
        fly(&Settings::of(flags()), &Environment::of(SET), "d1").expect("whole");
        let words = "there is no Fly token: make one with `fly tokens create deploy -a workers -x 720h`, and set it as \
                     FLY_API_TOKEN";
        assert_eq!(refused(flags(), &[]), words);
        let missing = [
            ("app", Flags { app: None, ..flags() }),
            ("image", Flags { image: None, ..flags() }),
            ("regions", Flags { regions: None, ..flags() }),
            ("orchestrator", Flags { orchestrator: None, ..flags() }),
        ];
        for (key, flags) in missing {
            let words = refused(flags, SET);
            assert!(
                words.starts_with(&format!("machines on Fly need `{key}` in [fly] of mayfly.toml")),
                "{words}"
            );
        }
    }

    #[test]
    fn flys_key_is_taken_where_there_is_one_and_must_be_one() {
        let (folder, settings) = (tempfile::tempdir().expect("a folder"), Settings::of(flags()));
        let file = folder.path().join("fly-src.pub");
        fly_src(&settings, &file).expect("none is known");
        fs::write(&file, "ab".repeat(32)).expect("written");
        fly_src(&settings, &file).expect("a key");
        fs::write(&file, "no key").expect("written");
        let words = fly_src(&settings, &file).expect_err("no key").into_error().to_string();
        assert!(words.contains("has no key of Fly's"), "{words}");
    }

    #[test]
    fn guest_and_size_are_refused_together() {
        let (size, guest) =
            (Some("performance-2x".to_owned()), "cpu_kind=shared,cpus=1,memory_mb=256".parse().ok());
        let words = refused(Flags { size, guest, ..flags() }, SET);
        assert_eq!(words, "`guest` and `size` both say what a machine is made of: leave one of them out");
    }

    #[test]
    fn a_data_folder_keeps_what_its_machines_are_called() {
        let data = tempfile::tempdir().expect("a folder");
        let made = deployment(data.path()).expect("made");
        assert_eq!(deployment(data.path()).expect("kept"), made);
        let other = tempfile::tempdir().expect("a folder");
        assert_ne!(deployment(other.path()).expect("made"), made);
        fs::write(data.path().join(DEPLOYMENT), "short").expect("written");
        let words = format!("{:#}", deployment(data.path()).expect_err("spoilt").into_error());
        assert!(words.contains("fly-deployment` is not as mayfly wrote it"), "{words}");
    }
}
