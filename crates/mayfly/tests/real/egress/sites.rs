//! Hosts of made-up names, all of them on loopback, and an orchestrator whose network has these alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::{fs, io};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::response::IntoResponse as _;
use mayfly_core::host::Target;
use mayfly_server::{Network, Resolve};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::super::world::{Ended, World};

/// Some hosts, each with the same files and a page at any other path, by plain HTTP and by TLS. What is below `/locked` asks
/// for a name and a password.
pub(super) struct Sites {
    /// The files that they have.
    pub(super) files: TempDir,
    /// Where each is, by plain HTTP and by TLS.
    at: BTreeMap<String, (SocketAddr, SocketAddr)>,
    requests: Arc<Mutex<Vec<String>>>,
    /// What requests had in the headers for names and passwords.
    passwords: Arc<Mutex<Vec<String>>>,
}

impl Sites {
    pub(super) async fn start(names: &[&str]) -> Self {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let passwords: Arc<Mutex<Vec<String>>> = Arc::default();
        let owned: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(owned).unwrap();
        let files = tempfile::tempdir().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = rustls::ServerConfig::builder().with_no_client_auth();
        let tls = Arc::new(tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap());
        let mut at = BTreeMap::new();
        for name in names {
            let (name, seen) = ((*name).to_owned(), Arc::clone(&requests));
            let told = Arc::clone(&passwords);
            let (own, folder) = (name.clone(), files.path().to_owned());
            let site = Router::new().fallback(async move |request: Request| {
                let path = request.uri().path().to_owned();
                seen.lock().unwrap().push(format!("{own} {path}"));
                let password = request.headers().get(AUTHORIZATION);
                told.lock().unwrap().extend(password.map(|password| format!("{password:?}")));
                if path.starts_with("/locked/") {
                    return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic realm=\"git\"")])
                        .into_response();
                }
                let page = format!("{own} says {path}\n").into_bytes();
                fs::read(folder.join(path.trim_start_matches('/'))).unwrap_or(page).into_response()
            });
            let plain = serve(site).await;
            at.insert(name, (plain, wrap(plain, Arc::clone(&tls)).await));
        }
        Self { files, at, requests, passwords }
    }

    /// Each name and password that came with a request.
    pub(super) fn passwords(&self) -> Vec<String> {
        self.passwords.lock().unwrap().clone()
    }

    /// Each request that came, in their order.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Where a host is, by plain HTTP.
    pub(super) fn plain(&self, name: &str) -> SocketAddr {
        self.at[name].0
    }

    /// How a host is found: on port 443 by TLS, on any other without.
    fn network(&self) -> Network {
        let names = self.at.keys().map(|name| name.parse().unwrap()).collect();
        Network::new(Arc::new(Made(self.at.clone())), names)
    }
}

/// Serves it on loopback, until the test is over.
pub(super) async fn serve(site: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, site).await.unwrap() });
    address
}

/// TLS before what is at `plain`.
async fn wrap(plain: SocketAddr, tls: Arc<rustls::ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::clone(&tls));
            tokio::spawn(async move {
                let mut near = acceptor.accept(near).await?;
                let mut far = TcpStream::connect(plain).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    address
}

#[derive(Debug)]
struct Made(BTreeMap<String, (SocketAddr, SocketAddr)>);

#[async_trait::async_trait]
impl Resolve for Made {
    async fn resolve(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        let (plain, tls) = self.0.get(target.host.as_str()).ok_or(io::ErrorKind::NotFound)?;
        Ok(vec![if target.port == 443 { *tls } else { *plain }])
    }
}

/// An orchestrator in whose network these sites are. `None`: there is no `claude` here.
pub(super) async fn world(sites: &Sites) -> Option<World> {
    let network = sites.network();
    Some(World::configured(mayfly_test_needs::claude()?, |config| config.network = network).await)
}

/// Runs one command as the agent.
pub(super) async fn as_agent(world: &World, flags: &[&str], command: &str) -> Ended {
    let prompt = format!("[script: bash command={}]", serde_json::to_string(command).unwrap());
    let ended = world.outcome_of(&[flags, &[&prompt]].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}
