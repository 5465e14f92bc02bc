//! Machines that are elsewhere: they come by the port, with TLS, and each with its own tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly_client::Bundle;
use mayfly_link::{Endpoint, LinkError, Route};
use mayfly_provider::clock::Clock as _;
use mayfly_server::{FlySrc, MACHINE_CONNECTIONS_MAX, ServerConfig, Tls};
use mayfly_wire::api::{Collected, CreateTask};
use mayfly_wire::worker::Down;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsConnector;

use crate::bed::{Bed, Worker, bundle, hello, raw, task};
use crate::port::ANY;

/// Where a credential of these tests would go, if one went out.
const NOWHERE: &str = "http://127.0.0.1:1";

/// An orchestrator for machines elsewhere; what dials by a socket calls it by this name.
async fn bed() -> Bed {
    bed_with(|_| ()).await
}

async fn bed_with(adjust: impl Fn(&mut ServerConfig) + Send + Sync + 'static) -> Bed {
    Bed::start_with(move |config| {
        config.listen = Some(ANY);
        config.tls = Some(Tls::SelfSigned);
        config.host_names = vec!["mayfly".to_owned()];
        config.machines_by_port = true;
        adjust(config);
    })
    .await
}

/// A socket whose connections go to the port, with TLS.
fn way(bed: &Bed, dir: &TempDir) -> PathBuf {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(bed.data().join("tls.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let (path, port) = (dir.path().join("way"), bed.server.listening().unwrap());
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let connector = connector.clone();
            tokio::spawn(async move {
                let far = TcpStream::connect(port).await.unwrap();
                let mut far = connector.connect("mayfly".try_into().unwrap(), far).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    path
}

async fn submit(bed: &Bed, key: &str) -> String {
    bed.client.submit(&task("p", Some(NOWHERE.to_owned())), key).await.unwrap().id
}

async fn worker(bed: &mut Bed, way: &Path) -> Worker {
    let spec = bed.machines.recv().await.unwrap();
    Worker::join(way, &hello(&spec)).await.unwrap()
}

async fn put(way: &Path, token: &str) -> u16 {
    let put = raw(way).put("http://mayfly/v1/worker/result/bundle").bearer_auth(token);
    put.body(bundle("a.txt", "work", "m", "o")).send().await.unwrap().status().as_u16()
}

async fn ask_model(way: &Path, header: &str, token: &str) -> u16 {
    let post = raw(way).post("http://mayfly/v1/messages").header(header, token);
    post.body("{}").send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_machine_elsewhere_does_its_work_by_the_port() {
    let mut bed = bed().await;
    let dir = tempfile::tempdir().unwrap();
    let way = way(&bed, &dir);
    let id = submit(&bed, "key").await;
    let mut worker = worker(&mut bed, &way).await;
    worker.ready().await;
    worker.line("{\"type\":\"assistant\"}").await;
    assert_eq!(ask_model(&way, "x-api-key", worker.order.model_token.expose()).await, 502, "it went out");
    assert_eq!(put(&way, worker.order.result_token.expose()).await, 204);
    let head = raw(&way).head("http://mayfly/").send().await.unwrap();
    assert_eq!(head.status(), 200, "what `claude` asks before all else");
    worker.finish(Collected::default()).await;
    let mut events = bed.client.events(&id, 0);
    let mut lines = 0;
    while let Some(line) = events.next().await.unwrap() {
        lines += usize::from(line.contains("\"assistant\""));
    }
    assert_eq!(lines, 1);
    assert_eq!(put(&way, worker.order.result_token.expose()).await, 401, "it is over");
}

/// S40: neither kind of token opens what is the other's, nor one route's another's.
#[tokio::test]
async fn a_machines_tokens_and_an_owners_open_what_is_theirs_alone() {
    let mut bed = bed().await;
    let dir = tempfile::tempdir().unwrap();
    let way = way(&bed, &dir);
    submit(&bed, "one").await;
    let mut one = worker(&mut bed, &way).await;
    one.ready().await;
    let owner = bed.client.add_token("owner").await.unwrap();
    let owner = owner.token.expose();
    let (ticket, result, model) =
        (one.hello.ticket.expose(), one.order.result_token.expose(), one.order.model_token.expose());
    for token in [ticket, result, model] {
        let tasks = raw(&way).get("http://mayfly/v1/tasks").bearer_auth(token).send().await.unwrap();
        assert_eq!(tasks.status(), 401);
    }
    for token in [owner, ticket, model, "x", ""] {
        assert_eq!(put(&way, token).await, 401, "{token}");
    }
    for token in [owner, ticket, result, "x"] {
        assert_eq!(ask_model(&way, "x-api-key", token).await, 401, "{token}");
        assert_eq!(ask_model(&way, "authorization", &format!("Bearer {token}")).await, 401, "{token}");
    }
    submit(&bed, "other").await;
    let spec = bed.machines.recv().await.unwrap();
    for token in [owner, ticket, result, model] {
        let mut bad = hello(&spec);
        bad.ticket = token.to_owned().into();
        let refused = Worker::join(&way, &bad).await;
        assert!(matches!(refused, Err(Down::Reject { .. })), "{:?}", refused.err());
    }
    Worker::join(&way, &hello(&spec)).await.expect("nothing of it is spent");
    let own = raw(&way).get("http://mayfly/v1/tasks").bearer_auth(owner).send().await.unwrap();
    assert_eq!(own.status(), 200);
}

/// S27: Fly's proxy says of a request where it comes from. It need not be there, and what is there must be so.
#[tokio::test]
async fn a_machines_token_that_comes_from_elsewhere_at_fly_opens_nothing() {
    let key = || {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap()
    };
    let (flys, other) = (key(), key());
    let known = FlySrc::of_app("workers", Some(&hex::encode(flys.public_key())));
    let mut bed = bed_with(move |config| config.fly_src.clone_from(&known)).await;
    let dir = tempfile::tempdir().unwrap();
    let way = way(&bed, &dir);
    submit(&bed, "key").await;
    let worker = worker(&mut bed, &way).await;
    let put_from = async |key: &Ed25519KeyPair, app: &str| {
        let source = format!("instance=1;app={app};org=acme;ts={}", bed.clock.now().as_second());
        let signature = STANDARD.encode(key.sign(source.as_bytes()));
        let put = raw(&way).put("http://mayfly/v1/worker/result/bundle");
        let put = put.bearer_auth(worker.order.result_token.expose()).header("fly-src", source);
        let put = put.header("fly-src-signature", signature).body(bundle("a.txt", "work", "m", "o"));
        put.send().await.unwrap().status().as_u16()
    };
    assert_eq!(put_from(&flys, "workers").await, 204);
    assert_eq!(put_from(&flys, "others").await, 401);
    assert_eq!(put_from(&other, "workers").await, 401);
    assert_eq!(put(&way, worker.order.result_token.expose()).await, 204);
}

/// S38: by the port too, a machine can take no more places than its own.
#[tokio::test]
async fn a_machine_that_takes_all_its_places_keeps_no_other_waiting() {
    let mut bed = bed().await;
    let dir = tempfile::tempdir().unwrap();
    let way = way(&bed, &dir);
    submit(&bed, "hostile").await;
    let hostile = worker(&mut bed, &way).await;
    let token = hostile.order.egress_token.as_ref().unwrap().expose();
    let head = format!(
        "GET /v1/egress HTTP/1.1\r\nhost: mayfly\r\nconnection: upgrade\r\nupgrade: mayfly-egress\r\n\
         authorization: Bearer {token}\r\n\r\n",
    );
    let mut places = Vec::new();
    let refused = loop {
        let mut stream = UnixStream::connect(&way).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = [0; 12];
        stream.read_exact(&mut said).await.unwrap();
        if &said != b"HTTP/1.1 101" {
            break String::from_utf8_lossy(&said).into_owned();
        }
        places.push(stream);
    };
    // The link has one, and the attempt's own door keeps one for who comes there.
    assert_eq!((refused.as_str(), places.len()), ("HTTP/1.1 503", MACHINE_CONNECTIONS_MAX - 2));
    submit(&bed, "other").await;
    let other = worker(&mut bed, &way).await;
    assert_eq!(put(&way, other.order.result_token.expose()).await, 204);
}

/// What a machine has open ends with its attempt.
#[tokio::test]
async fn a_machines_connections_by_the_port_end_with_its_attempt() {
    let mut bed = bed().await;
    let dir = tempfile::tempdir().unwrap();
    let way = way(&bed, &dir);
    let id = submit(&bed, "key").await;
    let mut worker = worker(&mut bed, &way).await;
    worker.ready().await;
    let mut stream = UnixStream::connect(&way).await.unwrap();
    let token = worker.order.result_token.expose();
    let head = format!(
        "PUT /v1/worker/result/bundle HTTP/1.1\r\nhost: mayfly\r\nauthorization: Bearer {token}\r\n\
         content-length: 9\r\nexpect: 100-continue\r\n\r\n",
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    bed.client.cancel(&id, true).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    while worker.heard().await.is_some() {}
}

/// It is asked for in words.
#[tokio::test]
async fn without_the_setting_no_machine_comes_by_the_port() {
    let mut bed = Bed::start_with(|config| config.listen = Some(ANY)).await;
    submit(&bed, "key").await;
    let worker = bed.worker().await;
    let url = format!("http://{}", bed.server.listening().unwrap());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (result, model) = (worker.order.result_token.expose(), worker.order.model_token.expose());
    let result = http.put(format!("{url}/v1/worker/result/bundle")).bearer_auth(result);
    let model = http.post(format!("{url}/v1/messages")).bearer_auth(model);
    for request in [result, model, http.get(format!("{url}/v1/worker")), http.head(url.clone())] {
        assert_eq!(request.body("{}").send().await.unwrap().status(), 401);
    }
}

/// By what `mayfly serve` prints: the address and the fingerprint.
#[tokio::test]
async fn a_worker_elsewhere_pins_the_fingerprint() {
    let mut bed = bed().await;
    submit(&bed, "key").await;
    let spec = bed.machines.recv().await.unwrap();
    let (address, fingerprint) = (bed.server.listening().unwrap(), bed.server.fingerprint().unwrap());
    let endpoint = format!("https://{address}#{fingerprint}");
    let mut worker = Worker::join_by(endpoint.parse().unwrap(), &hello(&spec)).await.unwrap();
    worker.ready().await;
    let other = format!("https://{address}#sha256:{}", "0".repeat(64));
    let dialled =
        mayfly_link::dial(&Route::from(other.parse::<Endpoint>().unwrap()), "/v1/worker", None).await;
    assert!(matches!(dialled, Err(LinkError::Untrusted { .. })), "{dialled:?}");
}

/// It sees no folder of the orchestrator's: the code comes by its own way, to it alone.
#[tokio::test]
async fn a_machine_elsewhere_fetches_what_its_own_task_starts_from() {
    let mut bed = bed().await;
    let dir = tempfile::tempdir().unwrap();
    let way = way(&bed, &dir);
    let code = format!("# v2 git bundle\n{} HEAD\n\nPACK", "1".repeat(40));
    std::fs::write(dir.path().join("code"), &code).unwrap();
    let bundle = Bundle::read(&dir.path().join("code"), None).await.unwrap();
    let workspace = Some(bed.client.upload_workspace("repo", &bundle).await.unwrap());
    let asked = CreateTask { workspace, ..task("p", Some(NOWHERE.to_owned())) };
    bed.client.submit(&asked, "with").await.unwrap();
    let with = worker(&mut bed, &way).await;
    submit(&bed, "without").await;
    let without = worker(&mut bed, &way).await;
    let fetch = async |token: &str| {
        let get = raw(&way).get("http://mayfly/v1/worker/workspace").bearer_auth(token);
        let answer = get.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(fetch(with.order.result_token.expose()).await, (200, code));
    assert_eq!(fetch(without.order.result_token.expose()).await.0, 404);
    let owner = bed.client.add_token("owner").await.unwrap();
    let (ticket, model) = (with.hello.ticket.expose(), with.order.model_token.expose());
    for token in [owner.token.expose(), ticket, model, "x"] {
        assert_eq!(fetch(token).await.0, 401, "{token}");
    }
}
