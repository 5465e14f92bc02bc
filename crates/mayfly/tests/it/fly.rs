//! What is said before any task, where machines are to be Fly's.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use mayfly_engine::SystemClock;
use mayfly_fake_fly::{FakeFly, Setup, Token};

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
