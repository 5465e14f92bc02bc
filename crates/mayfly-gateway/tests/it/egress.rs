//! The proxy, with hosts of made-up names behind it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use mayfly_core::host::{Rule, Target};
use mayfly_gateway::egress::{
    Asked, HEAD_MAX, HELLO_MAX, IDLE_MAX, Network, Policy, Resolve, Undecided, serve,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

/// The owner's rules, and what is told of decisions.
#[derive(Debug)]
struct Owner {
    /// None: nobody can tell.
    rules: Mutex<Option<Vec<Rule>>>,
    record: Mutex<Vec<String>>,
    over: mpsc::UnboundedSender<(u64, u64)>,
}

#[async_trait]
impl Policy for Owner {
    async fn allows(&self, target: &Target) -> Result<bool, Undecided> {
        let rules = self.rules.lock().expect("nobody panics").clone().ok_or(Undecided)?;
        Ok(rules.iter().any(|rule| rule.allows(target)))
    }

    fn keep(&self, asked: Asked) -> BoxFuture<'static, Option<i64>> {
        let Asked { host, port, verdict } = asked;
        let line = format!("{} {host}:{port} {}", verdict.name(), verdict.reason().unwrap_or("-"));
        self.record.lock().expect("nobody panics").push(line);
        Box::pin(async { Some(1) })
    }

    async fn keep_bytes(&self, _: i64, sent: u64, received: u64) {
        let _ = self.over.send((sent, received));
    }
}

/// A public address that the host of these tests has.
const OWN: &str = "1.2.3.4";
const OWN_6: &str = "2606:4700::1";

/// Addresses by name, and which names were asked for.
#[derive(Debug, Default)]
struct Names {
    at: HashMap<&'static str, Vec<SocketAddr>>,
    /// Nobody can tell which addresses the host has.
    lost: bool,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        self.asked.lock().expect("nobody panics").push(target.to_string());
        Ok(self.at.get(target.host.as_str()).cloned().unwrap_or_default())
    }

    fn own(&self) -> io::Result<Vec<IpAddr>> {
        match self.lost {
            true => Err(io::ErrorKind::Other.into()),
            false => Ok([OWN, OWN_6].map(|own| own.parse().expect("an address")).to_vec()),
        }
    }
}

struct Bed {
    owner: Arc<Owner>,
    names: Arc<Names>,
    network: Network,
    leave: CancellationToken,
    over: mpsc::UnboundedReceiver<(u64, u64)>,
}

impl Bed {
    /// Where `rules` hold, and `names` lead to these addresses; those that begin with `own` may be private.
    fn new(rules: &[&str], names: &[(&'static str, &[SocketAddr])]) -> Self {
        let rules = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        let (told, over) = mpsc::unbounded_channel();
        let owner = Owner { rules: Mutex::new(Some(rules)), record: Mutex::default(), over: told };
        let at = names.iter().map(|&(name, addresses)| (name, addresses.to_vec())).collect();
        let names = Arc::new(Names { at, ..Names::default() });
        let private =
            names.at.keys().filter(|name| name.starts_with("own")).map(|name| name.parse().expect("a name"));
        let network = Network::new(Arc::clone(&names) as Arc<dyn Resolve>, private.collect());
        Self { owner: Arc::new(owner), names, network, leave: CancellationToken::new(), over }
    }

    /// A connection of the machine, and the proxy at its other end.
    fn connect(&self) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(64 * 1024);
        let policy = Arc::clone(&self.owner) as Arc<dyn Policy>;
        (near, tokio::spawn(serve(far, policy, self.network.clone(), self.leave.clone())))
    }

    /// Sends one request, the last of its connection, and gives all that comes back.
    async fn ask(&self, request: &str) -> String {
        let (mut near, proxy) = self.connect();
        near.write_all(request.as_bytes()).await.expect("there is room");
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.expect("open");
        proxy.await.expect("it does not panic");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Opens a tunnel; what is sent through it is the test's.
    async fn tunnel(&self, to: &str) -> (DuplexStream, JoinHandle<()>) {
        let (mut near, proxy) = self.connect();
        near.write_all(format!("CONNECT {to} HTTP/1.1\r\n\r\n").as_bytes()).await.expect("there is room");
        let answer = head(&mut near).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        (near, proxy)
    }

    fn record(&self) -> Vec<String> {
        self.owner.record.lock().expect("nobody panics").clone()
    }
}

/// The head of an answer.
async fn head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("text")
}

/// A host that answers each request with `answer`; the first bytes of each connection come out.
async fn web(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (saw, seen) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let bytes = stream.read(&mut request).await.expect("open");
            let _ = saw.send(String::from_utf8_lossy(&request[..bytes]).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, seen)
}

/// A host that answers by TLS, with what it was told, in capitals.
async fn tls(name: &str) -> (SocketAddr, TlsConnector) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let server = rustls::ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.clone()], key).expect("a good pair");
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut said = [0; 4];
                stream.read_exact(&mut said).await?;
                stream.write_all(&said.map(|byte| byte.to_ascii_uppercase())).await?;
                stream.shutdown().await
            });
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a good certificate");
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (address, TlsConnector::from(Arc::new(client)))
}

/// S20, S29: a request goes to the one host that it names, without what is between it and us; its answer comes back as it
/// is, and a redirect is the machine's to follow.
#[tokio::test]
async fn a_request_of_plain_http_goes_to_the_host_that_it_names() {
    let answer =
        "HTTP/1.1 302 Found\r\nlocation: http://bad.test/\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nhi";
    let (at, mut seen) = web(answer).await;
    let mut bed = Bed::new(&["own.test"], &[("own.test", &[at])]);
    let request = "GET http://own.test/p?q=1 HTTP/1.1\r\nHost: OWN.test\r\nProxy-Authorization: Basic canary\r\n\
                   Connection: close, x-hop\r\nUpgrade: h2c\r\nX-Hop: 1\r\nAuthorization: Bearer mine\r\n\r\n";
    let answered = bed.ask(request).await;
    assert!(answered.starts_with("HTTP/1.1 302 Found\r\n") && answered.ends_with("\r\n\r\nhi"), "{answered}");
    assert!(
        answered.contains("location: http://bad.test/") && answered.contains("set-cookie: a=b"),
        "{answered}"
    );
    let request = seen.recv().await.expect("a request").to_ascii_lowercase();
    assert!(request.starts_with("get /p?q=1 http/1.1\r\n"), "{request}");
    assert!(
        request.contains("host: own.test\r\n") && request.contains("authorization: bearer mine"),
        "{request}"
    );
    for gone in ["canary", "x-hop", "upgrade", "h2c"] {
        assert!(!request.contains(gone), "{gone} in {request}");
    }
    assert_eq!(bed.record(), ["allowed own.test:80 -"]);
    assert_eq!(bed.over.recv().await, Some((request.len() as u64, answer.len() as u64)));
}

/// S20: through a tunnel goes TLS that names its host, byte for byte, and both directions are counted.
#[tokio::test]
async fn a_tunnel_carries_tls_to_the_host_that_it_names() {
    let (at, connector) = tls("own.test").await;
    let mut bed = Bed::new(&["own.test:443"], &[("own.test", &[at])]);
    let (near, proxy) = bed.tunnel("OWN.test.:443").await;
    let name = ServerName::try_from("own.test").expect("a name");
    let mut stream = connector.connect(name, near).await.expect("TLS");
    stream.write_all(b"ping").await.expect("open");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.expect("open");
    assert_eq!(said, b"PING");
    drop(stream);
    proxy.await.expect("it does not panic");
    assert_eq!(bed.record(), ["allowed own.test:443 -"]);
    let (sent, received) = bed.over.recv().await.expect("counted");
    assert!(sent > 100 && received > 500, "{sent} {received}");
}

/// S18, S20, S21: whatever else is asked for is refused, and told of, and nothing of it is resolved or dialled.
#[tokio::test]
async fn what_nobody_allowed_is_refused_in_every_way_of_asking() {
    let (at, mut seen) = web("HTTP/1.1 200 OK\r\n\r\n").await;
    let bed = Bed::new(&["own.test"], &[("own.test", &[at]), ("own.bad.test", &[at])]);
    let plain =
        |line: &str, host: &str| format!("{line} HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n\r\n");
    for (request, record) in [
        (plain("GET http://own.bad.test/", "own.bad.test"), "denied own.bad.test:80 not-listed"),
        (plain("GET http://own.test.bad.test/", "own.test"), "denied own.test.bad.test:80 other-host"),
        (plain("CONNECT own.bad.test:443", "own.test:443"), "denied own.bad.test:443 not-listed"),
        (plain("CONNECT own.test:8443", "x"), "denied own.test:8443 not-listed"),
        (plain("GET http://own.test:8080/", "own.test:8080"), "denied own.test:8080 not-listed"),
        (plain("GET http://own.test/", "own.bad.test"), "denied own.test:80 other-host"),
        (plain("GET http://own.test/", "own.test\r\nHost: own.test"), "denied own.test:80 other-host"),
        (plain("CONNECT 127.0.0.1:443", "x"), "denied 127.0.0.1:443:0 not-a-name"),
        (plain("CONNECT 2130706433:443", "x"), "denied 2130706433:443:0 not-a-name"),
        (plain("CONNECT 0x7f.1:443", "x"), "denied 0x7f.1:443:0 not-a-name"),
        (plain("CONNECT [::1]:443", "x"), "denied [::1]:443:0 not-a-name"),
        (plain("GET http://[::ffff:127.0.0.1]/", "x"), "denied [::ffff:127.0.0.1]:0 not-a-name"),
        (plain("GET http://169.254.169.254/latest", "x"), "denied 169.254.169.254:0 not-a-name"),
        (plain("CONNECT own.test@bad.test:443", "x"), "denied bad.test:443:0 not-a-name"),
        (plain("GET http://own.test@bad.test/", "x"), "denied bad.test:0 not-a-name"),
        (plain("GET https://own.test/", "own.test"), "denied own.test:0 bad-request"),
        (plain("GET /", "own.test"), "denied :0 bad-request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "denied :0 bad-request"),
        ("\x16\x03\x01\x02\x00\x01".to_owned(), "denied :0 bad-request"),
        ("\x05\x01\x00".to_owned(), "denied :0 bad-request"),
    ] {
        let before = bed.record().len();
        let answer = bed.ask(&request).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{request}: {answer}");
        assert_eq!(bed.record()[before..], [record], "{request}: {answer}");
    }
    assert_eq!(bed.names.asked.lock().expect("nobody panics")[..], [""; 0]);
    seen.try_recv().expect_err("nobody was asked");
}

/// S20: TLS for another host, TLS that names none, and what is no TLS end the tunnel before a byte has gone through.
#[tokio::test]
async fn a_tunnel_is_for_tls_that_names_its_host() {
    let (at, mut seen) = web("").await;
    let bed = Bed::new(&["own.test"], &[("own.test", &[at])]);
    let (_, connector) = tls("own.bad.test").await;
    for (name, record) in [
        ("own.bad.test", "denied own.test:443 other-name"),
        ("own.test.bad.test", "denied own.test:443 other-name"),
        ("127.0.0.1", "denied own.test:443 other-name"),
    ] {
        let (near, proxy) = bed.tunnel("own.test:443").await;
        connector.connect(ServerName::try_from(name).expect("a name"), near).await.expect_err("refused");
        proxy.await.expect("it does not panic");
        assert_eq!(bed.record().last().map(String::as_str), Some(record), "{name}");
    }
    let long = "\x16\x03\x01\x40\x00\x01\x00\x3f\x7c".to_owned() + &"x".repeat(20_000);
    for said in [
        "GET / HTTP/1.1\r\nHost: own.test\r\n\r\n",
        "CONNECT own.bad.test:443 HTTP/1.1\r\n\r\n",
        "SSH-2.0-x\r\n",
        "",
        &long,
    ] {
        let (mut near, proxy) = bed.tunnel("own.test:443").await;
        let _ = near.write_all(said.as_bytes()).await;
        let _ = near.shutdown().await;
        proxy.await.expect("it does not panic");
        assert_eq!(bed.record().last().map(String::as_str), Some("denied own.test:443 no-tls"), "{said:.9}");
    }
    // They were dialled, and heard nothing.
    while let Ok(said) = seen.try_recv() {
        assert_eq!(said, "");
    }
}

/// S18: a name that leads to this host, by a public address of its own too, to a private network or to the link leads nowhere, also beside a public address; an
/// owner can allow the first two, and never the last.
#[tokio::test]
async fn a_name_may_not_lead_inside() {
    let (at, _seen) = web("HTTP/1.1 204 No Content\r\n\r\n").await;
    let address = |ip: &str| SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), at.port());
    let refused = "denied HOST:80 private-address";
    for (host, ips, record) in [
        ("in.test", &["127.0.0.1"][..], refused),
        ("in.test", &["10.1.2.3"], refused),
        ("in.test", &["100.64.0.1"], refused),
        ("in.test", &["::1"], refused),
        ("in.test", &["fd00::1"], refused),
        ("in.test", &["::ffff:127.0.0.1"], refused),
        ("in.test", &["64:ff9b::7f00:1"], refused),
        ("in.test", &["2002:7f00:1::"], refused),
        ("in.test", &["1.1.1.1", "127.0.0.1"], refused),
        ("in.test", &[OWN], refused),
        ("in.test", &[OWN_6], refused),
        ("in.test", &["1.1.1.1", OWN], refused),
        ("own.test", &["169.254.169.254"], refused),
        ("own.test", &["fd00:ec2::254"], refused),
        ("own.test", &["fe80::1"], refused),
        ("own.test", &["127.0.0.1", "169.254.169.254"], refused),
        ("own.test", &["0.0.0.0"], refused),
        ("own.test", &["127.0.0.1"], "allowed HOST:80 -"),
        ("own.test", &[], "failed HOST:80 unresolved"),
    ] {
        let ips: Vec<SocketAddr> = ips.iter().map(|ip| address(ip)).collect();
        let bed = Bed::new(&["in.test", "own.test"], &[(host, &ips)]);
        bed.ask(&format!("GET http://{host}/ HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(bed.record(), [record.replace("HOST", host)], "{ips:?}");
        assert_eq!(
            bed.names.asked.lock().expect("nobody panics").len(),
            1,
            "resolved once, and dialled as checked"
        );
    }
}

/// S18: as long as nobody can tell which addresses are the host's own, nobody goes anywhere.
#[tokio::test]
async fn without_its_own_addresses_a_host_lets_nobody_out() {
    let (at, mut seen) = web("HTTP/1.1 204 No Content\r\n\r\n").await;
    let mut bed = Bed::new(&["own.test"], &[("own.test", &[at])]);
    let names = Names { at: bed.names.at.clone(), lost: true, ..Names::default() };
    bed.network = Network::new(Arc::new(names), vec!["own.test".parse().expect("a name")]);
    bed.ask("GET http://own.test/ HTTP/1.1\r\nConnection: close\r\nHost: own.test\r\n\r\n").await;
    assert_eq!(bed.record(), ["denied own.test:80 undecided"]);
    seen.try_recv().expect_err("nobody was asked");
}

#[tokio::test]
async fn a_host_that_does_not_answer_has_failed() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("bound")
    };
    let bed = Bed::new(&["own.test"], &[("own.test", &[nobody])]);
    let answer = bed.ask("CONNECT own.test:443 HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("own.test:443 cannot be reached"),
        "{answer}"
    );
    assert_eq!(bed.record(), ["failed own.test:443 unreachable"]);
}

/// I4: where nobody can tell, nobody goes. S25: a rule holds from the next question on.
#[tokio::test]
async fn the_rules_of_the_moment_hold() {
    let (at, _seen) = web("HTTP/1.1 204 No Content\r\n\r\n").await;
    let bed = Bed::new(&[], &[("own.test", &[at])]);
    let ask = async || {
        bed.ask("GET http://own.test/ HTTP/1.1\r\nConnection: close\r\nHost: own.test\r\n\r\n").await[9..12]
            .to_owned()
    };
    assert_eq!(ask().await, "403");
    *bed.owner.rules.lock().expect("nobody panics") = Some(vec!["own.test".parse().expect("a rule")]);
    assert_eq!(ask().await, "204");
    *bed.owner.rules.lock().expect("nobody panics") = None;
    assert_eq!(ask().await, "503");
}

/// S38: who says nothing, or too much, has no place for ever.
#[tokio::test(start_paused = true)]
async fn silence_has_an_end() {
    let (at, _seen) = web("").await;
    let bed = Bed::new(&["own.test"], &[("own.test", &[at])]);
    let begun = tokio::time::Instant::now();
    let (_near, proxy) = bed.connect();
    proxy.await.expect("it does not panic");
    assert_eq!(begun.elapsed().as_secs(), HEAD_MAX.as_secs());

    let huge =
        format!("GET http://own.test/ HTTP/1.1\r\nHost: own.test\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let (mut near, proxy) = bed.connect();
    let _ = near.write_all(huge.as_bytes()).await;
    proxy.await.expect("it does not panic");
    assert_eq!(bed.record(), ["denied :0 bad-request"; 2]);
}

#[tokio::test]
async fn a_tunnel_without_a_hello_ends() {
    let (at, _seen) = web("").await;
    let bed = Bed::new(&["own.test"], &[("own.test", &[at])]);
    let (_near, proxy) = bed.tunnel("own.test:443").await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    proxy.await.expect("it does not panic");
    assert_eq!(begun.elapsed().as_secs(), HELLO_MAX.as_secs());
    assert_eq!(bed.record(), ["denied own.test:443 no-tls"]);
}

/// A host that takes a connection and never says anything, and a hello for it.
async fn mute() -> (SocketAddr, mpsc::UnboundedReceiver<TcpStream>) {
    let (took, taken) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = took.send(stream);
        }
    });
    (address, taken)
}

/// The first message of TLS to `name`.
async fn hello(name: &str) -> Vec<u8> {
    let (_, connector) = tls(name).await;
    let (near, mut far) = duplex(16 * 1024);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    tokio::spawn(async move { connector.connect(name, near).await });
    let mut said = Vec::with_capacity(16 * 1024);
    far.read_buf(&mut said).await.expect("a hello");
    said
}

#[tokio::test]
async fn a_tunnel_that_is_silent_for_long_ends_and_its_bytes_are_told() {
    let (at, mut taken) = mute().await;
    let mut bed = Bed::new(&["own.test"], &[("own.test", &[at])]);
    let hello = hello("own.test").await;
    let (mut near, proxy) = bed.tunnel("own.test:443").await;
    near.write_all(&hello).await.expect("open");
    let mut far = taken.recv().await.expect("dialled");
    let mut got = vec![0; hello.len()];
    far.read_exact(&mut got).await.expect("the hello");
    assert_eq!(got, hello);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    proxy.await.expect("it does not panic");
    assert!(
        begun.elapsed() >= IDLE_MAX.saturating_sub(std::time::Duration::from_secs(1)),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(bed.over.recv().await, Some((hello.len() as u64, 0)));
}

/// S33: what goes through ends with its machine, and its bytes are told.
#[tokio::test]
async fn whatever_goes_on_ends_with_its_machine() {
    let (at, mut taken) = mute().await;
    let mut bed = Bed::new(&["own.test"], &[("own.test", &[at])]);
    let hello = hello("own.test").await;
    let (mut near, proxy) = bed.tunnel("own.test:443").await;
    near.write_all(&hello).await.expect("open");
    let mut far = taken.recv().await.expect("dialled");
    far.read_exact(&mut vec![0; hello.len()]).await.expect("the hello");
    let (mut asking, other) = bed.connect();
    asking.write_all(b"GET http://own.test/ HTTP/1.1\r\nHost: own.test\r\n\r\n").await.expect("open");
    let mut second = taken.recv().await.expect("dialled");
    second.read_u8().await.expect("the request");
    bed.leave.cancel();
    proxy.await.expect("it does not panic");
    other.await.expect("it does not panic");
    let mut told = [bed.over.recv().await.expect("told").0, bed.over.recv().await.expect("told").0];
    told.sort_unstable();
    assert!(told[0] > 30 && told[1] == hello.len() as u64, "{told:?}");
    assert_eq!(far.read(&mut [0]).await.expect("ended"), 0);
}
