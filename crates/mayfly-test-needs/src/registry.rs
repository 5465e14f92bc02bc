//! A registry for npm on loopback, with one package of a test's own.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Where npm is looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Such a registry, until it is dropped.
#[derive(Debug)]
pub struct Registry {
    url: String,
    _end: oneshot::Sender<()>,
}

impl Registry {
    /// Starts one whose package has this `package.json` and this `main.js`, which are written below `folder`. `None`: there
    /// is no npm, and the test is skipped.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(folder: &Path, manifest: &Value, program: &str) -> Option<Self> {
        if !PATH.split(':').any(|folder| Path::new(folder).join("npm").exists()) {
            crate::skip("npm is not installed");
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        listener.set_nonblocking(true).expect("a listener");
        let url = format!("http://{}/", listener.local_addr().expect("its address"));
        let package = pack(folder, manifest, program);
        let name = manifest["name"].as_str().expect("a name").to_owned();
        let about = about(manifest, &format!("{url}{name}.tgz"));
        let routes = Router::new()
            .route(&format!("/{name}"), get(async || about))
            .route(&format!("/{name}.tgz"), get(async || package));
        let (end, ended) = oneshot::channel::<()>();
        thread::spawn(move || serve(listener, routes, ended));
        Some(Self { url, _end: end })
    }

    /// Where it is, for `npm_config_registry`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn serve(listener: TcpListener, routes: Router, ended: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        tokio::select! {
            _ = ended => {}
            served = axum::serve(listener, routes) => served.expect("it serves"),
        }
    });
}

/// What a registry tells of a package with one version.
fn about(manifest: &Value, url: &str) -> String {
    let mut of_version = manifest.clone();
    of_version["dist"] = json!({"tarball": url});
    let version = manifest["version"].as_str().expect("a version");
    let (mut versions, mut tags) = (json!({}), json!({}));
    versions[version] = of_version;
    tags["latest"] = version.into();
    json!({"name": manifest["name"], "dist-tags": tags, "versions": versions}).to_string()
}

/// A package as npm packs it.
fn pack(folder: &Path, manifest: &Value, program: &str) -> Vec<u8> {
    let package = folder.join("package");
    fs::create_dir_all(&package).expect("a folder can be made");
    fs::write(package.join("package.json"), manifest.to_string()).expect("a file can be written");
    fs::write(package.join("main.js"), program).expect("a file can be written");
    let packed = Command::new("tar").arg("-C").arg(folder).args(["-czf", "-", "package"]).output();
    let packed = packed.expect("tar is there");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    packed.stdout
}
