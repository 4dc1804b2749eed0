//! What peers may do how often: each client ([`Allowance`]), each address and all together ([`Addresses`]). Knows the
//! settings and the wording of refusals; nothing of lanes or connections. Refusing costs no more than the settings allow: who goes on regardless has to go.

mod address;
mod auth_failures;
mod bucket;
mod client;
mod pages;

pub(crate) use self::address::{Addresses, Admission, Place};
pub(crate) use self::auth_failures::TokenCheck;
pub(crate) use self::client::{Allowance, RetryAfter};
