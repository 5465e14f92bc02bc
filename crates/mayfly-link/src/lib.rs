//! A wire channel over WebSocket over a unix socket or TCP
