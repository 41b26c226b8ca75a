//! `explain`: asked of the daemon; that none runs is a cause, too.
use axum::http::Method;
use shared::api::explanation::{Explanation, OriginError};

use super::Context;
use super::output::{is_coloured, print, print_json};
use crate::admin::client::Call;
use crate::doctor;
use crate::error::Failure;
use crate::explain;
use crate::history::Window;
use crate::product::Product;

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  causes were looked for
  1  the configuration is wrong
  2  wrong usage";

pub(super) async fn run<P: Product>(
    context: &Context<P>,
    error: OriginError,
    json: bool,
) -> Result<(), Failure> {
    let call = Call::new(Method::GET, format!("/v1/explain/{error}"));
    let explanation: Explanation = match context.client()?.send(call).await {
        Err(Failure::NotRunning(why)) => {
            let diagnosis = doctor::not_running(P::NAME, &why);
            explain::explain(error, &diagnosis, &Window::default())
        }
        answer => answer?.json()?,
    };
    if json {
        print_json(&explanation)
    } else {
        print(&explain::render(&explanation, is_coloured()))
    }
}
