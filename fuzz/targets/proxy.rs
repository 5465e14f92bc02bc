//! The proxy for machines: whatever comes, it ends, tells of what it decided, and resolves no name that is not allowed.

#![no_main]

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use libfuzzer_sys::fuzz_target;
use mayfly_core::egress::Verdict;
use mayfly_core::host::Target;
use mayfly_gateway::egress::{Asked, Network, Policy, Resolve, Undecided, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_util::sync::CancellationToken;

const ALLOWED: &str = "a.test";

#[derive(Debug, Default)]
struct Told(Mutex<Vec<Asked>>);

#[async_trait]
impl Policy for Told {
    async fn allows(&self, target: &Target) -> Result<bool, Undecided> {
        Ok(target.host.as_str() == ALLOWED)
    }

    fn keep(&self, asked: Asked) -> BoxFuture<'static, Option<i64>> {
        self.0.lock().expect("nobody panics").push(asked);
        Box::pin(async { None })
    }

    async fn keep_bytes(&self, _: i64, _: u64, _: u64) {}
}

/// Nobody is anywhere.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Resolve for Nowhere {
    async fn resolve(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(target.host.as_str(), ALLOWED);
        Ok(Vec::new())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let told = Arc::new(Told::default());
        let (mut near, far) = duplex(64 * 1024);
        let network = Network::new(Arc::new(Nowhere), Vec::new());
        let proxy = serve(far, Arc::clone(&told) as Arc<dyn Policy>, network, CancellationToken::new());
        let machine = async {
            let mut answer = Vec::new();
            let _ = near.write_all(bytes).await;
            let _ = near.shutdown().await;
            let _ = near.read_to_end(&mut answer).await;
        };
        tokio::join!(proxy, machine);
        for asked in told.0.lock().expect("nobody panics").iter() {
            assert!(asked.verdict != Verdict::Allowed, "{asked:?}");
            assert!(!asked.host.chars().any(char::is_control) && asked.host.chars().count() <= 253, "{asked:?}");
            assert!(!asked.words().is_empty());
        }
    });
});
