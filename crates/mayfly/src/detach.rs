//! Submits tasks and leaves them to the orchestrator.

use crate::carry_out::{Job, submit};
use crate::contact::Contact;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::printer::Printer;

/// Submits `jobs` and prints what they became. All or none: if one is refused, or the user stops it, those before it
/// are cancelled.
pub(crate) async fn detach(
    contact: &Contact,
    jobs: Vec<Job>,
    json: bool,
    printer: &mut Printer,
    interrupts: &mut Interrupts,
) -> Result<Exit, Stop> {
    let (tasks, unsubmitted) = submit(contact, jobs, printer, interrupts).await;
    if let Some(why) = unsubmitted {
        for (task, _) in &tasks {
            let asked = contact.ask(printer, async |client| client.cancel(&task.id, true).await);
            tokio::select! {
                () = interrupts.next() => return Err(Stop::interrupted()),
                cancelled = asked => cancelled.map(drop)?,
            }
        }
        return why.told(tasks.len(), printer);
    }
    for (task, title) in &tasks {
        match json {
            true => printer.json(task),
            false => printer.closing(&format!("{}  {title}", task.short)),
        }
    }
    if let (Some((first, _)), Some(origin)) = (tasks.first(), contact.origin()) {
        let (follow, take) = (format!("logs {} --follow", first.short), format!("result {}", first.short));
        printer.aside(&format!("to follow: {}", origin.command(&follow)));
        printer.aside(&format!("to take the work: {}", origin.command(&take)));
    }
    Ok(Exit::Success)
}
