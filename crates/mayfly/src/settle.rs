//! Brings the work of tasks that are over home, one after another, and prints the last lines about each.

use std::fmt;

use mayfly_wire::api::Task;

use crate::carry_out::Tracked;
use crate::contact::Contact;
use crate::exit::Exit;
use crate::interrupts::Interrupts;
use crate::landing::{self, Landed, Landing, Over};
use crate::printer::Printer;

/// What the tasks of one command share at their end.
#[derive(Debug)]
pub(crate) struct Settling<'a> {
    /// Where the results are.
    pub(crate) contact: &'a Contact,
    /// Where they go.
    pub(crate) landing: &'a Landing,
    /// Whether the user has given up the work.
    pub(crate) forced: bool,
}

impl Settling<'_> {
    /// Settles each. An interrupt ends it, with a word about what is left where it is.
    pub(crate) async fn all(
        &self,
        tracked: &[Tracked],
        printer: &mut Printer,
        interrupts: &mut Interrupts,
    ) -> Exit {
        let mut exit = Exit::Success;
        for (index, task) in tracked.iter().enumerate() {
            let settled = tokio::select! {
                () = interrupts.next() => None,
                settled = self.one(index, task, printer) => Some(settled),
            };
            let Some(settled) = settled else {
                tracked[index..].iter().for_each(|task| self.leave(task, printer));
                return exit.max(Exit::Cancelled);
            };
            exit = exit.max(settled);
        }
        exit
    }

    async fn one(&self, index: usize, tracked: &Tracked, printer: &mut Printer) -> Exit {
        let asked = self.contact.ask(printer, async |client| client.task(&tracked.id).await).await;
        let task = match asked {
            Ok(task) => task,
            Err(error) => {
                printer.closing(&format!("{}  unknown: {error:#}", tracked.short));
                return Exit::Trouble;
            }
        };
        let Some(outcome) = &task.outcome else {
            printer.closing(&format!("{}  still {}: it goes on unwatched", task.short, task.state));
            return Exit::Trouble;
        };
        let result_due = printer.row(index).began_to_work && !self.forced;
        let over = Over { task: &task, title: &tracked.title, result_due };
        let landed = self.landing.land(self.contact, printer, over).await;
        self.print(&task, index, &landed, printer);
        match landed.failed {
            true => Exit::Trouble,
            false => Exit::of_outcome(&outcome.name),
        }
    }

    fn print(&self, task: &Task, index: usize, landed: &Landed, printer: &mut Printer) {
        let row = printer.row(index).clone();
        let outcome = task.outcome.as_ref();
        let name = outcome.map_or("", |outcome| outcome.name.as_str());
        printer.closing(&format!("{}  {}  {name}  {}", row.short, row.title, row.figures()));
        let mut detail = |label: &str, text: &dyn fmt::Display| {
            printer.closing(format!("          {label:<12}{text}").trim_end());
        };
        if let Some(reason) = outcome.and_then(|outcome| outcome.detail.as_deref()) {
            detail("reason", &reason);
        }
        for (label, text) in landing::lines(landed) {
            detail(label, &text);
        }
        for (label, command) in landed.place.iter().flat_map(|place| self.landing.next_steps(place, task)) {
            detail(label, &command);
        }
        let take = |_| {
            self.contact
                .origin()
                .map(|origin| origin.command(&format!("result {} --artifacts DIR", task.short)))
        };
        if let Some(command) = landed.artifacts.and_then(take) {
            detail("files", &command);
        }
    }

    /// Says how to take the work of a task that was not brought home.
    fn leave(&self, task: &Tracked, printer: &mut Printer) {
        let Tracked { short, has_code, .. } = task;
        let mut say = |text: String| printer.closing(&text);
        match self.landing.take_command(self.contact, short, *has_code, "--branch") {
            Some(command) => {
                say(format!("{short}  what it made is still with the orchestrator; to take it:"));
                say(format!("          {command}"));
            }
            None => say(format!("{short}  what it made was not brought home")),
        }
    }
}
