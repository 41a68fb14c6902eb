//! Items of a stream, taken together as they arrive.
//!
//! Deliberately absent: what is done with them.

use tonic::{Status, Streaming};

/// How many items are held for one group, at the most.
pub(crate) struct Bounds {
    pub(crate) items: usize,
    /// The last item aside.
    pub(crate) bytes: usize,
}

/// Items, and how the stream ended, once it has.
pub(crate) type Group<T> = (Vec<T>, Option<Result<(), Status>>);

/// Waits for an item, then takes those that have arrived behind it. `bytes` tells the size of one.
pub(crate) async fn next_group<T>(
    items: &mut Streaming<T>,
    bounds: &Bounds,
    bytes: impl Fn(&T) -> usize,
) -> Group<T> {
    let mut group: Vec<T> = Vec::new();
    let mut held = 0;
    while group.len() < bounds.items && held < bounds.bytes {
        let arrived = if group.is_empty() {
            items.message().await
        } else {
            tokio::select! {
                biased;
                next = items.message() => next,
                () = std::future::ready(()) => break,
            }
        };
        match arrived {
            Ok(Some(item)) => {
                held += bytes(&item);
                group.push(item);
            }
            Ok(None) => return (group, Some(Ok(()))),
            Err(status) => return (group, Some(Err(status))),
        }
    }
    (group, None)
}
