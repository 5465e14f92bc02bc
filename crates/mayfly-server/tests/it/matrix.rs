//! Who may do what: every route of the owner's, as the API's own document lists them, with every kind of token.

use http::Method;
use mayfly_wire::Secret;
use mayfly_wire::api::Collected;
use serde_json::Value;

use crate::bed::{Bed, raw, task};

const NOBODYS: &str = "0193b2c4-0000-7000-8000-0123456789ab";
/// What is open to everybody who is no page.
const OPEN: &str = "/healthz";

/// Every method and path of the document, with names that name nothing.
async fn routes(bed: &Bed) -> Vec<(Method, String)> {
    let answer = raw(&bed.server.socket()).get("http://mayfly/v1/openapi.json").send().await.unwrap();
    let document: Value = answer.json().await.unwrap();
    let mut routes = vec![(Method::GET, "/v1/openapi.json".to_owned())];
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", NOBODYS).replace("{name}", "nobody");
        let path = path.replace("{sha256}", &"0".repeat(64));
        let path = path.replace("{kind}", "skill").replace("{namespace}", "_global");
        assert!(!path.contains('{'), "{path}: what is to be put there?");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase().parse().unwrap();
            routes.push((method, path.clone()));
        }
    }
    assert!(routes.len() > 15, "{routes:?}");
    routes
}

/// S40, and S33 for the revoked: whoever is not let in gets the same answer everywhere, whether there is something
/// or not.
#[tokio::test]
async fn each_route_of_the_owners_opens_to_an_owners_token_alone() {
    let mut bed = Bed::start_with(|config| config.listen = Some(crate::port::ANY)).await;
    bed.client.submit(&task("p", None), "key").await.unwrap();
    let worker = bed.worker().await;
    let good = bed.client.add_token("good").await.unwrap().token.expose().to_owned();
    let revoked = bed.client.add_token("revoked").await.unwrap().token.expose().to_owned();
    bed.client.revoke_token("revoked").await.unwrap();
    let (ticket, result, model) =
        (worker.hello.ticket.expose(), worker.order.result_token.expose(), worker.order.model_token.expose());
    let elsewhere = worker.order.egress_token.as_ref().map(Secret::expose);
    let wrong = format!("mayfly-owner-{}", "0".repeat(64));
    let bad =
        [None, Some(""), Some(&wrong), Some(&revoked), Some(ticket), Some(result), Some(model), elsewhere];
    let url = format!("http://{}", bed.server.listening().unwrap());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |method: &Method, path: &str, token: Option<&str>| {
        let request = http.request(method.clone(), format!("{url}{path}")).body("{}");
        let request = request.header("content-type", "application/json");
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let mut routes = routes(&bed).await;
    routes.extend([(Method::GET, "/v1/nowhere".to_owned()), (Method::DELETE, "/v1/tasks".to_owned())]);
    routes.retain(|(_, path)| path != OPEN);
    let denied = ask(&Method::GET, "/v1/tasks", None).await;
    assert_eq!(denied.0, 401);
    for (method, path) in &routes {
        for token in bad {
            let answer = ask(method, path, token).await;
            // An answer to HEAD has no words.
            let expected = if method == Method::HEAD { (denied.0, String::new()) } else { denied.clone() };
            assert_eq!(answer, expected, "{method} {path} {token:?}");
        }
        let (status, text) = ask(method, path, Some(&good)).await;
        assert!(![401, 403, 500].contains(&status), "{method} {path}: {status} {text}");
    }
    assert_eq!(ask(&Method::GET, OPEN, None).await.0, 200);
    drop(worker);
}

/// S40: an id that was guessed, a path instead of one, or a position that is none.
#[tokio::test]
async fn what_is_guessed_names_nothing() {
    let mut bed = Bed::start().await;
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    bed.worker().await.finish(Collected::default()).await;
    let mut events = bed.client.events(&id, 0);
    let mut last = 0;
    while events.next().await.unwrap().is_some() {
        last += 1;
    }
    let owner = raw(&bed.server.socket());
    let ask = async |path: &str| {
        let answer = owner.get(format!("http://mayfly{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let missing = ask(&format!("/v1/tasks/{NOBODYS}")).await;
    assert_eq!(missing.0, 404);
    for name in ["..%2f..%2fkey", "%2e%2e%2fkey", "....", "%00%00%00%00", "%ff%fe%fd%fc", "%27%20OR%201=1--"]
    {
        assert_eq!(ask(&format!("/v1/tasks/{name}")).await, missing, "{name}");
    }
    for file in ["bundle", "transcript", "patch"] {
        let nothing = ask(&format!("/v1/tasks/{id}/result/{file}")).await;
        assert_eq!((nothing.0, ask(&format!("/v1/tasks/{NOBODYS}/result/{file}")).await.0), (404, 404));
    }
    let after = async |seq: &str| ask(&format!("/v1/tasks/{id}/events?follow=false&after={seq}")).await;
    for none in ["-1", "1e3", "x", "", "18446744073709551616", "0x1", "1.0"] {
        assert_eq!(after(none).await.0, 400, "{none}");
    }
    let past = ["9223372036854775807", "9223372036854775808", "18446744073709551615", &last.to_string()];
    for past in past {
        assert_eq!(after(past).await, (200, String::new()), "{past}");
    }
}
