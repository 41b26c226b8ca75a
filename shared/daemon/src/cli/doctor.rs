//! `doctor`: asked of the daemon; that none runs is an answer, too.
use std::process::ExitCode;

use axum::http::Method;
use clap::Args;
use shared::api::diagnosis::{Diagnosis, ProbeRequest};

use super::Context;
use super::output::{is_coloured, print, print_json};
use crate::admin::client::Call;
use crate::doctor;
use crate::error::Failure;
use crate::product::Product;

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  every hop that was tried works
  1  the configuration is wrong, or there is no such service
  2  wrong usage
  5  a hop does not work";

/// A hop does not work.
const BROKEN: u8 = 5;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this published service
    #[arg(long, value_name = "NAME")]
    publish: Option<String>,
    /// Ask services for this host name, as visitors do: their certificate has to be for it
    #[arg(long, value_name = "HOST")]
    server_name: Option<String>,
    /// Print the diagnosis as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run<P: Product>(
    context: &Context<P>,
    arguments: Arguments,
) -> Result<ExitCode, Failure> {
    let request = ProbeRequest {
        publish: arguments.publish,
        server_name: arguments.server_name,
    };
    let call = Call::new(Method::POST, "/v1/probes").json(&request)?;
    let diagnosis: Diagnosis = match context.client()?.send(call).await {
        Err(Failure::NotRunning(why)) => doctor::not_running(P::NAME, &why),
        answer => answer?.json()?,
    };
    if arguments.json {
        print_json(&diagnosis)?;
    } else {
        print(&doctor::render(&diagnosis, is_coloured()))?;
    }
    Ok(if diagnosis.faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BROKEN)
    })
}
