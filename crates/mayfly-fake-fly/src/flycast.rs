//! Fly's proxy, as far as a machine's way to a Flycast address goes: the one thing that no policy closes.
//!
//! ```text
//! a machine's own network                       the stand-in's
//! worker ──► a listener at the address ─────────► what listens at the same address
//!                                       Fly-Src
//! ```
//!
//! It says of the first request of each connection where that comes from, and signs that, as Fly does: by a key of which
//! machines have the public half at [`KEY_FILE`].

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly_provider::clock::Clock;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Where a machine finds the public half, in hex.
pub const KEY_FILE: &str = "/.fly/fly-src.pub";
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What it says of where a request comes from.
const HEADERS: [&str; 2] = ["fly-src", "fly-src-signature"];

/// What signs.
#[derive(Clone)]
pub(crate) struct Signer(Arc<Ed25519KeyPair>);

impl Signer {
    pub(crate) fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("there are random bytes");
        Self(Arc::new(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("it was made just now")))
    }
}

/// Where requests come from.
#[derive(Clone)]
pub struct Source {
    /// All but the time.
    pub(crate) who: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) signer: Signer,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.who).finish()
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.who == other.who
    }
}

impl Eq for Source {}

impl Source {
    /// What checks it, in hex.
    pub fn key(&self) -> String {
        hex::encode(self.signer.0.public_key())
    }

    /// The headers, as they are now: what is said, and the signature of that.
    pub fn headers(&self) -> [(&'static str, String); 2] {
        let said = format!("{};ts={}", self.who, self.clock.now().as_second());
        let signature = STANDARD.encode(self.signer.0.sign(said.as_bytes()));
        [(HEADERS[0], said), (HEADERS[1], signature)]
    }
}

/// Listens at an address in another network namespace.
pub(crate) async fn listen_in(namespace: File, at: SocketAddr) -> io::Result<TcpListener> {
    // A thread that was there does not come back.
    let listening = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let listener = std::net::TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        io::Result::Ok(listener)
    });
    let listener = tokio::task::spawn_blocking(move || listening.join().expect("no panic")).await??;
    TcpListener::from_std(listener)
}

/// Leads what comes there on to the same address here, until it is dropped.
pub(crate) async fn lead(listener: TcpListener, to: SocketAddr, source: Source) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (from, _) = listener.accept().await?;
        let source = source.clone();
        // How one ends is for its two ends to see.
        connections.spawn(async move { one(from, to, &source).await });
        while connections.try_join_next().is_some() {}
    }
}

async fn one(mut from: TcpStream, to: SocketAddr, source: &Source) -> io::Result<()> {
    let mut on = TcpStream::connect(to).await?;
    let head = head(&mut from).await?;
    on.write_all(&with_source(&head, source)?).await?;
    copy_bidirectional(&mut from, &mut on).await.map(drop)
}

/// All up to the end of the first request's head, and whatever came with it.
async fn head(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if from.read_buf(&mut head).await? == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}

/// A head that says where it comes from, whatever it said before.
fn with_source(head: &[u8], source: &Source) -> io::Result<Vec<u8>> {
    let end = head.windows(4).position(|end| end == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let text = std::str::from_utf8(&head[..end]).map_err(|_| io::ErrorKind::InvalidData)?;
    let is_ours = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !HEADERS.contains(&&*name)
    };
    let mut lines: Vec<String> = text.split("\r\n").filter(is_ours).map(str::to_owned).collect();
    lines.extend(source.headers().map(|(name, value)| format!("{name}: {value}")));
    let mut said = lines.join("\r\n").into_bytes();
    said.extend_from_slice(&head[end..]);
    Ok(said)
}
