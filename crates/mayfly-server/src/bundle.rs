//! The head of a git bundle: enough to refuse what is none, and to name the commit that it brings.
//!
//! The format is `gitformat-bundle(5)`: a line with the version, lines with `@` (capabilities) and `-`
//! (commits that the receiver must have), a line for each ref, and an empty one. No git runs here.

/// The most of a bundle that is looked at.
pub(crate) const HEAD_BYTES_MAX: usize = 4096;

/// What a bundle brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brought {
    /// The one commit that its refs point to, in hex.
    pub(crate) base: String,
    /// The commit that it is on top of; none is a bundle that holds all.
    pub(crate) on: Option<String>,
}

/// Reads the head; or says what is wrong with the bundle.
pub(crate) fn read(head: &[u8]) -> Result<Brought, &'static str> {
    let mut lines = head.split(|&byte| byte == b'\n');
    if !matches!(lines.next(), Some(b"# v2 git bundle" | b"# v3 git bundle")) {
        return Err("is not a git bundle");
    }
    let (mut base, mut on) = (None, None);
    for line in lines {
        match line.first() {
            None => return base.map(|base| Brought { base, on }).ok_or("brings no commit"),
            Some(b'@') => {}
            Some(b'-') if on.is_some() => return Err("is on top of several commits: one is the most"),
            Some(b'-') => on = Some(needed(&line[1..]).ok_or("has a head that cannot be read")?),
            Some(_) => {
                let commit = commit(line).ok_or("has a head that cannot be read")?;
                if base.is_some_and(|base| base != commit) {
                    return Err("brings several commits: its refs must point to the same one");
                }
                base = Some(commit);
            }
        }
    }
    Err("has a head that is too long or cut off")
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
        assert_eq!(read(v2.as_bytes()), Ok(Brought { base: A.to_owned(), on: None }));
        let v3 = format!("# v3 git bundle\n@object-format=sha1\n{A} HEAD\n{A} refs/heads/main\n\nPACK");
        assert_eq!(read(v3.as_bytes()), Ok(Brought { base: A.to_owned(), on: None }));
        let on = format!("# v2 git bundle\n-{B} a title\n{A} HEAD\n\nPACK");
        assert_eq!(read(on.as_bytes()), Ok(Brought { base: A.to_owned(), on: Some(B.to_owned()) }));
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
