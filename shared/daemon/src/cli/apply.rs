//! `apply`: the configuration file on trial, confirmed when what was well before is well after it.
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::http::Method;
use clap::{Args, Subcommand};
use shared::api::apply::{Apply, ApplyRequest, ApplyState, CONFIRM_WITHIN_SECONDS};
use shared::api::plan::{Plan, PlanRequest};

use super::output::{is_coloured, print, print_json};
use super::{Context, load};
use crate::admin::client::{Call, Client};
use crate::error::Failure;
use crate::plan;
use crate::product::Product;

/// How often it is looked how things are.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long what was well may take to be well again: a handshake that is lost is sent again after 5 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// What `--help` says about exit codes.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  the configuration was confirmed, or waits for `apply confirm`, or there was nothing to change
  1  the configuration is wrong, or was rolled back
  2  wrong usage
  3  the daemon does not run
  4  the machine lacks something or something is taken";

/// `apply [--within SECONDS] [--no-confirm]`, `apply confirm`, `apply rollback`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    now: Now,
}

#[derive(Debug, Args)]
struct Now {
    /// Seconds until the configuration of before comes back unless this one is confirmed
    #[arg(long, value_name = "SECONDS", default_value_t = CONFIRM_WITHIN_SECONDS,
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    within: u32,
    /// Leave the confirmation to somebody who gets in from outside, by `apply confirm` in a new session
    #[arg(long)]
    no_confirm: bool,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Keep the configuration that is on trial
    Confirm,
    /// Go back to the configuration of before at once
    Rollback,
}

pub(super) async fn run<P: Product>(
    context: &Context<P>,
    arguments: Arguments,
) -> Result<ExitCode, Failure> {
    match arguments.action {
        None => try_file(context, &arguments.now).await,
        Some(Action::Confirm) => {
            let client = context.client()?;
            let apply = end(&client, &latest(&client).await?, "confirm").await?;
            tell(&apply, false)
        }
        Some(Action::Rollback) => {
            let client = context.client()?;
            let apply = end(&client, &latest(&client).await?, "rollback").await?;
            tell(&apply, false)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn try_file<P: Product>(context: &Context<P>, now: &Now) -> Result<ExitCode, Failure> {
    // First here: what is wrong with the file is said in its words, with the name that we were given.
    load::<P>(&context.config_path)?;
    let client = context.client()?;
    let file = std::path::absolute(&context.config_path).map_err(|error| Failure::other(&error))?;
    let request = PlanRequest {
        file: Some(file.clone()),
        ..PlanRequest::default()
    };
    let call = Call::new(Method::POST, "/v1/plan").json(&request)?;
    let plan: Plan = client.send(call).await?.json()?;
    if !now.json {
        print(&plan::render(&plan, is_coloured()))?;
    }
    if !plan.failed_tests.is_empty() {
        return Err(Failure::Configuration(plan.failed_tests.join("\n")));
    }
    let request = ApplyRequest {
        file: Some(file),
        confirm_within_seconds: Some(now.within),
    };
    let call = Call::new(Method::POST, "/v1/apply").json(&request)?;
    let applied: Apply = client.send(call).await?.json()?;
    if now.no_confirm {
        return tell(&applied, now.json);
    }
    let patience = PATIENCE.min(Duration::from_secs(now.within.into()) / 2);
    let found = settled(&client, patience).await?;
    if found.state != ApplyState::Pending {
        return tell(&found, now.json);
    }
    let is_well = found.checked && found.problems.is_empty();
    let what = if is_well { "confirm" } else { "rollback" };
    let ended = end(&client, &found, what).await?;
    tell(
        &Apply {
            problems: found.problems,
            checked: found.checked,
            ..ended
        },
        now.json,
    )
}

/// How things are once everything was looked at and is well, and at the latest after this time.
async fn settled(client: &Client, patience: Duration) -> Result<Apply, Failure> {
    let until = Instant::now() + patience;
    loop {
        let found = latest(client).await?;
        let is_well = found.checked && found.problems.is_empty();
        if is_well || found.state != ApplyState::Pending || Instant::now() > until {
            return Ok(found);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Each call opens a connection.
async fn latest(client: &Client) -> Result<Apply, Failure> {
    client.get("/v1/apply").await?.json()
}

async fn end(client: &Client, apply: &Apply, what: &str) -> Result<Apply, Failure> {
    let call = Call::new(Method::POST, format!("/v1/apply/{}/{what}", apply.id));
    client.send(call).await?.json()
}

fn tell(apply: &Apply, json: bool) -> Result<ExitCode, Failure> {
    if json {
        print_json(apply)?;
    } else {
        print(&sentences(apply))?;
    }
    Ok(match apply.state {
        ApplyState::Pending | ApplyState::Confirmed => ExitCode::SUCCESS,
        ApplyState::RolledBack => ExitCode::FAILURE,
    })
}

fn sentences(apply: &Apply) -> String {
    let problems = apply.problems.iter();
    let mut lines: Vec<String> = problems.map(|problem| format!("! {problem}")).collect();
    lines.push(match apply.state {
        ApplyState::Pending => format!(
            "on trial: at {} the configuration of before comes back unless `apply confirm` is run before, best in a new session \
             from outside",
            apply.confirm_by.strftime("%H:%M:%S UTC")
        ),
        ApplyState::Confirmed => "confirmed".to_owned(),
        ApplyState::RolledBack => format!(
            "rolled back: {}; the configuration of before runs",
            apply.reason.as_deref().unwrap_or("it was not confirmed")
        ),
    });
    lines.push(String::new());
    lines.join("\n")
}
