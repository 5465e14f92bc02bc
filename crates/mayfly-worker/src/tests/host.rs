//! An orchestrator as small as can be: it joins one worker, stores its records, takes its results.

use std::convert::Infallible;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mayfly_link::{ByteStream, Channel, Endpoint, Fingerprint, Frame, accept, fingerprint};
use mayfly_wire::api::Collected;
use mayfly_wire::boot::{Boot, ProcessLimit};
use mayfly_wire::worker::{Down, End, Hello, PROTOCOL, Record, Report, Source, WorkOrder, decode};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::checkpoint::Pace;
use crate::claude::command::tests::order;
use crate::life::{LifeError, live};
use crate::outbox::Bounds;
use crate::reaper::Realm;
use crate::supervise::Graces;
use crate::{Surroundings, claude};

/// Graces so short that a test that runs into them does not wait.
pub(crate) const SHORT: Graces = Graces {
    rest: Duration::from_millis(100),
    interrupt: Duration::from_millis(100),
    term: Duration::from_millis(100),
    drain: Duration::from_millis(200),
};

/// What happens to the model's requests.
pub(crate) type Model = fn(&Request<Incoming>) -> Option<Response<Full<Bytes>>>;

/// What the host knows and is told, shared by its connections.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) order: WorkOrder,
    pub(crate) records: watch::Sender<Vec<Record>>,
    /// Records are acknowledged up to this number.
    pub(crate) acks: watch::Sender<u64>,
    pub(crate) downs: broadcast::Sender<Option<Down>>,
    pub(crate) hellos: mpsc::UnboundedSender<Hello>,
    pub(crate) results: watch::Sender<Vec<(String, Bytes)>>,
    pub(crate) takes_results: bool,
    /// What is said of checkpoints of the work, where they are not taken.
    pub(crate) refuses_work: Option<StatusCode>,
    /// Where results are taken; elsewhere requests wait for ever.
    pub(crate) result_path: &'static str,
    pub(crate) model: Model,
    pub(crate) protocol: u32,
}

impl Desk {
    /// One that is content with everything, and where its hellos come out.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Hello>) {
        let (hello_in, hellos) = mpsc::unbounded_channel();
        let mut order = order();
        order.collect_ms_max = 30_000;
        order.orphan_after_ms = 30_000;
        let desk = Self {
            order,
            records: watch::Sender::new(Vec::new()),
            acks: watch::Sender::new(u64::MAX),
            downs: broadcast::channel(8).0,
            hellos: hello_in,
            results: watch::Sender::default(),
            takes_results: true,
            refuses_work: None,
            result_path: "/v1/worker/result/",
            model: |_| None,
            protocol: PROTOCOL,
        };
        (desk, hellos)
    }
}

pub(crate) struct Host {
    pub(crate) desk: Desk,
    pub(crate) hellos: mpsc::UnboundedReceiver<Hello>,
    pub(crate) dir: TempDir,
    pub(crate) graces: Graces,
    pub(crate) pace: Pace,
    pub(crate) bounds: Bounds,
    server: tokio::task::JoinHandle<()>,
}

impl Host {
    /// An orchestrator, and a machine in which `claude` is this shell script.
    pub(crate) fn start(script: &str) -> Self {
        Self::with(script, |_| {})
    }

    pub(crate) fn with(script: &str, adjust: impl FnOnce(&mut Desk)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["home", "workspace", "scratch"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let (mut desk, hellos) = Desk::new();
        adjust(&mut desk);
        let server = tokio::spawn(serve(dir.path().join("s"), desk.clone()));
        let host =
            Self { desk, hellos, dir, graces: SHORT, pace: Pace::USUAL, bounds: Bounds::USUAL, server };
        host.install(script);
        host
    }

    /// Writes the script that is run as `claude`; `init` and `result` print good lines.
    fn install(&self, script: &str) {
        let order = &self.desk.order;
        let init = serde_json::json!({
            "type": "system", "subtype": "init", "cwd": self.workspace().canonicalize().unwrap(),
            "session_id": order.session_id, "tools": ["Bash"], "mcp_servers": [], "model": "claude-sonnet-5-5",
            "permissionMode": claude::command::PERMISSION_MODE, "claude_code_version": "2.1.330",
        });
        let result =
            r#"{"type":"result","subtype":"success","is_error":false,"terminal_reason":"completed"}"#;
        let text =
            format!("#!/bin/sh\ninit() {{ echo '{init}'; }}\nresult() {{ echo '{result}'; }}\n{script}\n");
        let path = self.dir.path().join("claude");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    pub(crate) fn boot(&self) -> Boot {
        let at = |name: &str| self.dir.path().join(name);
        Boot {
            attempt: "0193b2c4-0000-7000-8000-0123456789ab.1".to_owned(),
            ticket: "ticket".to_owned().into(),
            endpoint: Endpoint::Unix(at("s")),
            claude: at("claude"),
            home: at("home"),
            workspace: at("workspace"),
            memory_events: Some(at("memory.events")),
            processes: Some(ProcessLimit { max: 512, events: at("pids.events") }),
            disk: None,
            closed_to: Vec::new(),
        }
    }

    /// The worker's whole life.
    pub(crate) async fn live(&self) -> Result<(), LifeError> {
        self.live_with(self.boot()).await
    }

    pub(crate) async fn live_with(&self, boot: Boot) -> Result<(), LifeError> {
        let surroundings = Surroundings {
            realm: Realm::Children,
            place: None,
            graces: self.graces,
            pace: self.pace,
            bounds: self.bounds,
            base: self.dir.path().join("base"),
            scratch: self.dir.path().join("scratch"),
            random: || 7,
            link_secret: "link".to_owned(),
        };
        Box::pin(live(boot, surroundings)).await
    }

    /// Listens on loopback as well, until the test is over.
    pub(crate) async fn over_tcp(&self) -> Endpoint {
        let (listener, address) = loopback().await;
        let desk = self.desk.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, desk.clone()));
            }
        });
        format!("http://{address}").parse().unwrap()
    }

    /// Listens on loopback as well, with a certificate of its own.
    pub(crate) async fn over_tls(&self) -> Endpoint {
        let (listener, address) = loopback().await;
        let (acceptor, pin) = acceptor();
        let desk = self.desk.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream = acceptor.accept(stream).await.unwrap();
                tokio::spawn(connection(stream, desk.clone()));
            }
        });
        format!("https://{address}#{pin}").parse().unwrap()
    }

    /// Waits for a record that answers this, and gives the answer.
    pub(crate) async fn until<T>(&self, answer: impl Fn(&[Record]) -> Option<T>) -> T {
        let mut records = self.desk.records.subscribe();
        let found = records.wait_for(|records| answer(records).is_some()).await.unwrap();
        answer(&found).unwrap()
    }

    /// Waits for a report like this.
    pub(crate) async fn reported(&self, like: impl Fn(&Report) -> bool) {
        self.until(|records| reports(records).iter().any(&like).then_some(())).await;
    }

    pub(crate) fn reports(&self) -> Vec<Report> {
        reports(&self.desk.records.borrow())
    }

    pub(crate) fn ended(&self) -> (String, String) {
        let ended = self.reports().into_iter().find_map(|report| match report {
            Report::Ended { outcome, detail } => Some((outcome, detail.unwrap_or_default())),
            _ => None,
        });
        ended.expect("an end")
    }

    pub(crate) fn collected(&self) -> Collected {
        let collected = self.reports().into_iter().find_map(|report| match report {
            Report::Collected(collected) => Some(collected),
            _ => None,
        });
        collected.expect("a collection")
    }

    /// The very bytes that came from one stream.
    pub(crate) fn bytes(&self, source: Source) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in self.desk.records.borrow().iter().filter(|record| record.source == source) {
            bytes.extend_from_slice(&record.bytes);
            bytes.extend((record.end == End::Newline).then_some(b'\n'));
        }
        bytes
    }

    pub(crate) fn result(&self, name: &str) -> Option<Bytes> {
        let results = self.desk.results.borrow();
        results.iter().find(|(named, _)| named == name).map(|(_, bytes)| bytes.clone())
    }

    /// Waits for so many files of this name to be handed over, and gives the last.
    pub(crate) async fn handed(&self, name: &str, count: usize) -> Bytes {
        let mut results = self.desk.results.subscribe();
        let named = |results: &Vec<(String, Bytes)>| {
            results.iter().filter(|(named, _)| named == name).nth(count - 1).map(|(_, bytes)| bytes.clone())
        };
        let found = results.wait_for(|results| named(results).is_some()).await.unwrap();
        named(&found).unwrap()
    }

    /// A pipe that a script can hold open as long as it lives.
    pub(crate) fn lifeline(&self) -> pipe::Receiver {
        let path = self.workspace().join("alive");
        mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        pipe::OpenOptions::new().open_receiver(path).unwrap()
    }

    pub(crate) fn say(&self, down: Down) {
        self.desk.downs.send(Some(down)).unwrap();
    }

    /// Cuts the link; the next hello is answered as the first was.
    pub(crate) fn cut(&self) {
        self.desk.downs.send(None).unwrap();
    }

    /// Is gone, for good.
    pub(crate) fn die(&self) {
        fs::remove_file(self.dir.path().join("s")).unwrap();
        self.server.abort();
        self.cut();
    }
}

pub(crate) fn reports(records: &[Record]) -> Vec<Report> {
    let reports = records.iter().filter(|record| record.source == Source::Report);
    reports.map(|record| serde_json::from_slice(&record.bytes).unwrap()).collect()
}

async fn loopback() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn acceptor() -> (TlsAcceptor, Fingerprint) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["mayfly".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), fingerprint(cert.der()))
}

async fn serve(socket: PathBuf, desk: Desk) {
    let listener = UnixListener::bind(Path::new(&socket)).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, desk.clone()));
    }
}

/// One connection, of whatever kind.
pub(crate) async fn connection(stream: impl ByteStream + 'static, desk: Desk) {
    let service = service_fn(move |request| answer(request, desk.clone()));
    let server = hyper::server::conn::http1::Builder::new();
    // How it ends, its other side sees.
    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn answer(mut request: Request<Incoming>, desk: Desk) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/v1/worker" {
        let (response, accepting) = accept(&mut request).unwrap();
        tokio::spawn(async move { session(accepting.channel().await.unwrap(), desk).await });
        return Ok(response.map(|()| Full::default()));
    }
    let Some(name) = path.strip_prefix(desk.result_path) else {
        return match (desk.model)(&request) {
            Some(response) => Ok(response),
            None => std::future::pending().await,
        };
    };
    let token = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let is_work = name.starts_with("checkpoint/") && name != "checkpoint/transcript";
    let status = match desk.takes_results && token == format!("Bearer {}", desk.order.result_token.expose()) {
        true => desk.refuses_work.filter(|_| is_work).unwrap_or(StatusCode::NO_CONTENT),
        false => StatusCode::UNAUTHORIZED,
    };
    desk.results.send_modify(|results| results.push((name.to_owned(), body)));
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}

/// One link, as the orchestrator holds it.
async fn session(mut channel: Channel, desk: Desk) {
    let mut downs = desk.downs.subscribe();
    let mut acks = desk.acks.subscribe();
    let Some(Ok(Frame::Text(hello))) = channel.recv().await else { panic!("no hello") };
    let stored = count(&desk);
    let order = Box::new(desk.order.clone());
    say(&mut channel, &Down::Welcome { protocol: desk.protocol, stored, order }).await;
    desk.hellos.send(serde_json::from_str(&hello).unwrap()).unwrap();
    let mut acked = stored;
    loop {
        tokio::select! {
            frame = channel.recv() => match frame {
                Some(Ok(Frame::Binary(frame))) => store(&desk, frame),
                _ => return,
            },
            Ok(down) = downs.recv() => match down {
                Some(down) => say(&mut channel, &down).await,
                None => return,
            },
            Ok(()) = acks.changed() => {}
        }
        let durable = count(&desk).min(*acks.borrow_and_update());
        if durable > acked {
            acked = durable;
            say(&mut channel, &Down::Ack { stored: acked }).await;
        }
    }
}

fn count(desk: &Desk) -> u64 {
    u64::try_from(desk.records.borrow().len()).unwrap()
}

fn store(desk: &Desk, frame: Bytes) {
    desk.records.send_modify(|stored| {
        for record in decode(frame).unwrap() {
            let next = u64::try_from(stored.len()).unwrap() + 1;
            assert!(record.number <= next, "a gap before {}", record.number);
            if record.number == next {
                stored.push(record);
            }
        }
    });
}

async fn say(channel: &mut Channel, down: &Down) {
    // A link that the other side has left shows when it is read.
    let _ = channel.send(Frame::Text(serde_json::to_string(down).unwrap())).await;
}
