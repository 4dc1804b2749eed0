//! The offers to answer requests to one topic, client or user. Pure.

use super::table::OfferId;

/// The members, in the order in which they came.
#[derive(Debug)]
pub(super) struct Group<M> {
    members: Vec<(OfferId, M)>,
    /// Whose turn it is.
    next: usize,
}

/// Why no member is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotChosen {
    /// There are none.
    Empty,
    /// None of them has room.
    Full,
}

impl<M> Default for Group<M> {
    fn default() -> Self {
        Self { members: Vec::new(), next: 0 }
    }
}

impl<M> Group<M> {
    pub(super) fn add(&mut self, offer: OfferId, member: M) {
        self.members.push((offer, member));
    }

    pub(super) fn remove(&mut self, offer: OfferId) {
        let Some(at) = self.members.iter().position(|(other, _)| *other == offer) else { return };
        self.members.remove(at);
        if at < self.next {
            self.next -= 1;
        }
    }

    /// A member by its offer.
    pub(super) fn get_mut(&mut self, offer: OfferId) -> Option<&mut M> {
        self.members.iter_mut().find(|(other, _)| *other == offer).map(|(_, member)| member)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &M> {
        self.members.iter().map(|(_, member)| member)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The next member that takes the request, in turn.
    pub(super) fn choose<T>(&mut self, take: impl Fn(&M) -> Option<T>) -> Result<(OfferId, T), NotChosen> {
        let count = self.members.len();
        for at in (self.next..self.next + count).map(|at| at % count) {
            let (offer, member) = &self.members[at];
            if let Some(taken) = take(member) {
                self.next = (at + 1) % count;
                return Ok((*offer, taken));
            }
        }
        Err(if count == 0 { NotChosen::Empty } else { NotChosen::Full })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Add,
        Remove(usize),
        Choose,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Add),
            1 => (0_usize..8).prop_map(Step::Remove),
            6 => Just(Step::Choose),
        ]
    }

    fn all(_: &u64) -> Option<()> {
        Some(())
    }

    proptest! {
        #[test]
        fn members_serve_in_turn_while_others_come_and_leave(steps in proptest::collection::vec(step(), 1..80)) {
            let (mut group, mut members, mut last) = (Group::default(), Vec::<(u64, usize)>::new(), 0);
            for step in steps {
                match step {
                    Step::Add => {
                        last += 1;
                        group.add(last, last);
                        // One that comes has its turn within one round, so it begins with the fewest of the present.
                        let least = members.iter().map(|&(_, served)| served).min().unwrap_or(0);
                        members.push((last, least));
                    }
                    Step::Remove(at) if at < members.len() => {
                        let (offer, _) = members.remove(at);
                        group.remove(offer);
                        group.remove(offer);
                    }
                    Step::Remove(_) => {}
                    Step::Choose => match group.choose(all) {
                        Ok((offer, ())) => {
                            let member = members.iter_mut().find(|(other, _)| *other == offer);
                            member.expect("a member that is there").1 += 1;
                        }
                        Err(why) => prop_assert!(why == NotChosen::Empty && members.is_empty()),
                    },
                }
                prop_assert_eq!(group.len(), members.len());
            }
            // From here on each has as many turns as every other.
            let mut turns = std::collections::HashMap::<u64, usize>::new();
            for _ in 0..3 * members.len() {
                let (offer, ()) = group.choose(all).expect("members");
                *turns.entry(offer).or_default() += 1;
            }
            prop_assert_eq!(turns.len(), members.len());
            prop_assert!(turns.values().all(|&served| served == 3), "{:?}", turns);
        }
    }

    #[test]
    fn a_member_without_room_is_passed_over() {
        let mut group = Group::default();
        (1..=3).for_each(|offer| group.add(offer, offer));
        let not_two = |member: &u64| (*member != 2).then_some(());
        let order: Vec<_> = (0..4).map(|_| group.choose(not_two).expect("room").0).collect();
        assert_eq!(order, [1, 3, 1, 3]);
        assert_eq!(group.choose(|_| None::<()>), Err(NotChosen::Full));
        (1..=3).for_each(|offer| group.remove(offer));
        assert_eq!(group.choose(all), Err(NotChosen::Empty));
    }
}
