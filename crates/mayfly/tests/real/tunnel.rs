//! Two machines: an orchestrator on the one, `mayfly tunnel` on the other, and every verb there.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines, copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use super::service::User;
use super::world::{Run, Said, processes_in};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mayfly");

/// A process that says where it serves, once it does.
struct Serving {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Serving {
    /// Starts it, and waits until its socket is there.
    async fn start(user: &User, args: &[&str]) -> Self {
        Self::of(user.command(Path::new(PROGRAM), args)).await
    }

    async fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap();
        assert!(first.as_ref().is_some_and(|line| line.starts_with("serving on ")), "{first:?}");
        Self { child, lines }
    }

    /// The port that it tells of next.
    async fn port(&mut self) -> u16 {
        let line = self.lines.next_line().await.unwrap().unwrap();
        let address = line.split_once("http://").unwrap().1.split_once(',').unwrap().0;
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    async fn end(mut self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
        self.child.wait().await.unwrap();
    }
}

fn data(user: &User, name: &str) -> String {
    user.dir.path().join(name).to_str().unwrap().to_owned()
}

/// A verb, in the data folder with this name. It could start no orchestrator: there is no such CLI.
fn verb(user: &User, folder: &str, args: &[&str]) -> tokio::process::Command {
    let data = data(user, folder);
    user.command(Path::new(PROGRAM), &[&["--claude", "/nowhere"], args, &["--data", &data]].concat())
}

/// An orchestrator there and a data folder here.
struct Two {
    user: User,
    claude: PathBuf,
    port: u16,
    orchestrator: Serving,
}

impl Two {
    async fn start() -> Option<Self> {
        let claude = mayfly_test_needs::claude()?;
        let user = User::new().await;
        let (there, path) = (user.dir.path().join("there"), claude.to_str().unwrap());
        let args = ["--claude", path, "serve", "--listen", "127.0.0.1:0", "--data", there.to_str().unwrap()];
        let mut orchestrator = Serving::start(&user, &args).await;
        let port = orchestrator.port().await;
        Some(Self { user, claude, port, orchestrator })
    }

    fn data(&self, name: &str) -> String {
        data(&self.user, name)
    }

    /// Ends the orchestrator, and starts the next one in its place.
    async fn restart(self, signal: Signal) -> Self {
        let Self { user, claude, port, orchestrator } = self;
        orchestrator.end(signal).await;
        let (there, address) = (data(&user, "there"), format!("127.0.0.1:{port}"));
        let args = ["--claude", claude.to_str().unwrap(), "serve", "--listen", &address, "--data", &there];
        let orchestrator = Serving::start(&user, &args).await;
        Self { user, claude, port, orchestrator }
    }

    /// From here on nobody is there.
    async fn end_orchestrator(self) -> User {
        self.orchestrator.end(Signal::TERM).await;
        self.user
    }

    /// `mayfly tunnel` here.
    async fn tunnel(&self, args: &[&str]) -> Serving {
        let here = self.data("here");
        let args = [&["tunnel", "--listen", "127.0.0.1:0", "--data", &here], args].concat();
        Serving::start(&self.user, &args).await
    }

    /// The first time, it must be told where to.
    async fn first_tunnel(&self) -> Serving {
        self.first_tunnel_by(self.port).await
    }

    /// The same, by a port that leads there.
    async fn first_tunnel_by(&self, port: u16) -> Serving {
        let (to, token) = (format!("http://127.0.0.1:{port}"), self.data("there") + "/token");
        self.tunnel(&["--to", &to, "--token-file", &token]).await
    }

    async fn said(&self, folder: &str, args: &[&str]) -> Said {
        Said::from(verb(&self.user, folder, args).output().await.unwrap())
    }

    /// The logs that the tunnel has written, by the ids of their tasks.
    fn logs(&self) -> Vec<(String, String)> {
        let status: Vec<_> =
            std::fs::read_dir(self.data("here") + "/tunnel").unwrap().map(Result::unwrap).collect();
        let store =
            status.iter().find(|entry| entry.path().is_dir()).expect("a database was followed").path();
        let logs = std::fs::read_dir(store.join("logs")).unwrap().map(|entry| entry.unwrap().path());
        let log = |path: PathBuf| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
        };
        logs.map(log).collect()
    }

    async fn end(self) {
        let user = self.end_orchestrator().await;
        assert_eq!(processes_in(user.dir.path()).len(), 0);
        user.api.stop().await;
    }
}

/// The tunnel's promise: the verbs here need not know where the orchestrator is, and the log here has the very bytes.
#[tokio::test(flavor = "multi_thread")]
async fn every_verb_works_through_a_tunnel_and_the_log_is_here() {
    let Some(two) = Two::start().await else { return };
    let tunnel = two.first_tunnel().await;
    let ended =
        Run::start(verb(&two.user, "here", &["run", "--json", "[script: write path=made.txt]"])).end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    ended.assert_whole();
    let made = std::fs::read_dir(two.user.dir.path().join("cwd")).unwrap().next().unwrap().unwrap().path();
    assert!(made.join("made.txt").is_file(), "the work came back through it");
    let task = ended.events[0]["task"].as_str().unwrap();
    assert!(two.said("here", &["ps", "--all"]).await.text().contains(&task[task.len() - 8..]));

    let raw = two.said("there", &["logs", "--raw", task]).await;
    assert_eq!(two.said("here", &["logs", "--raw", task]).await.stdout, raw.stdout);
    assert!(!raw.stdout.is_empty());
    let whole = two.said("there", &["logs", "--json", task]).await.text();
    assert_eq!(two.logs(), [(task.to_owned(), whole.clone())]);

    let status: Value =
        serde_json::from_str(&two.said("here", &["tunnel", "status", "--json"]).await.text()).unwrap();
    assert_eq!((&status["connected"], &status["position"]), (&json!(true), &status["head"]), "{status}");
    tunnel.end(Signal::TERM).await;

    // From here on it knows where to; what it has comes no second time.
    let tunnel = two.tunnel(&[]).await;
    assert_eq!(two.logs(), [(task.to_owned(), whole.clone())]);
    tunnel.end(Signal::TERM).await;
    let nobody = two.said("here", &["run", "[script: text]"]).await;
    assert_eq!(nobody.code, Some(3));
    assert!(nobody.stderr.contains("does not run: start it with `mayfly tunnel`"), "{}", nobody.stderr);
    two.end().await;
}

/// The library of the tasks is there, and is changed from here.
#[tokio::test(flavor = "multi_thread")]
async fn the_library_is_changed_through_a_tunnel() {
    let Some(two) = Two::start().await else { return };
    let tunnel = two.first_tunnel().await;
    let here = async |args: &[&str]| two.said("here", &[&["library"], args].concat()).await;
    assert!(here(&["init"]).await.text().contains("added          agent/_global/code-reviewer"));
    let listed = two.said("there", &["library", "ls"]).await.text();
    assert_eq!(here(&["ls"]).await.text(), listed);
    assert!(listed.contains("_global/code-reviewer"), "{listed}");
    let reviewer = ["show", "agent/_global/code-reviewer"];
    assert_eq!(
        here(&reviewer).await.text(),
        two.said("there", &[&["library"], &reviewer[..]].concat()).await.text()
    );
    let style = two.user.dir.path().join("style.md");
    std::fs::write(&style, "Be brief.").unwrap();
    let add = ["add", style.to_str().unwrap(), "--as", "rules/site/style"];
    // What is there just so is well there; another is not put in its place unasked.
    for _ in 0..2 {
        assert_eq!(here(&add).await.code, Some(0));
    }
    std::fs::write(&style, "Be long.").unwrap();
    let another = here(&add).await.refusal();
    assert!(another.contains("is in the library already"), "{another}");
    assert!(two.said("there", &["library", "ls", "--project", "site"]).await.text().contains("site/style"));
    assert_eq!(here(&["check"]).await.code, Some(0));
    assert_eq!(here(&["remove", "rules/site/style"]).await.code, Some(0));
    assert!(here(&["remove", "rules/site/style"]).await.refusal().contains("is not in the library"));
    tunnel.end(Signal::TERM).await;
    two.end().await;
}

/// What a task would get there is told here, whatever it asks for; what is to be fetched for its lock is fetched there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_would_get_is_locked_through_a_tunnel() {
    let Some(two) = Two::start().await else { return };
    let tunnel = two.first_tunnel().await;
    let here = async |args: &[&str]| two.said("here", &[&["library"], args].concat()).await;
    let there = async |args: &[&str]| two.said("there", &[&["library"], args].concat()).await;
    assert_eq!(here(&["init"]).await.code, Some(0));
    let library = PathBuf::from(two.data("there")).join("library");
    let put = |path: &str, text: &str| {
        let path = library.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("skill/other/pdf/SKILL.md", "---\ndescription: reads\n---\nRead it.");
    put("rules/site/style/style.md", "Be brief.");
    put("rules/site/loose.md", "Be loose.");
    let wishes =
        ["--agent", "fixer", "--skill", "other/pdf", "--no-hooks", "check-syntax", "--project", "site"];
    for format in [&[][..], &["--json"]] {
        for verb in ["ls", "lock"] {
            let args = [&[verb], &wishes[..], format].concat();
            let told = here(&args).await.text();
            assert_eq!(told, there(&args).await.text());
            assert!(told.contains("other/pdf") && told.contains("site/style"), "{told}");
            assert!(!told.contains("check-syntax"), "{told}");
        }
    }
    assert!(
        here(&[&["ls"], &wishes[..]].concat()).await.text().contains("rules/site/loose.md: does not count")
    );
    let unknown = here(&["lock", "--skill", "none"]).await.refusal();
    assert!(unknown.contains("skill/none: is not in the library"), "{unknown}");

    let ended = Run::start(verb(&two.user, "here", &["run", "--json", "[script: text]"])).end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let task = ended.events[0]["task"].as_str().unwrap();
    let lock = two.user.dir.path().join("lock.json");
    for (args, differs) in
        [(&["lock"][..], ""), (&["lock", "--project", "site"], "+ project site\n+ rules/site/style")]
    {
        std::fs::write(&lock, here(args).await.text()).unwrap();
        let found = here(&["diff", task, lock.to_str().unwrap()]).await.text();
        assert!(found.starts_with(differs) && found.is_empty() == differs.is_empty(), "{found}");
    }

    put("mcp/site/tiny/mcp.json", r#"{"command": "npx", "args": ["-y", "tiny@1.0.0"]}"#);
    let unfetched = here(&["lock", "--project", "site"]).await.refusal();
    let words = "mcp/site/tiny/mcp.json: `npx tiny@1.0.0` would download in the machine: `mayfly library lock` fetches it \
                 once, on the machine that has the library";
    assert!(unfetched.contains(words), "{unfetched}");
    assert_eq!(here(&["lock"]).await.code, Some(0), "it is not for a task of no project");
    tunnel.end(Signal::TERM).await;
    two.end().await;
}

/// R03, R07: the orchestrator is killed and comes back, the tunnel is killed and comes back; each event is here once.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_the_log_here_has_each_event_once() {
    let Some(two) = Two::start().await else { return };
    let tunnel = two.first_tunnel().await;
    let submitted =
        two.said("here", &["run", "--detach", "[script: hold name=one text=answered]"]).await.text();
    let task = submitted.split_once(' ').unwrap().0.to_owned();
    two.user.api.held("one", 1).await;
    tunnel.end(Signal::KILL).await;
    let tunnel = two.tunnel(&[]).await;
    let two = two.restart(Signal::KILL).await;
    two.user.api.release("one");
    let followed = two.said("here", &["logs", "--json", "--follow", &task]).await;
    assert_eq!(followed.code, Some(0), "{}", followed.stderr);
    let whole = two.said("there", &["logs", "--json", &task]).await.text();
    assert!(followed.stdout == whole.as_bytes(), "{}", followed.stderr);
    let [(id, log)] = &two.logs()[..] else { panic!("one task has one log") };
    assert!(*log == whole);

    // What is whole here can be read while nobody is there, by an end of its id too.
    let port = two.port;
    let user = two.end_orchestrator().await;
    let verb = async |args: &[&str]| Said::from(verb(&user, "here", args).output().await.unwrap());
    for name in [id, &task] {
        let away = verb(&["logs", "--json", name]).await;
        assert!(away.stdout == whole.as_bytes(), "{}", away.stderr);
        assert!(away.stderr.contains("the tunnel has no"), "{}", away.stderr);
    }
    let followed = verb(&["logs", "--follow", &task]).await;
    assert_eq!(followed.code, Some(0), "{}", followed.stderr);
    let unknown = verb(&["logs", "00000000"]).await;
    assert_eq!(unknown.code, Some(3));
    assert!(
        unknown.stderr.contains("no log on this machine is of a task whose id ends so"),
        "{}",
        unknown.stderr
    );
    let status = verb(&["tunnel", "status"]).await;
    assert_eq!(status.code, Some(3));
    assert!(String::from_utf8_lossy(&status.stdout).contains("link    none since"), "{status:?}");
    let ps = verb(&["ps"]).await;
    assert_eq!(ps.code, Some(3));
    let words = format!("the tunnel has no link to http://127.0.0.1:{port} since 2");
    assert!(ps.stderr.contains(&words), "{}", ps.stderr);
    tunnel.end(Signal::TERM).await;
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    user.api.stop().await;
}

/// S33: a token that is revoked while the tunnel is there is told of, once, and a new one is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_is_told_of_and_another_is_enough() {
    let Some(two) = Two::start().await else { return };
    let file = two.data("laptop");
    std::fs::write(&file, two.said("there", &["token", "add", "laptop"]).await.stdout).unwrap();
    let (here, to) = (two.data("here"), format!("http://127.0.0.1:{}", two.port));
    let args = ["tunnel", "--listen", "127.0.0.1:0", "--data", &here, "--to", &to, "--token-file", &file];
    let mut command = two.user.command(Path::new(PROGRAM), &args);
    let mut tunnel = command.stderr(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut said = BufReader::new(tunnel.stderr.take().unwrap()).lines();
    let mut line = async || said.next_line().await.unwrap().unwrap();
    assert_eq!(line().await, format!("connected to {to}"));
    two.said("there", &["token", "revoke", "laptop"]).await.text();
    let mut told = line().await;
    while !told.contains("refuses the token") {
        assert!(told.starts_with("no link to "), "{told}");
        told = line().await;
    }
    assert!(told.contains("`mayfly tunnel --token-file FILE` here takes it"), "{told}");
    kill_process(Pid::from_raw(tunnel.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
    tunnel.wait().await.unwrap();
    std::fs::write(&file, two.said("there", &["token", "add", "laptop"]).await.stdout).unwrap();
    let tunnel = two.tunnel(&["--token-file", &file]).await;
    let status = two.said("here", &["tunnel", "status"]).await;
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    tunnel.end(Signal::TERM).await;
    two.end().await;
}

/// S25: hosts are allowed, and their record is shown, wherever the orchestrator is.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_allowed_through_a_tunnel() {
    let Some(two) = Two::start().await else { return };
    let tunnel = two.first_tunnel().await;
    let ask = r#"[script: steps list=[{"hold":"go","tools":[{"name":"Bash","input":{"command":"curl -s http://b.test/; true"}}]}]]"#;
    let submitted = two.said("here", &["run", "--detach", "--allow", "a.test", ask]).await.text();
    let task = submitted.split_once(' ').unwrap().0.to_owned();
    two.user.api.held("go", 1).await;
    let allowed = two.said("here", &["allow", &task, "*.a.test:8443"]).await.text();
    assert_eq!(allowed, "allowed: a.test, *.a.test:8443\n");
    two.user.api.release("go");
    assert_eq!(two.said("here", &["logs", "--follow", &task]).await.code, Some(0));
    let shown = two.said("here", &["allow", &task]).await.text();
    assert!(shown.contains("denied   b.test:80  not-listed"), "{shown}");
    assert_eq!(two.said("there", &["allow", &task]).await.text(), shown);
    tunnel.end(Signal::TERM).await;
    two.end().await;
}

/// Bad input: what is refused, and that nothing is remembered of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_cannot_be_is_refused_in_words() {
    let Some(two) = Two::start().await else { return };
    let (to, wrong) = (format!("http://127.0.0.1:{}", two.port), two.data("wrong-token"));
    std::fs::write(&wrong, "mayfly-owner-of-nothing\n").unwrap();
    let listen = ["--listen", "127.0.0.1:0"];
    let refused =
        two.said("here", &[&["tunnel", "--to", &to, "--token-file", &wrong][..], &listen].concat()).await;
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains("refuses the token: `mayfly token add NAME`"), "{}", refused.stderr);
    let tls = format!("https://127.0.0.1:{}", two.port);
    let plain =
        two.said("here", &[&["tunnel", "--to", &tls, "--token-file", &wrong][..], &listen].concat()).await;
    assert!(plain.stderr.contains("without TLS the address would be http://127.0.0.1"), "{}", plain.stderr);
    let unknown = two.said("here", &["tunnel"]).await.refusal();
    assert!(unknown.contains("no orchestrator is known yet: name it with --to"), "{unknown}");
    let without = two.said("here", &[&["tunnel", "--to", &to][..], &listen].concat()).await.refusal();
    assert!(without.contains("wants a token"), "{without}");
    let busy = two.said("there", &["tunnel", "--to", &to, "--token-file", &wrong]).await;
    assert!(busy.stderr.contains("already serves"), "{}", busy.stderr);
    two.end().await;
}

/// A proxy that leads to `to`, whatever it is asked for. Gives its port, and the first line of each request.
async fn proxy(to: u16) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (ask, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(lead(stream, to, ask.clone()));
        }
    });
    (port, asked)
}

async fn lead(stream: TcpStream, to: u16, ask: mpsc::UnboundedSender<String>) {
    let (mut near, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(near.read_line(&mut head).await.unwrap(), 0, "it ends within its head: {head}");
    }
    ask.send(head.lines().next().unwrap().to_owned()).unwrap();
    let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    // However it ends, both sides know.
    let _ = copy_bidirectional(&mut near, &mut far).await;
}

/// What of the first upload passes before the way stands still.
const PASSED_BYTES: usize = 1 << 20;

/// A port that leads to the orchestrator at `to`, on which the first upload stands still in its middle.
struct Way {
    port: u16,
    /// What is asked for when code is handed over.
    uploads: mpsc::UnboundedReceiver<String>,
    /// Cuts the one that stands still.
    cut: oneshot::Sender<()>,
}

impl Way {
    async fn to(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, uploads) = mpsc::unbounded_channel();
        let (cut, is_cut) = oneshot::channel();
        tokio::spawn(async move {
            let mut is_cut = Some(is_cut);
            while let Ok((stream, _)) = listener.accept().await {
                let (mut near, mut head) = (BufReader::new(stream), String::new());
                near.read_line(&mut head).await.unwrap();
                let is_upload = head.starts_with("PUT /v1/workspaces/");
                let stop = if is_upload { is_cut.take() } else { None };
                if is_upload {
                    asked.send(head.trim().to_owned()).unwrap();
                }
                tokio::spawn(Self::lead(near, head, to, stop));
            }
        });
        Self { port, uploads, cut }
    }

    async fn lead(
        mut near: BufReader<TcpStream>,
        head: String,
        to: u16,
        stop: Option<oneshot::Receiver<()>>,
    ) {
        let (mut far, mut head) = (TcpStream::connect(("127.0.0.1", to)).await.unwrap(), head);
        if let Some(stop) = stop {
            while !head.ends_with("\r\n\r\n") {
                near.read_line(&mut head).await.unwrap();
            }
            far.write_all(head.as_bytes()).await.unwrap();
            let mut body = vec![0; PASSED_BYTES];
            near.read_exact(&mut body).await.unwrap();
            far.write_all(&body).await.unwrap();
            let _ = stop.await;
            return;
        }
        far.write_all(head.as_bytes()).await.unwrap();
        // However it ends, both sides know.
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}

/// What a request to hand code over says: the bundle's name, and how much of it is there.
fn upload_of(asked: &str) -> (&str, usize) {
    let (name, rest) = asked.strip_prefix("PUT /v1/workspaces/").unwrap().split_once('?').unwrap();
    let from = rest.split_once("from=").unwrap().1;
    (name, from.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
}

/// A repository of a few megabytes, with a file of which each version is a small difference.
fn make_large_repository(user: &User) {
    user.make_repository();
    let cwd = user.dir.path().join("cwd");
    let (mut random, mut bytes) = (fastrand::Rng::with_seed(1), vec![0; 2 * PASSED_BYTES]);
    random.fill(&mut bytes);
    std::fs::write(cwd.join("large.bin"), &bytes).unwrap();
    for version in 0..4 {
        bytes[version] ^= 1;
        std::fs::write(cwd.join("versions.bin"), &bytes[..PASSED_BYTES]).unwrap();
        user.git(&["add", "."]);
        user.git(&["commit", "-q", "-m", "version"]);
    }
    user.git(&["repack", "-q", "-a", "-d", "-f"]);
}

/// Waits until all that has passed of an upload is on the disk there.
async fn has_arrived(two: &Two, name: &str) {
    let part = PathBuf::from(two.data("there")).join(format!("workspaces/{name}.part"));
    while std::fs::metadata(&part).map_or(0, |found| found.len()) < PASSED_BYTES as u64 {
        tokio::task::yield_now().await;
    }
}

/// Code on its way through a tunnel that is cut goes on where it was, within the same `run`.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_in_a_tunnel_is_gone_on_with() {
    let Some(two) = Two::start().await else { return };
    make_large_repository(&two.user);
    let mut way = Way::to(two.port).await;
    let tunnel = two.first_tunnel_by(way.port).await;
    let run = Run::start(verb(&two.user, "here", &["run", "--json", "[script: write path=made.txt]"]));
    let first = way.uploads.recv().await.unwrap();
    let (name, from) = upload_of(&first);
    assert_eq!(from, 0);
    has_arrived(&two, name).await;
    way.cut.send(()).unwrap();
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    let next = way.uploads.recv().await.unwrap();
    assert_eq!(upload_of(&next), (name, PASSED_BYTES));
    let branch = two.user.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
    assert_eq!(two.user.git(&["diff", "--name-only", "HEAD", &branch]), "made.txt");
    tunnel.end(Signal::TERM).await;
    two.end().await;
}

/// The same code in other bytes, since the user's git has packed it anew meanwhile, is another bundle: it is sent from its
/// beginning, and what there is of the first is in nobody's way.
#[tokio::test(flavor = "multi_thread")]
async fn code_that_was_packed_anew_since_its_upload_broke_off_is_sent_from_its_beginning() {
    let Some(two) = Two::start().await else { return };
    make_large_repository(&two.user);
    let mut way = Way::to(two.port).await;
    let tunnel = two.first_tunnel_by(way.port).await;
    let run = ["run", "--json", "[script: write path=made.txt]"];
    let mut killed = verb(&two.user, "here", &run).kill_on_drop(true).spawn().unwrap();
    let first = way.uploads.recv().await.unwrap();
    has_arrived(&two, upload_of(&first).0).await;
    killed.kill().await.unwrap();
    way.cut.send(()).unwrap();
    two.user.git(&["repack", "-q", "-a", "-d", "-F", "--window=0"]);
    let ended = Run::start(verb(&two.user, "here", &run)).end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    let next = way.uploads.recv().await.unwrap();
    assert_ne!(upload_of(&next).0, upload_of(&first).0, "the bytes are others");
    assert_eq!(upload_of(&next).1, 0);
    let branch = two.user.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
    assert_eq!(two.user.git(&["diff", "--name-only", "HEAD", &branch]), "made.txt");
    tunnel.end(Signal::TERM).await;
    two.end().await;
}

/// From another network: to a name that is known to the proxy alone, and to a certificate that nobody issued.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_goes_through_a_proxy_to_the_certificate_that_it_was_told() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let (there, here) = (data(&user, "there"), data(&user, "here"));
    let serve = ["serve", "--listen", "0.0.0.0:0", "--tls", "self-signed", "--host-names", "box.test"];
    let args = [&["--claude", claude.to_str().unwrap()], &serve[..], &["--data", &there]].concat();
    let mut orchestrator = Serving::start(&user, &args).await;
    let to = loop {
        let line = orchestrator.lines.next_line().await.unwrap().unwrap();
        if let Some((_, rest)) = line.split_once("mayfly tunnel --to '") {
            break rest.split_once('\'').unwrap().0.to_owned();
        }
    };
    let place = to.strip_prefix("https://").unwrap().split_once('#').unwrap().0;
    let (port, mut asked) = proxy(place.rsplit_once(':').unwrap().1.parse().unwrap()).await;

    let token = there + "/token";
    let args = ["tunnel", "--listen", "127.0.0.1:0", "--data", &here, "--to", &to, "--token-file", &token];
    let mut command = user.command(Path::new(PROGRAM), &args);
    command.env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"));
    let tunnel = Serving::of(command).await;
    let said = async |args: &[&str]| Said::from(verb(&user, "here", args).output().await.unwrap());
    let submitted = said(&["run", "--detach", "hello"]).await.text();
    let followed = said(&["logs", "--follow", submitted.split_once(' ').unwrap().0]).await;
    assert_eq!(followed.code, Some(0), "{}", followed.stderr);

    tunnel.end(Signal::TERM).await;
    orchestrator.end(Signal::TERM).await;
    let wanted = format!("CONNECT {place} HTTP/1.1");
    let mut ways = 0;
    while let Ok(line) = asked.try_recv() {
        assert_eq!(line, wanted);
        ways += 1;
    }
    assert!(ways > 1, "the messages and what the verbs ask have each their own");
    user.api.stop().await;
}
