//! What each addition to a query costs, as a ratio to the same query without it, asked in turns.

use anyhow::Result;
use diptych_core::Filter;
use diptych_proto::convert::filter_to_wire;
use diptych_proto::v1 as wire;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::measure::{connect, median, percentile, print, rounded, search, timed};
use crate::{Served, data};

/// An addition: its name, and what it does to a request.
type Addition = (&'static str, fn(&mut wire::SearchRequest));

const ADDITIONS: [Addition; 11] = [
    ("plain", |_| {}),
    ("filter, 1 of 10 records", |request| request.filter = filter("tenth = true")),
    ("filter, 1 of 1000 records", |request| request.filter = filter("group = 'g7'")),
    ("facets of 3 and 90 values", |request| request.facets = ["view", "age"].map(facet).to_vec()),
    ("two words, fused by ranks", |request| request.lexical = words("pleural effusion")),
    ("a phrase that must be there", |request| request.lexical = words("\"pleural effusion\"")),
    ("group_by", |request| request.group_by = "group".into()),
    ("collapse", |request| request.collapse = Some(0.95)),
    ("diversity", |request| request.diversity = Some(0.3)),
    ("three terms", |request| {
        let query = request.query.take();
        let term = |weight| wire::QueryTerm {
            source: query.clone().map(|query| match query {
                wire::search_request::Query::Vector(vector) => wire::query_term::Source::Vector(vector),
                other => unreachable!("nothing else is asked here: {other:?}"),
            }),
            weight: Some(weight),
        };
        request.terms = vec![term(2.0), term(1.0), term(-0.5)];
    }),
    ("read_mask of the key", |request| {
        request.read_mask = Some(diptych_proto::FieldMask { paths: vec!["key".into()] });
    }),
];

fn filter(written: &str) -> Option<wire::Filter> {
    let filter: Filter = written.parse().expect("the filter is well formed");
    Some(filter_to_wire(&filter))
}

fn words(text: &str) -> Option<wire::LexicalQuery> {
    Some(wire::LexicalQuery { text: text.to_owned(), fusion: None })
}

fn facet(attribute: &str) -> wire::Facet {
    wire::Facet { attribute: attribute.to_owned(), limit: 0 }
}

pub fn run(runtime: &Runtime, served: &Served, rounds: usize, calls: usize) -> Result<()> {
    let mut client = runtime.block_on(connect(&served.url))?;
    let dim = served.engine.encoder().dim();
    let mut medians: Vec<Vec<f64>> = vec![Vec::new(); ADDITIONS.len()];
    for round in 0..=rounds {
        let mut times = vec![Vec::with_capacity(calls); ADDITIONS.len()];
        for call in 0..calls {
            let n = (round * calls + call) as u64 + (1 << 41);
            for ((_, add), times) in ADDITIONS.iter().zip(&mut times) {
                let values = data::vector(dim, n).into_vec();
                let mut request = search(wire::search_request::Query::Vector(wire::Vector { values }));
                add(&mut request);
                times.push(runtime.block_on(timed(async { Ok(client.search(request).await?) }))?.1);
            }
        }
        if round > 0 {
            for (times, medians) in times.iter_mut().zip(&mut medians) {
                medians.push(percentile(times, 0.5));
            }
        }
    }
    let plain = median(&mut medians[0].clone());
    for ((name, _), medians) in ADDITIONS.iter().zip(&mut medians) {
        let p50 = median(medians);
        print(&json!({
            "part": "additions",
            "query": name,
            "p50_micros": rounded(p50, 0),
            "ratio": rounded(p50 / plain, 2),
        }));
    }
    Ok(())
}
