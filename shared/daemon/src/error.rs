//! How a command ends when it fails: the exit codes that `--help` documents.
use std::process::ExitCode;

use shared::api::problem::Problem;

/// Why a command failed; decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong: one line per error, each with file, line, column and remedy.
    #[error("{0}")]
    Configuration(String),
    /// The daemon that the command talks to does not run.
    #[error("{0}")]
    NotRunning(String),
    /// The machine lacks something or something is taken: privilege, TUN device, port, interface name, running daemon.
    #[error("{0}")]
    Environment(String),
    /// The daemon refused what it was asked.
    #[error("{}", refusal(.0))]
    Refused(Box<Problem>),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What `--help` says about exit codes.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  the configuration is wrong, or the operation failed
  2  wrong usage
  3  the daemon does not run
  4  the machine lacks something or something is taken: privilege, /dev/net/tun, UDP port, interface name";

impl Failure {
    /// The exit code for this failure.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Configuration(_) | Self::Refused(_) | Self::Other(_) => 1,
            Self::NotRunning(_) => 3,
            Self::Environment(_) => 4,
        })
    }

    /// A failure of the machine, with its causes.
    pub fn environment(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Environment(chain(error))
    }

    /// Any other failure, with its causes.
    pub fn other(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Other(chain(error))
    }
}

/// What happened, what is wrong where, and what to do: a line each.
fn refusal(problem: &Problem) -> String {
    let mut lines = vec![problem.detail.clone()];
    let errors = problem.errors.iter();
    lines.extend(errors.map(|error| {
        let place = error.pointer.trim_start_matches(['/', '?']);
        format!("  {place}: {}", error.detail)
    }));
    lines.extend(problem.hint.iter().map(|hint| format!("  hint: {hint}")));
    lines.join("\n")
}

/// An error and its causes on one line: `what: why: why`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("can't open the door")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("the key is lost")]
    struct Inner;

    #[test]
    fn a_refusal_says_what_is_wrong_where_and_what_to_do() {
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: "Conflict".to_owned(),
            status: 409,
            detail: "the name belongs to another".to_owned(),
            code: "name_taken".to_owned(),
            errors: vec![shared::api::problem::FieldError {
                pointer: "/addresses/0".to_owned(),
                detail: "not an address".to_owned(),
            }],
            hint: Some("take another".to_owned()),
        };
        assert_eq!(
            Failure::Refused(Box::new(problem)).to_string(),
            "the name belongs to another\n  addresses/0: not an address\n  hint: take another"
        );
    }

    #[test]
    fn causes_stand_behind_the_error_on_one_line() {
        assert_eq!(chain(&Outer(Inner)), "can't open the door: the key is lost");
    }
}
