//! The library of an orchestrator elsewhere, through the tunnel of this folder.

use std::mem;

use mayfly_client::{Client, ClientError};
use mayfly_library::{Resource, ResourceId, pack};
use mayfly_wire::api::{Begun, Wanted};

use super::{ls, show};
use crate::contact::{Contact, Origin, wrong_as_typed};
use crate::exit::{Exit, Stop};
use crate::printer::Printer;

/// It, and whoever is asked.
pub(super) struct There {
    contact: Contact,
    printer: Printer,
    /// Where the tunnel leads.
    to: String,
}

impl There {
    pub(super) async fn reach(origin: Origin, to: String, printer: Printer) -> Result<Self, Stop> {
        Ok(Self { contact: Contact::about_tasks(origin).await?, printer, to })
    }

    fn shown(&self) -> String {
        format!("the library of {}", self.to)
    }

    /// Why nothing came of a resource; what to do then is what is typed, and not what a program asks.
    fn refused(&self, id: &ResourceId, error: anyhow::Error) -> Stop {
        match error.downcast_ref() {
            Some(ClientError::Refused(problem)) if problem.kind == TAKEN => super::taken(id),
            Some(ClientError::Refused(problem)) if problem.kind == ABSENT => super::absent(id, &self.shown()),
            Some(known) => wrong_as_typed(known).unwrap_or_else(|| error.into()),
            None => error.into(),
        }
    }

    pub(super) async fn ls(mut self, wanted: &Wanted, json: bool) -> Result<Exit, Stop> {
        check_length(wanted)?;
        let asking = async |client: &Client| client.library(wanted).await;
        let listed = self.contact.ask_as_typed(&mut self.printer, asking).await?;
        let shown = self.shown();
        ls::tell(&listed, &shown, &mut self.printer, json);
        self.printer.exit(Exit::Success)
    }

    /// What is to be fetched for it is fetched there.
    pub(super) async fn lock(mut self, wanted: &Wanted, json: bool) -> Result<Exit, Stop> {
        check_length(wanted)?;
        let asking = async |client: &Client| client.library_lock(wanted).await;
        let text = self.contact.ask_as_typed(&mut self.printer, asking).await?;
        let lock = serde_json::from_str(&text).map_err(ClientError::Protocol)?;
        super::tell_lock(&lock, self.printer, json)
    }

    /// Shows what is read here, of all that is there.
    pub(super) async fn show(mut self, id: ResourceId, json: bool) -> Result<Exit, Stop> {
        let name = id.to_string();
        let asking = async |client: &Client| client.library_archive(&name).await;
        let asked = self.contact.ask(&mut self.printer, asking).await;
        let archive = asked.map_err(|error| self.refused(&id, error))?;
        let files = pack::files(&archive).map_err(Stop::usage)?;
        show::tell(&Resource::read(id, files).map_err(super::wrong)?, &mut self.printer, json);
        self.printer.exit(Exit::Success)
    }

    pub(super) async fn check(mut self, json: bool) -> Result<Exit, Stop> {
        let asking = async |client: &Client| client.check_library().await;
        let problems = self.contact.ask_as_typed(&mut self.printer, asking).await?;
        for problem in &problems {
            match json {
                true => self.printer.json(problem),
                false => self.printer.closing(&ls::as_line(problem)),
            }
        }
        self.printer.aside("skills and agents were not looked at by the CLI's own validator, which is asked only on the machine \
                            of the library");
        if !problems.is_empty() {
            return self.printer.exit(Exit::Failed);
        }
        self.printer.aside(&format!("nothing else is wrong in {}", self.shown()));
        self.printer.exit(Exit::Success)
    }

    pub(super) async fn add(mut self, resource: &Resource, replace: bool) -> Result<Exit, Stop> {
        let (name, archive) = (resource.id.to_string(), resource.archive());
        let asking = async |client: &Client| client.add_to_library(&name, &archive, replace).await;
        let asked = self.contact.ask(&mut self.printer, asking).await;
        asked.map_err(|error| self.refused(&resource.id, error))?;
        self.printer.aside(&super::add::added(resource, &self.shown()));
        self.printer.exit(Exit::Success)
    }

    pub(super) async fn remove(mut self, id: &ResourceId) -> Result<Exit, Stop> {
        let name = id.to_string();
        let mut was_asked = false;
        let asking = async |client: &Client| {
            let again = mem::replace(&mut was_asked, true);
            match client.remove_from_library(&name).await {
                // The first answer is lost, and what it was about is gone.
                Err(ClientError::Refused(problem)) if again && problem.kind == ABSENT => Ok(()),
                done => done,
            }
        };
        let asked = self.contact.ask(&mut self.printer, asking).await;
        asked.map_err(|error| self.refused(id, error))?;
        self.printer.aside(super::REMOVED);
        self.printer.exit(Exit::Success)
    }

    pub(super) async fn init(mut self) -> Result<Exit, Stop> {
        let asking = async |client: &Client| client.begin_library().await;
        let begun = self.contact.ask_as_typed(&mut self.printer, asking).await?;
        for Begun { id, added } in &begun {
            self.printer.closing(&super::begun(id, *added));
        }
        self.printer.aside(&format!("it is {}", self.shown()));
        self.printer.exit(Exit::Success)
    }
}

/// The kinds of problems that the command line has words of its own for.
const ABSENT: &str = "no-such-resource";
const TAKEN: &str = "resource-taken";

/// The most bytes of names that are asked for at once: what asks for them is a URL, which can have 64 KiB.
const WANTED_BYTES_MAX: usize = 16 * 1024;

/// A URL that is too long would look as if nobody were there.
fn check_length(wanted: &Wanted) -> Result<(), Stop> {
    let bytes: usize = wanted.resources.iter().chain(&wanted.without).map(String::len).sum();
    match bytes <= WANTED_BYTES_MAX {
        true => Ok(()),
        false => Err(Stop::wrong(format!(
            "the names of what is added and left out have {bytes} bytes, and {WANTED_BYTES_MAX} are the most through a \
             tunnel: name less, or run it on the machine of the library"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_url_can_name_is_refused_in_words() {
        let wanted = |count| Wanted { resources: vec!["skill/a".repeat(16); count], ..Wanted::default() };
        check_length(&wanted(100)).expect("a usual length");
        let lines = check_length(&wanted(200)).expect_err("too long").lines();
        assert!(lines[0].as_str().contains("have 22400 bytes, and 16384 are the most"), "{lines:?}");
    }
}
