//! The port: where the API can be had by others than who owns the data folder, and what they have to show.
//!
//! Whoever comes needs a token, always. Where others than this machine can come, they need TLS too, unless the owner
//! says in words that something else keeps the token from being read on its way.
//!
//! Bound: [`CONNECTIONS_MAX`], or as many as there are file descriptors for.

use std::net::{IpAddr, SocketAddr};

use crate::ServerConfig;
use crate::check;
use crate::data::DataFolder;
use crate::files;
use crate::http::Hosts;
use crate::listen::Door;
use crate::server::StartError;
use crate::tls::Identity;

/// Connections at once: ten thousand readers, and some.
const CONNECTIONS_MAX: usize = 12_000;

/// A port that listens.
pub(crate) struct Port {
    pub(crate) door: Door,
    /// With the port that it got.
    pub(crate) address: SocketAddr,
    /// What it is called.
    pub(crate) hosts: Hosts,
    /// By what the other side knows it.
    pub(crate) fingerprint: Option<String>,
}

impl Port {
    /// The one that was asked for, if any was.
    pub(crate) fn open(config: &ServerConfig, data: &DataFolder) -> Result<Option<Self>, StartError> {
        let Some(address) = config.listen else { return Ok(None) };
        let identity = config.tls.as_ref().map(|tls| tls.identity(data, names(config, address.ip())));
        let (tls, fingerprint) = match identity.transpose()? {
            Some(Identity { tls, fingerprint }) => (Some(tls), fingerprint),
            None => (None, None),
        };
        let (door, address) = check::listen(address, tls, files::connections(CONNECTIONS_MAX))?;
        let hosts = Hosts::new(&config.host_names, address.ip());
        Ok(Some(Self { door, address, hosts, fingerprint }))
    }
}

/// What a certificate of ours is to say.
fn names(config: &ServerConfig, address: IpAddr) -> Vec<String> {
    let mut names = config.host_names.clone();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    names
}
