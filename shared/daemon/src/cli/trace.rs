//! `trace`: the way of a call, rule by rule.
use std::path::PathBuf;
use std::process::ExitCode;

use axum::http::Method;
use shared::api::trace::{Outcome, Trace, TraceRequest, TraceStep};
use shared::config::policy_test::{CallerName, Target};
use shared::simulate::NoCaller;

use super::output::{is_coloured, print, print_json};
use super::{Context, absolute, load};
use crate::admin::client::Call;
use crate::error::Failure;
use crate::product::Product;
use crate::simulation::{self, NoTrace, not_looked_at, of_files};

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  the call is allowed
  1  the configuration is wrong, or nobody is such a caller
  2  wrong usage
  5  the call is denied";

/// The call is denied.
const DENIED: u8 = 5;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

pub(super) async fn run<P: Product>(
    context: &Context<P>,
    from: CallerName,
    to: Target,
    files: &[PathBuf],
    json: bool,
) -> Result<ExitCode, Failure> {
    let loaded = load::<P>(&context.config_path)?;
    let other_end = P::read_other_end(&loaded.config, files)?;
    let simulation = of_files::<P>(&loaded.config, &other_end);
    let trace = match simulation::trace(&simulation, &from, to) {
        Err(NoTrace::NoCaller(NoCaller::NotInFile(name))) => {
            of_daemon(context, &name, to, files).await?
        }
        trace => trace.map_err(|error| Failure::other(&error))?,
    };
    if json {
        print_json(&trace)?;
    } else {
        print(&render(&trace, is_coloured()))?;
    }
    Ok(if trace.allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DENIED)
    })
}

/// By the running daemon, which knows the peers that the API has made.
async fn of_daemon<P: Product>(
    context: &Context<P>,
    peer: &str,
    to: Target,
    files: &[PathBuf],
) -> Result<Trace, Failure> {
    let request = TraceRequest {
        from: format!("peer:{peer}"),
        to: to.to_string(),
        lan_server_files: absolute(files)?,
    };
    let call = Call::new(Method::POST, "/v1/trace").json(&request)?;
    match context.client()?.send(call).await {
        Err(Failure::NotRunning(_)) => Err(Failure::Other(format!(
            "the file has no peer \"{peer}\", and no daemon runs that would know those of the API"
        ))),
        answer => answer?.json(),
    }
}

/// A block for each end, there and back; a line for each step.
fn render(trace: &Trace, coloured: bool) -> String {
    let paint = |colour: &str, text: &str| {
        if coloured {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    };
    let mut text = format!("{} calls {}\n", trace.from, trace.to);
    let width = trace.steps.iter().map(|step| step.place.len()).max();
    let width = width.unwrap_or(0);
    let mut before: Option<(&str, bool)> = None;
    for step in &trace.steps {
        let block = (step.end.as_str(), step.answer);
        if before.replace(block) != Some(block) {
            let answer = if step.answer { ", the answer" } else { "" };
            let head = paint(BOLD, &format!("{}{answer}", step.end));
            text.extend(["\n", &head, "\n"]);
        }
        let line = line(step, width);
        let line = if step.outcome == Outcome::Drop {
            paint(RED, &line)
        } else {
            line
        };
        text.extend([&line, "\n"]);
    }
    let (colour, verdict) = if trace.allowed {
        (GREEN, "allowed")
    } else {
        (RED, "denied")
    };
    let verdict = paint(colour, verdict);
    text.extend(["\n", &verdict, ": ", &trace.reason, "\n"]);
    if let Some(name) = &trace.not_looked_at {
        text.extend([&not_looked_at(name), "\n"]);
    }
    text
}

fn line(step: &TraceStep, width: usize) -> String {
    let TraceStep {
        place, text, note, ..
    } = step;
    let note = note.as_ref().map(|note| format!(" ({note})"));
    format!("  {place:width$}  {text}{}", note.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(answer: bool, place: &str, text: &str, outcome: Outcome) -> TraceStep {
        TraceStep {
            end: "gateway".to_owned(),
            answer,
            place: place.to_owned(),
            text: text.to_owned(),
            outcome,
            note: (outcome == Outcome::Jump).then(|| "jump role_a".to_owned()),
        }
    }

    #[test]
    fn every_step_is_a_line_below_its_end() {
        let trace = Trace {
            from: "10.17.0.10".parse().unwrap(),
            to: "10.17.5.10:6443/tcp".to_owned(),
            allowed: false,
            reason: "dropped".to_owned(),
            steps: vec![
                step(false, "forward", "ip saddr vmap @peers4", Outcome::Jump),
                step(true, "tunnel", "away", Outcome::Drop),
            ],
            not_looked_at: None,
        };
        assert_eq!(
            render(&trace, false),
            "10.17.0.10 calls 10.17.5.10:6443/tcp\n\n\
             gateway\n  forward  ip saddr vmap @peers4 (jump role_a)\n\n\
             gateway, the answer\n  tunnel   away\n\n\
             denied: dropped\n"
        );
        assert!(render(&trace, true).contains("\x1b[31m  tunnel   away\x1b[0m\n"));
    }
}
