//! Rate limits: of each client ([`Allowance`]), of each address, and of all together ([`Addresses`]). Knows the
//! settings and the wording of refusals; nothing of lanes or connections. Refusals cost no more than the settings
//! allow: a client that goes on regardless is closed.

mod address;
mod auth_failures;
mod bucket;
mod client;
mod pages;

pub(crate) use self::address::{Addresses, Admission, Place};
pub(crate) use self::auth_failures::TokenCheck;
pub(crate) use self::client::{Allowance, RetryAfter};
