//! The log of the processes that nobody watches: lines on standard error, which goes to a file. No configured secret is in
//! them, whatever is logged.

use std::ffi::OsStr;
use std::io::{self, Write};

use mayfly_core::Secrets;
use tracing_subscriber::EnvFilter;

/// Logs from here on, without `secrets`, also those that are known later; `filter` is such as `debug` or
/// `mayfly_engine=trace`, and by default `info`.
pub(crate) fn to_stderr(filter: Option<&OsStr>, secrets: Secrets) {
    let filter = filter.and_then(OsStr::to_str).and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info"));
    let writer = move || Masking { secrets: secrets.clone(), to: io::stderr() };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    // A line that cannot be written, on a full disk or where nobody reads, is lost, and nothing else with it: to
    // complain on standard error as well would end the thread that logs.
    log.log_internal_errors(false).init();
}

/// Takes whole lines, as a log writes them.
struct Masking<W> {
    secrets: Secrets,
    to: W,
}

impl<W: Write> Write for Masking<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.secrets.redactor().redact(line) {
            Some(redacted) => self.to.write_all(&redacted.bytes)?,
            None => self.to.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S30: by whichever field it comes, and in the escapes of `Debug`.
    #[test]
    fn a_secret_that_is_logged_is_masked() {
        let (secrets, file) = (Secrets::default(), tempfile::NamedTempFile::new().expect("a file"));
        secrets.set("test", ["sk-\"canary\"-1".to_owned()]);
        let (known, path) = (secrets.clone(), file.path().to_owned());
        let append = move || std::fs::File::options().append(true).open(&path).expect("it is there");
        let writer = move || Masking { secrets: known.clone(), to: append() };
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(writer)
            .with_ansi(false);
        tracing::subscriber::with_default(log.finish(), || {
            let _span = tracing::info_span!("span", token = "sk-\"canary\"-1").entered();
            tracing::trace!(text = ?"sk-\"canary\"-1", "sk-\"canary\"-1 is here");
            secrets.set("later", ["sk-canary-2".to_owned()]);
            tracing::trace!("and sk-canary-2");
        });
        let written = std::fs::read_to_string(file.path()).expect("text");
        assert_eq!(written.lines().count(), 2, "{written}");
        assert!(!written.contains("canary") && written.contains("************* is here"), "{written}");
    }
}
