//! Random connection ids: worker `w` draws ids until the keyed hash of one, modulo the number of workers, is `w`.
//! Without the key they are indistinguishable from random bytes (RFC 9000 section 5.1).

use std::hash::{BuildHasher, RandomState};

use quinn::ConnectionId;

/// Length of an id, in bytes.
pub(super) const BYTES: usize = 8;

/// The hash key, and the number of workers. Clones share the key.
#[derive(Debug, Clone)]
pub(crate) struct Hashed {
    key: RandomState,
    workers: usize,
}

impl Hashed {
    pub(super) fn new(workers: usize) -> Self {
        Self { key: RandomState::new(), workers: workers.max(1) }
    }

    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    pub(super) fn owner(&self, cid: &[u8]) -> usize {
        // The remainder is below the number of workers, whatever the width of usize.
        usize::try_from(self.key.hash_one(cid) % self.workers as u64).unwrap_or(0)
    }

    pub(super) fn draw(&self, worker: usize) -> ConnectionId {
        loop {
            // Version 4 UUIDs come from the system's generator; only bytes without version and variant bits are used.
            let random = uuid::Uuid::new_v4().into_bytes();
            let mut cid = [0; BYTES];
            cid[..4].copy_from_slice(&random[..4]);
            cid[4..].copy_from_slice(&random[12..]);
            if self.owner(&cid) == worker {
                return ConnectionId::new(&cid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_spread_evenly() {
        let hashed = Hashed::new(4);
        let mut counts = [0; 4];
        for n in 0_u64..4000 {
            counts[hashed.owner(&n.to_be_bytes())] += 1;
        }
        assert!(counts.iter().all(|&n| (800..1200).contains(&n)), "{counts:?}");
    }
}
