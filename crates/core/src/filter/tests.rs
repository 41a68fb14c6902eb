//! Filters as a user writes them and as a property test draws them.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn filter(written: &str) -> Filter {
    written.parse().unwrap_or_else(|error| panic!("{written}: {error}"))
}

fn refused(written: &str) -> String {
    match written.parse::<Filter>() {
        Ok(filter) => panic!("{written} was understood as {filter}"),
        Err(error) => error.to_string(),
    }
}

fn case() -> Attributes {
    let list = |items: &[&str]| AttributeValue::List(items.iter().map(|&s| s.to_owned()).collect());
    Attributes::from([
        ("view".to_owned(), AttributeValue::String("PA".to_owned())),
        ("age".to_owned(), AttributeValue::Integer(40)),
        ("dose".to_owned(), AttributeValue::Float(0.5)),
        ("ward".to_owned(), AttributeValue::Bool(true)),
        ("labels".to_owned(), list(&["effusion.left", "nodule"])),
        ("follow up".to_owned(), AttributeValue::Integer(i64::MAX)),
        ("in".to_owned(), AttributeValue::Float(-0.0)),
        ("time".to_owned(), AttributeValue::Time("2024-01-31T08:30:00Z".parse().unwrap())),
    ])
}

#[test]
fn what_matches_and_what_does_not() {
    let attributes = case();
    for yes in [
        r#"view = "PA" and age >= 40 and not labels has "normal""#,
        "view == 'PA'",
        "age = 40.0 and age in (1, 40) and age <= 40.5 and age > 39.9 and age < 41",
        "dose < 1 and dose >= 0.5 and dose != 5",
        "ward = true and ward != false AND NOT ward = false",
        r#"labels has "nodule" and labels not has "nod" and view not in ("AP", "LATERAL")"#,
        "exists age and not exists name",
        "name != 3 and not name = 3 and not name < 3 and not name >= 3",
        "age = 1 or (view = 'AP' or dose = 0.5) and ward = true",
        "`follow up` = 9223372036854775807 and `follow up` < 9223372036854775808.0",
        "`in` = 0 and `in` in (0.0)",
        "view starts_with 'P' and view STARTS_WITH 'PA' and view not starts_with 'A'",
        r#"time >= time("2024-01-31") and time < time('2024-01-31T09:30:00.5+01:00')"#,
        "time = time('2024-01-31T08:30:00Z') and time in (time('2024-01-31T08:30:00.000Z')) and time != 3",
        "starts_with != 3",
    ] {
        assert!(filter(yes).matches(&attributes), "{yes}");
    }
    for no in [
        "view = 'pa'",
        "view = 40",
        "age = '40'",
        "ward = 1",
        "name = 'x' or name in ('x') or name has 'x' or name > 1",
        "view has 'PA'",
        "labels = 'nodule'",
        "labels in ('nodule', 'effusion.left')",
        "dose > 0.5 or dose < 0.5 or dose != 0.5",
        "`follow up` = 9223372036854775808.0",
        "not (age = 40 or age = 41)",
        "view starts_with 'PAX' or view starts_with 'p' or labels starts_with 'n' or age starts_with '4'",
        "time = '2024-01-31T08:30:00Z' or time > time('2024-01-31T08:30:00Z') or time > 3",
        "age > time('1970-01-01') or view < time('2100-01-01')",
        // `and` binds before `or`.
        "age = 41 and view = 'PA' or age = 42",
    ] {
        assert!(!filter(no).matches(&attributes), "{no}");
    }
}

#[test]
fn errors_say_where_and_what_to_write() {
    for (written, place, hint) in [
        ("", "character 1, the end", "attribute's name"),
        ("age", "character 4, the end", "compare the attribute"),
        ("age >= ", "character 8, the end", "a number"),
        ("age >= forty", "character 8, 'forty'", "in quotes"),
        ("age >= 40 view = 'PA'", "character 11, 'view'", "'and' or 'or'"),
        ("age > 'x'", "'age'", "compares numbers"),
        ("(age > 1", "character 9, the end", "')'"),
        ("age in 3", "character 8, '3'", "parentheses"),
        ("age in (3", "character 10, the end", "','"),
        ("age in ()", "character 9, ')'", "list values"),
        ("age not 3", "character 9, '3'", "not in"),
        ("labels has 3", "character 12, '3'", "in quotes"),
        ("exists 3", "character 8, '3'", "name an attribute"),
        ("and = 3", "character 1, 'and'", "backquotes"),
        ("view = 'PA", "character 8", "end the text with '"),
        (r#"view = "\q""#, "character 8", "backslash"),
        ("`view = 1", "character 1", "end the name"),
        ("`` = 1", "''", "name is empty"),
        ("age & 3", "character 5, '&'", "write 'and'"),
        ("age | 3", "character 5, '|'", "write 'or'"),
        ("!age", "character 1, '!'", "write 'not'"),
        ("größe% = 3", "character 6, '%'", "backquotes"),
        ("age in [3]", "character 8, '['", "parentheses"),
        ("view starts_with 3", "character 18, '3'", "begins with"),
        ("view starts_with ''", "'view'", "begins with nothing"),
        ("t > time('noon')", "character 10, ''noon''", "RFC 3339"),
        ("t > time(3)", "character 10, '3'", "in quotes"),
        ("t > time('2024-01-31'", "the end", "')'"),
        ("t > time", "character 5, 'time'", "a number"),
        ("age = 3x", "character 7, '3x'", "no number"),
        ("age = 99999999999999999999", "character 7", "64 bits"),
        ("age = 1e999", "character 7", "too large"),
    ] {
        let said = refused(written);
        assert!(said.contains(place) && said.contains(hint), "{written}: {said}");
    }
}

#[test]
fn filters_are_bounded() {
    assert!(refused(&("(".repeat(100_000) + "a = 1")).contains("nests more"));
    assert!(refused(&("not ".repeat(100_000) + "a = 1")).contains("nests more"));
    let deep = |n: usize| (0..n).fold(leaf("a"), |inner, _| Condition::Not(Box::new(inner)));
    assert!(Filter::new(deep(FILTER_DEPTH_MAX - 1)).is_ok());
    assert_eq!(Filter::new(deep(FILTER_DEPTH_MAX)), Err(FilterError::TooDeep));
    let many = |n: usize| Condition::Any((0..n).map(|n| leaf(&format!("a{n}"))).collect());
    assert!(Filter::new(many(FILTER_VALUES_MAX)).is_ok());
    let found = FILTER_VALUES_MAX + 1;
    assert_eq!(Filter::new(many(found)), Err(FilterError::TooMany { found }));
    let values = vec![FilterValue::Bool(true); found];
    let listed = Condition::In { attribute: "a".to_owned(), values };
    assert_eq!(Filter::new(listed), Err(FilterError::TooMany { found }));
    for (condition, says) in [
        (Condition::All(vec![]), "'and' has nothing"),
        (Condition::Any(vec![]), "'or' has nothing"),
        (Condition::In { attribute: "a".to_owned(), values: vec![] }, "'in' has nothing"),
        (leaf(" "), "name is empty"),
        (leaf(&"n".repeat(ATTRIBUTE_NAME_BYTES_MAX + 1)), "no attribute has more"),
        (compare("a", Comparison::Equal, FilterValue::Number(Number::Float(f64::NAN))), "not finite"),
        (compare("a", Comparison::Less, FilterValue::Bool(true)), "compares numbers"),
    ] {
        let said = Filter::new(condition).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    let single = Condition::All(vec![Condition::Any(vec![leaf("a")])]);
    assert_eq!(Filter::new(single).unwrap().condition(), &leaf("a"));
}

#[test]
fn integers_and_floats_compare_by_value() {
    use Number::{Float, Integer};
    let ascending = [
        Float(f64::NEG_INFINITY),
        Float(-1e300),
        Integer(i64::MIN),
        Integer(-3),
        Float(-2.5),
        Integer(-2),
        Integer(0),
        Float(0.5),
        Integer(2),
        Float(2.5),
        Integer((1 << 53) + 1),
        Integer(i64::MAX),
        Float(9_223_372_036_854_775_808.0),
        Float(f64::INFINITY),
        Float(f64::NAN),
    ];
    for (i, a) in ascending.iter().enumerate() {
        for (j, b) in ascending.iter().enumerate() {
            assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} and {b:?}");
        }
    }
    assert_eq!(Integer(i64::MIN), Float(-9_223_372_036_854_775_808.0));
    assert_eq!((Integer(0), Integer(1 << 53)), (Float(-0.0), Float(9_007_199_254_740_992.0)));
}

fn leaf(attribute: &str) -> Condition {
    Condition::Exists { attribute: attribute.to_owned() }
}

fn compare(attribute: &str, comparison: Comparison, value: FilterValue) -> Condition {
    Condition::Compare { attribute: attribute.to_owned(), comparison, value }
}

fn value() -> impl Strategy<Value = FilterValue> {
    let numbers = prop_oneof![
        any::<i64>().prop_map(Number::Integer),
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(Number::Float),
    ];
    prop_oneof![
        any::<String>().prop_map(FilterValue::Text),
        numbers.prop_map(FilterValue::Number),
        any::<bool>().prop_map(FilterValue::Bool),
        (-62_135_596_800..253_402_300_800i64, 0..1_000_000_000u32)
            .prop_map(|(s, n)| FilterValue::Time(Time::new(s, n).unwrap())),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("age".to_owned()),
        Just("Not".to_owned()),
        Just("true".to_owned()),
        Just("time".to_owned()),
        Just("starts_with".to_owned()),
        any::<String>().prop_filter("visible", |s| !s.trim().is_empty() && s.len() < 100),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let orders = prop_oneof![
        Just(Comparison::Equal),
        Just(Comparison::NotEqual),
        Just(Comparison::Less),
        Just(Comparison::LessOrEqual),
        Just(Comparison::Greater),
        Just(Comparison::GreaterOrEqual),
    ];
    let leaf = prop_oneof![
        (name(), orders, value()).prop_map(|(attribute, comparison, value)| {
            let number = matches!(value, FilterValue::Number(_) | FilterValue::Time(_));
            let comparison = if number { comparison } else { Comparison::NotEqual };
            Condition::Compare { attribute, comparison, value }
        }),
        (name(), proptest::collection::vec(value(), 1..4))
            .prop_map(|(attribute, values)| Condition::In { attribute, values }),
        (name(), any::<String>()).prop_map(|(attribute, text)| Condition::Has { attribute, text }),
        (name(), "[a-z\"]{1,16}").prop_map(|(attribute, prefix)| Condition::StartsWith { attribute, prefix }),
        name().prop_map(|attribute| Condition::Exists { attribute }),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Condition::All),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Condition::Any),
            inner.prop_map(|condition| Condition::Not(Box::new(condition))),
        ]
    })
}

proptest! {
    #[test]
    fn the_written_form_reads_back_as_the_same_filter(condition in condition()) {
        let filter = Filter::new(condition).unwrap();
        let written = filter.to_string();
        prop_assert_eq!(written.parse::<Filter>(), Ok(filter), "{}", written);
    }

    #[test]
    fn no_text_breaks_the_parser(written in "[a-z0-9 ()`\"'\\\\=<>!.,+-]{0,60}") {
        if let Ok(filter) = written.parse::<Filter>() {
            prop_assert_eq!(filter.to_string().parse::<Filter>(), Ok(filter));
        }
    }
}
