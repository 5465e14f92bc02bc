//! How our machines are called. A name says whose machine it is, and nobody in the machine can change it, which is not
//! so for metadata; and Fly gives no name twice in an app, so that an attempt never has two machines.

use std::fmt::Write as _;

use mayfly_core::{Attempt, AttemptId, TaskId};
use uuid::Uuid;

/// What every name of ours begins with.
const OURS: &str = "mayfly-";

/// The machine of `attempt`, made by `deployment`.
pub(crate) fn name(deployment: &str, attempt: AttemptId) -> String {
    let mut name = format!("{OURS}{deployment}-{}", attempt.task.uuid().simple());
    write!(name, "-{}", attempt.attempt.0).expect("a text takes all");
    name
}

/// Whose machine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This deployment's, for this attempt.
    Ours(AttemptId),
    /// Another deployment's.
    Other,
    /// Not mayfly's.
    Stranger,
}

/// Reads a name.
pub(crate) fn owner(deployment: &str, name: &str) -> Owner {
    let Some((whose, attempt)) = name.strip_prefix(OURS).and_then(parse) else { return Owner::Stranger };
    if whose == deployment { Owner::Ours(attempt) } else { Owner::Other }
}

fn parse(rest: &str) -> Option<(&str, AttemptId)> {
    let (rest, number) = rest.rsplit_once('-')?;
    let (deployment, task) = rest.rsplit_once('-')?;
    let is_plain = task.len() == 32 && number.bytes().all(|byte| byte.is_ascii_digit());
    let task = Uuid::try_parse(task).ok().filter(|_| is_plain)?;
    Some((deployment, TaskId::new(task).attempt(Attempt(number.parse().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_attempt_of_one_deployment() {
        let attempt: AttemptId = "0193b2c4-0000-7000-8000-0123456789ab.12".parse().unwrap();
        let name = name("d1", attempt);
        assert_eq!(name, "mayfly-d1-0193b2c40000700080000123456789ab-12");
        assert_eq!(owner("d1", &name), Owner::Ours(attempt));
        assert_eq!(owner("d2", &name), Owner::Other);
    }

    #[test]
    fn what_is_not_so_called_is_not_ours() {
        for name in [
            "",
            "postgres",
            "mayfly-d1",
            "mayfly-d1-x-1",
            "mayfly-d1-0193b2c40000700080000123456789ab-",
            "mayfly-d1-0193b2c40000700080000123456789ab-x",
            "mayfly-d1-0193b2c4-0000-7000-8000-0123456789ab-1",
            "mayflyd1-0193b2c40000700080000123456789ab-1",
        ] {
            assert_eq!(owner("d1", name), Owner::Stranger, "{name}");
        }
    }
}
