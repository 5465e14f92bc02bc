//! Where machines stand, and what became of those that ended.
//!
//! What Fly says of a machine by its id is believed; that there is none is believed once it has been so for
//! [`GONE_AFTER`], and that a list lacks one is a reason to look. A machine that is not up in time counts as ended, and its
//! region is left out for a while: the next attempt is made elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use mayfly_core::AttemptId;
use mayfly_provider::clock::after;
use mayfly_provider::{Machine, ProviderError, Sight};

use crate::Fly;
use crate::api::{self, ApiError, State};
use crate::exit;
use crate::name::{Owner, owner};
use crate::ring::Cooling;

/// How long a machine must have been missing to be gone.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// What is known of machines without asking. A hint: after a restart nothing is.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Those that were made or seen, until they are destroyed.
    known: HashMap<AttemptId, Known>,
    /// Those that were looked for and not found, since when.
    missing: HashMap<AttemptId, Timestamp>,
}

#[derive(Debug, Clone)]
struct Known {
    id: String,
    since: Timestamp,
}

impl Memory {
    pub(crate) fn knows(&mut self, attempt: AttemptId, id: &str, now: Timestamp) {
        self.missing.remove(&attempt);
        if self.known.get(&attempt).is_none_or(|known| known.id != id) {
            self.known.insert(attempt, Known { id: id.to_owned(), since: now });
        }
    }

    pub(crate) fn id(&self, attempt: AttemptId) -> Option<String> {
        self.known.get(&attempt).map(|known| known.id.clone())
    }

    pub(crate) fn forget(&mut self, attempt: AttemptId) {
        self.known.remove(&attempt);
        self.missing.remove(&attempt);
    }

    /// Whether a machine that was not found just now has been missing for long enough.
    fn is_gone(&mut self, attempt: AttemptId, now: Timestamp) -> bool {
        let since = *self.missing.entry(attempt).or_insert(now);
        now >= after(since, GONE_AFTER)
    }
}

impl Fly {
    pub(crate) async fn sight(&self, attempt: AttemptId) -> Result<Sight, ApiError> {
        // While it is made or unmade there is nothing to see.
        let Some(_turn) = self.0.turns.free(attempt) else { return Ok(Sight::Alive) };
        let id = self.memory().id(attempt);
        let found = match id {
            Some(id) => self.by_id(&id).await?,
            None => self.listed(&self.name_of(attempt)).await?,
        };
        let now = self.0.clock.now();
        let Some(machine) = found else {
            let is_gone = self.memory().is_gone(attempt, now);
            return Ok(if is_gone { Sight::Ended(None) } else { Sight::Alive });
        };
        self.memory().knows(attempt, &machine.id, now);
        let Some(why) = self.end_of(attempt, &machine) else { return Ok(Sight::Alive) };
        let why = match exit::words(machine.events.as_deref().unwrap_or_default()) {
            Some(exit) => exit,
            None if matches!(machine.state, State::Ended(_) | State::Gone) => {
                self.exit_of(&machine, why).await
            }
            None => why,
        };
        Ok(Sight::Ended(Some(format!("{why} (machine {} in {})", machine.id, machine.region))))
    }

    /// Waits until the attempt's machine has booted, for as long as that may take: gives whether it has.
    pub async fn has_booted(&self, attempt: AttemptId) -> Result<bool, ProviderError> {
        let Some(id) = self.memory().id(attempt) else { return Ok(false) };
        let deadline = after(self.0.clock.now(), self.0.config.boot_max);
        while self.0.clock.now() < deadline {
            match self.0.api.wait(&id, "started", api::WAIT_MAX).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) if error.kind == api::Kind::Late => {}
                Err(error) => return Err(self.told("wait")(error)),
            }
        }
        Ok(false)
    }

    /// The machine with this id, gone or not.
    pub(crate) async fn by_id(&self, id: &str) -> Result<Option<api::Machine>, ApiError> {
        match self.0.api.machine(id).await {
            Ok(machine) => Ok(Some(machine)),
            Err(error) if error.kind == api::Kind::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What its events say, if they are still there.
    async fn exit_of(&self, machine: &api::Machine, otherwise: String) -> String {
        match self.0.api.events(&machine.id).await {
            Ok(events) => exit::words(&events).unwrap_or(otherwise),
            Err(_) => otherwise,
        }
    }

    /// Why the machine cannot run any more, if it cannot.
    fn end_of(&self, attempt: AttemptId, machine: &api::Machine) -> Option<String> {
        let (now, config) = (self.0.clock.now(), &self.0.config);
        if let State::Ended(word) = &machine.state {
            return Some(format!("Fly says that it is `{word}`"));
        }
        if machine.state == State::Gone {
            return Some("Fly has destroyed it".to_owned());
        }
        if exit::has_moved(machine.events.as_deref().unwrap_or_default()) {
            return Some("Fly moved it to another host, where it began anew".to_owned());
        }
        let since =
            machine.created_at.or_else(|| self.memory().known.get(&attempt).map(|known| known.since))?;
        if let State::Booting(word) = &machine.state
            && now >= after(since, config.boot_max)
        {
            self.ring().cool(&machine.region, Cooling::Boot, now);
            return Some(format!("it was still `{word}` after {}s", config.boot_max.as_secs()));
        }
        let is_over = now >= after(since, config.life_max);
        is_over.then(|| {
            format!("it has lived for {}s, the longest time for a machine", config.life_max.as_secs())
        })
    }

    /// What the list says; one with nothing in it is asked for once more.
    async fn listed_machines(&self) -> Result<Vec<api::Machine>, ApiError> {
        let machines = self.0.api.machines().await?;
        if !machines.is_empty() {
            return Ok(machines);
        }
        self.settle().await;
        self.0.api.machines().await
    }

    /// Every machine of this deployment.
    pub(crate) async fn all(&self) -> Result<Vec<Machine>, ApiError> {
        let mut found = BTreeMap::new();
        // What is made meanwhile may be missing in the list, and is looked at.
        let known: Vec<(AttemptId, String)> = {
            let memory = self.memory();
            memory.known.iter().map(|(attempt, known)| (*attempt, known.id.clone())).collect()
        };
        for machine in self.listed_machines().await? {
            if let Owner::Ours(attempt) = owner(&self.0.config.deployment, &machine.name)
                && machine.state != State::Gone
            {
                found.insert(attempt, self.end_of(attempt, &machine).is_none());
            }
        }
        for (attempt, id) in known {
            if found.contains_key(&attempt) {
                continue;
            }
            match self.by_id(&id).await? {
                Some(machine) if machine.state == State::Gone => {}
                Some(machine) => drop(found.insert(attempt, self.end_of(attempt, &machine).is_none())),
                None => {
                    // Destroyed by us while we looked, it is not missing.
                    let mut memory = self.memory();
                    if memory.id(attempt).is_some() && !memory.is_gone(attempt, self.0.clock.now()) {
                        found.insert(attempt, true);
                    }
                }
            }
        }
        let machine = |(attempt, alive)| Machine { attempt, alive, notes: Vec::new() };
        Ok(found.into_iter().map(machine).collect())
    }
}
