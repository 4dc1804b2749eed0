//! The connected clients, their users and their workers, and delivery to all of them ([`Registry::broadcast`]), to all
//! connections of a user ([`Registry::to_user`]) or to one client ([`DirectBatch`]). Shared by all workers; the
//! directory is locked only when a client comes or leaves and for queries, never on the way of a message to many.

mod direct;
mod fanout;
mod names;
mod users;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) use self::direct::{Delivered, DirectBatch, Found};
use self::fanout::Dispatch;
pub(crate) use self::fanout::{Inbox, OnRoster, Roster, Tally};
use self::names::{NameSkeleton, Names};
use self::users::Users;
use crate::envelope::EncodedMessage;
use crate::message::{ClientInfo, ClosedBy};
use crate::outbound::Outbound;

/// Clients that are looked up under one lock while all are visited.
const VISITED_AT_ONCE: usize = 64;

/// The directory of connected clients.
#[derive(Debug)]
pub(crate) struct Registry {
    max_clients: usize,
    /// Most connections of one user; 0 for any number.
    user_connections: usize,
    clients: RwLock<BTreeMap<Uuid, Entry>>,
    /// Locked after `clients`.
    users: RwLock<Users>,
    /// The clients of each worker as their senders know them, by worker.
    rosters: Vec<Arc<Roster>>,
    /// The names that clients go by, if they have to prove their identity.
    names: Mutex<Names>,
    /// Connections with and without a finished handshake.
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    /// The ways into the workers' inboxes, by worker.
    inboxes: Vec<mpsc::Sender<Dispatch>>,
    /// Held while a broadcast goes into all inboxes, which have room already: two broadcasts at once would otherwise go
    /// into one inbox in one order, and into another in the other.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Entry {
    info: ClientInfo,
    worker: usize,
}

/// One page of the directory.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) clients: Vec<ClientInfo>,
    pub(crate) total: usize,
    /// The last of this page, where there is another.
    pub(crate) next: Option<Uuid>,
}

impl Registry {
    /// A registry for so many workers, and their inboxes, each of at most `queue` deliveries. One user has at most
    /// `user_connections`, if that is not 0.
    pub(crate) fn new(
        max_clients: usize,
        user_connections: usize,
        workers: usize,
        queue: usize,
    ) -> (Arc<Self>, Vec<Inbox>) {
        let (inboxes, ends) = (0..workers)
            .map(|_| {
                let (sender, deliveries) = mpsc::channel(queue);
                (sender, Inbox { deliveries })
            })
            .unzip();
        let registry = Self {
            max_clients,
            user_connections,
            clients: RwLock::default(),
            users: RwLock::default(),
            rosters: (0..workers).map(|_| Arc::default()).collect(),
            names: Mutex::default(),
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            inboxes,
            turn: Mutex::new(()),
        };
        (Arc::new(registry), ends)
    }

    /// Sends a message to every client, in one order for all of them. Waits only while an inbox is full; the result
    /// counts its receivers.
    pub(crate) async fn broadcast(&self, encoded: Arc<EncodedMessage>) -> Arc<Tally> {
        let tally = Tally::new(self.inboxes.len());
        let mut places = Vec::with_capacity(self.inboxes.len());
        for inbox in &self.inboxes {
            let share = tally.share();
            // A worker that has ended has no clients left; its share is counted all the same.
            if let Ok(place) = inbox.reserve().await {
                places.push((place, share));
            }
        }
        let in_turn = self.turn.lock();
        for (place, share) in places {
            place.send(Dispatch::All { encoded: Arc::clone(&encoded), share });
        }
        drop(in_turn);
        tally
    }

    /// Sends a message to all connections of a user, in one order for all of them. Waits only while an inbox is full;
    /// the result counts its receivers. `None` if the user has no connection.
    pub(crate) async fn to_user(&self, user: &str, encoded: Arc<EncodedMessage>) -> Option<Arc<Tally>> {
        let mut by_worker = BTreeMap::<usize, Vec<Uuid>>::new();
        for &(id, worker) in self.users.read().of(user) {
            by_worker.entry(worker).or_default().push(id);
        }
        if by_worker.is_empty() {
            return None;
        }
        let tally = Tally::new(by_worker.len());
        let mut places = Vec::with_capacity(by_worker.len());
        for (worker, clients) in by_worker {
            let share = tally.share();
            // A worker that has ended has no clients left; its share is counted all the same.
            if let Some(inbox) = self.inboxes.get(worker)
                && let Ok(place) = inbox.reserve().await
            {
                places.push((place, clients, share));
            }
        }
        let in_turn = self.turn.lock();
        for (place, clients, share) in places {
            place.send(Dispatch::Some { clients, encoded: Arc::clone(&encoded), share });
        }
        drop(in_turn);
        Some(tally)
    }

    /// The ids of a user's connections, sorted.
    pub(crate) fn clients_of(&self, user: &str) -> Vec<Uuid> {
        self.users.read().of(user).iter().map(|&(id, _)| id).collect()
    }

    /// A client as its senders know it.
    pub(crate) fn outbound(&self, id: Uuid) -> Option<Arc<Outbound>> {
        self.rosters.get(self.worker_of(id)?)?.get(id)
    }

    /// Counts a connection until the result is dropped.
    pub(crate) fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }

    /// Counts a handshake under way until the result is dropped.
    pub(crate) fn begin_handshake(self: &Arc<Self>) -> Handshaking {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        Handshaking(Arc::clone(self))
    }

    /// Enters a client until the result is dropped.
    pub(crate) fn register(
        self: &Arc<Self>,
        info: ClientInfo,
        worker: usize,
        naming: Naming,
    ) -> Result<Registered, NotRegistered> {
        let id = info.id;
        let mut clients = self.clients.write();
        if clients.len() >= self.max_clients {
            return Err(NotRegistered::Full);
        }
        let user = info.user.as_deref().map(Box::<str>::from);
        let most = self.user_connections;
        if let Some(user) = &user
            && most > 0
            && self.users.read().count(user) >= most
        {
            return Err(NotRegistered::UserFull(most));
        }
        let look = info.name.as_deref().filter(|_| naming != Naming::Free).map(NameSkeleton::of);
        let mut displaced = Vec::new();
        if let Some(look) = &look {
            let mut names = self.names.lock();
            let entered = names.enter(look, id, info.user.as_deref(), naming);
            let why = if naming == Naming::Exclusive { NotRegistered::NameOwned } else { NotRegistered::NameTaken };
            displaced = entered.ok_or(why)?;
        }
        if let Some(user) = &user {
            self.users.write().enter(user, id, worker);
        }
        clients.insert(id, Entry { info, worker });
        Ok(Registered { registry: Arc::clone(self), id, user, look, displaced })
    }

    /// Ends a client, on any worker. False if there is none of this id.
    pub(crate) async fn end(&self, id: Uuid, closed: ClosedBy) -> bool {
        let Some(inbox) = self.worker_of(id).and_then(|worker| self.inboxes.get(worker)) else { return false };
        // A worker that has ended has ended its clients.
        inbox.send(Dispatch::End { client: id, closed }).await.is_ok()
    }

    /// A worker's clients as their senders know them.
    pub(crate) fn roster(&self, worker: usize) -> &Arc<Roster> {
        &self.rosters[worker]
    }

    /// Visits every client on a roster, in the order of ids. The directory is locked for some of them at a time, and
    /// not while they are visited: a client that comes or leaves meanwhile is visited or not.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&Arc<Outbound>)) {
        let mut after = Bound::Unbounded;
        loop {
            let some: Vec<(Uuid, usize)> = {
                let clients = self.clients.read();
                let rest = clients.range((after, Bound::Unbounded));
                rest.take(VISITED_AT_ONCE).map(|(&id, entry)| (id, entry.worker)).collect()
            };
            let Some(&(last, _)) = some.last() else { return };
            after = Bound::Excluded(last);
            let on_roster = |(id, worker): (Uuid, usize)| self.rosters.get(worker)?.get(id);
            some.into_iter().filter_map(on_roster).for_each(|client| visit(&client));
        }
    }

    /// The directory's entry of a client.
    pub(crate) fn info(&self, id: Uuid) -> Option<ClientInfo> {
        self.clients.read().get(&id).map(|entry| entry.info.clone())
    }

    /// Whether another client would be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.clients() >= self.max_clients
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.read().len()
    }

    /// The worker on which a client is.
    pub(crate) fn worker_of(&self, id: Uuid) -> Option<usize> {
        self.clients.read().get(&id).map(|entry| entry.worker)
    }

    /// At most `limit` clients behind `after`, ordered by id.
    pub(crate) fn page(&self, after: Option<Uuid>, limit: usize) -> Page {
        let clients = self.clients.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = clients.range((from, Bound::Unbounded)).map(|(_, entry)| &entry.info);
        let page: Vec<ClientInfo> = rest.by_ref().take(limit).cloned().collect();
        let next = rest.next().and(page.last()).map(|last| last.id);
        Page { clients: page, total: clients.len(), next }
    }
}

/// A counted connection.
#[derive(Debug)]
pub(crate) struct Connected(Arc<Registry>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A counted handshake.
#[derive(Debug)]
pub(crate) struct Handshaking(Arc<Registry>);

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's place in the directory.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Arc<Registry>,
    id: Uuid,
    user: Option<Box<str>>,
    look: Option<NameSkeleton>,
    /// Clients that had chosen a name that is this one's: they have to be ended.
    pub(crate) displaced: Vec<Uuid>,
}

/// How a client came by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Names belong to no user on this server.
    Free,
    /// It chose the name.
    Chosen,
    /// The name is from its token, and others may share it.
    Given,
    /// The name is from its token, and belongs to its user alone.
    Exclusive,
}

/// Why a client is not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum NotRegistered {
    /// There are as many clients as may be.
    #[error("the server is full; try again later")]
    Full,
    /// Its user has as many connections as a user may have.
    #[error("this user has the {0} connections that a user may have; end one of them first")]
    UserFull(usize),
    /// The name that it chose is another user's.
    #[error("client_name: this name is another user's; choose another one")]
    NameTaken,
    /// The name in its token is another user's alone.
    #[error("token: the name in it is another user's, who is connected; get a token with another name")]
    NameOwned,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut clients = self.registry.clients.write();
        clients.remove(&self.id);
        if let Some(user) = &self.user {
            self.registry.users.write().leave(user, self.id);
        }
        if let Some(look) = &self.look {
            self.registry.names.lock().leave(look, self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Member;

    fn client(n: u128) -> ClientInfo {
        ClientInfo::new(Member::new(Uuid::from_u128(n), None, None), 0, "quic")
    }

    #[test]
    fn pages_cover_everybody_once_and_in_order() {
        let registry = Registry::new(100, 0, 1, 1).0;
        let places: Vec<_> = (0..25).map(|n| registry.register(client(n), 0, Naming::Free).expect("room")).collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = registry.page(after, 10);
            assert_eq!(page.total, 25);
            seen.extend(page.clients.iter().map(|info| info.id.as_u128()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
        assert_eq!(registry.page(None, 25).next, None, "a full last page has no next");
        drop(places);
        assert_eq!(registry.clients(), 0);
    }

    #[test]
    fn the_last_place_is_given_once_and_comes_back() {
        let registry = Registry::new(1, 0, 1, 1).0;
        let place = registry.register(client(1), 3, Naming::Free).expect("room for one");
        assert_eq!(registry.worker_of(Uuid::from_u128(1)), Some(3));
        assert_eq!(registry.register(client(2), 0, Naming::Free).err(), Some(NotRegistered::Full));
        drop(place);
        assert!(registry.register(client(2), 0, Naming::Free).is_ok());
    }
    fn of_user(n: u128, user: &str) -> ClientInfo {
        ClientInfo::new(Member::new(Uuid::from_u128(n), None, Some(user.into())), 0, "quic")
    }

    #[test]
    fn a_user_has_at_most_so_many_connections_and_others_are_not_concerned() {
        let registry = Registry::new(100, 2, 1, 1).0;
        let register = |info| registry.register(info, 0, Naming::Chosen);
        let first = register(of_user(1, "ada")).expect("the first");
        let _second = register(of_user(2, "ada")).expect("the second");
        assert_eq!(register(of_user(3, "ada")).err(), Some(NotRegistered::UserFull(2)));
        let _other = register(of_user(4, "bob")).expect("another user");
        let _nobody = [register(client(5)), register(client(6)), register(client(7))].map(|it| it.expect("no user"));
        assert_eq!(registry.clients_of("ada"), [1, 2].map(Uuid::from_u128));
        drop(first);
        assert_eq!(registry.clients_of("ada"), [2].map(Uuid::from_u128));
        assert!(register(of_user(3, "ada")).is_ok(), "a place came back");
    }
}
