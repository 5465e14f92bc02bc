//! A client that is as simple as can be: one request on one connection, byte for byte.

use std::net::{Ipv4Addr, SocketAddr};

use mayfly_scripted_api::{Accepted, ScriptedApi};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const TOKEN: &str = "dummy-token";
pub(crate) const OAUTH: [(&str, &str); 3] =
    [("authorization", "Bearer dummy-token"), ("anthropic-beta", "a,oauth-2025-04-20"), VERSION];
pub(crate) const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// An API that takes an OAuth token and makes no pauses.
pub(crate) async fn api() -> ScriptedApi {
    api_that_takes(Accepted::Oauth(TOKEN.into())).await
}

pub(crate) async fn api_that_takes(accepted: Accepted) -> ScriptedApi {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ScriptedApi::start_paced(any, accepted, 0.0).await.unwrap()
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    /// Without the marks of the chunked encoding.
    pub(crate) body: String,
    /// Whether the last chunk came.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The data of the events, in order.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// The type and message of an error; its form is checked on the way.
    pub(crate) fn error(&self) -> (u16, String, String) {
        let body = self.json();
        assert_eq!(body["type"], "error", "{body}");
        assert_eq!(body["request_id"].as_str(), self.header("request-id"), "{body}");
        let text = |field: &str| body["error"][field].as_str().unwrap().to_owned();
        (self.status, text("type"), text("message"))
    }
}

/// A body that is taken as it is, with a prompt.
pub(crate) fn body(prompt: &str) -> Value {
    json!({"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": prompt}]})
}

/// Asks for a message with good headers.
pub(crate) async fn ask(api: &ScriptedApi, body: &Value) -> Answer {
    send(api, "POST", "/v1/messages", &OAUTH, &body.to_string()).await
}

/// Asks for a message that streams.
pub(crate) async fn ask_streaming(api: &ScriptedApi, prompt: &str) -> Answer {
    let mut body = body(prompt);
    body["stream"] = true.into();
    ask(api, &body).await
}

pub(crate) async fn send(
    api: &ScriptedApi,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut tcp = begin(api, method, path, headers, body).await;
    let mut bytes = Vec::new();
    // A cut connection ends in an error or at once; what came before is the answer either way.
    drop(tcp.read_to_end(&mut bytes).await);
    parse(&bytes)
}

/// Sends a request and leaves the answer unread.
pub(crate) async fn begin(
    api: &ScriptedApi,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    let address = api.base_url().replace("http://", "");
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let length = body.len().to_string();
    let own = [("host", "api"), ("connection", "close"), ("content-length", &length)];
    let mut lines = vec![format!("{method} {path} HTTP/1.1")];
    lines.extend(own.iter().chain(headers).map(|(name, value)| format!("{name}: {value}")));
    let head = lines.join("\r\n");
    // A request that is refused before its end closes the connection; its answer is still to be read.
    drop(tcp.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await);
    tcp
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.contains("transfer-encoding: chunked");
    let (body, whole) = if chunked { unchunked(body) } else { (body.to_owned(), true) };
    Answer { status, head: head.to_owned(), body, whole }
}

/// Takes the chunks apart (all that is sent here is ASCII).
fn unchunked(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = after.get(..size) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}
