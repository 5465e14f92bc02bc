//! The orchestrator: HTTP, configuration, composition root
