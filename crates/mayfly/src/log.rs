//! The log of the processes that nobody watches: lines on standard error, which goes to a file.

use std::ffi::OsStr;
use std::io;

use tracing_subscriber::EnvFilter;

/// Logs from here on; `filter` is such as `debug` or `mayfly_engine=trace`, and by default `info`.
pub(crate) fn to_stderr(filter: Option<&OsStr>) {
    let filter = filter.and_then(OsStr::to_str).and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // A line that cannot be written, on a full disk or where nobody reads, is lost, and nothing else with it: to
    // complain on standard error as well would end the thread that logs.
    log.log_internal_errors(false).init();
}
