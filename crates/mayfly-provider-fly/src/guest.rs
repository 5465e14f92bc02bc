//! What a machine is made of: Fly's presets, and what they can be.

use std::fmt;
use std::str::FromStr;

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
    /// Not Fly's words for one.
    #[error("expected a guest in Fly's words, such as cpu_kind=performance,cpus=2,memory_mb=4096")]
    Words,
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

/// In Fly's words, each with its value: `cpu_kind=performance,cpus=2,memory_mb=4096`.
impl FromStr for Guest {
    type Err = BadGuest;

    fn from_str(text: &str) -> Result<Self, BadGuest> {
        let (mut cpu_kind, mut cpus, mut memory_mb) = (None, None, None);
        for part in text.split(',') {
            let (word, value) = part.split_once('=').ok_or(BadGuest::Words)?;
            let number = || value.trim().parse().map_err(|_| BadGuest::Words);
            let said_twice = match word.trim() {
                "cpu_kind" => cpu_kind.replace(value.trim().to_owned()).is_some(),
                "cpus" => cpus.replace(number()?).is_some(),
                "memory_mb" => memory_mb.replace(number()?).is_some(),
                _ => true,
            };
            if said_twice {
                return Err(BadGuest::Words);
            }
        }
        match (cpu_kind, cpus, memory_mb) {
            (Some(cpu_kind), Some(cpus), Some(memory_mb)) => Self { cpu_kind, cpus, memory_mb }.checked(),
            _ => Err(BadGuest::Words),
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_kind, cpus, memory_mb } = self;
        write!(f, "cpu_kind={cpu_kind},cpus={cpus},memory_mb={memory_mb}")
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
    fn a_guest_is_read_in_flys_words() {
        let one = guest("performance", 2, 4096);
        assert_eq!(one.to_string().parse(), Ok(one.clone()));
        assert_eq!("memory_mb=4096, cpus=2, cpu_kind=performance".parse(), Ok(one));
        for bad in [
            "",
            "performance-2x",
            "cpu_kind=performance,cpus=2",
            "cpu_kind=performance,cpus=2,cpus=2,memory_mb=4096",
            "cpu_kind=performance,cpus=two,memory_mb=4096",
            "cpu_kind=performance,cpus=2,memory_mb=4096,gpus=1",
        ] {
            assert_eq!(bad.parse::<Guest>(), Err(BadGuest::Words), "{bad:?}");
        }
        assert!(matches!(
            "cpu_kind=shared,cpus=3,memory_mb=256".parse::<Guest>(),
            Err(BadGuest::Cpus { .. })
        ));
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
