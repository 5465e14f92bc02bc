//! The user's end of an orchestrator elsewhere: one outbound link, every message on this machine, no port to the
//! world.
//!
//! ```text
//! orchestrator ── WebSocket, dialled from here ──► follower ──► logs ──► reader ──┐
//!      ▲                                       ▲ fetch, where a log is damaged      ├─► /v1 on this machine
//!      └─────────────── requests, dialled from here too ◄── forward ◄─────────────┘
//! ```
//!
//! [`Tunnel::start`] gives the routes of the local API; who listens for them, and who may come, is the caller's
//! part. Nothing here needs Linux.

mod api;
mod fetch;
mod follower;
mod forward;
mod logs;
mod names;
mod order;
mod reader;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use jiff::Timestamp;
use mayfly_link::{BackOff, Dial};
use mayfly_wire::Secret;
use mayfly_wire::tunnel::Status;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use logs::{LogError, Logs};

use crate::api::Local;
use crate::fetch::Fetch;
use crate::follower::{Follower, REPORTS_MAX, followed};
use crate::forward::Forward;

/// What a tunnel is like.
#[derive(Debug)]
pub struct TunnelConfig {
    /// The way to the orchestrator.
    pub way: Arc<dyn Dial>,
    /// How people know it.
    pub to: String,
    /// What opens it.
    pub token: Option<Secret>,
    /// Where the logs are kept.
    pub folder: PathBuf,
    /// The waits between links.
    pub back_off: BackOff,
}

/// Why a tunnel did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot be sent.
    #[error("the token is none: it has characters that no token has")]
    Token,
}

/// A tunnel that is being kept up. Dropped without [`Tunnel::stop`], it ends at once, and what is not yet on the
/// disk comes again with the next.
#[derive(Debug)]
pub struct Tunnel {
    local: Local,
    follower: JoinHandle<()>,
    stopping: CancellationToken,
    _stop: DropGuard,
}

impl Tunnel {
    /// Begins to dial, on the current runtime.
    pub fn start(config: TunnelConfig) -> Result<Self, StartError> {
        let TunnelConfig { way, to, token, folder, back_off } = config;
        let forward = Forward::new(Arc::clone(&way), token.as_ref()).ok_or(StartError::Token)?;
        let (appended_in, appended) = watch::channel(0);
        let logs = folder.display().to_string();
        let (status_in, status) = watch::channel(Status {
            to,
            connected: false,
            since: Timestamp::now(),
            trouble: None,
            lasting: false,
            store: followed(&folder),
            version: None,
            position: 0,
            head: 0,
            skipped: 0,
            damaged: 0,
            mended: 0,
            forwarding: 0,
            connections: 0,
            logs,
        });
        let (damage, reports) = mpsc::channel(REPORTS_MAX);
        let stopping = CancellationToken::new();
        let follower = Follower::new(
            (way, Fetch::new(forward.clone())),
            token,
            folder.clone(),
            back_off,
            (appended_in, status_in, reports),
        );
        let follower = tokio::spawn(follower.run(stopping.clone()));
        let local = Local { forward, folder, appended, status, damage };
        let stop = stopping.clone().drop_guard();
        Ok(Self { local, follower, stopping, _stop: stop })
    }

    /// The orchestrator's API, for this machine.
    pub fn api(&self) -> Router {
        api::router(self.local.clone())
    }

    /// How it stands, now and whenever that changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.local.status.clone()
    }

    /// Hangs up. What has come is on the disk then.
    pub async fn stop(self) {
        self.stopping.cancel();
        // It ends by itself now; a panic in it was reported where it happened.
        let _ = self.follower.await;
    }
}
