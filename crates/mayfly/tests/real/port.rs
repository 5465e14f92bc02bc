//! `mayfly serve` where others can come, and the tokens that let them in.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};
use tokio::task::JoinHandle;

use super::service::User;
use super::world::Said;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mayfly");

struct Serving {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    /// All that it says until its end.
    log: JoinHandle<String>,
}

impl Serving {
    async fn start(user: &User, claude: &Path, args: &[&str]) -> Self {
        let mut command = user.command(Path::new(PROGRAM), &["serve", "--claude"]);
        command.arg(claude).args(args).env("MAYFLY_LOG", "trace").kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stderr = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut said = String::new();
            stderr.read_to_string(&mut said).await.unwrap();
            said
        });
        let mut serving = Self { child, stdout, log };
        assert!(serving.line().await.starts_with("serving on "));
        serving
    }

    async fn line(&mut self) -> String {
        self.stdout.next_line().await.unwrap().expect("it says more")
    }

    /// Ends it; all that it said on standard error.
    async fn end(mut self) -> String {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().await.unwrap().success());
        self.log.await.unwrap()
    }
}

/// The status of an answer at `address`.
pub(crate) async fn status(address: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /v1/tasks HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    String::from_utf8_lossy(&status[9..]).into_owned()
}

/// S30, S33: in no log, whatever it tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_until_it_is_revoked_and_is_in_no_log() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let mut serving = Serving::start(&user, &claude, &["--listen", "127.0.0.1:0"]).await;
    let line = serving.line().await;
    let address = line.split_once("http://").unwrap().1.split_once(',').unwrap().0.to_owned();
    let verb =
        async |args: &[&str]| Said::from(user.command(Path::new(PROGRAM), args).output().await.unwrap());
    let token = verb(&["token", "add", "laptop"]).await.text();
    let token = token.trim_end();
    assert_eq!(status(&address, token).await, "200");
    let listed = verb(&["token", "ls"]).await.text();
    assert!(listed.contains("laptop") && listed.contains("local") && !listed.contains(token), "{listed}");
    verb(&["token", "revoke", "laptop"]).await.text();
    assert_eq!(status(&address, token).await, "401");
    let log = serving.end().await;
    assert!(log.contains("a token was revoked") && log.contains("laptop"), "it tells of it: {log}");
    assert!(!log.contains(token) && !log.contains("mayfly-owner-"), "{log}");
    user.api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_is_told_the_fingerprint_which_stays() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let args = ["--listen", "0.0.0.0:0", "--tls", "self-signed", "--host-names", "box.example"];
    let mut told = Vec::new();
    for _ in 0..2 {
        let mut serving = Serving::start(&user, &claude, &args).await;
        assert!(serving.line().await.contains("https://0.0.0.0:"));
        serving.line().await;
        let line = serving.line().await;
        let (command, rest) = line.split_once("#sha256:").unwrap();
        assert!(command.trim_start().starts_with("mayfly tunnel --to 'https://box.example:"), "{line}");
        let fingerprint = rest.split_once('\'').unwrap().0;
        assert_eq!(fingerprint.len(), 64);
        told.push(fingerprint.to_owned());
        serving.end().await;
    }
    assert_eq!(told[0], told[1]);
    user.api.stop().await;
}
