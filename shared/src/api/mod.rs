//! What the admin API and `--json` say: used by server, command line and tests.
//!
//! Answers are objects in snake case, times are RFC 3339 in UTC, numbers carry their unit in the name. In requests what does
//! not parse as a value of its kind (a key, an address, a time) stays text: the server names every wrong field at once.
pub mod apply;
pub mod audit;
pub mod diagnosis;
pub mod drift;
pub mod event;
pub mod explanation;
pub mod invite;
pub mod peer;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod problem;
pub mod scope;
pub mod status;
pub mod token;
pub mod trace;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins (`?cursor=`); `null` on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}
