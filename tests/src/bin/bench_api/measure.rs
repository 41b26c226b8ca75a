//! Figures, and what they come to over all rounds.
use std::fmt::Write as _;

/// Everything that was measured, in the order in which it came first.
#[derive(Default)]
pub(crate) struct Samples {
    rows: Vec<Row>,
}

struct Row {
    title: String,
    unit: &'static str,
    target: Option<&'static str>,
    values: Vec<f64>,
}

impl Samples {
    /// One figure of a round.
    pub(crate) fn note(&mut self, title: &str, unit: &'static str, value: f64) {
        match self.rows.iter_mut().find(|row| row.title == title) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row {
                title: title.to_owned(),
                unit,
                target: None,
                values: vec![value],
            }),
        }
    }

    /// What a figure should come to.
    pub(crate) fn aim(&mut self, title: &str, target: &'static str) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.title == title) {
            row.target = Some(target);
        }
    }

    /// A table in Markdown: median, least and most of the rounds.
    pub(crate) fn table(&self) -> String {
        let mut table = "| what | median | least – most | target |\n|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let (median, least, most) = (
                quantile(&row.values, 50),
                quantile(&row.values, 0),
                quantile(&row.values, 100),
            );
            let (unit, target) = (row.unit, row.target.unwrap_or(""));
            let digits = usize::from(most < 1000.0);
            let _ = writeln!(
                table,
                "| {} | {median:.digits$} {unit} | {least:.digits$} – {most:.digits$} | {target} |",
                row.title
            );
        }
        table
    }
}

/// The value that `percent` of the values do not exceed; 50 is the median, 100 the largest.
pub(crate) fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
