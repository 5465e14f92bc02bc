//! What a test needs from its machine, and how it says so when that is missing; a list that forgets no variant; a
//! repository that means harm, and any that git can hold; a package for Python; registries for npm and
//! for images; and a strict reader of image layouts.
//!
//! A test that cannot run here says it by [`skip`] and returns. The skip is a line in the file that
//! `MAYFLY_TEST_SKIPPED` names, so that whoever runs the tests can print them all. Where
//! `MAYFLY_TEST_SKIPS_ALLOWED` names a list, a skip that is not on it is a failure.

pub mod hostile;
pub mod image_registry;
pub mod layout;
pub mod odd;
mod registry;
mod wheel;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;

pub use registry::Registry;
pub use wheel::wheel;

/// A list with one value of each variant of an enum, written as `pattern => value`: a variant that is in no line
/// does not compile, and a value that is not of its line's variant panics.
#[macro_export]
macro_rules! one_of_each {
    ($type:ty: $($pattern:pat => $value:expr),+ $(,)?) => {{
        let _each_has_a_line = |value: &$type| match value {
            $($pattern => {})+
        };
        vec![$({
            let value: $type = $value;
            assert!(matches!(&value, $pattern), "not of its variant: {value:?}");
            value
        }),+]
    }};
}

/// The pinned `claude`, as `MAYFLY_TEST_CLAUDE` names it; without it the test is skipped.
pub fn claude() -> Option<PathBuf> {
    let claude = env::var_os("MAYFLY_TEST_CLAUDE").map(PathBuf::from);
    if claude.is_none() {
        skip("MAYFLY_TEST_CLAUDE names no claude");
    }
    claude
}

/// Says that this test does not run here, and why.
///
/// # Panics
///
/// If a list of allowed skips is given and this test is not on it.
pub fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    if let Some(list) = env::var_os("MAYFLY_TEST_SKIPS_ALLOWED") {
        let list = fs::read_to_string(list).expect("the list of allowed skips can be read");
        let allowed = list.lines().any(|line| line.split_whitespace().next() == Some(test.as_str()));
        assert!(allowed, "{test} may not be skipped here: {why}");
    }
    if let Some(file) = env::var_os("MAYFLY_TEST_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(file);
        let mut file = file.expect("the file of skips can be written");
        writeln!(file, "skipped {test}: {why}").expect("the file of skips can be written");
    }
}
