//! The memory of a momentum encoder: earlier keys, and the slow copy of the weights.

use super::rows::unit_rows;
use super::views::Queued;

/// The last K keys as unit rows, each with the id of what it shows (MoCo, He et al. 2020).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Queue {
    dim: usize,
    capacity: usize,
    /// All rows from the oldest on, after rows already dropped.
    rows: Vec<f32>,
    ids: Vec<u64>,
    /// Rows dropped from the front that still take room; so that dropping does not move all others.
    dropped: usize,
}

impl Queue {
    /// An empty queue for at most `capacity` rows of `dim` elements.
    ///
    /// # Panics
    /// If `dim` is 0.
    pub fn new(capacity: usize, dim: usize) -> Self {
        assert!(dim > 0, "rows of no dimension");
        Self { dim, capacity, rows: Vec::new(), ids: Vec::new(), dropped: 0 }
    }

    /// A queue as it was, from its [`Queue::view`]. `None` if the lengths do not fit.
    pub fn restore(capacity: usize, dim: usize, rows: Vec<f32>, ids: Vec<u64>) -> Option<Self> {
        let fits = dim > 0 && rows.len() == ids.len() * dim && ids.len() <= capacity;
        fits.then_some(Self { dim, capacity, rows, ids, dropped: 0 })
    }

    /// Appends keys of any length, scaled to unit length; the oldest rows make room.
    ///
    /// # Panics
    /// If there is not one id for each row.
    pub fn push(&mut self, rows: &[f32], ids: &[u64]) {
        assert!(rows.len() == ids.len() * self.dim, "{} ids for {} elements", ids.len(), rows.len());
        self.rows.extend(unit_rows(rows, self.dim).1);
        self.ids.extend_from_slice(ids);
        self.dropped = self.dropped.max(self.ids.len().saturating_sub(self.capacity));
        if self.dropped > self.capacity {
            self.rows.drain(..self.dropped * self.dim);
            self.ids.drain(..self.dropped);
            self.dropped = 0;
        }
    }

    /// The rows `[k, dim]` and ids `[k]`, oldest first.
    pub fn view(&self) -> Queued<'_> {
        Queued { rows: &self.rows[self.dropped * self.dim..], ids: &self.ids[self.dropped..] }
    }

    #[cfg(test)]
    /// Number of rows, at most the capacity.
    pub fn len(&self) -> usize {
        self.ids.len() - self.dropped
    }

    #[cfg(test)]
    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `key <- m key + (1 - m) params`, element by element.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn momentum_step(key: &mut [f32], params: &[f32], m: f32) {
    assert!(key.len() == params.len(), "{} parameters follow {}", key.len(), params.len());
    for (k, p) in key.iter_mut().zip(params) {
        *k = m * *k + (1.0 - m) * p;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_queue_holds_the_last_rows_oldest_first() {
        let mut queue = Queue::new(3, 2);
        assert!(queue.is_empty());
        queue.push(&[3.0, 4.0, 0.0, 2.0], &[10, 11]);
        assert_eq!((queue.view().rows, queue.view().ids), (&[0.6, 0.8, 0.0, 1.0][..], &[10, 11][..]));
        queue.push(&[-5.0, 0.0, 0.0, -1.0], &[12, 13]);
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.view().rows, [0.0, 1.0, -1.0, 0.0, 0.0, -1.0]);
        assert_eq!(queue.view().ids, [11, 12, 13]);
        // More than fit at once: the last of them stay.
        queue.push(&[1.0, 0.0, 2.0, 0.0, 0.0, 3.0, 0.0, -4.0], &[14, 15, 16, 17]);
        assert_eq!(queue.view().rows, [1.0, 0.0, 0.0, 1.0, 0.0, -1.0]);
        assert_eq!(queue.view().ids, [15, 16, 17]);
    }

    #[test]
    fn a_long_life_takes_no_more_room_and_a_restored_queue_goes_on_alike() {
        let mut queue = Queue::new(5, 1);
        for step in 0..100u64 {
            queue.push(&[1.0, -1.0], &[2 * step, 2 * step + 1]);
            assert!(queue.ids.len() <= 2 * 5 + 2 && queue.rows.len() == queue.ids.len());
            let view = queue.view();
            let mut restored = Queue::restore(5, 1, view.rows.to_vec(), view.ids.to_vec()).unwrap();
            let mut original = queue.clone();
            original.push(&[7.0], &[9]);
            restored.push(&[7.0], &[9]);
            assert_eq!(original.view().ids, restored.view().ids);
            assert_eq!(original.view().rows, restored.view().rows);
        }
        assert_eq!(queue.view().ids, [195, 196, 197, 198, 199]);
        assert!(Queue::restore(5, 1, vec![1.0], vec![]).is_none());
    }

    #[test]
    fn the_key_encoder_follows_slowly() {
        let mut key = [1.0, -2.0];
        momentum_step(&mut key, &[3.0, 2.0], 0.75);
        assert_eq!(key, [1.5, -1.0]);
        momentum_step(&mut key, &[3.0, 2.0], 0.75);
        assert_eq!(key, [1.875, -0.25]);
        momentum_step(&mut key, &[9.0, 9.0], 1.0);
        assert_eq!(key, [1.875, -0.25]);
        momentum_step(&mut key, &[9.0, 8.0], 0.0);
        assert_eq!(key, [9.0, 8.0]);
    }
}
