//! What a machine is made of: Fly's presets, and what they can be.

use mayfly_provider::Limits;

use crate::api::Guest;

/// How many processors a kind comes with.
const SHARED_CPUS: [u32; 5] = [1, 2, 4, 6, 8];
const PERFORMANCE_CPUS: [u32; 9] = [1, 2, 4, 6, 8, 10, 12, 14, 16];
/// The least and the most memory for each processor, in MiB; the least is the step as well.
const SHARED_MEMORY: (u32, u32) = (256, 2048);
const PERFORMANCE_MEMORY: (u32, u32) = (2048, 8192);

/// Why a guest is none that Fly has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGuest {
    /// A preset that there is not.
    #[error(
        "`{0}` is no size of Fly's: choose `shared-cpu-{{1,2,4,6,8}}x` or `performance-{{1,2,4,6,8,10,12,14,16}}x` \
         (`fly platform vm-sizes` lists them)"
    )]
    Size(String),
    /// Larger than any that there is.
    #[error("{0}")]
    TooLarge(String),
    /// Neither shared nor performance.
    #[error("`cpu_kind` is `shared` or `performance`, and not `{0}`")]
    Kind(String),
    /// Not with so many processors.
    #[error("a {kind} machine has one of {counts:?} processors, and not {cpus}")]
    Cpus {
        /// The kind.
        kind: String,
        /// What was asked for.
        cpus: u32,
        /// What there is.
        counts: &'static [u32],
    },
    /// Not with so much memory.
    #[error(
        "a {kind} machine with {cpus} processors has {least} to {most} MiB of memory in steps of {step}, and not {asked}"
    )]
    Memory {
        /// The kind.
        kind: String,
        /// The processors.
        cpus: u32,
        /// What was asked for, in MiB.
        asked: u64,
        /// The least, in MiB.
        least: u32,
        /// The most, in MiB.
        most: u32,
        /// The step, in MiB.
        step: u32,
    },
}

impl Guest {
    /// One of Fly's presets, such as `performance-2x`, with the memory that it has by itself.
    pub fn preset(size: &str) -> Result<Self, BadGuest> {
        let bad = || BadGuest::Size(size.to_owned());
        let parsed = size.strip_suffix('x').and_then(|size| size.rsplit_once('-')).ok_or_else(bad)?;
        let (kind, step) = match parsed.0 {
            "shared-cpu" => ("shared", SHARED_MEMORY.0),
            "performance" => ("performance", PERFORMANCE_MEMORY.0),
            _ => return Err(bad()),
        };
        let cpus: u32 = parsed.1.parse().map_err(|_| bad())?;
        let guest = Self { cpu_kind: kind.to_owned(), cpus, memory_mb: cpus.saturating_mul(step) };
        guest.checked().map_err(|_| bad())
    }

    /// The smallest with processors of its own that has what `limits` allow.
    pub(crate) fn holding(limits: &Limits) -> Result<Self, BadGuest> {
        let (step, most) = PERFORMANCE_MEMORY;
        let wanted = limits.memory_bytes_max.div_ceil(1 << 20);
        let holds = |cpus: &&u32| f64::from(**cpus) >= limits.cpus_max && u64::from(**cpus * most) >= wanted;
        let largest = *PERFORMANCE_CPUS.last().expect("some");
        let asked = limits.cpus_max.ceil();
        if asked > largest.into() {
            let reason = format!("the largest machine has {largest} processors, and `cpus` asks for {asked}");
            return Err(BadGuest::TooLarge(reason));
        }
        let cpus = *PERFORMANCE_CPUS.iter().find(holds).unwrap_or(&largest);
        let memory = wanted.next_multiple_of(step.into()).max((cpus * step).into());
        let memory_mb = u32::try_from(memory).unwrap_or(u32::MAX);
        Self { cpu_kind: "performance".to_owned(), cpus, memory_mb }.checked()
    }

    /// Refuses what Fly would refuse.
    pub fn checked(self) -> Result<Self, BadGuest> {
        let kind = self.cpu_kind.clone();
        let (counts, (step, most)): (&'static [u32], _) = match kind.as_str() {
            "shared" => (&SHARED_CPUS, SHARED_MEMORY),
            "performance" => (&PERFORMANCE_CPUS, PERFORMANCE_MEMORY),
            _ => return Err(BadGuest::Kind(kind)),
        };
        let Self { cpus, memory_mb, .. } = self;
        if !counts.contains(&cpus) {
            return Err(BadGuest::Cpus { kind, cpus, counts });
        }
        let (least, most) = (cpus * step, cpus * most);
        if memory_mb < least || memory_mb > most || memory_mb % step != 0 {
            return Err(BadGuest::Memory { kind, cpus, asked: memory_mb.into(), least, most, step });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(kind: &str, cpus: u32, memory_mb: u32) -> Guest {
        Guest { cpu_kind: kind.to_owned(), cpus, memory_mb }
    }

    #[test]
    fn presets_are_flys() {
        assert_eq!(Guest::preset("shared-cpu-1x").unwrap(), guest("shared", 1, 256));
        assert_eq!(Guest::preset("performance-16x").unwrap(), guest("performance", 16, 32768));
        for bad in [
            "",
            "x",
            "performance-3x",
            "shared-cpu-1",
            "a100-40gb",
            "performance--1x",
            "performance-4294967295x",
        ] {
            let error = Guest::preset(bad).unwrap_err();
            assert!(matches!(&error, BadGuest::Size(size) if size == bad), "{error}");
        }
    }

    #[test]
    fn limits_have_the_smallest_guest_that_holds_them() {
        let holding = |cpus_max, gib: u64| {
            Guest::holding(&Limits { cpus_max, memory_bytes_max: gib << 30, ..Limits::default() })
        };
        assert_eq!(holding(2.0, 4).unwrap(), guest("performance", 2, 4096));
        assert_eq!(holding(1.5, 1).unwrap(), guest("performance", 2, 4096));
        assert_eq!(holding(1.0, 9).unwrap(), guest("performance", 2, 10240));
        assert_eq!(holding(16.0, 128).unwrap(), guest("performance", 16, 131_072));
        assert!(matches!(holding(1.0, 129), Err(BadGuest::Memory { .. })));
        let words = holding(64.0, 4).unwrap_err().to_string();
        assert_eq!(words, "the largest machine has 16 processors, and `cpus` asks for 64");
    }

    #[test]
    fn what_fly_does_not_have_is_refused_with_what_it_has() {
        assert!(guest("performance", 2, 4096).checked().is_ok());
        assert_eq!(guest("quantum", 1, 1).checked(), Err(BadGuest::Kind("quantum".to_owned())));
        let words = guest("shared", 3, 256).checked().unwrap_err().to_string();
        assert_eq!(words, "a shared machine has one of [1, 2, 4, 6, 8] processors, and not 3");
        let words = guest("performance", 2, 5000).checked().unwrap_err().to_string();
        assert_eq!(
            words,
            "a performance machine with 2 processors has 4096 to 16384 MiB of memory in steps of 2048, and not 5000"
        );
    }
}
