//! The version of the Claude Code CLI that this mayfly runs: the one place where it is named.
//!
//! The npm package holds one native binary, `package/claude`, for Linux with glibc 2.26 or later. The
//! integrity is the registry's published hash of the package; the digest is the binary's own.

/// The version, as the CLI itself names it.
pub(crate) const VERSION: &str = "2.1.330";

/// A binary that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pin {
    /// The npm package that holds it.
    pub(crate) package: &'static str,
    /// The package's integrity, as npm writes it: SHA-512 in base64.
    pub(crate) integrity: &'static str,
    /// The binary's SHA-256, in hex.
    pub(crate) sha256: &'static str,
}

/// The pinned binary for this kind of machine, if there is one.
pub(crate) fn here() -> Option<&'static Pin> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some(&X64),
        ("linux", "aarch64") => Some(&ARM64),
        _ => None,
    }
}

/// The one for most machines, Fly's among them.
pub(crate) const X64: Pin = Pin {
    package: "@anthropic-ai/claude-code-linux-x64",
    integrity: "sha512-9Gn+V7DtJ8M1nztP9CeDVl9g3RtrepI7rOFTyPRRnZe8D6zebIHKmC7OvBauucuAP0X0k85SDN/LPVZyjsGezQ==",
    sha256: "f390eaa0814e6a1bff74cbb47acb74cb9c89d30ced809fe0af5af00c7bfe8ebb",
};

const ARM64: Pin = Pin {
    package: "@anthropic-ai/claude-code-linux-arm64",
    integrity: "sha512-V4yanAY5EA5UpwwRPtjSfqDbNqAlUJeVn3NYZw2AgmRHjdpSsLtHAzbxRXfkAnbjwTXzE0uedjQxUY02ARPcsA==",
    sha256: "6016f90cac783e367fb1aa97c768a2efb94a0128a5b46b70fb3d8fcbbd9dd444",
};
