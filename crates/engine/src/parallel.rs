//! A bounded, ordered map over worker threads: the decode pool of bulk work.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

/// Applies `work` to every item on `workers` threads and yields the results in the order of the
/// items. At most `ahead` items are in work or wait to be taken, so that a slow consumer, or one slow
/// item, holds up the source instead of filling memory. Dropping the result stops the workers.
pub fn ordered_map<'scope, 'env, I, R, F>(
    scope: &'scope Scope<'scope, 'env>,
    items: I,
    workers: usize,
    ahead: usize,
    work: F,
) -> Ordered<R>
where
    I: IntoIterator,
    I::IntoIter: Send + 'scope,
    R: Send + 'scope,
    F: Fn(I::Item) -> R + Send + Sync + 'scope,
{
    let (permit, permits) = channel();
    for _ in 0..ahead.max(workers).max(1) {
        permit.send(()).expect("the receiver is held below");
    }
    let source = Arc::new(Mutex::new((permits, items.into_iter().enumerate())));
    let work = Arc::new(work);
    let (send, results) = channel();
    for _ in 0..workers.max(1) {
        let (source, work, send) = (Arc::clone(&source), Arc::clone(&work), send.clone());
        scope.spawn(move || {
            let next = || {
                let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
                let (permits, items) = &mut *source;
                permits.recv().ok().and_then(|()| items.next())
            };
            while let Some((position, item)) = next() {
                if send.send((position, work(item))).is_err() {
                    break;
                }
            }
        });
    }
    Ordered { permit, results, early: BTreeMap::new(), next: 0 }
}

/// Results in the order of their items; see [`ordered_map`].
pub struct Ordered<R> {
    permit: Sender<()>,
    results: Receiver<(usize, R)>,
    early: BTreeMap<usize, R>,
    next: usize,
}

impl<R> Iterator for Ordered<R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        loop {
            if let Some(result) = self.early.remove(&self.next) {
                self.next += 1;
                // The workers may have ended already; then nobody needs the permit.
                let _ = self.permit.send(());
                return Some(result);
            }
            let (position, result) = self.results.recv().ok()?;
            self.early.insert(position, result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_their_items_whatever_each_takes() {
        let squares: Vec<u64> = std::thread::scope(|scope| {
            let uneven = |n: u64| (0..(n % 7) * 1000).fold(n * n, |a, b| std::hint::black_box(a ^ b ^ b));
            ordered_map(scope, 0..500u64, 4, 3, uneven).collect()
        });
        assert_eq!(squares, (0..500).map(|n| n * n).collect::<Vec<u64>>());
    }

    #[test]
    fn an_early_stop_ends_the_workers() {
        let first: Vec<u64> =
            std::thread::scope(|scope| ordered_map(scope, 0.., 3, 2, |n: u64| n).take(5).collect());
        assert_eq!(first, [0, 1, 2, 3, 4]);
    }
}
