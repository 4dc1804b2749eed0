//! Connection ids that name their worker without telling anybody: worker `w` draws random ids until a keyed hash of
//! one says `w`. Whoever does not have the key sees nothing but random bytes (RFC 9000 section 5.1).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};

/// Bytes of every connection id of ours: short headers do not tell, so all workers use the same.
pub(crate) const CID_BYTES: usize = 8;

/// Which worker owns a connection id. Clones share the key.
#[derive(Debug, Clone)]
pub(crate) struct Owners {
    key: RandomState,
    workers: usize,
}

impl Owners {
    pub(crate) fn new(workers: usize) -> Self {
        Self { key: RandomState::new(), workers: workers.max(1) }
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    pub(crate) fn owner(&self, cid: &[u8]) -> usize {
        // The remainder is below the number of workers, whatever the width of usize.
        usize::try_from(self.key.hash_one(cid) % self.workers as u64).unwrap_or(0)
    }

    /// The owner of a received packet: that of its connection id where the header is short, and `None` (stays where it
    /// landed) for the long headers of a handshake, which does not migrate (RFC 9000 sections 9 and 17).
    pub(crate) fn packet_owner(&self, packet: &[u8]) -> Option<usize> {
        const LONG_HEADER: u8 = 0x80;
        match packet {
            [first, rest @ ..] if first & LONG_HEADER == 0 => rest.get(..CID_BYTES).map(|cid| self.owner(cid)),
            _ => None,
        }
    }
}

/// Draws connection ids that belong to one worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerCids {
    pub(crate) owners: Owners,
    pub(crate) worker: usize,
}

impl ConnectionIdGenerator for WorkerCids {
    fn generate_cid(&mut self) -> ConnectionId {
        loop {
            // Version 4 UUIDs come from the system's generator; the bytes without version and variant bits are taken.
            let random = uuid::Uuid::new_v4().into_bytes();
            let mut cid = [0; CID_BYTES];
            cid[..4].copy_from_slice(&random[..4]);
            cid[4..].copy_from_slice(&random[12..]);
            if self.owners.owner(&cid) == self.worker {
                return ConnectionId::new(&cid);
            }
        }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
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
        let owners = Owners::new(4);
        for worker in 0..4 {
            let mut cids = WorkerCids { owners: owners.clone(), worker };
            for _ in 0..100 {
                let cid = cids.generate_cid();
                assert_eq!(cid.len(), CID_BYTES);
                let short = [&[0x40][..], &cid, b"payload"].concat();
                assert_eq!(owners.packet_owner(&short), Some(worker));
                let long = [&[0xc0][..], &cid, b"payload"].concat();
                assert_eq!(owners.packet_owner(&long), None, "a handshake stays where it landed");
            }
        }
        assert_eq!(owners.packet_owner(&[]), None);
        assert_eq!(owners.packet_owner(&[0x40, 1, 2]), None, "too short for an id");
    }

    #[test]
    fn ids_spread_evenly() {
        let owners = Owners::new(4);
        let mut counts = [0; 4];
        for n in 0_u64..4000 {
            counts[owners.owner(&n.to_be_bytes())] += 1;
        }
        assert!(counts.iter().all(|&n| (800..1200).contains(&n)), "{counts:?}");
    }
}
