//! The memory under a tape.
//!
//! Owns: buffers by size class, which come back and go out again. Deliberately absent: what they hold.

use std::ops::{Deref, DerefMut};

/// Size classes per power of two: a buffer is at most a quarter larger than asked for.
const STEPS: usize = 4;

/// A slice of `f32`; the memory behind it may be longer.
#[derive(Debug)]
pub(super) struct Buffer {
    data: Vec<f32>,
    len: usize,
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

impl Buffer {
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

/// Buffers that are not in use. Equal sequences of calls allocate only the first time.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Vec<Vec<Vec<f32>>>,
}

impl Pool {
    /// A buffer of `len` values, whatever they are.
    pub fn take(&mut self, len: usize) -> Buffer {
        let (class, size) = class_of(len);
        let data = self.free.get_mut(class).and_then(Vec::pop);
        Buffer { data: data.unwrap_or_else(|| vec![0f32; size]), len }
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        let (class, _) = class_of(buffer.data.len());
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        self.free[class].push(buffer.data);
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.free.iter().flatten().map(|data| data.len() * size_of::<f32>()).sum()
    }
}

/// The class of a length and the size of its buffers: powers of two and three sizes between each two.
fn class_of(len: usize) -> (usize, usize) {
    if len <= STEPS {
        return (0, STEPS);
    }
    // len - 1 lies in [STEPS << shift, 2 STEPS << shift).
    let shift = ((len - 1) / STEPS).ilog2() as usize;
    let step = ((len - 1) >> shift) + 1;
    (shift * STEPS + step - STEPS, step << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit_closely_and_are_their_own_class() {
        for len in 0..5000 {
            let (class, size) = class_of(len);
            assert!(size >= len && size <= (len + len / 4).max(STEPS), "{size} for {len}");
            assert_eq!(class_of(size), (class, size));
        }
    }

    #[test]
    fn a_buffer_comes_back_for_the_same_size_only() {
        let mut pool = Pool::default();
        let small = pool.take(100);
        pool.give(small);
        assert_eq!(pool.take(1000).len(), 1000);
        let before = pool.bytes();
        let again = pool.take(99);
        assert!(again.len() == 99 && pool.bytes() < before);
    }
}
