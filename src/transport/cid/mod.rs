//! Connection ids that identify the worker that owns their connection, so that a packet finds its worker even after the
//! client's address has changed. All ids of a server use one scheme.

mod hashed;

use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};

use self::hashed::Hashed;

/// How connection ids identify their worker. Clones are the same scheme.
#[derive(Debug, Clone)]
pub(crate) enum CidScheme {
    /// Random ids whose keyed hash determines the worker.
    Hashed(Hashed),
}

impl CidScheme {
    /// Creates a scheme of random ids for `workers`, with a new hash key.
    pub(crate) fn hashed(workers: usize) -> Self {
        Self::Hashed(Hashed::new(workers))
    }

    /// Length of every id, in bytes. The same for all workers, because short headers do not contain it (RFC 9000
    /// section 17.3).
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Hashed(_) => hashed::BYTES,
        }
    }

    /// Number of workers.
    pub(crate) fn workers(&self) -> usize {
        match self {
            Self::Hashed(hashed) => hashed.workers(),
        }
    }

    /// The worker that owns an id.
    fn owner(&self, cid: &[u8]) -> usize {
        match self {
            Self::Hashed(hashed) => hashed.owner(cid),
        }
    }

    /// Draws an unpredictable id of a worker.
    fn draw(&self, worker: usize) -> ConnectionId {
        match self {
            Self::Hashed(hashed) => hashed.draw(worker),
        }
    }

    /// The owner of a received packet with a short header. `None` (the packet stays where it arrived) for the long
    /// headers of a handshake, which does not migrate (RFC 9000 sections 9 and 17).
    pub(crate) fn packet_owner(&self, packet: &[u8]) -> Option<usize> {
        const LONG_HEADER: u8 = 0x80;
        match packet {
            [first, rest @ ..] if first & LONG_HEADER == 0 => rest.get(..self.len()).map(|cid| self.owner(cid)),
            _ => None,
        }
    }
}

/// Generates the connection ids of one worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerCids {
    pub(crate) scheme: CidScheme,
    pub(crate) worker: usize,
}

impl ConnectionIdGenerator for WorkerCids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.scheme.draw(self.worker)
    }

    fn cid_len(&self) -> usize {
        self.scheme.len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_draws_ids_of_its_own_and_packets_find_it() {
        for scheme in [CidScheme::hashed(4)] {
            for worker in 0..4 {
                let mut cids = WorkerCids { scheme: scheme.clone(), worker };
                for _ in 0..100 {
                    let cid = cids.generate_cid();
                    assert_eq!(cid.len(), scheme.len());
                    let short = [&[0x40][..], &cid, b"payload"].concat();
                    assert_eq!(scheme.packet_owner(&short), Some(worker));
                    let long = [&[0xc0][..], &cid, b"payload"].concat();
                    assert_eq!(scheme.packet_owner(&long), None, "a handshake stays where it arrived");
                }
            }
            assert_eq!(scheme.packet_owner(&[]), None);
            assert_eq!(scheme.packet_owner(&[0x40, 1, 2]), None, "too short for an id");
        }
    }
}
