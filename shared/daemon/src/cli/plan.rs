//! `plan`: asked of the daemon, or found out where none runs.
use std::path::PathBuf;
use std::process::ExitCode;

use axum::http::Method;
use shared::api::plan::{Plan, PlanRequest};
use shared_os::process;

use super::output::{is_coloured, note, print, print_json};
use super::{Context, absolute, load};
use crate::admin::client::Call;
use crate::apply::{self, First};
use crate::error::Failure;
use crate::plan;
use crate::product::{Product, Service as _};
use crate::reconcile::Kernel;

/// There is something to change.
const CHANGES: u8 = 2;

pub(super) async fn run<P: Product>(
    context: &Context<P>,
    files: &[PathBuf],
    json: bool,
) -> Result<ExitCode, Failure> {
    let plan = match of_daemon(context, files).await {
        Err(Failure::NotRunning(_)) => of_start(context, files).await?,
        plan => plan?,
    };
    if json {
        print_json(&plan)?;
    } else {
        print(&plan::render(&plan, is_coloured()))?;
    }
    Ok(if !plan.failed_tests.is_empty() {
        ExitCode::FAILURE
    } else if plan.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(CHANGES)
    })
}

/// By the daemon, which knows its peers and its keys, for the file that we were given.
async fn of_daemon<P: Product>(context: &Context<P>, files: &[PathBuf]) -> Result<Plan, Failure> {
    // First here: what is wrong with the file is said in its words, with the name that we were given.
    let parsed = load::<P>(&context.config_path)?;
    P::read_other_end(&parsed.config, files)?;
    let file = std::path::absolute(&context.config_path).map_err(|error| Failure::other(&error))?;
    let request = PlanRequest {
        file: Some(file),
        lan_server_files: absolute(files)?,
    };
    let call = Call::new(Method::POST, "/v1/plan").json(&request)?;
    context.client()?.send(call).await?.json()
}

/// What a start would do.
async fn of_start<P: Product>(context: &Context<P>, files: &[PathBuf]) -> Result<Plan, Failure> {
    process::require_net_admin().map_err(|error| Failure::environment(&error))?;
    let First {
        parsed,
        settings,
        instead,
        ..
    } = apply::first::<P>(&context.config_path)?;
    if let Some(instead) = instead {
        note(&instead);
    }
    let other_end = P::read_other_end(&parsed.config, files)?;
    let members = P::Service::look(&settings).await?;
    let mut kernel = Kernel::open(&settings.state_dir)?;
    let nothing = plan::Running::default();
    plan::plan::<P>(&parsed, &members, &other_end, &mut kernel, nothing).await
}
