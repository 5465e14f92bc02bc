//! The table at the end of a check.

use std::process::ExitCode;

/// A line: what was counted, how many there were, and whether that is as promised.
pub(crate) type Line = (&'static str, usize, bool);

/// What must not be.
pub(crate) fn none(name: &'static str, count: usize) -> Line {
    (name, count, count == 0)
}

/// Prints the lines. Success is when all is as promised.
pub(crate) fn print(lines: &[Line]) -> ExitCode {
    for (name, count, good) in lines {
        println!("{count:>6}  {name}{}", if *good { "" } else { "   <-- not as promised" });
    }
    ExitCode::from(u8::from(!lines.iter().all(|(.., good)| *good)))
}
