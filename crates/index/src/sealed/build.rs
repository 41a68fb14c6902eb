//! Building a segment: from points alone, or from an older segment and more points.
//!
//! Owns: the order of the steps: code, link, teach the links about queries, and make sure that every
//! slot is found. Deliberately absent: each step, and when to build.

use rayon::prelude::*;

use super::bridges;
use super::graph::{BuildOptions, Codes, GraphBuilder, Rows, best_entries, spread_entries};
use super::kernel::CodeKernel;
use super::links::LinkTable;
use super::points::{Points, Staged};
use super::search::ToQuery;
use super::segment::Segment;
use super::walk::Walker;
use crate::IndexError;
use crate::dot::Dot;
use crate::options::EF_DEFAULT;

/// Candidates of one look for a slot after the other. Nearly all are found by the first, cheap one; the
/// last ones are for crowds of vectors that are all but equal.
const LOOKS: [usize; 4] = [12, EF_FIND, 512, 2048];
/// Candidates of the look that counts: no search keeps fewer unless told to.
const EF_FIND: usize = EF_DEFAULT;
/// Cosine distance below which vectors are the same but for rounding.
const SAME: f32 = 1e-6;
/// So few slots that are not found are rather compared by every search than linked and looked for again.
const COMPARED: usize = 16;
/// Passes over all slots; what the last one does not find is compared by every search.
const PASSES: usize = 3;
/// The hardness of a link without which a slot is not found: nothing takes its place.
const LIFELINE: u8 = u8::MAX;
/// Fewest slots for which links are taught about queries: fewer are scanned or walked in no time.
const LEARN_MIN: usize = 2048;

/// Says whether to give up: asked often, from all cores.
pub(crate) type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Builds a segment; `None` when stopped. The slots of `base`, if there is one, must be the first of `staged`, in order.
pub(crate) fn build(
    staged: Staged,
    base: Option<&Segment>,
    options: BuildOptions,
    queries: &[&[f32]],
    stop: Stop<'_>,
) -> Result<Option<(Points, LinkTable)>, IndexError> {
    let kernel = CodeKernel::detect();
    let known = base.map_or(0, |b| b.points().slots());
    let (points, codes) = staged.finish(base.map(|b| b.points().quantizer().clone()));
    let n = points.slots();
    let rows = match base {
        Some(base) => Rows::resume(n, base.links()),
        None => Rows::new(n, options.width()),
    };
    let entries = spread_entries(n);
    let builder = GraphBuilder::new(Codes { whole: &codes, planes: points.planes(), kernel }, rows, options);
    builder.link_from(known as u32, &entries, stop);
    let rows = builder.into_rows();
    drop(codes);
    if n >= LEARN_MIN {
        bridges::learn(&points, &rows, &entries, queries, kernel, stop);
    }
    let strays = find_all(&points, &rows, &entries, kernel, stop)?;
    Ok((!stop()).then(|| (points, rows.into_table(entries, strays))))
}

/// The links of a segment, taught about more queries; `None` when stopped, or when that is of no use.
pub(crate) fn relearn(
    segment: &Segment,
    queries: &[&[f32]],
    stop: Stop<'_>,
) -> Result<Option<LinkTable>, IndexError> {
    let points = segment.points();
    if points.slots() < LEARN_MIN || queries.is_empty() {
        return Ok(None);
    }
    let kernel = CodeKernel::detect();
    let rows = Rows::resume(points.slots(), segment.links());
    let entries = segment.links().entries.to_vec();
    bridges::learn(points, &rows, &entries, queries, kernel, stop);
    let strays = find_all(points, &rows, &entries, kernel, stop)?;
    Ok((!stop()).then(|| rows.into_table(entries, strays)))
}

/// Makes sure that a search for each slot by its own vector meets it, by a link from where the search
/// ends. Returns the slots for which that did not help.
///
/// Every pass looks for every slot, because a link for one changes the walks for others.
fn find_all(
    points: &Points,
    rows: &Rows,
    entries: &[u32],
    kernel: CodeKernel,
    stop: Stop<'_>,
) -> Result<Vec<u32>, IndexError> {
    let mut pass = 0;
    loop {
        let looks: Vec<(u32, Look)> = (0..points.slots() as u32)
            .into_par_iter()
            .with_max_len(256)
            .filter(|_| !stop())
            .map_init(Walker::default, |walker, slot| {
                Ok((slot, look_for(points, rows, entries, kernel, walker, slot)?))
            })
            .filter(|look| !matches!(look, Ok((_, Look::Met))))
            .collect::<Result<_, IndexError>>()?;
        pass += 1;
        let to_link = looks.iter().filter(|(_, look)| *look != Look::Misjudged).count();
        if pass == PASSES || to_link <= COMPARED {
            return Ok(looks.into_iter().map(|(slot, _)| slot).collect());
        }
        for (slot, look) in &looks {
            if let Look::Ended(near) = look {
                near.iter().any(|&from| rows.add_hard(from, *slot, LIFELINE));
            }
        }
    }
}

/// What a search for a slot by its own vector came to.
#[derive(Debug, PartialEq)]
enum Look {
    /// It is among those that are compared exactly.
    Met,
    /// It was walked to, but its code scores too low for that.
    Misjudged,
    /// It was not walked to; the walk ended at these, best first.
    Ended(Vec<u32>),
}

fn look_for(
    points: &Points,
    rows: &Rows,
    entries: &[u32],
    kernel: CodeKernel,
    walker: &mut Walker,
    slot: u32,
) -> Result<Look, IndexError> {
    let vector = points.vector(slot)?;
    let query = points.query(vector);
    let score = ToQuery { query: &query, planes: points.planes(), kernel };
    let starts = best_entries(&score, entries);
    let mut arrived = false;
    for ef in LOOKS {
        let found = walker.walk(points.slots(), rows, &score, &starts, ef);
        // A crowd that fills the list may go on behind its end: only a longer list shows its best.
        let end = found.last().map_or(i32::MIN, |c| c.score);
        let crowded = found.len() == ef && end >= found[0].score.saturating_sub(query.margins.coarse);
        // What a short list leads to, a longer one does too, but not the other way.
        arrived |= ef <= EF_FIND && found.iter().any(|c| c.slot() == slot);
        if (arrived && crowded && ef != LOOKS[LOOKS.len() - 1]) || (!arrived && ef < EF_FIND) {
            continue;
        }
        let compared = score.narrow(found.iter().copied(), 1);
        let met = arrived && compared.contains(&slot);
        return Ok(if met || has_equal(points, vector, &compared)? {
            Look::Met
        } else if arrived {
            Look::Misjudged
        } else {
            Look::Ended(found.iter().map(|c| c.slot()).take(8).collect())
        });
    }
    unreachable!("the last look always says something")
}

/// Whether one of the slots has this vector but for rounding, which is as good as being met.
fn has_equal(points: &Points, vector: &[f32], slots: &[u32]) -> Result<bool, IndexError> {
    let dot = Dot::detect();
    for &slot in slots {
        if dot.product(vector, points.vector(slot)?) >= 1.0 - SAME {
            return Ok(true);
        }
    }
    Ok(false)
}
