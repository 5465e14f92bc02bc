//! Where machines come from: the one place that names a provider, and the system that has it.
//!
//! Machines are Linux sandboxes. Everywhere else the program is the user's side alone, for an orchestrator that runs
//! on a Linux box; [`can_be_made`] says so before anything is fetched or made.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{checks, provider, role, step_aside};

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{checks, provider, role, step_aside};

use anyhow::anyhow;

use crate::exit::Stop;

/// Refuses on a system that has no machines; `what` needs them.
pub(crate) fn can_be_made(what: &str) -> Result<(), Stop> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err(refusal(what)),
    }
}

fn refusal(what: &str) -> Stop {
    anyhow!("{what} needs Linux, since machines are Linux sandboxes: run `mayfly serve` on a Linux box")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_refusal_names_what_was_wanted_and_where_it_can_be_had() {
        let stop = refusal("mayfly demo");
        let lines: Vec<String> = stop.lines().iter().map(ToString::to_string).collect();
        let words = "mayfly: mayfly demo needs Linux, since machines are Linux sandboxes: run `mayfly serve` on a Linux box";
        assert_eq!((stop.exit, lines), (Exit::Trouble, vec![words.to_owned()]));
    }
}
