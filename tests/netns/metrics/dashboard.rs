//! The dashboard, checked for what Grafana would stumble over without a word. Grafana is not in Debian; its queries are
//! tried in the real Prometheus (`scrape.rs`).
use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::text_of;

/// Kinds of panels that every Grafana from version 10 on has.
const PANELS: [&str; 4] = ["row", "stat", "timeseries", "table"];
/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

/// The JSON model.
#[derive(Debug)]
pub(super) struct Dashboard(Value);

impl Dashboard {
    pub(super) fn read() -> Result<Self> {
        Ok(Self(serde_json::from_str(&text_of(
            "grafana/wg-edge.json",
        )?)?))
    }

    fn panels(&self) -> Result<&Vec<Value>> {
        let panels = self.0.get("panels").and_then(Value::as_array);
        panels.context("no panels")
    }

    /// Every query of panels and annotations, with the dashboard's variables filled in as for all gateways.
    pub(super) fn expressions(&self) -> Result<Vec<String>> {
        let panels = self.panels()?.iter().map(|panel| panel.get("targets"));
        let annotations = self.0.pointer("/annotations/list");
        let asking = panels.chain([annotations]).flatten();
        let asking = asking.filter_map(Value::as_array).flatten();
        let filled = asking.map(|asking| {
            let expression = asking.get("expr").and_then(Value::as_str);
            Ok(expression
                .with_context(|| format!("no expr: {asking}"))?
                .replace("$__rate_interval", "10s")
                .replace("$__range", "1h")
                .replace("$instance", ".*"))
        });
        let filled: Vec<String> = filled.collect::<Result<_>>()?;
        ensure!(
            filled.iter().all(|expression| !expression.contains('$')),
            "a variable that the dashboard does not have: {filled:?}"
        );
        Ok(filled)
    }
}

#[test]
fn panels_are_of_known_kinds_and_do_not_overlap() {
    let dashboard = Dashboard::read().unwrap();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in dashboard.panels().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty());
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "id of {title}");
        let kind = panel["type"].as_str().unwrap();
        assert!(PANELS.contains(&kind), "{title} is a {kind}");
        let size = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        let (x, y, w, h) = (size("x"), size("y"), size("w"), size("h"));
        assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{title}");
        for column in x..x + w {
            for line in y..y + h {
                assert!(cells.insert((column, line)), "{title} overlaps another");
            }
        }
    }
}

#[test]
fn every_panel_asks_the_data_source_that_the_reader_chose() {
    let dashboard = Dashboard::read().unwrap();
    let chosen = serde_json::json!({"type": "prometheus", "uid": "${datasource}"});
    let mut panels = 0;
    for panel in dashboard.panels().unwrap() {
        if panel["type"] == "row" {
            continue;
        }
        panels += 1;
        assert_eq!(panel["datasource"], chosen, "{panel}");
        assert!(!panel["description"].as_str().unwrap().is_empty());
        assert!(panel["fieldConfig"]["defaults"].is_object(), "{panel}");
        assert!(panel["fieldConfig"]["overrides"].is_array(), "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty());
        let mut names = BTreeSet::new();
        for target in targets {
            assert_eq!(target["datasource"], chosen, "{target}");
            assert!(names.insert(target["refId"].as_str().unwrap()));
            assert_ne!(target["instant"], target["range"], "{target}");
        }
    }
    assert!(panels >= 15);
    let variables = dashboard.0["templating"]["list"].as_array().unwrap();
    let named: Vec<_> = variables.iter().map(|v| &v["name"]).collect();
    assert_eq!(named, ["datasource", "instance"]);
    assert_eq!(variables[0]["type"], "datasource");
    assert_eq!(variables[1]["datasource"], chosen);
}

#[test]
fn the_dashboard_can_be_imported() {
    let Value::Object(model) = Dashboard::read().unwrap().0 else {
        panic!("no JSON object");
    };
    assert!(model["schemaVersion"].as_u64().unwrap() >= 38);
    assert!(!model["uid"].as_str().unwrap().is_empty());
    assert!(!model["title"].as_str().unwrap().is_empty());
    // Grafana numbers dashboards itself; an id of another instance would take the place of one of its own.
    assert!(!model.contains_key("id"));
    // What an export for sharing asks for at import; ours needs nothing but a data source to choose.
    assert!(!model.contains_key("__inputs"));
}
