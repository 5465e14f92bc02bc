//! Whether the machine is shut in, as its provider says: it tries to get through to where it must not.
//!
//! An address that takes a connection is one too many. One that refuses it, or says nothing for [`TRY_MAX`], is closed, and so
//! is a name that nobody resolves.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one address is tried.
const TRY_MAX: Duration = Duration::from_secs(3);

/// The first of these that a connection could be made to.
pub(crate) async fn reached(closed_to: &[String]) -> Option<String> {
    let mut tries = JoinSet::new();
    for place in closed_to.iter().cloned() {
        tries.spawn(async move {
            let connected = timeout(TRY_MAX, TcpStream::connect(&place)).await;
            matches!(connected, Ok(Ok(_))).then_some(place)
        });
    }
    while let Some(tried) = tries.join_next().await {
        if let Ok(Some(place)) = tried {
            return Some(place);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_takes_a_connection_is_named_and_what_does_not_is_closed() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let open = open.local_addr().unwrap().to_string();
        assert_eq!(reached(&[]).await, None);
        assert_eq!(reached(&[gone.clone(), "no-port".to_owned()]).await, None);
        assert_eq!(reached(&[gone, open.clone()]).await, Some(open));
    }
}
