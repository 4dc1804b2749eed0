//! `list_clients`: a page of who is connected.

use uuid::Uuid;

use super::Context;
use crate::message::ServerMessage;

pub(super) fn list_clients(context: &Context, limit: u64, after: Option<Uuid>) -> ServerMessage {
    let page = context.registry.page(after, usize::try_from(limit).unwrap_or(usize::MAX));
    ServerMessage::ClientList { clients: page.clients, total: page.total as u64, next: page.next }
}
