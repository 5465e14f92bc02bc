//! The library of an orchestrator elsewhere, through the tunnel of this folder.

use mayfly_library::{Name, Resource, ResourceId, pack};
use mayfly_wire::api::Begun;

use super::{ls, show};
use crate::contact::{Contact, Origin};
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

    pub(super) async fn ls(mut self, project: Option<Name>, json: bool) -> Result<Exit, Stop> {
        let of = project.as_ref().map(Name::as_str);
        let listed =
            self.contact.ask_as_typed(&mut self.printer, async |client| client.library(of).await).await?;
        let shown = self.shown();
        ls::tell(&listed, project.is_none(), &shown, &mut self.printer, json);
        self.printer.exit(Exit::Success)
    }

    /// Shows what is read here, of all that is there.
    pub(super) async fn show(mut self, id: ResourceId, json: bool) -> Result<Exit, Stop> {
        let name = id.to_string();
        let asking = async |client: &mayfly_client::Client| client.library_archive(&name).await;
        let archive = self.contact.ask_as_typed(&mut self.printer, asking).await?;
        let files = pack::files(&archive).map_err(Stop::usage)?;
        show::tell(&Resource::read(id, files).map_err(super::wrong)?, &mut self.printer, json);
        self.printer.exit(Exit::Success)
    }

    pub(super) async fn check(mut self, json: bool) -> Result<Exit, Stop> {
        let asking = async |client: &mayfly_client::Client| client.check_library().await;
        let problems = self.contact.ask_as_typed(&mut self.printer, asking).await?;
        for problem in &problems {
            match json {
                true => self.printer.json(problem),
                false => self.printer.closing(&as_line(problem)),
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
        let asking =
            async |client: &mayfly_client::Client| client.add_to_library(&name, &archive, replace).await;
        self.contact.ask_as_typed(&mut self.printer, asking).await?;
        self.printer.aside(&super::add::added(resource, &self.shown()));
        self.printer.exit(Exit::Success)
    }

    pub(super) async fn remove(mut self, id: &ResourceId) -> Result<Exit, Stop> {
        let name = id.to_string();
        let asking = async |client: &mayfly_client::Client| client.remove_from_library(&name).await;
        self.contact.ask_as_typed(&mut self.printer, asking).await?;
        self.printer.aside(super::REMOVED);
        self.printer.exit(Exit::Success)
    }

    pub(super) async fn init(mut self) -> Result<Exit, Stop> {
        let asking = async |client: &mayfly_client::Client| client.begin_library().await;
        let begun = self.contact.ask_as_typed(&mut self.printer, asking).await?;
        for Begun { id, added } in &begun {
            self.printer.closing(&super::begun(id, *added));
        }
        self.printer.aside(&format!("it is {}", self.shown()));
        self.printer.exit(Exit::Success)
    }
}

/// A problem as it would be told where the library is.
fn as_line(problem: &mayfly_wire::api::LibraryProblem) -> String {
    let mayfly_wire::api::LibraryProblem { file, line, column, words } = problem.clone();
    mayfly_library::Problem { file, line, column, words }.to_string()
}
