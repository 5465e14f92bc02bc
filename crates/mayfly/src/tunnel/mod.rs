//! What a tunnel of this user is: where it leads, what opens that, and the proxy on the way.

mod proxy;
mod saved;

pub(crate) use proxy::proxy_for;
pub(crate) use saved::Saved;
