//! What goes wrong, by a script.

use std::collections::HashMap;

use serde_json::{Value, json};

/// A call that something can happen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum On {
    /// `GET /tokens/current`.
    Token,
    /// `GET /apps/{app}`.
    App,
    /// `GET /platform/regions`.
    Regions,
    /// `POST …/machines`.
    Create,
    /// `GET …/machines`.
    List,
    /// `GET …/machines/{id}`.
    Get,
    /// `GET …/machines/{id}/wait`.
    Wait,
    /// `GET …/machines/{id}/events`.
    Events,
    /// `DELETE …/machines/{id}`.
    Destroy,
    /// `POST …/machines/{id}`.
    Update,
    /// `POST /apps`.
    CreateApp,
    /// `DELETE /apps/{app}`.
    DestroyApp,
    /// `POST …/deploy_token`.
    MintToken,
    /// `GET …/ip_assignments`.
    Addresses,
    /// `POST …/ip_assignments`.
    Assign,
    /// `GET …/secrets`.
    Secrets,
    /// `POST …/secrets`.
    SetSecrets,
    /// `GET …/volumes`.
    Volumes,
    /// `POST …/volumes`.
    CreateVolume,
    /// `GET …/network_policies`.
    Policies,
    /// `POST …/network_policies`.
    SetPolicy,
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// It is not done, and answered so.
    Refused(u16, Value),
    /// It is done, and answered so.
    Done(u16, Value),
    /// It is refused for its rate, with a `Retry-After` in seconds or without.
    Rate(Option<u64>),
    /// It is done, and never answered.
    Silence,
    /// It is done, and answered with the page of some proxy, and 200.
    Html,
    /// It is done, and its answer breaks off.
    Broken,
    /// It is done, and its answer begins and never ends.
    Slow,
    /// A list has nothing in it.
    Empty,
    /// The machine is made, and never gets further than `created`.
    Stuck,
    /// The machine is not destroyed by this, whatever is answered.
    Lingers,
}

impl Fault {
    /// An error in Fly's form.
    pub fn refused(status: u16, error: &str) -> Self {
        Self::Refused(status, json!({ "error": error }))
    }

    /// Whether the call is done all the same.
    pub(crate) fn is_done(&self) -> bool {
        !matches!(self, Self::Refused(..) | Self::Rate(_) | Self::Empty)
    }
}

/// Each way in which Fly says that it has no room.
pub fn no_room() -> Vec<Fault> {
    let coded = json!({ "error": "unavailable: no machine for you", "status": "insufficient_capacity" });
    vec![
        Fault::refused(400, "no capacity available in this region"),
        Fault::refused(
            403,
            "you are over the allowed quota of memory in this region, please consider other regions",
        ),
        Fault::refused(409, "aborted: could not reserve resource for machine: insufficient memory available"),
        Fault::refused(412, "failed_precondition: insufficient resources to create new machine"),
        Fault::refused(422, "insufficient capacity for this machine"),
        Fault::Refused(503, coded),
    ]
}

/// The script: what happens to which call.
#[derive(Debug, Default)]
pub(crate) struct Script {
    rules: Vec<Rule>,
    calls: HashMap<On, u64>,
    happened: u64,
}

#[derive(Debug)]
struct Rule {
    on: On,
    fault: Fault,
    /// Each so-manieth call; none is the next one alone.
    each: Option<u64>,
}

impl Script {
    pub(crate) fn once(&mut self, on: On, fault: Fault) {
        self.rules.push(Rule { on, fault, each: None });
    }

    pub(crate) fn each(&mut self, nth: u64, on: On, fault: Fault) {
        self.rules.push(Rule { on, fault, each: Some(nth) });
    }

    pub(crate) fn end(&mut self) {
        self.rules.clear();
    }

    /// What happens to this call; it is counted.
    pub(crate) fn next(&mut self, on: On) -> Option<Fault> {
        let count = self.calls.entry(on).or_default();
        *count += 1;
        let count = *count;
        let is_due = |rule: &Rule| rule.on == on && rule.each.is_none_or(|each| count.is_multiple_of(each));
        let index = self.rules.iter().position(is_due)?;
        self.happened += 1;
        let rule = &self.rules[index];
        Some(if rule.each.is_some() { rule.fault.clone() } else { self.rules.remove(index).fault })
    }

    /// How often anything happened.
    pub(crate) fn happened(&self) -> u64 {
        self.happened
    }

    pub(crate) fn count(&self, on: On) -> u64 {
        self.calls.get(&on).copied().unwrap_or_default()
    }
}
