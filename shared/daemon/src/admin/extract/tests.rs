//! Facts about what handlers take from a request.
use axum::http::HeaderValue;

use super::*;

fn if_match(values: &[&'static str]) -> Result<Option<IfMatch>, StatusCode> {
    let values = values.iter().copied().map(HeaderValue::from_static);
    let mut all = HeaderMap::new();
    for value in values {
        all.append(header::IF_MATCH, value);
    }
    IfMatch::of(&all).map_err(|error| error.status())
}

#[test]
fn tags_are_taken_from_all_headers_and_lists() {
    let tags = |tags: &[&str]| {
        let tags = tags.iter().map(ToString::to_string).collect();
        Ok(Some(IfMatch::OneOf(tags)))
    };
    assert_eq!(if_match(&[]), Ok(None));
    assert_eq!(if_match(&[" * "]), Ok(Some(IfMatch::Any)));
    assert_eq!(if_match(&["\"7\""]), tags(&["\"7\""]));
    assert_eq!(
        if_match(&["\"7\" ,,W/\"8\"", "\"\""]),
        tags(&["\"7\"", "W/\"8\"", "\"\""])
    );
}

#[test]
fn a_comma_inside_of_a_tag_does_not_end_it() {
    let tag = "\"7,8\"".to_owned();
    assert_eq!(if_match(&["\"7,8\""]), Ok(Some(IfMatch::OneOf(vec![tag]))));
}

#[test]
fn what_is_no_list_of_tags_is_refused() {
    for value in [
        "",
        ",",
        "7",
        "\"7",
        "7\"",
        "\"7\"8\"",
        "\"7\" \"8\"",
        "W/7",
        "w/\"7\"",
        "*, 7",
    ] {
        assert_eq!(if_match(&[value]), Err(StatusCode::BAD_REQUEST), "{value}");
    }
}

#[test]
fn a_body_is_an_object() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Body {
        name: Option<String>,
    }
    let name = Some("a".to_owned());
    assert_eq!(parse::<Body>(b" {\"name\":\"a\"}").unwrap(), Body { name });
    for (body, status) in [
        ("[\"a\"]", StatusCode::UNPROCESSABLE_ENTITY),
        ("null", StatusCode::UNPROCESSABLE_ENTITY),
        ("", StatusCode::BAD_REQUEST),
        ("[", StatusCode::BAD_REQUEST),
        ("{} {}", StatusCode::BAD_REQUEST),
    ] {
        let error = parse::<Body>(body.as_bytes()).unwrap_err();
        assert_eq!(error.status(), status, "{body}");
    }
}
