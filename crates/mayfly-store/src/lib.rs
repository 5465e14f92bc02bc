//! Tasks, attempts, events and effects in SQLite; the only crate that knows SQL
