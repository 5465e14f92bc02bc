//! What a machine gets of the library: fetched by content, checked, and written where the CLI looks for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;
use http::Method;
use http_body_util::Empty;
use mayfly_library::kinds::What;
use mayfly_library::pack::{self, BadArchive};
use mayfly_library::resolve::{BYTES_MAX, From};
use mayfly_library::{
    Compiled, File, Kind, Lock, Locked, Problems, Resolution, Resource, ResourceId, Secrets, compile,
};
use mayfly_wire::Secret;
use mayfly_wire::worker::{OrderedLibrary, RESOURCE_PATH, WorkOrder};

use crate::claude::command::config_dir;
use crate::exchange::{Exchange, ExchangeError};

/// Why a machine does not have what its task is to run with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibraryError {
    /// The orchestrator's lock is none.
    #[error("the lock cannot be read")]
    Lock(#[source] serde_json::Error),
    /// There is more than a task can have.
    #[error("the lock has more than {BYTES_MAX} bytes")]
    Large,
    /// It cannot be fetched.
    #[error("{id} cannot be fetched")]
    Fetch {
        /// Which resource.
        id: String,
        /// Why.
        #[source]
        source: ExchangeError,
    },
    /// It is not what the lock says.
    #[error("{id} is not what was locked")]
    Archive {
        /// Which resource.
        id: String,
        /// Why.
        #[source]
        source: BadArchive,
    },
    /// A server would lack a secret.
    #[error(
        "the MCP server {server} needs ${{{variable}}}, and the pool has no secret `{named}` any more: add it with `mayfly \
         credential add {named} --kind secret`, then retry the task"
    )]
    Secret {
        /// Which server.
        server: String,
        /// Its variable.
        variable: String,
        /// The secret's name in the pool.
        named: String,
    },
    /// It was good when it was locked.
    #[error("{0}")]
    Resource(#[from] Problems),
}

/// Fetches what `claude` finds of the library. Nothing of it is written yet.
pub(crate) async fn prepare(
    order: &WorkOrder,
    exchange: &Exchange<'_>,
    home: &Path,
) -> Result<Compiled, LibraryError> {
    let Some(library) = &order.library else { return Ok(Compiled::default()) };
    let resolution = fetch(library, exchange).await?;
    let secrets = secrets_for(&resolution, library)?;
    Ok(compile(&resolution, &config_dir(home).to_string_lossy(), &secrets))
}

/// Writes it to where `claude` finds it.
pub(crate) fn put(compiled: &Compiled, home: &Path) -> io::Result<()> {
    let config = config_dir(home);
    compiled.files.iter().try_for_each(|file| write(&config.join(&file.path), &file.bytes, file.executable))
}

/// What servers are given, which must be all that they need.
fn secrets_for(resolution: &Resolution, library: &OrderedLibrary) -> Result<Secrets, LibraryError> {
    for resource in resolution.of(Kind::Mcp) {
        let What::Mcp(servers) = &resource.what else { continue };
        for server in servers {
            let given = library.secrets.get(&server.name);
            let absent = |name: &&String| given.is_none_or(|given| !given.contains_key(*name));
            if let Some(variable) = server.variables.iter().find(absent) {
                let named = resource.own.secrets.get(variable).cloned().unwrap_or_default();
                return Err(LibraryError::Secret {
                    server: server.name.clone(),
                    variable: variable.clone(),
                    named,
                });
            }
        }
    }
    let exposed = |(name, secret): (&String, &Secret)| (name.clone(), secret.expose().to_owned());
    let of_server = |(server, secrets): (&String, &BTreeMap<String, Secret>)| {
        (server.clone(), secrets.iter().map(exposed).collect())
    };
    Ok(library.secrets.iter().map(of_server).collect())
}

async fn fetch(library: &OrderedLibrary, exchange: &Exchange<'_>) -> Result<Resolution, LibraryError> {
    let lock: Lock = serde_json::from_str(&library.lock).map_err(LibraryError::Lock)?;
    let (mut resources, mut bytes) = (Vec::new(), 0);
    for Locked { id, sha256, from, .. } in lock.resources {
        // What two of them have in common comes once.
        let there = resources.iter().find(|(there, _): &&(Resource, From)| there.sha256 == sha256);
        let files = match there {
            Some((there, _)) => there.files.clone(),
            None => fetch_files(&id, &sha256, exchange).await?,
        };
        let resource = Resource::read(id, files)?;
        bytes += resource.bytes();
        if bytes > BYTES_MAX {
            return Err(LibraryError::Large);
        }
        resources.push((resource, from));
    }
    Ok(Resolution { project: lock.project, agent: lock.agent, resources, ..Resolution::default() })
}

async fn fetch_files(
    id: &ResourceId,
    sha256: &str,
    exchange: &Exchange<'_>,
) -> Result<Vec<File>, LibraryError> {
    let path = format!("{RESOURCE_PATH}{sha256}");
    let ask = || async {
        let request = exchange.head(Method::GET, &path).body(Empty::<Bytes>::new());
        exchange.once(request.expect("digits are a path"), pack::ARCHIVE_BYTES_MAX).await
    };
    let fetched = exchange.until_answered(&path, ask).await;
    let archive = fetched.map_err(|source| LibraryError::Fetch { id: id.to_string(), source })?;
    let files = pack::unpack(&archive, sha256);
    files.map_err(|source| LibraryError::Archive { id: id.to_string(), source })
}

/// Writes a file of the CLI's folder that is not there yet: nobody else can have touched it.
pub(crate) fn write(path: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let mode = if executable { 0o700 } else { 0o600 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    // Whatever the process's own mask is.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use mayfly_library::{Library, Wishes};

    use super::*;

    /// A server that would lack a secret is not started with the name of it instead.
    #[test]
    fn a_secret_that_is_gone_is_named() {
        let top = tempfile::tempdir().expect("a folder");
        let folder = top.path().join("mcp/_global/db");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("mcp.json"), r#"{"command": "x", "env": {"T": "${T}"}}"#).expect("a file");
        let own = "secrets = { T = \"tracker\" }\nallow-secret-in-machine = true\n";
        fs::write(folder.join("mayfly.toml"), own).expect("a file");
        let resolution = Library::at(top.path()).resolve(&Wishes::default(), &|_| None).expect("a library");
        let secrets = [("T".to_owned(), Secret::from("canary".to_owned()))].into();
        let mut library = OrderedLibrary {
            lock: String::new(),
            model_is_default: true,
            secrets: [("db".to_owned(), secrets)].into(),
        };
        assert_eq!(secrets_for(&resolution, &library).expect("all are there")["db"]["T"], "canary");
        library.secrets.clear();
        let said = secrets_for(&resolution, &library).expect_err("one is gone").to_string();
        assert!(
            said.starts_with("the MCP server db needs ${T}, and the pool has no secret `tracker` any more"),
            "{said}"
        );
    }
}
