//! A small library to start from, written for that: what is useful in most repositories, and an example of most kinds.

use crate::problem::Problems;
use crate::resource::Resource;
use crate::tree::File;

/// A file of it, by its path in the library.
struct Starting {
    id: &'static str,
    path: &'static str,
    executable: bool,
    text: &'static str,
}

macro_rules! files {
    ($($id:literal / $path:literal, executable: $executable:literal;)+) => {
        &[$(Starting {
            id: $id,
            path: $path,
            executable: $executable,
            text: include_str!(concat!("../starter/", $id, "/", $path)),
        }),+]
    };
}

/// One file for each resource, or several in the order of their paths.
const FILES: &[Starting] = files! {
    "agent/_global/code-reviewer" / "agent.md", executable: false;
    "agent/_global/fixer" / "agent.md", executable: false;
    "agent/_global/test-writer" / "agent.md", executable: false;
    "hooks/_global/check-syntax" / "check.sh", executable: true;
    "hooks/_global/check-syntax" / "hooks.json", executable: false;
    "rules/_global/working-together" / "rules.md", executable: false;
    "settings/_global/base" / "settings.json", executable: false;
};

/// Its resources.
pub fn resources() -> Result<Vec<Resource>, Problems> {
    let of_one = FILES.chunk_by(|one, other| one.id == other.id);
    let read = |files: &[Starting]| {
        let id = files[0].id.parse().expect("it is named as resources are");
        Resource::read(id, files.iter().map(File::from).collect())
    };
    of_one.map(read).collect()
}

impl From<&Starting> for File {
    fn from(Starting { path, executable, text, .. }: &Starting) -> Self {
        Self { path: (*path).to_owned(), executable: *executable, bytes: text.as_bytes().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::What;

    #[test]
    fn what_one_starts_from_is_good_and_the_reviewer_can_only_read() {
        let all = resources().expect("good ones");
        let ids: Vec<String> = all.iter().map(|resource| resource.id.to_string()).collect();
        assert_eq!(ids.len(), 6, "{ids:?}");
        let What::Agent(reviewer) = &all[0].what else { panic!("{ids:?}") };
        let tools = ["Read", "Glob", "Grep"].map(str::to_owned).to_vec();
        assert_eq!((reviewer.name.as_str(), &reviewer.tools), ("code-reviewer", &Some(tools)));
    }
}
