//! Stands in for the `mayfly` binary on the host's side of a machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    assert_eq!(args.next().as_deref(), Some(mayfly_provider_microvm::HOLDER_VERB.as_ref()));
    mayfly_provider_microvm::holder_main(args)
}
