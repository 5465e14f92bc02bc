//! Where an agent can go besides the model: nowhere, but for the hosts that its owner allowed.

mod matrix;
mod own_host;
mod sites;
mod tools;

use serde_json::Value;

use self::sites::{Sites, as_agent, world};
use super::world::World;

/// What the record says, a line each.
async fn record(world: &World, task: &str) -> Vec<String> {
    let said: Value = serde_json::from_str(&world.mayfly(&["allow", task, "--json"]).await.text()).unwrap();
    let line = |entry: &Value| {
        let of = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}:{} {}", of("decision"), of("host"), entry["port"], of("reason")).trim_end().to_owned()
    };
    said["entries"].as_array().unwrap().iter().map(line).collect()
}

/// S20: a host that was allowed is reached by plain HTTP and by TLS, and no other; each decision has a row, and the
/// first refusal of a host an event.
#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_host_is_reached_and_no_other() {
    let sites = Sites::start(&["good.test", "bad.test"]).await;
    let Some(world) = world(&sites).await else { return };
    let get = "curl -sk -m 20 -o /dev/null -w '%{http_code} %{http_connect}\\n'";
    let command = format!(
        "curl -s -m 20 http://good.test/page; curl -sk -m 20 https://good.test/page; \
         {get} http://bad.test/; {get} https://bad.test/; {get} https://bad.test/; true"
    );
    let ended = as_agent(&world, &["--allow", "good.test"], &command).await;
    let said = ended.tool_results().concat();
    assert_eq!(
        said, "good.test says /page\ngood.test says /page\n403 000\n000 403\n000 403",
        "{}",
        ended.stderr
    );
    assert_eq!(sites.requests(), ["good.test /page", "good.test /page"]);
    let denied: Vec<_> = ended.own("denied").collect();
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!((&denied[0]["host"], &denied[0]["tool"]), (&"bad.test:80".into(), &"network".into()));
    let task = ended.events[0]["task"].as_str().unwrap();
    assert_eq!(
        record(&world, task).await,
        [
            "allowed good.test:80",
            "allowed good.test:443",
            "denied bad.test:80 not-listed",
            "denied bad.test:443 not-listed",
            "denied bad.test:443 not-listed",
        ]
    );
    world.end().await;
}
