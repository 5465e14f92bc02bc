//! What is said before any task, where machines are to be Fly's.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use mayfly_engine::SystemClock;
use mayfly_fake_fly::{FakeFly, Setup, Token, image};

use super::User;
use super::doctor::checks;

const APP: &str = "workers";
const TOKEN: &str = "fm2_made-up";

fn image() -> String {
    format!("registry.fly.io/{APP}@sha256:{}", "ab".repeat(32))
}

/// A user whose configuration is whole.
fn user(regions: &str) -> User {
    let user = User::new();
    let text = format!(
        "[serve]\nprovider = \"fly\"\n[fly]\napp = \"{APP}\"\nimage = \"{}\"\nregions = \"{regions}\"\n\
         orchestrator = \"http://mayfly.flycast\"\n",
        image()
    );
    fs::create_dir_all(user.home().join(".config/mayfly")).unwrap();
    fs::write(user.home().join(".config/mayfly/mayfly.toml"), text).unwrap();
    user
}

/// Whether a task could run, and why not, as the doctor says of this Fly.
async fn said(regions: &str, token: &str, adjust: impl FnOnce(&mut Setup)) -> (i32, String) {
    let mut setup = Setup::new(Arc::new(SystemClock), APP, TOKEN, &image());
    setup.boot = Duration::ZERO;
    adjust(&mut setup);
    let fake = FakeFly::start(setup).await;
    let user = user(regions);
    let mut command = user.with_token(&["doctor", "--json"]);
    command.env("FLY_API_TOKEN", token).env("FLY_FLAPS_BASE_URL", fake.url());
    let (code, checks) = checks(&command.output().unwrap());
    assert_eq!((fake.machines(), fake.complaints()), (vec![], vec![]));
    assert!(user.untouched(), "a folder is left");
    let names: Vec<&str> = checks.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.contains(&"sandbox") && !names.contains(&"claude"), "{names:?}");
    let (_, check) = checks.iter().find(|(name, _)| name == "fly").unwrap();
    (code, format!("{}: {}", check["state"].as_str().unwrap(), check["detail"].as_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_places_a_machine_at_fly_and_says_what_is_wrong_there() {
    let mut all = Vec::new();
    let mut note =
        |what: &str, (code, said): (i32, String)| all.push(format!("{what}: exit {code}\n  {said}"));
    note("all is well", said("iad,ord", TOKEN, |_| {}).await);
    note("no token", said("iad", "", |_| {}).await);
    note(
        "an expired token",
        said("iad", TOKEN, |setup| setup.tokens[0].until = Some(jiff::Timestamp::UNIX_EPOCH)).await,
    );
    let other =
        |setup: &mut Setup| setup.tokens = vec![Token { app: None, ..Token::deploy(TOKEN, "personal", APP) }];
    note("another organisation's token", said("iad", TOKEN, other).await);
    note("no app", said("iad", TOKEN, |setup| setup.apps.clear()).await);
    note("no such region", said("iad,zzz", TOKEN, |_| {}).await);
    note("no quota", said("iad", TOKEN, |setup| setup.machines_max = Some(0)).await);
    note("no image", said("iad", TOKEN, |setup| setup.images.clear()).await);
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn what_is_missing_or_wrong_is_said_and_nothing_is_started() {
    let with = |more: &str| {
        let user = User::new();
        fs::write(user.cwd().join("mayfly.toml"), more).unwrap();
        let mut serve = user.mayfly(&["serve", "--provider", "fly", "--config", "mayfly.toml"]);
        serve.env("FLY_API_TOKEN", TOKEN);
        let said = user.said(serve);
        assert!(user.untouched() && !said.contains(TOKEN), "{said}");
        said
    };
    let whole = format!(
        "[fly]\napp = \"{APP}\"\nimage = \"{}\"\nregions = \"iad\"\norchestrator = \"http://mayfly.flycast\"\n",
        image()
    );
    let all = [
        with(""),
        with(&whole.replace(&image(), "registry.fly.io/workers:latest")),
        with(&whole.replace("http://mayfly.flycast", "unix:/run/mayfly.sock")),
        with(&format!(
            "{whole}size = \"performance-2x\"\nguest = \"cpu_kind=shared,cpus=1,memory_mb=256\"\n"
        )),
        with(&format!("{whole}size = \"huge\"\n")),
        with(&format!("{whole}guest = \"cpu_kind=shared,cpus=3,memory_mb=256\"\n")),
        with(&whole.replace("\"iad\"", "\"Mars\"")),
        with("[serve]\nprovider = \"mars\"\n"),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

/// The whole life of a deployment, by the commands.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_is_deployed_looked_at_renewed_and_destroyed() {
    let newer = image().replace("ab", "cd");
    let mut setup = Setup::new(Arc::new(SystemClock), APP, TOKEN, &image());
    setup.tokens = vec![Token { app: None, ..Token::deploy(TOKEN, "acme", "") }];
    setup.images.push(newer.clone());
    setup.apps.clear();
    setup.boot = Duration::ZERO;
    let fake = FakeFly::start(setup).await;
    let user = User::new();
    let mut all = Vec::new();
    let mut mayfly = |args: &[&str]| {
        let mut command = user.mayfly(&[&["fly"], args].concat());
        command.env("FLY_API_TOKEN", TOKEN).env("FLY_FLAPS_BASE_URL", fake.url());
        all.push(format!("$ mayfly fly {}\n{}", args.join(" "), user.said(command)));
    };
    let which = ["--app", "mine", "--org", "acme"];
    let (image, newer) = (image(), newer.as_str());
    let deploy = [&["deploy"], &which[..], &["--regions", "iad", "--image", &image]].concat();
    mayfly(&[&deploy[..], &["--dry-run"]].concat());
    assert!(!user.home().join(".config").exists(), "something is kept of what was not done");
    mayfly(&deploy);
    let kept = user.home().join(".config/mayfly/fly/mine.token");
    let owner_token = fs::read_to_string(&kept).unwrap();
    assert_eq!(fake.secret("mine", "MAYFLY_OWNER_TOKEN").unwrap(), owner_token);
    mayfly(&[&["upgrade"], &which[..], &["--image", newer]].concat());
    mayfly(&[&["status"], &which[..]].concat());
    mayfly(&[&["destroy"], &which[..]].concat());
    assert_eq!(fake.apps().len(), 2);
    mayfly(&[&["destroy"], &which[..], &["--yes"]].concat());
    mayfly(&[&["status", "--json"], &which[..]].concat());
    assert_eq!(
        (fake.apps(), fake.machines(), fake.complaints(), kept.exists()),
        (vec![], vec![], vec![], false)
    );
    let all = all.join("\n");
    assert!(all.matches(&owner_token).count() == 1 && !all.contains(TOKEN), "{all}");
    insta::assert_snapshot!(all.replace(&owner_token, "[owner's token]"));
}

/// From the layout that `mayfly image build` leaves to machines that boot it; what is there is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn the_image_that_was_built_is_pushed_once_and_booted_by_its_digest() {
    let mut setup = Setup::new(Arc::new(SystemClock), APP, TOKEN, "");
    setup.tokens = vec![Token { app: None, ..Token::deploy(TOKEN, "acme", "") }];
    (setup.apps, setup.images, setup.boot) = (BTreeMap::new(), Vec::new(), Duration::ZERO);
    let fake = FakeFly::start(setup).await;
    let (user, registry) = (User::new(), fake.registry());
    let mut all = Vec::new();
    let mut mayfly = |token: &str, args: &[&str]| {
        let mut command = user.mayfly(&[&["fly"], args, &["--app", "mine"]].concat());
        command.env("FLY_API_TOKEN", token).env("FLY_FLAPS_BASE_URL", fake.url());
        command.env("FLY_REGISTRY_HOST", &registry);
        let said = user.said(command);
        // How long it takes is not the same each time.
        let lines = said.lines().filter(|line| !line.starts_with("mayfly: pushing: "));
        let shown = lines.collect::<Vec<_>>().join("\n").replace(&registry, "[registry]");
        all.push(format!("$ mayfly fly {}\n{shown}\n", args.join(" ")));
    };
    let deploy = ["deploy", "--org", "acme", "--regions", "iad"];
    let cache = user.home().join(".cache");
    mayfly(TOKEN, &deploy);
    assert_eq!(fake.requests(), 0, "what is missing here is said first");
    let first = image::make_up(&cache, "1").unwrap();
    mayfly(TOKEN, &[&deploy[..], &["--dry-run"]].concat());
    assert_eq!((fake.apps(), fake.uploads()), (vec![], 0));
    mayfly(&format!("FlyV1 {TOKEN}"), &deploy);
    let boots = |digest: &str| {
        let machines = fake.machines();
        let images: Vec<_> = machines.iter().map(|machine| machine.config["image"].clone()).collect();
        assert_eq!(images, [format!("{registry}/mine@{digest}")]);
    };
    boots(&first);
    assert_eq!(fake.uploads(), 3);
    mayfly(TOKEN, &deploy);
    assert_eq!(fake.uploads(), 3, "all of it is there");
    let second = image::make_up(&cache, "2").unwrap();
    mayfly(TOKEN, &["upgrade", "--org", "acme", "--push"]);
    boots(&second);
    assert_eq!(fake.uploads(), 5, "one layer is the same");
    assert_eq!(fake.complaints(), [""; 0]);
    let owner_token = fs::read_to_string(user.home().join(".config/mayfly/fly/mine.token")).unwrap();
    insta::assert_snapshot!(all.join("\n").replace(&owner_token, "[owner's token]"));
}

#[test]
fn a_deployment_that_cannot_be_is_refused_before_anything_is_asked() {
    let user = User::new();
    let with = |token: &str, image: &str, app: &str| {
        let args = ["fly", "deploy", "--app", app, "--org", "acme", "--regions", "iad", "--image", image];
        let mut command = user.mayfly(&args);
        user.said({
            command.env("FLY_API_TOKEN", token).env("FLY_FLAPS_BASE_URL", "http://127.0.0.1:1");
            command
        })
    };
    let all = [
        with("", &image(), "mine"),
        with(TOKEN, "registry.fly.io/mine:latest", "mine"),
        with(TOKEN, &image(), "My_App"),
        with(TOKEN, &image(), "mine"),
    ];
    // The one that could be has made a token, which is another each time.
    let all = all.join("\n");
    let lines = all.lines().filter(|line| !line.starts_with("made    the owner's token"));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}
