//! One file per capability, in one program: each separate program would take seconds to build and link.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod address_limits;
mod admin;
mod backlog;
mod bad_fields;
mod bad_input;
mod bad_link;
mod binary;
mod broadcast;
mod capacity;
mod certificates;
mod churn;
mod client_certificates;
mod client_fallback;
mod client_library;
mod client_resume;
mod client_side;
mod client_tokens;
mod close;
mod compression;
mod conformance;
mod conformance_client;
mod direct;
mod drain;
mod early_data;
mod echo;
mod handshake;
mod ice_servers;
mod keepalive;
mod key_sets;
mod lanes;
mod limits;
mod list_clients;
mod logs;
mod many_clients;
mod migration;
mod pages;
mod permissions;
mod presence;
mod proxies;
mod pubsub;
mod replay;
mod revoked;
mod short_lived;
mod slow_subscribers;
mod stats;
mod subscriptions;
mod token_command;
mod token_keys;
mod tokens;
mod topics;
mod transcripts;
mod webtransport;
