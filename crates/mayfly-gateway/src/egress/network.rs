//! From the name of a host to a connection: resolved here, checked, and dialled by the very address that was checked.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mayfly_core::egress::{Failing, Refusal, Verdict};
use mayfly_core::host::{Host, Target};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::address::{Scope, scope};
use super::own;
use super::{ADDRESSES_MAX, DIAL_MAX, RESOLVE_MAX};

/// Knows addresses: of names, and of this host.
#[async_trait::async_trait]
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a name, with the port.
    async fn resolve(&self, target: &Target) -> io::Result<Vec<SocketAddr>>;

    /// The addresses that this host itself has now.
    fn own(&self) -> io::Result<Vec<IpAddr>> {
        own::addresses()
    }
}

/// Where machines can go from this host.
#[derive(Debug, Clone)]
pub struct Network {
    resolver: Arc<dyn Resolve>,
    private: Arc<[Host]>,
}

/// As this host finds them.
#[derive(Debug)]
struct System;

#[async_trait::async_trait]
impl Resolve for System {
    async fn resolve(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((target.host.as_str(), target.port)).await?.collect())
    }
}

impl Network {
    /// This host's own, where only names in `private` may lead to it or to networks that it is in.
    pub fn of_host(private: Vec<Host>) -> Self {
        Self::new(Arc::new(System), private)
    }

    /// The same with other addresses.
    pub fn new(resolver: Arc<dyn Resolve>, private: Vec<Host>) -> Self {
        Self { resolver, private: private.into() }
    }

    /// A connection to a host.
    pub(super) async fn reach(&self, target: &Target) -> Result<TcpStream, Verdict> {
        let addresses = self.addresses(target).await?;
        let dialled = timeout(DIAL_MAX, dial(&addresses)).await;
        dialled.ok().flatten().ok_or(Verdict::Failed(Failing::Unreachable))
    }

    /// Its addresses, if all of them are of the kind that it may have: a name with others beside them is a trap.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Verdict> {
        let resolved = timeout(RESOLVE_MAX, self.resolver.resolve(target)).await;
        let mut addresses = match resolved {
            Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
            _ => return Err(Verdict::Failed(Failing::Unresolved)),
        };
        // A public address of this host leads to what listens here, which may take who comes from here for its owner.
        let own = self.resolver.own().map_err(|_| Verdict::Denied(Refusal::Undecided))?;
        let may = |address: &SocketAddr| match scope(address.ip()) {
            Scope::Public if !own.contains(&address.ip()) => true,
            Scope::Public | Scope::Private => self.private.contains(&target.host),
            Scope::Never => false,
        };
        if !addresses.iter().all(may) {
            return Err(Verdict::Denied(Refusal::PrivateAddress));
        }
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses)
    }
}

/// The first that answers.
async fn dial(addresses: &[SocketAddr]) -> Option<TcpStream> {
    for address in addresses {
        if let Ok(stream) = TcpStream::connect(address).await
            && stream.set_nodelay(true).is_ok()
        {
            return Some(stream);
        }
    }
    None
}
