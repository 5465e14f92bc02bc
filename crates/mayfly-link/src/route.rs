//! The way to an orchestrator: its endpoint, and the proxy before it, if there is one.

use std::io;
use std::sync::Arc;

use mayfly_wire::endpoint::{Address, Endpoint};
use rustix::net::sockopt;
use rustls::ClientConfig;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
#[cfg(target_os = "linux")]
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

use crate::channel::{KEEP_ALIVE, SILENCE_MAX};
use crate::dial::{ByteStream, DIAL_TIME_MAX, Dial};
use crate::proxy::Proxy;
use crate::{LinkError, tls};

/// A way that can be taken any number of times, at once too. Clones share what TLS remembers.
#[derive(Debug, Clone)]
pub struct Route {
    endpoint: Endpoint,
    proxy: Option<Proxy>,
    tls: Option<Arc<ClientConfig>>,
}

impl Route {
    /// The way to `endpoint`, through `proxy` if it goes over TCP. For TLS that trusts this system's roots,
    /// they are read now.
    pub fn new(endpoint: Endpoint, proxy: Option<Proxy>) -> Self {
        let tls = match &endpoint {
            Endpoint::Tls { trust, .. } => Some(tls::config(trust)),
            Endpoint::Unix(_) | Endpoint::Tcp(_) | Endpoint::Vsock(_) => None,
        };
        Self { endpoint, proxy, tls }
    }

    async fn stream(&self) -> Result<Box<dyn ByteStream>, LinkError> {
        let address = match &self.endpoint {
            Endpoint::Unix(path) => {
                return Ok(Box::new(UnixStream::connect(path).await.map_err(LinkError::Unreachable)?));
            }
            Endpoint::Vsock(port) => return vsock(*port).await.map_err(LinkError::Unreachable),
            Endpoint::Tcp(address) | Endpoint::Tls { address, .. } => address,
        };
        let stream = self.tcp(address).await?;
        match &self.tls {
            Some(config) => tls::wrap(Arc::clone(config), address.host(), stream).await,
            None => Ok(stream),
        }
    }

    async fn tcp(&self, address: &Address) -> Result<Box<dyn ByteStream>, LinkError> {
        let next = self.proxy.as_ref().map_or(address, |proxy| &proxy.address);
        let mut stream: Box<dyn ByteStream> = Box::new(connect(next).await.map_err(LinkError::Unreachable)?);
        if let Some(proxy) = &self.proxy {
            proxy.connect(address, &mut *stream).await?;
        }
        Ok(stream)
    }
}

#[cfg(target_os = "linux")]
async fn vsock(port: u32) -> io::Result<Box<dyn ByteStream>> {
    let host = VsockAddr::new(VMADDR_CID_HOST, port);
    Ok(Box::new(VsockStream::connect(host).await?))
}

#[cfg(not(target_os = "linux"))]
async fn vsock(_port: u32) -> io::Result<Box<dyn ByteStream>> {
    Err(io::ErrorKind::Unsupported.into())
}

async fn connect(address: &Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((address.host(), address.port())).await?;
    stream.set_nodelay(true)?;
    notice_absence(&stream)?;
    Ok(stream)
}

/// Whoever was unplugged says nothing: the system asks, and ends what is not confirmed for [`SILENCE_MAX`]. A channel has
/// a word of its own for that; a plain connection may be quiet for long.
fn notice_absence(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, SILENCE_MAX.as_millis().try_into().expect("seconds"))?;
    Ok(())
}

impl From<Endpoint> for Route {
    /// Without a proxy.
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint, None)
    }
}

#[async_trait::async_trait]
impl Dial for Route {
    async fn connect(&self) -> Result<Box<dyn ByteStream>, LinkError> {
        let connected = timeout(DIAL_TIME_MAX, self.stream()).await;
        connected.map_err(|_| LinkError::Silent { seconds: DIAL_TIME_MAX.as_secs() })?
    }

    fn host(&self) -> String {
        self.endpoint.host_header()
    }
}
