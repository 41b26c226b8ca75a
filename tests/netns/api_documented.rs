//! `docs/admin-api.md` is true: its examples run in their order, and print what stands there.
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tests::edge::Setup;

use crate::support::with_edge;

const PAGE: &str = include_str!("../../docs/admin-api.md");

/// A command of the page, and what it is to print.
struct Example {
    script: String,
    printed: Option<Value>,
}

fn examples() -> Result<Vec<Example>> {
    let mut examples: Vec<Example> = Vec::new();
    // Every second part of the page stands between fences.
    for block in PAGE.split("```").skip(1).step_by(2) {
        let (kind, text) = block.split_once('\n').context("an empty block")?;
        match (kind, examples.last_mut()) {
            ("sh", _) => examples.push(Example {
                script: text.to_owned(),
                printed: None,
            }),
            ("json", Some(example)) => {
                let printed = serde_json::from_str(text).with_context(|| text.to_owned())?;
                example.printed = Some(printed);
            }
            (other, _) => bail!("a block of kind {other:?}"),
        }
    }
    Ok(examples)
}

/// Whether all that is shown is there; `…` is anything.
fn shows(shown: &Value, printed: &Value) -> bool {
    match (shown, printed) {
        (Value::String(dots), _) if dots == "…" => !printed.is_null(),
        (Value::Object(shown), Value::Object(printed)) => shown
            .iter()
            .all(|(name, value)| printed.get(name).is_some_and(|is| shows(value, is))),
        (Value::Array(shown), Value::Array(printed)) => {
            shown.len() == printed.len() && shown.iter().zip(printed).all(|(a, b)| shows(a, b))
        }
        (
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
            _,
        ) => shown == printed,
    }
}

#[test]
fn examples_print_what_the_page_says() {
    let mut setup = Setup::new().unwrap();
    setup.more_gateway = "\n[admin]\nlisten = \"10.17.0.1:8443\"\n".to_owned();
    with_edge(setup, |world, edge| {
        let vps = &world.vps;
        let dir = vps.dir().display().to_string();
        let program = tests::edge::binary("gateway")?;
        let config = edge.gateway.config.display();
        // What an administrator has: the program in the search path, its file in its place.
        let preamble = format!(
            "set -eu\numask 077\ncd {dir}\n. ./variables 2>/dev/null || true\n\
             gateway() {{ {program} --config {config} \"$@\"; }}\n"
        );
        let examples = examples()?;
        assert!(examples.len() > 12, "{}", examples.len());
        for Example { script, printed } in examples {
            let script = script.replace("/run/wg-edge/", &format!("{dir}/run/wg-edge/"));
            let whole = format!(
                "{preamble}{script}\nset | grep -E '^(ID|ETAG|TOKEN)=' >variables || true\n"
            );
            let output = vps.run(&["bash", "-c", &whole])?;
            let Some(shown) = printed else { continue };
            let last: Value = serde_json::from_str(output.trim())
                .with_context(|| format!("{script}\nprinted\n{output}"))?;
            if !shows(&shown, &last) {
                bail!("{script}\nis to print\n{shown:#}\nand printed\n{last:#}");
            }
        }
        Ok(())
    });
}
