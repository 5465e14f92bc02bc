//! The head of a git bundle: enough to refuse what is none, and to name the commit that it brings.
//!
//! The format is `gitformat-bundle(5)`: a line with the version, lines with `@` (capabilities) and `-`
//! (commits that the receiver must have), a line for each ref, and an empty one. No git runs here.

use mayfly_wire::worker::CUT_REFS;

/// The most of a bundle that is looked at.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The longest head of one that is not cut off.
pub(crate) const WHOLE_HEAD_BYTES_MAX: usize = 4096;

/// What a bundle brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brought {
    /// The one commit that its refs point to, in hex.
    pub(crate) base: String,
    /// The commit that it is on top of; none is a bundle that holds all, or all to where it is cut off.
    pub(crate) on: Option<String>,
    /// Whether its history is cut off.
    pub(crate) is_cut: bool,
}

impl Brought {
    /// Whether it holds all of its commit.
    pub(crate) fn is_whole(&self) -> bool {
        self.on.is_none() && !self.is_cut
    }
}

/// Reads the head; or says what is wrong with the bundle.
pub(crate) fn read(head: &[u8]) -> Result<Brought, &'static str> {
    let mut lines = head.split(|&byte| byte == b'\n');
    if !matches!(lines.next(), Some(b"# v2 git bundle" | b"# v3 git bundle")) {
        return Err("is not a git bundle");
    }
    let (mut base, mut on, mut is_cut) = (None, None, false);
    for line in lines {
        match line.first() {
            None => return base.map(|base| Brought { base, on, is_cut }).ok_or("brings no commit"),
            Some(b'@') => {}
            Some(b'-') if on.is_some() => return Err("is on top of several commits: one is the most"),
            Some(b'-') => on = Some(needed(&line[1..]).ok_or("has a head that cannot be read")?),
            Some(_) => {
                let commit = commit(line).ok_or("has a head that cannot be read")?;
                if base.is_some_and(|base| base != commit) {
                    return Err("brings several commits: its refs must point to the same one");
                }
                base = Some(commit);
                is_cut |= line.split(|&byte| byte == b' ').nth(1).is_some_and(is_cut_ref);
            }
        }
    }
    Err("has a head that is too long or cut off")
}

fn is_cut_ref(name: &[u8]) -> bool {
    name.starts_with(CUT_REFS.as_bytes())
}

/// The commit of a line about what must be there; its title may follow.
fn needed(line: &[u8]) -> Option<String> {
    let commit = line.split(|&byte| byte == b' ').next()?;
    commit_id(std::str::from_utf8(commit).ok()?)
}

/// The commit of a ref's line.
fn commit(line: &[u8]) -> Option<String> {
    let (commit, name) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    commit_id(commit).filter(|_| !name.is_empty())
}

fn commit_id(text: &str) -> Option<String> {
    let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex && matches!(text.len(), 40 | 64)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef01234567";
    const B: &str = "89abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn the_commit_that_a_bundle_brings_is_known_from_its_head() {
        let v2 = format!("# v2 git bundle\n{A} refs/mayfly/base\n\nPACK\0\0");
        let whole = Brought { base: A.to_owned(), on: None, is_cut: false };
        assert_eq!(read(v2.as_bytes()).as_ref(), Ok(&whole));
        let v3 = format!("# v3 git bundle\n@object-format=sha1\n{A} HEAD\n{A} refs/heads/main\n\nPACK");
        assert_eq!(read(v3.as_bytes()).as_ref(), Ok(&whole));
        let cut = format!("# v2 git bundle\n{A} refs/heads/base\n{A} refs/mayfly/cut/{B}\n\nPACK");
        let cut = read(cut.as_bytes()).expect("a bundle");
        assert_eq!((cut.base.as_str(), cut.is_whole(), whole.is_whole()), (A, false, true));
        let on = format!("# v2 git bundle\n-{B} a title\n{A} HEAD\n\nPACK");
        assert_eq!(read(on.as_bytes()), Ok(Brought { on: Some(B.to_owned()), ..whole }));
    }

    #[test]
    fn what_is_no_bundle_of_one_commit_is_refused() {
        for (head, reason) in [
            (String::new(), "not a git bundle"),
            ("\x1f tar".to_owned(), "not a git bundle"),
            ("# v2 git bundle\n\nPACK".to_owned(), "no commit"),
            (format!("# v2 git bundle\n-{A} before\n-{B} too\n{B} HEAD\n\n"), "on top of several"),
            (format!("# v2 git bundle\n{A} HEAD\n{B} refs/x\n\n"), "several"),
            (format!("# v2 git bundle\n{A}\n\n"), "cannot be read"),
            ("# v2 git bundle\n0123 HEAD\n\n".to_owned(), "cannot be read"),
            (format!("# v2 git bundle\n{A} HEAD"), "cut off"),
        ] {
            let error = read(head.as_bytes()).expect_err("no bundle of ours");
            assert!(error.contains(reason), "{head:?}: {error}");
        }
    }
}
