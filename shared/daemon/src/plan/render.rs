//! A plan on a terminal.
use shared::api::plan::{Action, Plan, PlannedChange};

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// One line for each change, then what stands against it, then a sum.
pub fn render(plan: &Plan, coloured: bool) -> String {
    let mut text = String::new();
    let mut line = |colour: &str, line: &str| {
        if coloured {
            text.extend([colour, line, PLAIN, "\n"]);
        } else {
            text.extend([line, "\n"]);
        }
    };
    for change in &plan.changes {
        let PlannedChange {
            action,
            subject,
            detail,
            ..
        } = change;
        let colour = match action {
            Action::Add => GREEN,
            Action::Change => YELLOW,
            Action::Remove => RED,
        };
        line(colour, &format!("{} {subject}: {detail}", action.sign()));
    }
    for conflict in &plan.conflicts {
        line(RED, &format!("! {conflict}"));
    }
    if let Some(setting) = &plan.needs_restart {
        let what = format!("! {setting} can't change while the daemon runs: it takes a restart");
        line(RED, &what);
    }
    for test in &plan.failed_tests {
        line(RED, &format!("! {test}"));
    }
    for warning in &plan.warnings {
        line(YELLOW, &format!("warning: {}", warning.text));
        if let Some(remedy) = &warning.remedy {
            line(PLAIN, &format!("    {remedy}"));
        }
    }
    text.push_str(&sum(plan));
    text
}

fn sum(plan: &Plan) -> String {
    if plan.is_empty() {
        return "nothing to change\n".to_owned();
    }
    let count = |action| {
        let changes = plan.changes.iter();
        changes.filter(|change| change.action == action).count()
    };
    format!(
        "{} to add, {} to change, {} to remove\n",
        count(Action::Add),
        count(Action::Change),
        count(Action::Remove)
    )
}

#[cfg(test)]
mod tests {
    use shared::api::plan::PlanWarning;

    use super::*;

    #[test]
    fn every_part_has_its_line_and_colours_only_a_terminal() {
        let change = |action, subject: &str| PlannedChange {
            kind: "route".to_owned(),
            action,
            subject: subject.to_owned(),
            detail: "ip route …".to_owned(),
        };
        let plan = Plan {
            changes: vec![change(Action::Add, "a"), change(Action::Remove, "b")],
            conflicts: vec!["somebody is there".to_owned()],
            needs_restart: Some("state_dir".to_owned()),
            warnings: vec![PlanWarning {
                name: "foreign_firewall".to_owned(),
                subject: "inet filter forward".to_owned(),
                text: "it drops".to_owned(),
                remedy: Some("nft insert …".to_owned()),
            }],
            failed_tests: vec!["file:2:1: test number 1: expected allow, but …".to_owned()],
        };
        assert_eq!(
            render(&plan, false),
            "+ a: ip route …\n\
             - b: ip route …\n\
             ! somebody is there\n\
             ! state_dir can't change while the daemon runs: it takes a restart\n\
             ! file:2:1: test number 1: expected allow, but …\n\
             warning: it drops\n    nft insert …\n\
             1 to add, 0 to change, 1 to remove\n"
        );
        let coloured = render(&plan, true);
        assert!(
            coloured.starts_with("\x1b[32m+ a: ip route …\x1b[0m\n"),
            "{coloured}"
        );
        assert_eq!(render(&Plan::default(), true), "nothing to change\n");
    }
}
