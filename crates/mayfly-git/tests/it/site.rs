//! A host that has a repository as plain files, by TLS, for whoever has the password.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// `me:word`, as a browser would send it.
const AUTHORIZATION: &str = "authorization: basic bwu6d29yza==";

/// The host, until the test is over.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    /// Its certificate, for whoever is to trust it.
    pub(crate) certificate: String,
    /// The head of each request.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

impl Site {
    /// With what is below `folder`.
    pub(crate) async fn start(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let tls =
            TlsAcceptor::from(Arc::new(tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (folder, seen) = (folder.to_owned(), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, tls.clone(), folder.clone(), Arc::clone(&seen)));
            }
        });
        Self { address, certificate: made.cert.pem(), requests }
    }
}

/// One request of each connection. Who goes away is of no importance: the test sees what the client made of it.
async fn answer(stream: TcpStream, tls: TlsAcceptor, folder: PathBuf, seen: Arc<Mutex<Vec<String>>>) {
    let Ok(mut stream) = tls.accept(stream).await else { return };
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => head.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(head.clone());
    let path = head.split([' ', '?']).nth(1).unwrap().trim_start_matches('/').to_owned();
    let (status, content) = match fs::read(folder.join(path)) {
        _ if !head.to_ascii_lowercase().contains(AUTHORIZATION) => {
            ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"", Vec::new())
        }
        Ok(content) => ("200 OK", content),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", content.len());
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&content).await;
    let _ = stream.shutdown().await;
}
