//! What can be decided about a place that a machine asked for.

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was let through.
    Allowed,
    /// It was not.
    Denied(Refusal),
    /// It would have been, and was not to be had.
    Failed(Failing),
}

macro_rules! named {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $words:literal])+ $variant:ident: $word:literal,)+ }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $words])+ $variant,)+
        }

        impl $name {
            /// Its word, for programs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

named! {
    /// Why a place is not for a machine.
    Refusal {
        /// Nobody allowed it.
        NotListed: "not-listed",
        /// It is not named by the name of a host.
        NotAName: "not-a-name",
        /// It is no request that a proxy takes.
        BadRequest: "bad-request",
        /// The request names one host to us, and another to whom it is for.
        OtherHost: "other-host",
        /// What is not TLS was sent through a tunnel.
        NoTls: "no-tls",
        /// TLS names another host, or none.
        OtherName: "other-name",
        /// Its name leads to an address that is not a public one, or is this host's own.
        PrivateAddress: "private-address",
        /// Nobody can tell whether it is allowed.
        Undecided: "undecided",
    }
}

named! {
    /// Why a place that is allowed was not to be had.
    Failing {
        /// Its name leads to no address.
        Unresolved: "unresolved",
        /// Nobody answers there.
        Unreachable: "unreachable",
    }
}

impl Verdict {
    /// Its word, for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied(_) => "denied",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it was not let through.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Allowed => None,
            Self::Denied(refusal) => Some(refusal.name()),
            Self::Failed(failing) => Some(failing.name()),
        }
    }
}
