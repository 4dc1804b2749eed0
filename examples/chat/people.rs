//! The names of other users by their ids, as far as the server shares them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use quic_websocket::message::{ClientInfo, Sender};
use quic_websocket::{Client, ClientError};
use tokio::time::timeout;
use uuid::Uuid;

use super::terminal::Names;

/// How long looking up a name may take before the id is shown instead.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest time between two requests for the client list because of an unknown id.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// The names seen so far.
#[derive(Clone, Default)]
pub(crate) struct People(Rc<RefCell<Known>>);

#[derive(Default)]
struct Known {
    by_id: HashMap<Uuid, String>,
    last_lookup: Option<Instant>,
    names: Names,
}

impl People {
    pub(crate) fn new(names: Names) -> Self {
        Self(Rc::new(RefCell::new(Known { names, ..Known::default() })))
    }

    /// Remembers a name.
    pub(crate) fn add(&self, id: Uuid, name: &str) {
        let mut known = self.0.borrow_mut();
        known.names.add(name);
        known.by_id.insert(id, name.to_owned());
    }

    /// All connected clients.
    pub(crate) async fn list(&self, client: &Client) -> Result<Vec<ClientInfo>, ClientError> {
        let clients = client.list_clients().await?;
        for info in &clients {
            if let Some(name) = &info.name {
                self.add(info.id, name);
            }
        }
        Ok(clients)
    }

    /// A sender's name: as the server has proved it, or as it is listed.
    pub(crate) async fn name_of(&self, client: &Client, from: &Sender) -> String {
        let Some(name) = from.label() else { return self.name(client, from.id).await };
        self.add(from.id, name);
        format!("{name} ({:.8})", from.id.to_string())
    }

    /// A sender's name with the first digits of its id, which distinguish clients of the same name; its id if it has no
    /// name.
    async fn name(&self, client: &Client, id: Uuid) -> String {
        let find = || self.0.borrow().by_id.get(&id).cloned();
        let mut name = find();
        let may_look_up =
            self.0.borrow().last_lookup.is_none_or(|last_lookup| last_lookup.elapsed() >= LOOKUP_INTERVAL);
        if name.is_none() && may_look_up {
            self.0.borrow_mut().last_lookup = Some(Instant::now());
            // If the client may not list others, the id is shown.
            let _ = timeout(LOOKUP_TIMEOUT, self.list(client)).await;
            name = find();
        }
        name.map_or_else(|| id.to_string(), |name| format!("{name} ({:.8})", id.to_string()))
    }
}
