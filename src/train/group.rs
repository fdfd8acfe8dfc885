//! Devices that train together, one thread each: a barrier that gathers what each has to say, and sums over them.
//!
//! All members call the same functions in the same order. A member that stops, for whatever reason, wakes the others
//! with an error; none of them waits for one that is gone, as `std::sync::Barrier` would.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::tensor::Tensor;

use crate::ops::Ops;

/// Another member of the group stopped: the group cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work on another device stopped: {0}")]
pub struct GroupError(pub String);

/// What one member sends to all.
#[derive(Clone, Debug)]
pub struct Message<B: Ops> {
    /// Names, such as those of the parameters that have a gradient.
    pub names: Vec<String>,
    /// Numbers, such as the terms of the loss.
    pub numbers: Vec<f64>,
    /// On the sender's device, [elements].
    pub tensor: Option<Tensor<B, 1>>,
}

impl<B: Ops> Default for Message<B> {
    fn default() -> Self {
        Self { names: Vec::new(), numbers: Vec::new(), tensor: None }
    }
}

#[derive(Debug)]
struct State<B: Ops> {
    /// Of the round that is on, by rank.
    sent: Vec<Option<Message<B>>>,
    /// Of the round before.
    gathered: Arc<Vec<Message<B>>>,
    round: u64,
    stopped: Option<String>,
}

/// What the members of a group share.
#[derive(Debug)]
pub struct Group<B: Ops> {
    state: Mutex<State<B>>,
    changed: Condvar,
}

impl<B: Ops> Group<B> {
    /// For this many members.
    pub fn new(count: usize) -> Arc<Self> {
        let state = State { sent: vec![None; count], gathered: Arc::default(), round: 0, stopped: None };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Tells the others why they need not wait any more. The first reason stays.
    pub fn stop(&self, why: &str) {
        self.lock().stopped.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    /// Waits until every member has sent a message, and returns all of them by rank.
    fn all_gather(&self, rank: usize, message: Message<B>) -> Result<Arc<Vec<Message<B>>>, GroupError> {
        let mut state = self.lock();
        if let Some(why) = &state.stopped {
            return Err(GroupError(why.clone()));
        }
        let round = state.round;
        state.sent[rank] = Some(message);
        if state.sent.iter().all(Option::is_some) {
            state.gathered = Arc::new(state.sent.iter_mut().filter_map(Option::take).collect());
            state.round += 1;
            self.changed.notify_all();
        }
        // Nobody begins another round before this member is in it.
        while state.round == round {
            if let Some(why) = &state.stopped {
                return Err(GroupError(why.clone()));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Arc::clone(&state.gathered))
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // Nothing is left half done while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One device's place in a group.
#[derive(Debug)]
pub struct Member<B: Ops> {
    rank: usize,
    count: usize,
    group: Option<Arc<Group<B>>>,
}

impl<B: Ops> Member<B> {
    /// The only device of a run.
    pub fn alone() -> Self {
        Self { rank: 0, count: 1, group: None }
    }

    /// Takes a place in a group of `count`, and waits until every member has.
    ///
    /// # Errors
    /// Another member stopped.
    pub fn join(rank: usize, count: usize, group: Arc<Group<B>>) -> Result<Self, GroupError> {
        let member = Self { rank, count, group: Some(group) };
        member.all_gather(Message::default())?;
        Ok(member)
    }

    /// The number of this device, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many devices there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The messages of all members, by rank.
    ///
    /// # Errors
    /// Another member stopped.
    pub fn all_gather(&self, message: Message<B>) -> Result<Arc<Vec<Message<B>>>, GroupError> {
        match &self.group {
            Some(group) => group.all_gather(self.rank, message),
            None => Ok(Arc::new(vec![message])),
        }
    }

    /// The sum over the devices, on each of them; [elements], as many on all. Each adds up in the order of the ranks,
    /// so that all have the same bits, in every run.
    ///
    /// # Errors
    /// Another member stopped.
    pub fn all_reduce(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 1>, GroupError> {
        if self.group.is_none() {
            return Ok(tensor);
        }
        let device = tensor.device();
        let messages = self.all_gather(Message { tensor: Some(tensor.clone()), ..Message::default() })?;
        let tensors = messages.iter().filter_map(|message| message.tensor.clone());
        Ok(tensors.map(|tensor| tensor.to_device(&device)).reduce(|sum, next| sum + next).unwrap_or(tensor))
    }
}

impl<B: Ops> Drop for Member<B> {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            group.stop("it has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn message(number: f64) -> Message<Flex> {
        Message { names: vec![format!("name {number}")], numbers: vec![number], tensor: None }
    }

    #[test]
    fn every_member_hears_all_in_order_round_after_round() {
        let group = Group::new(3);
        std::thread::scope(|scope| {
            for rank in 0..3_u32 {
                let group = &group;
                scope.spawn(move || {
                    for round in 0..50_u32 {
                        let gathered = group.all_gather(rank as usize, message(f64::from(10 * round + rank))).unwrap();
                        let found: Vec<_> = gathered.iter().map(|each| (&each.names, &each.numbers)).collect();
                        let sent: Vec<_> = (0..3).map(|rank| message(f64::from(10 * round + rank))).collect();
                        assert_eq!(found, sent.iter().map(|each| (&each.names, &each.numbers)).collect::<Vec<_>>());
                    }
                });
            }
        });
    }

    #[test]
    fn a_member_that_stops_wakes_those_that_wait() {
        let group = Group::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| group.all_gather(0, message(1.0)).map(|_| ()));
            group.stop("no memory");
            group.stop("a later reason");
            assert_eq!(waiting.join().unwrap(), Err(GroupError("no memory".into())));
        });
        // Nor does one wait that comes afterwards.
        assert!(group.all_gather(1, message(2.0)).is_err());
    }

    /// 1 + 2^24 is 2^24 in f32: only from left to right do these give 2.
    #[test]
    fn tensors_are_added_in_the_order_of_the_ranks() {
        let (group, large) = (Group::<Flex>::new(4), 16_777_216.0_f32);
        std::thread::scope(|scope| {
            for (rank, value) in [1.0, large, -large, 2.0].into_iter().enumerate() {
                let group = Arc::clone(&group);
                scope.spawn(move || {
                    let member = Member::join(rank, 4, group).unwrap();
                    let own = Tensor::from_floats([value, 1.0], &burn::backend::flex::FlexDevice);
                    let sum = member.all_reduce(own).unwrap();
                    assert_eq!(sum.into_data().to_vec::<f32>().unwrap(), [2.0, 4.0], "rank {rank}");
                });
            }
        });
    }
}
