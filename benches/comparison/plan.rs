//! What is compared, and the ratios to reach.

use super::Extent;
use super::table::Goals;
use crate::load::{Encoding, Mode};

/// Latency at most so many times the baselines', throughput at least.
const LATENCY: Goals = Goals { bare: Some(1.15), wss: Some(1.0) };
const PIPELINED: Goals = Goals { bare: Some(0.85), wss: Some(1.6) };
const FAN_OUT: Goals = Goals { bare: Some(0.85), wss: Some(1.3) };
pub(super) const CONNECTIONS: Goals = Goals { bare: Some(0.9), wss: Some(1.0) };
pub(super) const MEMORY: Goals = Goals { bare: Some(1.3), wss: Some(0.5) };
/// Resumed connections per second against full ones, of the same server.
pub(super) const RESUMED_TO_FULL: f64 = 2.0;

pub(super) const FULL: &str = "connections, full handshake";
pub(super) const RESUMED: &str = "connections, resumed session";

/// What shares its servers and, for messages, its connected clients.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) rounds: u16,
    pub(super) work: Work,
}

pub(super) enum Work {
    Messages { clients: usize, loads: Vec<Load> },
    Connect { clients: usize, resume: bool },
    Memory { clients: usize },
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
    pub(super) fn is_memory(&self) -> bool {
        matches!(self.work, Work::Memory { .. })
    }
}

/// Everything that the extent asks for.
pub(super) fn groups(extent: &Extent) -> Vec<Group> {
    let rounds = extent.rounds();
    let messages =
        |name: &str, clients, loads| Group { name: name.to_owned(), rounds, work: Work::Messages { clients, loads } };
    let connect =
        |name: &str, resume| Group { name: name.to_owned(), rounds, work: Work::Connect { clients: 16, resume } };
    let mut groups = vec![
        messages("echo, 1 client", 1, vec![echo(1, 64, 1, Encoding::Text)]),
        messages(
            "echo, 10 clients",
            10,
            vec![
                echo(10, 1024, 1, Encoding::Text),
                echo(10, 1024, 64, Encoding::Text),
                echo(10, 1024, 64, Encoding::Binary),
            ],
        ),
        messages("fan-out to 100", 100, fan_outs(100)),
        messages("fan-out to 1000", 1000, fan_outs(1000)),
        connect(FULL, false),
        connect(RESUMED, true),
        Group {
            name: "memory per idle client, of 1000".to_owned(),
            rounds: rounds.min(3),
            work: Work::Memory { clients: 1000 },
        },
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
    }
}

fn fan_outs(clients: usize) -> Vec<Load> {
    let load = |size, window| Load {
        name: format!("fan-out to {clients}, {size} B, {window} in flight"),
        mode: Mode::Broadcast,
        encoding: Encoding::Text,
        senders: 1,
        size,
        window,
        rate: if window > 1 { FAN_OUT } else { Goals::NONE },
        latency: Goals::NONE,
    };
    vec![load(128, 1), load(128, 16), load(1024, 1), load(1024, 16)]
}
