//! Hands code over: its history once, and then what is on top of it.
//!
//! ```text
//! history of HEAD ──► is a commit of it there? ──no──► HEAD, whole ──► what is not committed, on top
//!                                └─────────yes──► all that is on top of that commit
//! ```
//!
//! What is cut off is one bundle with all that is here of it: nobody could tell what another on top of it lacks.
//!
//! What breaks off is gone on with where it stopped. Bound: [`COMMITS_MAX`] commits back.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use mayfly_client::Bundle;
use mayfly_failpoint::failpoint;
use mayfly_git::Mirror;
use mayfly_wire::api::{COMMITS_MAX, WholeBundle, Workspace};
use tempfile::TempDir;

use crate::contact::Contact;
use crate::landing::Code;
use crate::printer::Printer;
use crate::progress::{Progress, TICK};

/// Hands over `code` as the folder `name`; `from` is the repository elsewhere that it was fetched from, if any.
pub(crate) async fn hand_over(
    contact: &Contact,
    printer: &mut Printer,
    name: &str,
    code: &Code,
    from: Option<&Mirror>,
) -> anyhow::Result<Workspace> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut sender = Sender { contact, printer, name, code, from, scratch };
    let base = &code.snapshot.base;
    if code.quarantine.is_cut_off(base).await? {
        return sender.send(base, None).await;
    }
    let history = code.quarantine.history(COMMITS_MAX).await?;
    let commits = || history.clone();
    let known = sender.contact.ask(sender.printer, async |client| client.known_code(commits()).await).await?;
    let whole = if let Some(whole) = known {
        whole
    } else {
        let head = history.first().context("the repository has no commit")?;
        let whole = sender.send(head, None).await?;
        WholeBundle { id: whole.id, base: whole.base }
    };
    match whole.base == *base {
        true => {
            let origin = sender.origin();
            Ok(Workspace { id: whole.id, name: name.to_owned(), base: whole.base, on: None, origin })
        }
        false => sender.send(base, Some(&whole)).await,
    }
}

/// Sends bundles, one after another.
struct Sender<'a> {
    contact: &'a Contact,
    printer: &'a mut Printer,
    name: &'a str,
    code: &'a Code,
    from: Option<&'a Mirror>,
    scratch: TempDir,
}

impl Sender<'_> {
    async fn send(&mut self, commit: &str, on: Option<&WholeBundle>) -> anyhow::Result<Workspace> {
        let file = self.scratch.path().join(commit);
        let needed = on.map(|on| on.base.as_str());
        self.code.quarantine.bundle(commit, needed, &file).await?;
        failpoint("code-bundled");
        let bundle = Bundle::read(&file, on.map(|on| on.id.as_str())).await?;
        let name = self.name;
        let upload = async |client: &mayfly_client::Client| client.upload_workspace(name, &bundle).await;
        let upload = self.contact.ask(self.printer, upload);
        let mut progress = Progress::if_slow(format!("handing over {name}"));
        let sent = telling(&bundle.sent, bundle.bytes, upload, |words| progress.note(words)).await?;
        failpoint("code-handed");
        Ok(Workspace { origin: self.origin(), ..sent })
    }

    fn origin(&self) -> Option<String> {
        self.from.map(|mirror| mirror.url().to_owned())
    }
}

/// Tells how far it is until it is done.
async fn telling<T>(
    sent: &AtomicU64,
    bytes: u64,
    upload: impl Future<Output = T>,
    mut tell: impl FnMut(&str),
) -> T {
    let mut upload = Box::pin(upload);
    loop {
        tokio::select! {
            done = &mut upload => return done,
            () = tokio::time::sleep(TICK) => {
                let sent = sent.load(Ordering::Relaxed);
                tell(&format!("{} of {} MB", sent / 1_000_000, bytes.div_ceil(1_000_000)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn how_much_of_the_code_is_there_is_told_until_all_is() {
        let (sent, mut told) = (AtomicU64::new(0), Vec::new());
        let upload = async {
            for bytes in [1_999_999, 2_000_000, 2_500_001] {
                tokio::time::sleep(TICK + Duration::from_millis(1)).await;
                sent.store(bytes, Ordering::Relaxed);
            }
            "done"
        };
        let done = telling(&sent, 2_500_001, upload, |words| told.push(words.to_owned())).await;
        assert_eq!((done, sent.load(Ordering::Relaxed)), ("done", 2_500_001));
        assert_eq!(told, ["0 of 3 MB", "1 of 3 MB", "2 of 3 MB"]);
    }
}
