//! The list under any order of joins, drops and returns, held against a model without queues and indexes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GRACE_MS: u64 = 1000;
const INTERVAL_MS: u64 = 100;

/// Something that happens to a topic. Clients are numbers.
#[derive(Debug, Clone)]
enum Step {
    Join {
        client: usize,
        resumes: bool,
        state: Option<u8>,
    },
    Leave(usize),
    Lose(usize),
    Set(usize, Option<u8>),
    Pass(u64),
    Tick(usize),
    /// A watcher comes: it has the list as it is, and is told of what happens from then on.
    Watch,
    Unwatch,
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..5_usize;
    let state = || prop::option::of(0..3_u8);
    let join = (client(), any::<bool>(), state());
    let join = join.prop_map(|(client, resumes, state)| Step::Join { client, resumes, state });
    prop_oneof![
        4 => join,
        2 => client().prop_map(Step::Leave),
        3 => client().prop_map(Step::Lose),
        3 => (client(), state()).prop_map(|(client, state)| Step::Set(client, state)),
        2 => prop_oneof![1..20_u64, 50..150_u64, 900..1100_u64].prop_map(Step::Pass),
        2 => (1..4_usize).prop_map(Step::Tick),
        1 => Just(Step::Watch),
        1 => Just(Step::Unwatch),
    ]
}

/// One connection as the model knows it.
#[derive(Debug, Clone)]
struct There {
    who: Arc<Member>,
    away_until: Option<u64>,
    state: Option<Json>,
    set: u64,
}

/// All connections of the topic, in the order in which their places were taken.
#[derive(Debug, Default)]
struct Model {
    there: Vec<There>,
    sets: u64,
}

/// The member that a connection is part of: a user, or the connection.
fn member(kind: Presence, who: &Member) -> String {
    match &who.user {
        Some(user) if kind == Presence::Users => format!("user {user}"),
        _ => who.id.to_string(),
    }
}

impl Model {
    fn members(&self, kind: Presence) -> BTreeSet<String> {
        self.there.iter().map(|there| member(kind, &there.who)).collect()
    }

    fn expire(&mut self, now: u64) {
        self.there.retain(|there| there.away_until.is_none_or(|until| until > now));
    }

    /// Gives the id of which the place was taken, if that ends an entry of this id.
    fn join(&mut self, kind: Presence, who: &Arc<Member>, was: Option<Uuid>, state: Option<Json>) -> Option<Uuid> {
        let is_user = kind == Presence::Users && who.user.is_some();
        let mine = |there: &There| there.who.user == who.user;
        let earlier = self.there.iter().position(|there| mine(there) && Some(there.who.id) == was);
        let any_away = || self.there.iter().position(|there| mine(there) && there.away_until.is_some());
        let place = earlier.or_else(|| if is_user { any_away() } else { None });
        let mut new = There { who: Arc::clone(who), away_until: None, state: state.clone(), set: 0 };
        if state.is_some() {
            self.sets += 1;
            new.set = self.sets;
        }
        let Some(place) = place else {
            self.there.push(new);
            return None;
        };
        let old = std::mem::replace(&mut self.there[place], new);
        if state.is_none() {
            (self.there[place].state, self.there[place].set) = (old.state, old.set);
        }
        (!is_user).then_some(old.who.id)
    }

    fn list(&self, kind: Presence) -> BTreeMap<String, Seen> {
        let mut list = BTreeMap::new();
        for there in &self.there {
            let name = member(kind, &there.who);
            let all: Vec<_> = self.there.iter().filter(|other| member(kind, &other.who) == name).collect();
            let newest = all.iter().max_by_key(|there| there.set).expect("one at least");
            list.entry(name).or_insert_with(|| Seen {
                who: Arc::clone(&all[0].who),
                state: newest.state.clone(),
                is_away: all.iter().all(|there| there.away_until.is_some()),
                clients: (kind == Presence::Users && there.who.user.is_some()).then_some(all.len() as u64),
            });
        }
        list
    }

    fn occupancy(&self) -> Occupancy {
        let users: BTreeSet<_> = self.there.iter().filter_map(|there| there.who.user.clone()).collect();
        Occupancy { clients: self.there.len() as u64, users: users.len() as u64 }
    }
}

/// A watcher that knows nothing but what it was told.
#[derive(Debug, Default)]
struct Watcher {
    list: BTreeMap<String, Seen>,
    occupancy: Occupancy,
    /// When a change of an entry was told last, by the entry's id.
    told: BTreeMap<Uuid, u64>,
    occupancy_told: Option<u64>,
}

impl Watcher {
    fn hear(&mut self, kind: Presence, event: Event, now: u64) {
        match event {
            Event::Join(seen) => {
                let name = member(kind, &seen.who);
                assert!(self.list.insert(name.clone(), seen).is_none(), "{name} was there already");
            }
            Event::Leave(seen) => {
                self.told.remove(&seen.who.id);
                let name = member(kind, &seen.who);
                assert!(self.list.remove(&name).is_some(), "{name} was not there");
            }
            Event::Return { seen, was } => {
                assert!(self.list.remove(&was.to_string()).is_some(), "{was} was not there");
                self.list.insert(member(kind, &seen.who), seen);
            }
            Event::State { seen, .. } => {
                let last = self.told.insert(seen.who.id, now);
                assert!(last.is_none_or(|last| now >= last + INTERVAL_MS), "{} was told too often", seen.who.id);
                let name = member(kind, &seen.who);
                assert!(self.list.insert(name.clone(), seen).is_some(), "{name} was not there");
            }
            Event::Occupancy(occupancy) => {
                let last = self.occupancy_told.replace(now);
                assert!(last.is_none_or(|last| now >= last + INTERVAL_MS), "the number was told too often");
                self.occupancy = occupancy;
            }
        }
    }
}

/// A topic with its watchers, and the model of it.
struct Scene {
    kind: Presence,
    list: MemberList,
    model: Model,
    watchers: Vec<Watcher>,
    now: u64,
    /// The present connection of each client, and its user.
    connections: Vec<(Option<Arc<Member>>, Option<&'static str>)>,
    /// The one before, while the client may resume it.
    before: Vec<Option<Uuid>>,
    last_id: u128,
    lost: usize,
    over: usize,
}

impl Scene {
    fn new(kind: Presence) -> Self {
        let users = [None, None, Some("ada"), Some("ada"), Some("bob")];
        Self {
            kind,
            list: MemberList::new(kind),
            model: Model::default(),
            watchers: Vec::new(),
            now: 0,
            connections: users.map(|user| (None, user)).to_vec(),
            before: vec![None; users.len()],
            // Ids go down, so that newer connections come first in the list.
            last_id: u128::from(u64::MAX),
            lost: 0,
            over: 0,
        }
    }

    fn at(&self) -> Moment {
        let is_watched = !self.watchers.is_empty();
        Moment { now: self.now, interval_ms: INTERVAL_MS, members: is_watched, counts: is_watched }
    }

    fn hear(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Event> {
        let events: Vec<_> = events.into_iter().collect();
        assert!(events.is_empty() || !self.watchers.is_empty(), "no one watches");
        for watcher in &mut self.watchers {
            events.iter().for_each(|event| watcher.hear(self.kind, event.clone(), self.now));
        }
        events
    }

    fn step(&mut self, step: Step) {
        let names = |list: &BTreeMap<String, Seen>| list.keys().cloned().collect::<BTreeSet<_>>();
        let at = self.at();
        let (mut returned, mut is_timely) = (None, true);
        let events = match step {
            Step::Join { client, resumes, state } => {
                // A connection may be lost before the server knows: then the next one takes its place at once.
                let stale = self.connections[client].0.clone();
                if stale.is_some() && !resumes {
                    return;
                }
                self.last_id -= 1;
                let user = self.connections[client].1.map(str::to_owned);
                let who = Arc::new(Member::new(Uuid::from_u128(self.last_id), None, user));
                let was = stale.as_ref().map(|stale| stale.id).or(self.before[client]).filter(|_| resumes);
                let state = state.map(|state| Json::parse(state.to_string()).expect("JSON"));
                returned = self.model.join(self.kind, &who, was, state.clone());
                self.connections[client].0 = Some(Arc::clone(&who));
                let events = self.list.join(&who, was, state, at).into_iter().collect();
                if let Some(stale) = stale {
                    assert!(!self.list.has(&stale) && !self.list.lose(&stale, self.now + GRACE_MS, at));
                    assert_eq!(self.list.leave(&stale, at), None);
                    assert_eq!(self.list.set_state(&stale, None, at), Err(NotMember));
                }
                events
            }
            Step::Leave(client) => {
                let Some(who) = self.connections[client].0.take() else { return };
                self.before[client] = Some(who.id);
                self.model.there.retain(|there| there.who.id != who.id);
                self.list.leave(&who, at).into_iter().collect()
            }
            Step::Lose(client) => {
                let Some(who) = self.connections[client].0.take() else { return };
                self.before[client] = Some(who.id);
                let there = self.model.there.iter_mut().find(|there| there.who.id == who.id);
                there.expect("it is there").away_until = Some(self.now + GRACE_MS);
                assert!(self.list.lose(&who, self.now + GRACE_MS, at));
                self.lost += 1;
                Vec::new()
            }
            Step::Set(client, state) => {
                let Some(who) = self.connections[client].0.clone() else { return };
                let state = state.map(|state| Json::parse(state.to_string()).expect("JSON"));
                self.model.sets += 1;
                let there = self.model.there.iter_mut().find(|there| there.who.id == who.id).expect("it is there");
                (there.state, there.set) = (state.clone(), self.model.sets);
                assert_eq!(self.list.set_state(&who, state, at), Ok(()));
                Vec::new()
            }
            Step::Pass(ms) => {
                self.now += ms;
                return self.expire();
            }
            Step::Tick(most) => {
                is_timely = false;
                let mut events = Vec::new();
                self.over += self.list.tick(most, at, &mut events);
                events
            }
            Step::Watch => {
                let (list, occupancy) = (self.pages(), self.list.occupancy());
                let list = list.into_iter().map(|seen| (member(self.kind, &seen.who), seen)).collect();
                self.watchers.push(Watcher { list, occupancy, ..Watcher::default() });
                Vec::new()
            }
            Step::Unwatch => {
                self.watchers.pop();
                Vec::new()
            }
        };
        self.hear(events.clone());
        if self.kind != Presence::Counts {
            let is_return = events.iter().any(|event| matches!(event, Event::Return { .. }));
            assert_eq!(is_return, returned.is_some() && !self.watchers.is_empty(), "{events:?}");
            assert!(!is_return || events.len() == 1, "a return is neither join nor leave: {events:?}");
            for watcher in self.watchers.iter().filter(|_| is_timely) {
                let members = self.model.members(self.kind);
                assert_eq!(names(&watcher.list), members, "joins and leaves are told at once");
            }
        }
        assert!(events.iter().all(|event| self.kind != Presence::Counts || matches!(event, Event::Occupancy(_))));
        assert_eq!(self.list.occupancy(), self.model.occupancy());
    }

    /// The ends of graces have to be told in time, so the model's members end when the list's do.
    fn expire(&mut self) {
        while self.list.due().is_some_and(|due| due <= self.now) {
            let (at, mut events) = (self.at(), Vec::new());
            self.over += self.list.tick(3, at, &mut events);
            self.hear(events);
        }
        self.model.expire(self.now);
    }

    /// Lets nothing happen for an interval.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.step(Step::Pass(INTERVAL_MS));
        }
        let list: BTreeMap<_, _> = self.pages().into_iter().map(|seen| (member(self.kind, &seen.who), seen)).collect();
        if self.kind == Presence::Counts {
            assert!(list.is_empty());
        } else {
            assert_eq!(list, self.model.list(self.kind), "what it lists");
        }
        for watcher in &self.watchers {
            assert_eq!(list, watcher.list, "what was told");
            assert_eq!(watcher.occupancy, self.model.occupancy(), "the number that was told");
        }
        let soonest = self.model.there.iter().filter_map(|there| there.away_until).min();
        let due = self.list.due();
        assert!(due.is_none_or(|due| due > self.now), "nothing is due");
        assert!(soonest.is_none_or(|soonest| due.is_some_and(|due| due <= soonest)), "a grace ends at {soonest:?}");
    }

    /// All entries, two at a time.
    fn pages(&self) -> Vec<Seen> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.list.page(after, 2);
            let total = if self.kind == Presence::Counts {
                self.model.there.len()
            } else {
                self.model.members(self.kind).len()
            };
            assert_eq!((page.total, page.occupancy), (total as u64, self.model.occupancy()));
            assert!(page.entries.len() <= 2);
            all.extend(page.entries);
            after = page.next;
            if after.is_none() {
                assert!(all.is_sorted_by_key(|seen| seen.who.id), "in the order of their ids");
                let total: u64 = all.iter().map(|seen| seen.clients.unwrap_or(1)).sum();
                assert!(self.kind == Presence::Counts || total == self.list.occupancy().clients, "counts agree");
                return all;
            }
        }
    }

    /// All leave, and nothing is left to be done.
    fn end(&mut self) {
        for client in 0..self.connections.len() {
            self.step(Step::Leave(client));
        }
        self.step(Step::Pass(GRACE_MS));
        self.settle();
        assert!(self.list.is_empty() && self.list.due().is_none(), "nothing runs while nothing changes");
        assert!(self.list.users.is_none());
        assert_eq!(self.over, self.lost, "each lost connection is given back once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// With events for all that was told: the watcher's list is exactly what `presence` shows, a return within the
    /// grace is neither leave nor join, nothing is told more often than it may be, and all numbers agree.
    #[test]
    fn a_watcher_that_was_told_of_all_events_has_the_list(
        kind in prop::sample::select(vec![Presence::Clients, Presence::Users, Presence::Counts]),
        steps in prop::collection::vec(step(), 0..40),
        settles in prop::collection::vec(prop::bool::weighted(0.1), 40),
    ) {
        let mut scene = Scene::new(kind);
        for (step, settles) in steps.into_iter().zip(settles) {
            scene.step(step);
            if settles {
                scene.settle();
            }
        }
        scene.settle();
        scene.end();
    }

    /// Nothing is queued for a topic without watchers, but the ends of graces.
    #[test]
    fn without_watchers_nothing_is_to_be_told(
        kind in prop::sample::select(vec![Presence::Clients, Presence::Users, Presence::Counts]),
        joins in prop::collection::vec((0..4_u128, prop::option::of(0..2_u8)), 1..20),
    ) {
        let mut list = MemberList::new(kind);
        let at = Moment { now: 0, interval_ms: INTERVAL_MS, members: false, counts: false };
        for (number, (client, user)) in joins.into_iter().enumerate() {
            let id = Uuid::from_u128(client << 64 | number as u128);
            let who = Arc::new(Member::new(id, None, user.map(|user| user.to_string())));
            prop_assert_eq!(list.join(&who, None, None, at), None);
            prop_assert_eq!(list.set_state(&who, Some(Json::parse("1").expect("JSON")), at), Ok(()));
            if number % 2 == 0 {
                prop_assert_eq!(list.leave(&who, at), None);
            }
            prop_assert_eq!(list.due(), None);
        }
        prop_assert!(list.due.is_none());
    }
}

#[test]
fn another_user_takes_no_place_of_an_earlier_connection() {
    for kind in [Presence::Clients, Presence::Users] {
        let mut list = MemberList::new(kind);
        let at = Moment { now: 0, interval_ms: INTERVAL_MS, members: true, counts: false };
        for (number, user) in [None, Some("ada"), Some("bob"), None].into_iter().enumerate() {
            let who = |id: usize| Arc::new(Member::new(Uuid::from_u128(id as u128), None, user.map(str::to_owned)));
            let was = number.checked_sub(1).map(|before| who(before).id);
            let event = list.join(&who(number), was, None, at);
            assert!(matches!(event, Some(Event::Join(_))), "{kind:?}: {user:?} is somebody else, not {event:?}");
        }
        assert_eq!(list.occupancy(), Occupancy { clients: 4, users: 2 });
    }
}
