//! Typed calls to an orchestrator and its resumable event stream
