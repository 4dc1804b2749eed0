//! How safe a published message is.

use serde::Serialize;

/// How safe a published message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Stored {
    /// The operating system has it: it survives the end of the server, but not necessarily that of the machine.
    Os,
    /// It is on disk: it survives a power failure.
    Fsync,
}

impl Stored {
    /// The value of `stored` on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Os => "os",
            Self::Fsync => "fsync",
        }
    }

    /// Reads the value of `stored`; `None` if it is from a newer server.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        [Self::Os, Self::Fsync].into_iter().find(|stored| stored.as_str() == text)
    }
}
