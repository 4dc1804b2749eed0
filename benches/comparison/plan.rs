//! Rows of the comparison, and the ratios to reach.

use super::Extent;
use super::table::Goals;
use crate::load::{Driver, Encoding, Interest, Mode, Topics};

/// Upper bounds for latency relative to the baselines, lower bounds for throughput.
const LATENCY: Goals = Goals { bare: Some(1.15), wss: Some(1.0) };
const PIPELINED: Goals = Goals { bare: Some(0.85), wss: Some(1.6) };
const FAN_OUT: Goals = Goals { bare: Some(0.85), wss: Some(1.3) };
pub(super) const CONNECTIONS: Goals = Goals { bare: Some(0.9), wss: Some(1.0) };
pub(super) const MEMORY: Goals = Goals { bare: Some(1.3), wss: Some(0.5) };
/// Resumed connections per second relative to full ones, on the same server.
pub(super) const RESUMED_TO_FULL: f64 = 2.0;

pub(super) const FULL: &str = "connections, full handshake";
pub(super) const RESUMED: &str = "connections, resumed session";
/// Suffix of the rows that are repeated with two workers of this project's server.
pub(super) const TWO_WORKERS: &str = ", 2 workers";

/// Rows that share servers and, for messages, connected clients.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) rounds: u16,
    /// Workers of this project's server, which then runs alone: the baselines would not change.
    pub(super) workers: Option<u16>,
    pub(super) work: Work,
}

pub(super) enum Work {
    Messages { clients: usize, interest: Interest, loads: Vec<Load> },
    Connect { clients: usize, resume: bool },
    Memory { clients: usize, interest: Interest },
}

pub(super) struct Load {
    pub(super) name: String,
    pub(super) mode: Mode,
    pub(super) encoding: Encoding,
    pub(super) senders: usize,
    pub(super) size: usize,
    pub(super) window: u64,
    pub(super) rate: Goals,
    pub(super) latency: Goals,
}

impl Group {
    fn new(name: &str, rounds: u16, work: Work) -> Self {
        Self { name: name.to_owned(), rounds, workers: None, work }
    }

    pub(super) fn is_memory(&self) -> bool {
        matches!(self.work, Work::Memory { .. })
    }

    pub(super) fn drivers(&self, extent: &Extent) -> &'static [Driver] {
        match (self.workers, extent.baselines_only) {
            (Some(_), true) => &[],
            (Some(_), false) => &[Driver::Qws],
            (None, true) => &[Driver::Bare, Driver::Wss],
            (None, false) => &[Driver::Qws, Driver::Bare, Driver::Wss],
        }
    }
}

/// All groups within the extent.
pub(super) fn groups(extent: &Extent) -> Vec<Group> {
    let rounds = extent.rounds();
    let messages =
        |name: &str, clients, interest, loads| Group::new(name, rounds, Work::Messages { clients, interest, loads });
    let connect = |name: &str, resume| Group::new(name, rounds, Work::Connect { clients: 16, resume });
    let memory = |name: &str, interest| Group::new(name, rounds.min(3), Work::Memory { clients: 1000, interest });
    let one = Interest::Topics(Topics::everyone_on(1));
    let two_workers = |clients: usize| {
        let mut loads = fan_outs(Mode::Topic, clients);
        loads.iter_mut().for_each(|load| load.name.push_str(TWO_WORKERS));
        Group { workers: Some(2), ..messages(&format!("topic to {clients}{TWO_WORKERS}"), clients, one, loads) }
    };
    let mut groups = vec![
        messages("echo, 1 client", 1, Interest::Own, vec![echo(1, 64, 1, Encoding::Text)]),
        messages(
            "echo, 10 clients",
            10,
            Interest::Own,
            vec![
                echo(10, 1024, 1, Encoding::Text),
                echo(10, 1024, 64, Encoding::Text),
                echo(10, 1024, 64, Encoding::Binary),
            ],
        ),
        messages("fan-out to 100", 100, Interest::Broadcasts, fan_outs(Mode::Broadcast, 100)),
        messages("fan-out to 1000", 1000, Interest::Broadcasts, fan_outs(Mode::Broadcast, 1000)),
        messages("topic to 100", 100, one, fan_outs(Mode::Topic, 100)),
        messages("topic to 1000", 1000, one, fan_outs(Mode::Topic, 1000)),
        two_workers(100),
        two_workers(1000),
        connect(FULL, false),
        connect(RESUMED, true),
        memory("memory per idle client, of 1000", Interest::Own),
        memory("memory per client on 1 topic, of 1000", one),
        memory("memory per client on 16 topics, of 1000", Interest::Topics(Topics::everyone_on(16))),
    ];
    groups.retain(|group| !group.drivers(extent).is_empty());
    if let Some(text) = &extent.only {
        groups.retain_mut(|group| {
            let is_wanted = group.name.contains(text);
            if let Work::Messages { loads, .. } = &mut group.work
                && !is_wanted
            {
                loads.retain(|load| load.name.contains(text));
                return !loads.is_empty();
            }
            is_wanted
        });
    }
    groups
}

fn echo(clients: usize, size: usize, window: u64, encoding: Encoding) -> Load {
    let is_pipelined = window > 1;
    let how = match (is_pipelined, encoding) {
        (false, _) => "1 in flight".to_owned(),
        (true, Encoding::Text) => format!("{window} in flight, text"),
        (true, Encoding::Binary) => format!("{window} in flight, binary"),
    };
    Load {
        name: format!("echo, {clients} x {size} B, {how}"),
        mode: Mode::Echo,
        encoding,
        senders: clients,
        size,
        window,
        rate: if is_pipelined { PIPELINED } else { Goals::NONE },
        latency: if is_pipelined { Goals::NONE } else { LATENCY },
    }
}

/// The same loads for broadcasts and for a topic: the baselines see no difference.
fn fan_outs(mode: Mode, clients: usize) -> Vec<Load> {
    let what = if mode == Mode::Topic { "topic" } else { "fan-out" };
    let load = |size, window| Load {
        name: format!("{what} to {clients}, {size} B, {window} in flight"),
        mode,
        encoding: Encoding::Text,
        senders: 1,
        size,
        window,
        rate: if window > 1 { FAN_OUT } else { Goals::NONE },
        latency: Goals::NONE,
    };
    vec![load(128, 1), load(128, 16), load(1024, 1), load(1024, 16)]
}
