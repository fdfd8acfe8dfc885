//! Devices that train together: what their threads tell each other, and sums over them by Burn's collectives.
//!
//! All members call the same functions in the same order. A member that stops, for whatever reason, wakes the others
//! with an error; none of them waits for one that is gone.

use std::{
    marker::PhantomData,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use burn::{
    collective::{self, AllReduceStrategy, CollectiveConfig, PeerId, ReduceOperation},
    tensor::{Tensor, TensorPrimitive},
};

use crate::ops::Ops;

/// A group cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Another member stopped.
    #[error("the work on another device stopped: {0}")]
    Stopped(String),
    /// Burn's collective refused.
    #[error("the devices cannot add up their gradients: {0}")]
    Collective(String),
}

/// What one member tells the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Words {
    /// Names, such as those of the parameters that have a gradient.
    pub names: Vec<String>,
    /// Numbers, such as the terms of the loss.
    pub numbers: Vec<f64>,
}

#[derive(Debug, Default)]
struct State {
    told: Vec<Option<Words>>,
    heard: Arc<Vec<Words>>,
    round: u64,
    stopped: Option<String>,
}

/// Where the members of a group meet.
#[derive(Debug)]
pub struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

impl Meeting {
    /// For a group of this many.
    #[must_use]
    pub fn new(count: usize) -> Arc<Self> {
        let state = State { told: vec![None; count], ..State::default() };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Tells the others why they need not wait any more. The first reason stays.
    pub fn stop(&self, why: &str) {
        self.lock().stopped.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    /// Waits until every member has said something, and returns all of it in the order of the members.
    fn exchange(&self, rank: usize, words: Words) -> Result<Arc<Vec<Words>>, GroupError> {
        let mut state = self.lock();
        if let Some(why) = &state.stopped {
            return Err(GroupError::Stopped(why.clone()));
        }
        let round = state.round;
        state.told[rank] = Some(words);
        if state.told.iter().all(Option::is_some) {
            state.heard = Arc::new(state.told.iter_mut().filter_map(Option::take).collect());
            state.round += 1;
            self.changed.notify_all();
        }
        // Nobody begins another round before this member is in it.
        while state.round == round {
            if let Some(why) = &state.stopped {
                return Err(GroupError::Stopped(why.clone()));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Arc::clone(&state.heard))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One device's place in a group.
#[derive(Debug)]
pub struct Member<B: Ops> {
    rank: usize,
    count: usize,
    meeting: Option<Arc<Meeting>>,
    backend: PhantomData<B>,
}

impl<B: Ops> Member<B> {
    /// The only device of a run.
    #[must_use]
    pub fn alone() -> Self {
        Self { rank: 0, count: 1, meeting: None, backend: PhantomData }
    }

    /// Takes a place in a group of `count`, and waits until every member has. Burn keeps one group a backend in a
    /// process: another one may be formed when this one has ended.
    ///
    /// # Errors
    /// Another member stopped, or the collective refuses.
    pub fn join(rank: usize, count: usize, meeting: Arc<Meeting>, device: &B::Device) -> Result<Self, GroupError> {
        let member = Self { rank, count, meeting: Some(meeting), backend: PhantomData };
        member.meet()?;
        // In pairs: with two devices the sum does not depend on who comes first.
        let config = CollectiveConfig::default()
            .with_num_devices(count)
            .with_local_all_reduce_strategy(AllReduceStrategy::Tree(2));
        collective::register::<B>(member.peer(), device.clone(), config).map_err(refused)?;
        Ok(member)
    }

    /// The number of this device, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many devices there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// What every member says, in the order of their numbers.
    ///
    /// # Errors
    /// Another member stopped.
    pub fn exchange(&self, words: Words) -> Result<Arc<Vec<Words>>, GroupError> {
        match &self.meeting {
            Some(meeting) => meeting.exchange(self.rank, words),
            None => Ok(Arc::new(vec![words])),
        }
    }

    /// The sum over the devices, on each of them; [elements], as many on all.
    ///
    /// # Errors
    /// Another member stopped, or the collective refuses.
    pub fn sum(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 1>, GroupError> {
        if self.meeting.is_none() {
            return Ok(tensor);
        }
        if self.count > 2 && B::IS_REPRODUCIBLE {
            return self.sum_in_order(&tensor);
        }
        self.reduce(tensor)
    }

    /// The same to the bit in every run: each puts its own in its place among zeros, and what the sum then holds is
    /// added up in the order of the members. For the CPU, where a run goes on to the bit; the collective adds more than
    /// two in any order.
    fn sum_in_order(&self, tensor: &Tensor<B, 1>) -> Result<Tensor<B, 1>, GroupError> {
        let [elements] = tensor.dims();
        let places = (0..self.count).map(|rank| if rank == self.rank { tensor.clone() } else { tensor.zeros_like() });
        let all = self.reduce(Tensor::cat(places.collect(), 0))?;
        let own = |rank: usize| all.clone().narrow(0, rank * elements, elements);
        Ok((1..self.count).fold(own(0), |sum, rank| sum + own(rank)))
    }

    fn reduce(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 1>, GroupError> {
        // The collective waits for ever for a member that is gone.
        self.meet()?;
        let primitive = tensor.into_primitive().tensor();
        let sum = collective::all_reduce::<B>(self.peer(), primitive, ReduceOperation::Sum).map_err(refused)?;
        Ok(Tensor::from_primitive(TensorPrimitive::Float(sum)))
    }

    fn meet(&self) -> Result<(), GroupError> {
        self.exchange(Words::default()).map(|_| ())
    }

    fn peer(&self) -> PeerId {
        PeerId(u32::try_from(self.rank).unwrap_or(u32::MAX))
    }
}

impl<B: Ops> Drop for Member<B> {
    fn drop(&mut self) {
        if let Some(meeting) = &self.meeting {
            meeting.stop("it has ended");
            // Not a member yet, or the collective is gone: then there is nothing to leave.
            let _ = collective::finish_collective::<B>(self.peer());
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it can be given to map_err")]
fn refused(error: collective::CollectiveError) -> GroupError {
    GroupError::Collective(format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(number: f64) -> Words {
        Words { names: vec![format!("name {number}")], numbers: vec![number] }
    }

    #[test]
    fn every_member_hears_all_in_order_round_after_round() {
        let meeting = Meeting::new(3);
        std::thread::scope(|scope| {
            for rank in 0..3_u32 {
                let meeting = &meeting;
                scope.spawn(move || {
                    for round in 0..50_u32 {
                        let heard = meeting.exchange(rank as usize, words(f64::from(10 * round + rank))).unwrap();
                        let expected: Vec<Words> = (0..3).map(|rank| words(f64::from(10 * round + rank))).collect();
                        assert_eq!(*heard, expected);
                    }
                });
            }
        });
    }

    #[test]
    fn a_member_that_stops_wakes_those_that_wait() {
        let meeting = Meeting::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| meeting.exchange(0, words(1.0)));
            meeting.stop("no memory");
            meeting.stop("a later reason");
            assert_eq!(waiting.join().unwrap(), Err(GroupError::Stopped("no memory".into())));
        });
        // Nor does one wait that comes afterwards.
        assert!(meeting.exchange(1, words(2.0)).is_err());
    }
}
