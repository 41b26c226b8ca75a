//! The specification: made from the same router that serves, and completed by what every operation has in common.
use shared::api::problem::{MEDIA_TYPE, Problem};
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

/// Answers that every operation may give, beside its own.
const COMMON_PROBLEMS: [(&str, &str); 8] = [
    ("400", "The request can't be read."),
    ("401", "A valid token is needed."),
    (
        "403",
        "The token does not allow it, or a web page sent the request.",
    ),
    ("421", "The request was sent to another host."),
    (
        "429",
        "Too many requests, or too many bad tokens; `Retry-After` says when it makes sense again.",
    ),
    ("431", "The header is too large; the answer has no body."),
    ("500", "A bug."),
    (
        "503",
        "The kernel, the data plane or the store refused; nothing was changed.",
    ),
];

/// Answers that operations with a body may give, beside these.
const BODY_PROBLEMS: [(&str, &str); 4] = [
    ("408", "The body did not come in time."),
    ("413", "The body is larger than 64 KiB."),
    ("415", "The body is not JSON."),
    (
        "422",
        "The body can be read and makes no sense; `errors` says where.",
    ),
];

/// What headers may hold: name, pattern. A header is there or not, it is never null.
const HEADERS: [(&str, &str); 2] = [
    // One to 255 visible characters.
    ("Idempotency-Key", "^[!-~]{1,255}$"),
    // RFC 9110 §13.1.1 and §8.8.3: anything, or tags.
    (
        "If-Match",
        "^(\\*|(W/)?\"[!#-~]*\"( *, *(W/)?\"[!#-~]*\")*)$",
    ),
];

/// Where the rest is added.
pub(super) fn base(product: &str) -> OpenApi {
    let mut components = Components::new();
    components.add_security_scheme(
        "token",
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format("edge_<id>_<secret>")
                .description(Some(
                    "Needed on the TCP listener; the unix socket knows its callers by their user.",
                ))
                .build(),
        ),
    );
    components
        .schemas
        .insert(Problem::name().into_owned(), Problem::schema());
    let mut nested = Vec::new();
    Problem::schemas(&mut nested);
    components.schemas.extend(nested);
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title(format!("wg-edge {product}"))
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "The admin API. Errors are problem documents (RFC 9457).",
                ))
                .license(Some(
                    LicenseBuilder::new().name("MIT OR Apache-2.0").build(),
                ))
                .build(),
        )
        .components(Some(components))
        .build()
}

/// Add what all operations have in common.
pub(super) fn complete(api: &mut OpenApi) {
    for (path, item) in &mut api.paths.paths {
        let open = matches!(path.as_str(), "/healthz" | "/readyz");
        for operation in operations(item) {
            add(operation, &COMMON_PROBLEMS);
            say_what_headers_hold(operation);
            if operation.request_body.is_some() {
                add(operation, &BODY_PROBLEMS);
            }
            if !open {
                operation.security = Some(vec![SecurityRequirement::new("token", [""; 0])]);
            }
        }
    }
}

/// Operations of a path, those that there are.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        item.get.as_mut(),
        item.put.as_mut(),
        item.post.as_mut(),
        item.delete.as_mut(),
        item.patch.as_mut(),
    ]
    .into_iter()
    .flatten()
}

fn say_what_headers_hold(operation: &mut Operation) {
    let parameters = operation.parameters.iter_mut().flatten();
    for header in parameters.filter(|of| of.parameter_in == ParameterIn::Header) {
        let known = HEADERS.iter().find(|(name, _)| *name == header.name);
        let pattern = known.map(|(_, pattern)| *pattern);
        let text = ObjectBuilder::new().schema_type(Type::String);
        header.schema = Some(text.pattern(pattern).into());
    }
}

fn add(operation: &mut Operation, problems: &[(&str, &str)]) {
    for (status, description) in problems {
        let known = &mut operation.responses.responses;
        known.entry((*status).to_owned()).or_insert_with(|| {
            let answer = ResponseBuilder::new().description(*description);
            let answer = if *status == "431" {
                answer
            } else {
                let schema = Ref::from_schema_name(Problem::name());
                answer.content(
                    MEDIA_TYPE,
                    ContentBuilder::new().schema(Some(schema)).build(),
                )
            };
            RefOr::T(answer.build())
        });
    }
}
