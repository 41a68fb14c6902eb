//! How a call spreads over threads.
//!
//! Owns: [`Threads`], the loop over independent pieces of work, and each thread's working memory.
//! Deliberately absent: the pool itself; rayon's current one is used.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::packed::Aligned;

/// Who does the work of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread alone; for callers that already run one problem per thread.
    One,
    /// All threads of rayon's current pool. The results are the same bit for bit.
    All,
}

impl Threads {
    /// Number of threads that can take part.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::All => rayon::current_num_threads(),
        }
    }

    /// Runs `f` on `0..tasks`, in any order.
    pub(crate) fn each(self, tasks: usize, f: impl Fn(usize) + Sync + Send) {
        if tasks <= 1 || self.count() == 1 {
            (0..tasks).for_each(f);
        } else {
            (0..tasks).into_par_iter().with_max_len(1).for_each(f);
        }
    }
}

/// A pointer to memory that several threads write, each to elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: whoever dereferences the pointer promises, there, that no two threads touch one element.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(data: &mut [f32]) -> Self {
        Self(data.as_mut_ptr())
    }

    /// # Safety
    /// `offset` lies inside the slice that the pointer was made from.
    #[inline(always)]
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

thread_local! {
    static SCRATCH: RefCell<Aligned> = RefCell::new(Aligned::zeroed(0));
}

/// Lends `f` this thread's `len` floats of working memory, with whatever they hold. `f` must neither
/// ask again nor start work on other threads: waiting for that may run another task right here.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| f(&mut scratch.grow(len)[..len]))
}
