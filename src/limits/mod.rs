//! Limits of what peers may do: of each client ([`Allowance`]), of each address and of all together ([`Addresses`]).
//! Knows the settings and the wording of refusals, never lanes or connections. A refusal costs little, and a client
//! that ignores too many is closed. Called by `topic`, `handler`, `session`, `worker` and `http`.

mod address;
mod auth_failures;
mod bucket;
mod client;
mod pages;

pub(crate) use self::address::{Addresses, Admission, Place};
pub(crate) use self::auth_failures::TokenCheck;
pub(crate) use self::client::{Allowance, RetryAfter};
