//! Rows of the comparison, and the goals to reach.

use super::Extent;
use super::column::Column;
use super::table::Goals;
use crate::load::{Encoding, Interest, Mode, Topics};

/// Upper bounds for latency relative to the baselines, lower bounds for throughput.
const LATENCY: Goals = Goals { bare: Some(1.15), best_wss: Some(1.0), ..Goals::NONE };
const PIPELINED: Goals = Goals { bare: Some(0.85), best_wss: Some(1.6), ..Goals::NONE };
const FAN_OUT: Goals = Goals { bare: Some(0.85), best_wss: Some(1.3), ..Goals::NONE };
const DELIVERY_CPU: Goals = Goals { own_wss: Some(1.0), ..Goals::NONE };
/// In microseconds a round trip.
const DIRECT_CPU: Goals = Goals { most: Some(9.0), ..Goals::NONE };
pub(super) const CONNECTIONS: Goals = Goals { bare: Some(0.9), best_wss: Some(1.0), ..Goals::NONE };
const MEMORY: Goals = Goals { bare: Some(1.3), best_wss: Some(0.5), ..Goals::NONE };
/// In kilobytes a client.
const IDLE_MEMORY: Goals = Goals { most: Some(35.0), ..MEMORY };
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
    /// Workers of this project's server, which then runs alone: the others would not change.
    pub(super) workers: Option<u16>,
    pub(super) work: Work,
}

pub(super) enum Work {
    Messages { clients: usize, interest: Interest, loads: Vec<Load> },
    Connect { clients: usize, resume: bool },
    Memory { clients: usize, interest: Interest, goals: Goals },
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
    pub(super) cpu: Goals,
    /// Whether the use of the processors is shown.
    pub(super) shows_cores: bool,
}

impl Group {
    fn new(name: &str, rounds: u16, work: Work) -> Self {
        Self { name: name.to_owned(), rounds, workers: None, work }
    }

    pub(super) fn is_memory(&self) -> bool {
        matches!(self.work, Work::Memory { .. })
    }

    pub(super) fn serves(&self, column: Column) -> bool {
        if self.workers.is_some() {
            return column.has_workers();
        }
        match &self.work {
            Work::Messages { loads, .. } => loads.iter().all(|load| column.serves(load.mode)),
            Work::Memory { interest: Interest::Topics(_), .. } => column.serves(Mode::Topic),
            Work::Memory { .. } | Work::Connect { .. } => true,
        }
    }
}

/// All groups within the extent.
pub(super) fn groups(extent: &Extent) -> Vec<Group> {
    let rounds = extent.rounds();
    let messages =
        |name: &str, clients, interest, loads| Group::new(name, rounds, Work::Messages { clients, interest, loads });
    let connect = |name: &str, resume| Group::new(name, rounds, Work::Connect { clients: 16, resume });
    let memory =
        |name: &str, interest, goals| Group::new(name, rounds.min(3), Work::Memory { clients: 1000, interest, goals });
    let one = Interest::Topics(Topics::everyone_on(1));
    let two_workers = |clients: usize| {
        let mut loads = fan_outs(Mode::Topic, clients);
        for load in &mut loads {
            load.name.push_str(TWO_WORKERS);
            // The goals are for one worker.
            (load.rate, load.cpu) = (Goals::NONE, Goals::NONE);
        }
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
        messages(
            "direct, 10 pairs",
            20,
            Interest::Requests,
            [1, 6, 64].map(|window| asked(Mode::Direct, 10, 128, window)).into(),
        ),
        messages(
            "request, 10 pairs",
            20,
            Interest::Calls,
            [1, 64].map(|window| asked(Mode::Request, 10, 128, window)).into(),
        ),
        connect(FULL, false),
        connect(RESUMED, true),
        memory("memory per idle client, of 1000", Interest::Own, IDLE_MEMORY),
        memory("memory per client on 1 topic, of 1000", one, MEMORY),
        memory("memory per client on 16 topics, of 1000", Interest::Topics(Topics::everyone_on(16)), MEMORY),
    ];
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
        cpu: Goals::NONE,
        shows_cores: false,
    }
}

/// Requests to as many other clients, and their answers.
fn asked(mode: Mode, pairs: usize, size: usize, window: u64) -> Load {
    let what = if mode == Mode::Direct { "direct" } else { "request" };
    Load {
        name: format!("{what}, {pairs} pairs, {size} B, {window} in flight each"),
        mode,
        encoding: Encoding::Text,
        senders: pairs,
        size,
        window,
        rate: Goals::NONE,
        latency: Goals::NONE,
        cpu: if window == 64 { DIRECT_CPU } else { Goals::NONE },
        shows_cores: false,
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
        cpu: DELIVERY_CPU,
        // Next to the same rows with two workers, which may lack a core for the load generator.
        shows_cores: mode == Mode::Topic,
    };
    vec![load(128, 1), load(128, 16), load(1024, 1), load(1024, 16)]
}
