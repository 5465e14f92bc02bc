//! The tokens of owners: made, listed and revoked, and what a revoked one still opens: nothing.

use std::time::Duration;

use mayfly_client::{Client, ClientError};
use mayfly_server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bed::task;
use crate::port::{ANY, start, status};

/// S33: what a revoked token opened is shut within this time.
const CUT_MAX: Duration = Duration::from_secs(1);

/// A connection that has asked for `path` with `token`.
async fn ask(server: &Server, path: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.listening().unwrap()).await.unwrap();
    let host = server.listening().unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads until `text` has come.
async fn read_to(stream: &mut TcpStream, text: &str) {
    let mut read = String::new();
    while !read.contains(text) {
        read.push(stream.read_u8().await.expect("more comes").into());
    }
}

/// Whether the other side ends the connection within the time.
async fn is_cut(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(CUT_MAX, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn a_token_opens_the_port_until_it_is_revoked_over_restarts_too() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let owner = Client::new(&server.socket());
    let made = owner.add_token("laptop").await.unwrap();
    let token = made.token.expose();
    assert_eq!(token.len(), "mayfly-owner-".len() + 64, "256 bits");
    assert_eq!(status(&server, "/v1/tasks", Some(token)).await, 200);
    let names: Vec<String> = owner.tokens().await.unwrap().into_iter().map(|token| token.name).collect();
    assert_eq!(names, ["laptop", "local"]);
    server.stop().await;
    let server = start(&data, ANY).await.unwrap();
    assert_eq!(status(&server, "/v1/tasks", Some(token)).await, 200);
    owner.revoke_token("laptop").await.unwrap();
    assert_eq!(status(&server, "/v1/tasks", Some(token)).await, 401);
    let again = owner.revoke_token("laptop").await.unwrap_err();
    assert!(matches!(&again, ClientError::Refused(problem) if problem.status == 404), "{again}");
    server.stop().await;
    let server = start(&data, ANY).await.unwrap();
    assert_eq!(status(&server, "/v1/tasks", Some(token)).await, 401);
}

/// S33: idle connections and streams; those of another token go on.
#[tokio::test]
async fn a_revoked_token_is_cut_off_wherever_it_is_in_use() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let owner = Client::new(&server.socket());
    let (good, bad) = (owner.add_token("good").await.unwrap(), owner.add_token("bad").await.unwrap());
    let id = owner.submit(&task("p", None), "key").await.unwrap().id;
    let events = format!("/v1/tasks/{id}/events");
    let mut streams = Vec::new();
    for (path, text) in [("/readyz", "ok\n"), (events.as_str(), "queued")] {
        for token in [&bad, &good] {
            let mut stream = ask(&server, path, token.token.expose()).await;
            read_to(&mut stream, text).await;
            streams.push(stream);
        }
    }
    // Who used another token before is judged by the last one.
    let mut changed = ask(&server, "/readyz", bad.token.expose()).await;
    read_to(&mut changed, "ok\n").await;
    let head = format!(
        "GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {}\r\n\r\n",
        good.token.expose()
    );
    changed.write_all(head.as_bytes()).await.unwrap();
    read_to(&mut changed, "ok\n").await;

    owner.revoke_token("bad").await.unwrap();
    let [idle, mut idle_good, following, mut following_good] = streams.try_into().unwrap();
    assert!(is_cut(idle).await && is_cut(following).await);
    owner.cancel(&id, true).await.unwrap();
    read_to(&mut following_good, "cancelled").await;
    for stream in [&mut idle_good, &mut changed] {
        stream.write_all(head.as_bytes()).await.unwrap();
        read_to(stream, "ok\n").await;
    }
}

#[tokio::test]
async fn who_revokes_the_own_token_is_told_that_it_is_done() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let made = Client::new(&server.socket()).add_token("me").await.unwrap();
    let url = format!("http://{}/v1/tokens/me", server.listening().unwrap());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.delete(url).bearer_auth(made.token.expose()).send().await.unwrap();
    assert_eq!(answer.status(), 204);
}

/// The programs of this machine read the new one.
#[tokio::test]
async fn where_the_local_token_is_revoked_its_file_has_a_new_one() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let read = || std::fs::read_to_string(server.token_file()).unwrap().trim_end().to_owned();
    let old = read();
    Client::new(&server.socket()).revoke_token("local").await.unwrap();
    assert_eq!(status(&server, "/v1/tasks", Some(&old)).await, 401);
    assert_eq!(status(&server, "/v1/tasks", Some(&read())).await, 200);
    server.stop().await;
    let server = start(&data, ANY).await.unwrap();
    assert_eq!(status(&server, "/v1/tasks", Some(&old)).await, 401);
}

#[tokio::test]
async fn a_name_is_bounded_and_taken_once() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let owner = Client::new(&server.socket());
    owner.add_token("laptop").await.unwrap();
    let long = "x".repeat(51);
    let cases =
        [("laptop", 409), ("local", 409), ("", 422), ("-x", 422), ("a b", 422), ("../x", 422), (&*long, 422)];
    for (name, status) in cases {
        let error = owner.add_token(name).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Refused(problem) if problem.status == status),
            "{name}: {error:?}"
        );
    }
    for name in ["nobody", "a/b", "%2e%2e"] {
        let error = owner.revoke_token(name).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Refused(problem) if problem.status == 404),
            "{name}: {error:?}"
        );
    }
    assert_eq!(owner.tokens().await.unwrap().len(), 2);
}

/// S30: at rest there is a hash, and a list has not even that.
#[tokio::test]
async fn a_token_is_kept_nowhere_but_with_its_owner() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let owner = Client::new(&server.socket());
    let made = owner.add_token("laptop").await.unwrap();
    let token = made.token.expose();
    let text = |path: &str| {
        let url = format!("http://mayfly{path}");
        let raw = crate::bed::raw(&server.socket());
        async move { raw.get(url).send().await.unwrap().text().await.unwrap() }
    };
    for path in ["/v1/tokens", "/metrics"] {
        let text = text(path).await;
        assert!(!text.contains("mayfly-owner-") && !text.contains(&token[20..40]), "{text}");
    }
    assert!(!format!("{made:?} {server:?}").contains(token));
    // While it runs: what is not in the database yet is in the file beside it.
    for file in std::fs::read_dir(data.path()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            let bytes = std::fs::read(file.path()).unwrap();
            let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "{}", file.path().display());
        }
    }
}
