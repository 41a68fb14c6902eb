//! Searches with a condition on attributes, from the command line and over the wire.

use diptych_proto::v1 as wire;
use diptych_proto::v1::filter::Condition;
use serde_json::Value;
use tonic::Code;

use crate::support::{Server, corpus, fail, hits, mini_model, succeed, succeed_with_notes};

type Matches<'a> = &'a dyn Fn(&Value) -> bool;

/// The keys of the generated cases for which `matches` holds.
fn cases(dir: &std::path::Path, matches: impl Fn(&Value) -> bool) -> Vec<String> {
    let lines = std::fs::read_to_string(dir.join("phantoms/cases.jsonl")).unwrap();
    let cases = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    cases
        .filter(|case| matches(&case["attributes"]))
        .map(|case| case["key"].as_str().unwrap().to_owned())
        .collect()
}

fn sorted(hits: &[(String, f64, String)]) -> Vec<String> {
    let mut keys: Vec<String> = hits.iter().map(|hit| hit.0.clone()).collect();
    keys.sort();
    keys
}

#[test]
fn the_command_line_filters_in_both_directions_here_and_there() {
    let dir = corpus(60);
    let filter = r#"view = "PA" and age >= 40 and not labels has "none""#;
    let has = |labels: &Value, label: &str| labels.as_array().unwrap().iter().any(|l| l == label);
    let expected = cases(dir.path(), |a| {
        a["view"] == "PA" && a["age"].as_u64().unwrap() >= 40 && !has(&a["labels"], "none")
    });
    assert!((5..50).contains(&expected.len()), "the filter tells cases apart: {}", expected.len());
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let text = ["--text", "Large left pleural effusion.", "--target", "image"];
    let image = ["--image", "phantoms/images/phantom-000003.png", "--target", "text"];
    let ask = |query: &[&str], filter: &str, place: &[&str]| {
        let args = [&["search", "-k", "1000", "--filter", filter, "--json"], query, place].concat();
        let said = succeed(dir.path(), &args);
        (hits(&said), serde_json::from_str::<Value>(&said).unwrap()["stats"].clone())
    };
    let there = ["--server", server.url.as_str()];
    let mut answers = Vec::new();
    for query in [&text, &image] {
        let (found, stats) = ask(query, filter, &there);
        assert_eq!(sorted(&found), expected);
        assert_eq!(
            (&stats["matching_points"], &stats["searched_points"]),
            (&expected.len().into(), &60.into())
        );
        assert_eq!(stats["plan"], "scan", "so few are compared one by one");
        answers.push(found);
    }
    // What is written later is filtered, too.
    let changed =
        r#"{"key":"phantom-000003","text":"Replaced.","attributes":{"view":"PA","age":99,"labels":["x"]}}"#;
    std::fs::write(dir.path().join("more.jsonl"), changed).unwrap();
    succeed(dir.path(), &["ingest", "more.jsonl", "--server", &server.url]);
    let (found, _) = ask(&["--text", "Replaced.", "--target", "text"], "age > 95 and labels has 'x'", &there);
    assert_eq!(sorted(&found), ["phantom-000003"]);

    let args = [&["search", "--filter", filter], &text[..], &there].concat();
    let (_, notes) = succeed_with_notes(dir.path(), &args);
    assert!(notes.starts_with("scan · ") && notes.contains(" of 59 points · encode "), "{notes}");
    let args = [&["search", "--filter", "vieww = 'PA'"], &text[..], &there].concat();
    let (said, notes) = succeed_with_notes(dir.path(), &args);
    assert_eq!(said, "no image of a record that meets the filter\n");
    assert!(notes.contains("no record has the attribute 'vieww'; there are: age, impression"), "{notes}");

    assert!(server.stop().success());
    let model = mini_model();
    let here = ["--data", "data", "--model", model.to_str().unwrap()];
    let (found, _) = ask(&text, filter, &here);
    answers[0].retain(|hit| hit.0 != "phantom-000003");
    assert_eq!(sorted(&found), sorted(&answers[0]));
}

#[test]
fn a_filter_that_cannot_be_read_says_where_and_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let search = |filter: &str| {
        let place = ["--server", "http://127.0.0.1:1"];
        let query = ["search", "--text", "x", "--target", "image", "--filter", filter];
        fail(dir.path(), &[&query[..], &place].concat())
    };
    let said = search("view = PA");
    assert!(said.contains("at character 8, 'PA'") && said.contains("in quotes"), "{said}");
    let said = search("age > '3'");
    assert!(said.contains("'>' compares numbers"), "{said}");
}

#[tokio::test]
async fn filters_of_the_wire_mean_what_they_say_and_bad_ones_are_refused() {
    let dir = corpus(30);
    let server = Server::start(dir.path());
    succeed(dir.path(), &["ingest", "phantoms", "--server", &server.url]);
    let mut client = server.client().await;
    let search = |condition: Option<Condition>| wire::SearchRequest {
        query: Some(wire::search_request::Query::Text("Cardiomegaly.".to_owned())),
        target: wire::Modality::Image as i32,
        k: Some(1000),
        filter: Some(wire::Filter { condition }),
        ..Default::default()
    };
    let of = |condition| wire::Filter { condition: Some(condition) };
    let list = |filters: Vec<wire::Filter>| wire::FilterList { filters };
    let text = |text: &str| wire::FilterValue {
        value: Some(wire::filter_value::Value::StringValue(text.to_owned())),
    };
    let number = wire::FilterValue { value: Some(wire::filter_value::Value::FloatValue(50.0)) };
    let compare = |attribute: &str, operator: wire::ComparisonOperator, value: &wire::FilterValue| {
        Condition::Compare(wire::AttributeComparison {
            attribute: attribute.to_owned(),
            operator: operator as i32,
            value: Some(value.clone()),
        })
    };
    let one_of = |values: Vec<wire::FilterValue>| {
        Condition::OneOf(wire::AttributeIn { attribute: "view".to_owned(), values })
    };
    use wire::ComparisonOperator::{Equal, GreaterOrEqual, Less, Unspecified};
    let good: Vec<(Condition, Matches<'_>)> = vec![
        (compare("sex", Equal, &text("F")), &|a| a["sex"] == "F"),
        (compare("age", Less, &number), &|a| a["age"].as_f64().unwrap() < 50.0),
        (one_of(vec![text("PA"), text("AP")]), &|a| a["view"] != "LATERAL"),
        (
            Condition::Any(list(vec![
                of(compare("age", GreaterOrEqual, &number)),
                of(Condition::Negation(Box::new(of(compare("sex", Equal, &text("F")))))),
            ])),
            &|a| a["age"].as_f64().unwrap() >= 50.0 || a["sex"] == "M",
        ),
        (
            Condition::All(list(vec![
                of(Condition::Exists("traits".to_owned())),
                of(Condition::Has(wire::AttributeHas {
                    attribute: "labels".to_owned(),
                    text: "none".to_owned(),
                })),
            ])),
            &|a| a["labels"].as_array().unwrap().iter().any(|label| label == "none"),
        ),
    ];
    for (condition, matches) in good {
        let shown = format!("{condition:?}");
        let answer = client.search(search(Some(condition))).await.unwrap().into_inner();
        let mut keys: Vec<String> = answer.hits.into_iter().map(|hit| hit.key).collect();
        keys.sort();
        let expected = cases(dir.path(), matches);
        assert_eq!(keys, expected, "{shown}");
        let stats = answer.stats.unwrap();
        assert_eq!((stats.plan(), stats.ef), (wire::SearchPlan::Scan, None));
        assert_eq!((stats.matching_points, stats.notes), (Some(expected.len() as u64), vec![]), "{shown}");
    }
    let deep = (0..20).fold(Condition::Exists("age".to_owned()), |c, _| Condition::Negation(Box::new(of(c))));
    let bad = [
        (None, "has no condition"),
        (Some(compare("age", Unspecified, &number)), "COMPARISON_OPERATOR_EQUAL"),
        (Some(compare("age", Equal, &wire::FilterValue::default())), "with no value"),
        (Some(compare("age", Less, &text("x"))), "compares numbers"),
        (Some(compare("", Equal, &number)), "name is empty"),
        (Some(one_of(vec![])), "at least one value"),
        (Some(one_of(vec![text("x"); 2000])), "more than 1024"),
        (Some(Condition::All(list(vec![]))), "at least one condition"),
        (Some(deep), "nests more than 16"),
    ];
    for (condition, says) in bad {
        let status = client.search(search(condition)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(says), "'{}' does not say '{says}'", status.message());
    }
}
