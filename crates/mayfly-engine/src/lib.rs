//! The orchestrator without HTTP: submit, schedule, perform, ingest, reap.
