//! Machines at Fly: a stand-in for it with faults, and the real one.

pub(crate) mod e2e;
pub(crate) mod smoke;
