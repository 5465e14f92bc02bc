//! git, run so that nothing of a repository's own configuration runs
