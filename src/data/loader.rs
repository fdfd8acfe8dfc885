//! Decoding ahead of the training thread: workers read and pad the next batches while the current one is computed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::DataError;
use super::batch::{Batch, collate};
use super::dataset::Dataset;
use super::features::FeatureCache;
use crate::panics;

/// Finished batches that a worker holds at most, beside the one it works on.
const AHEAD: usize = 2;

/// The batches of a plan, in its order. Ends after the first error. Dropping it ends its threads.
#[derive(Debug)]
pub struct Loader {
    /// Worker w makes the batches w, w + workers, …, so the order needs no sorting.
    channels: Vec<Receiver<Result<Batch, DataError>>>,
    threads: Vec<JoinHandle<()>>,
    is_stopped: Arc<AtomicBool>,
    next: usize,
    count: usize,
    waited: Duration,
}

impl Loader {
    /// Starts `workers` threads (at least 1) on the batches of `plan`, which are indices into `dataset`. They also read
    /// the features that a cache has.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn new(
        dataset: &Arc<Dataset>,
        plan: Vec<Vec<usize>>,
        pad_token: u32,
        workers: usize,
        cache: Option<&FeatureCache>,
    ) -> Result<Self, DataError> {
        let count = plan.len();
        let workers = workers.clamp(1, count.max(1));
        let plan = Arc::new(plan);
        let is_stopped = Arc::new(AtomicBool::new(false));
        let mut loader = Self {
            channels: Vec::with_capacity(workers),
            threads: Vec::with_capacity(workers),
            is_stopped: Arc::clone(&is_stopped),
            next: 0,
            count,
            waited: Duration::ZERO,
        };
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(AHEAD);
            let (dataset, plan, is_stopped) = (Arc::clone(dataset), Arc::clone(&plan), Arc::clone(&is_stopped));
            let cache = cache.cloned();
            let thread = std::thread::Builder::new()
                .name(format!("decode-{worker}"))
                .spawn(move || {
                    let own = plan.iter().skip(worker).step_by(workers);
                    work((&dataset, cache.as_ref()), own, pad_token, &is_stopped, &sender);
                })
                .map_err(|cause| DataError::Thread { problem: panics::lack_of_threads(&cause.to_string()) })?;
            loader.channels.push(receiver);
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// How long the caller has waited for batches in all; the wait for the first one is part of it.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        let begun = Instant::now();
        let received = self.channels.get(self.next % self.channels.len().max(1)).map(Receiver::recv);
        self.waited += begun.elapsed();
        let batch = self.next;
        self.next += 1;
        let Some(Ok(result)) = received else {
            self.next = self.count;
            return Some(Err(DataError::LoaderStopped { batch }));
        };
        if result.is_err() {
            self.next = self.count;
        }
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.count - self.next.min(self.count)))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        // A worker that waits to hand over a batch wakes when its receiver is gone.
        self.channels.clear();
        for thread in self.threads.drain(..) {
            // A worker that panicked has been reported as a missing batch.
            let _ = thread.join();
        }
    }
}

fn work<'plan>(
    (dataset, cache): (&Dataset, Option<&FeatureCache>),
    batches: impl Iterator<Item = &'plan Vec<usize>>,
    pad_token: u32,
    is_stopped: &AtomicBool,
    sender: &SyncSender<Result<Batch, DataError>>,
) {
    for indices in batches {
        let mut examples = Vec::with_capacity(indices.len());
        let mut problems = Vec::new();
        for index in indices {
            if is_stopped.load(Ordering::Relaxed) {
                return;
            }
            match dataset.example(*index) {
                Ok(mut example) => {
                    example.features = cache.and_then(|cache| cache.get(&example.waveform));
                    examples.push(example);
                }
                Err(problem) => problems.push(problem),
            }
        }
        let result = DataError::check(problems).map(|()| collate(&examples, pad_token));
        if sender.send(result).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::audio::write_wav;
    use crate::data::dataset::{Limits, Needs};
    use crate::data::manifest::Row;
    use std::path::Path;

    fn dataset(folder: &Path, count: usize) -> Arc<Dataset> {
        let rows = (0..count)
            .map(|i| {
                let audio = folder.join(format!("{i}.wav"));
                write_wav(&audio, &vec![0.1; 400 + i], 16_000).unwrap();
                Row { id: i.to_string(), audio: Some(audio), line: i + 1, ..Row::default() }
            })
            .collect();
        let limits = Limits { max_seconds: 30.0, max_tokens: 512, do_normalize: true };
        Arc::new(Dataset::new(rows, None, None, limits, Needs { text: false, audio: true, label: false }).unwrap())
    }

    #[test]
    fn batches_come_in_the_order_of_the_plan_with_any_number_of_workers() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), 23);
        let plan: Vec<Vec<usize>> = vec![vec![3, 1], vec![22], vec![0, 5, 7], vec![2], vec![9, 8], vec![11]];
        for workers in [0, 1, 2, 4, 99] {
            let mut loader = Loader::new(&dataset, plan.clone(), 1, workers, None).unwrap();
            let batches: Vec<Batch> = loader.by_ref().map(Result::unwrap).collect();
            assert_eq!(batches.iter().map(|batch| batch.indices.clone()).collect::<Vec<_>>(), plan);
            assert_eq!(batches[2].sample_lengths, [400, 405, 407]);
            assert!(loader.next().is_none() && loader.waited() > Duration::ZERO);
        }
        assert!(Loader::new(&dataset, Vec::new(), 1, 2, None).unwrap().next().is_none());
    }

    #[test]
    fn dropping_early_ends_the_threads() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), 4);
        let mut loader = Loader::new(&dataset, vec![vec![0, 1]; 10_000], 1, 3, None).unwrap();
        assert!(loader.next().is_some());
        drop(loader);
        // The threads' shares of the dataset are gone with them.
        assert_eq!(Arc::strong_count(&dataset), 1);
    }

    #[test]
    fn an_error_comes_at_its_place_and_ends_the_batches() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), 6);
        std::fs::write(folder.path().join("3.wav"), "").unwrap();
        std::fs::remove_file(folder.path().join("4.wav")).unwrap();
        let mut loader = Loader::new(&dataset, vec![vec![0], vec![1], vec![3, 4], vec![5]], 1, 2, None).unwrap();
        assert!(loader.next().unwrap().is_ok() && loader.next().unwrap().is_ok());
        let error = loader.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("utterance `3` (line 4)") && error.contains("utterance `4` (line 5)"), "{error}");
        assert!(loader.next().is_none());
    }
}
