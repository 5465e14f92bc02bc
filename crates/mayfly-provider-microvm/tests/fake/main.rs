//! Stands in for Firecracker: strict about what it is asked, and with the faults that the guest's kernel asks for.
//!
//! It answers as the real one was seen to (204, and 400 with a `fault_message`), takes each request once and in an order that
//! makes a guest, and nothing else. Its guest is a few lines: it asks for its handover, and goes to its door. The file that is
//! the guest's kernel says what goes wrong; the file `version` beside the program, which version it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::exit;

use serde_json::{Value, json};

/// What it is that nobody says otherwise.
const VERSION: &str = "1.16.1";
/// What each request has, and nothing else.
const FIELDS: [(&str, &[&str]); 7] = [
    ("/machine-config", &["vcpu_count", "mem_size_mib"]),
    ("/boot-source", &["kernel_image_path", "initrd_path", "boot_args"]),
    ("/drives/image", &["drive_id", "path_on_host", "is_root_device", "is_read_only"]),
    ("/drives/disk", &["drive_id", "path_on_host", "is_root_device", "is_read_only"]),
    ("/vsock", &["guest_cid", "uds_path"]),
    ("/entropy", &[]),
    ("/actions", &["action_type"]),
];

/// What was asked for, by path.
type Asked = BTreeMap<String, Value>;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [program, flag, socket, level, _] = &args[..] else { refuse("wrong arguments") };
    if (flag.as_str(), level.as_str()) != ("--api-sock", "--level") {
        refuse("wrong arguments");
    }
    let listener = UnixListener::bind(socket).unwrap_or_else(|_| refuse("the socket is there already"));
    let (mut stream, _) = listener.accept().expect("a caller");
    let mut asked = Asked::new();
    loop {
        let Some((method, path, body)) = request(&mut stream) else { exit(0) };
        match (method.as_str(), path.as_str()) {
            ("GET", "/version") => {
                let version = fs::read_to_string(Path::new(program).with_file_name("version"));
                let version = version.unwrap_or_else(|_| VERSION.to_owned());
                answer(&mut stream, "200 OK", &json!({"firecracker_version": version}));
            }
            ("PUT", _) => match put(&mut asked, &path, &body) {
                Ok(()) => answer(&mut stream, "204 No Content", &Value::Null),
                Err(fault) => answer(&mut stream, "400 Bad Request", &json!({"fault_message": fault})),
            },
            _ => answer(
                &mut stream,
                "400 Bad Request",
                &json!({"fault_message": "Invalid request method and/or path"}),
            ),
        }
        if asked.contains_key("/actions") {
            live(&asked);
        }
    }
}

fn refuse(why: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "{why}");
    exit(153)
}

/// Takes what has all that it must have, at its time.
fn put(asked: &mut Asked, path: &str, body: &Value) -> Result<(), String> {
    let known = FIELDS.iter().find(|(known, _)| *known == path);
    let (_, fields) = known.ok_or("Invalid request method and/or path")?;
    let has: Vec<&String> = body.as_object().ok_or("it is no object")?.keys().collect();
    if has.len() != fields.len() || !has.iter().all(|field| fields.contains(&field.as_str())) {
        return Err(format!("An error occurred when deserializing the json body of a request: {has:?}"));
    }
    if asked.contains_key(path) {
        return Err(format!("{path} was asked for before"));
    }
    match path {
        "/boot-source" => {
            kernel(body)?;
            fs::File::open(text(body, "initrd_path"))
                .map_err(|error| format!("Boot source error: The initrd file cannot be opened: {error}"))?;
        }
        "/drives/image" | "/drives/disk" => {
            let writes = body["is_read_only"] == false;
            fs::File::options()
                .read(true)
                .write(writes)
                .open(text(body, "path_on_host"))
                .map_err(|error| format!("Drive error: Unable to patch the block device: {error}"))?;
        }
        "/vsock" if body["guest_cid"].as_u64().is_none_or(|cid| cid < 3) => {
            return Err("the cid is reserved".to_owned());
        }
        "/actions" => {
            let missing = FIELDS[..5].iter().find(|(needed, _)| !asked.contains_key(*needed));
            if let Some((missing, _)) = missing {
                return Err(format!("Cannot start microvm without {missing}."));
            }
        }
        _ => {}
    }
    asked.insert(path.to_owned(), body.clone());
    Ok(())
}

/// What is to go wrong.
fn kernel(boot_source: &Value) -> Result<String, String> {
    let fault = fs::read_to_string(text(boot_source, "kernel_image_path"))
        .map_err(|error| format!("Boot source error: The kernel file cannot be opened: {error}"))?;
    match fault.as_str() {
        "refused" => Err("Boot source error: Invalid kernel".to_owned()),
        _ => Ok(fault),
    }
}

/// The guest's life, which begins after the request for it was answered.
fn live(asked: &Asked) -> ! {
    match kernel(&asked["/boot-source"]).as_deref() {
        // It was said to have started.
        Ok("dies") => exit(0),
        Ok("hangs") => sleep(),
        _ => {}
    }
    let vsock = text(&asked["/vsock"], "uds_path");
    let mut host = UnixStream::connect(port(&vsock, 6293)).expect("a host");
    let mut handover = Vec::new();
    host.read_to_end(&mut handover).expect("a handover");
    let handover: Value = serde_json::from_slice(&handover).unwrap_or_else(|_| exit(0));
    assert!(handover["boot"]["ticket"].is_string());
    let mut door = UnixStream::connect(port(&vsock, 6294)).expect("a door");
    door.write_all(b"GET /v1/worker HTTP/1.1\r\nhost: x\r\n\r\n").expect("a door");
    sleep()
}

fn sleep() -> ! {
    loop {
        std::thread::park();
    }
}

/// Where a guest's connection to that port of the host arrives.
fn port(vsock: &Path, port: u32) -> PathBuf {
    let mut path = vsock.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

fn text(body: &Value, field: &str) -> PathBuf {
    body[field].as_str().unwrap_or_default().into()
}

/// None when the other end has hung up.
fn request(stream: &mut UnixStream) -> Option<(String, String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let (method, rest) = line.split_once(' ')?;
    let (path, version) = rest.split_once(' ')?;
    assert_eq!(version, "HTTP/1.1\r\n");
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header == "\r\n" {
            break;
        }
        let (name, value) = header.split_once(':').expect("a header");
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // One that sends two at once is not ours.
    assert!(reader.buffer().is_empty());
    Some((method.to_owned(), path.to_owned(), serde_json::from_slice(&body).unwrap_or_default()))
}

fn answer(stream: &mut UnixStream, status: &str, body: &Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let text = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{length}\r\n{body}");
    let _ = stream.write_all(text.as_bytes());
}
