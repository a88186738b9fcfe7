//! What was found: rows that compare, each with its target if there is one, and the figures behind them.

mod files;
mod machine;

use serde_json::{Value, json};

use crate::measure::{Series, Slice};
use crate::plot::Curve;

pub use files::{Folder, write_into_document};

#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    measured: Vec<(&'static str, Series)>,
    pub curves: Option<[Curve; 2]>,
    notes: Vec<String>,
}

/// One comparison, or one figure.
#[derive(Debug)]
pub struct Row {
    scenario: &'static str,
    what: String,
    value: Figure,
    against: Option<Figure>,
    ratio: Option<f64>,
    /// Lowest and highest of the rounds: of the ratio, or of the value if there is no ratio.
    spread: Option<(f64, f64)>,
    target: Option<Target>,
}

/// A number, its unit, and whose it is.
#[derive(Debug)]
pub struct Figure {
    name: String,
    value: f64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy)]
pub enum Unit {
    PerSecond,
    Seconds,
    Milliseconds,
    Microseconds,
    Bytes,
    Count,
}

#[derive(Debug, Clone, Copy)]
pub enum Target {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtMost(f64),
    /// In every round.
    Exactly(f64),
}

impl Report {
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn measured<const N: usize>(&mut self, scenario: &'static str, series: [Series; N]) {
        self.measured.extend(series.map(|series| (scenario, series)));
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The tables in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| scenario | what | value | against | ratio | spread | target | met |\n|---|---|---|---|---|---|---|---|\n",
        );
        text.extend(self.rows.iter().map(Row::markdown));
        if !self.measured.is_empty() {
            text += "\nAll slices of each side together; latencies are those of accepted operations:\n\n\
                     | scenario | side | accepted/s | accepted | sold out | contention | failed | p50 | p99 | p99.9 \
                     | database CPU per accepted |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
            text.extend(self.measured.iter().map(|(scenario, series)| measured_markdown(scenario, series)));
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text
    }

    pub fn to_json(&self) -> Value {
        json!({
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "series": self.measured.iter().map(|(scenario, series)| series_json(scenario, series)).collect::<Vec<_>>(),
            "curves": self.curves.as_ref().map(|curves| curves.iter().map(Curve::to_json).collect::<Vec<_>>()),
            "notes": self.notes,
        })
    }
}

impl Row {
    pub fn of(scenario: &'static str, what: impl Into<String>, value: Figure) -> Self {
        Self { scenario, what: what.into(), value, against: None, ratio: None, spread: None, target: None }
    }

    /// Sets `metric` of one side in relation to that of another: of all slices together, and round by round.
    pub fn compare(
        scenario: &'static str,
        what: impl Into<String>,
        unit: Unit,
        metric: impl Fn(&Slice) -> f64,
        side: &Series,
        other: &Series,
    ) -> Self {
        let [value, against] = [side, other].map(|series| Figure::new(&series.name, metric(&series.total()), unit));
        let ratio = value.value / against.value;
        let rounds = side.slices.iter().zip(&other.slices).map(|(slice, other)| metric(slice) / metric(other));
        Self::of(scenario, what, value).against(against).ratio(ratio).spread(rounds)
    }

    /// Names for both sides that are shorter than those of the series.
    pub fn named(mut self, [value, against]: [String; 2]) -> Self {
        self.value.name = value;
        if let Some(figure) = &mut self.against {
            figure.name = against;
        }
        self
    }

    pub fn against(self, figure: Figure) -> Self {
        Self { against: Some(figure), ..self }
    }

    pub fn ratio(self, ratio: f64) -> Self {
        Self { ratio: Some(ratio), ..self }
    }

    pub fn spread(self, rounds: impl Iterator<Item = f64>) -> Self {
        let (low, high) =
            rounds.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
        Self { spread: Some((low, high)), ..self }
    }

    pub fn target(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    fn is_met(&self) -> Option<bool> {
        let ratio = self.ratio.unwrap_or(f64::NAN);
        Some(match self.target? {
            Target::RatioAtLeast(least) => ratio >= least,
            Target::RatioAtMost(most) => ratio <= most,
            Target::AtMost(most) => self.value.value <= most,
            Target::Exactly(value) => {
                let (low, high) = self.spread.unwrap_or((self.value.value, self.value.value));
                low == value && high == value
            }
        })
    }

    fn markdown(&self) -> String {
        let cell = |text: Option<String>| text.unwrap_or_default();
        let range = self.spread.map(|(low, high)| format!("{}..{}", significant(low), significant(high)));
        let target = self.target.map(|target| match target {
            Target::RatioAtLeast(value) => format!("≥ {value}"),
            Target::RatioAtMost(value) => format!("≤ {value}"),
            Target::AtMost(value) => format!("≤ {}", self.value.unit.show(value)),
            Target::Exactly(value) => format!("= {}", self.value.unit.show(value)),
        });
        let met = self.is_met().map(|met| if met { "yes" } else { "**no**" }.to_owned());
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.scenario,
            self.what,
            self.value.show(),
            cell(self.against.as_ref().map(Figure::show)),
            cell(self.ratio.map(significant)),
            cell(range),
            cell(target),
            cell(met),
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "what": self.what,
            "value": self.value.to_json(),
            "against": self.against.as_ref().map(Figure::to_json),
            "ratio": self.ratio,
            "spread": self.spread.map(|(low, high)| [low, high]),
            "target": self.target.map(|target| format!("{target:?}")),
            "met": self.is_met(),
        })
    }
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, unit: Unit) -> Self {
        Self { name: name.into(), value, unit }
    }

    fn show(&self) -> String {
        format!("{}: {}", self.name, self.unit.show(self.value))
    }

    fn to_json(&self) -> Value {
        json!({ "name": self.name, "value": self.value, "unit": format!("{:?}", self.unit) })
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        let number = significant(value);
        match self {
            Self::PerSecond => format!("{number}/s"),
            Self::Seconds => format!("{number} s"),
            Self::Milliseconds => format!("{number} ms"),
            Self::Microseconds => format!("{number} µs"),
            Self::Bytes => format!("{number} bytes"),
            Self::Count => number,
        }
    }
}

fn measured_markdown(scenario: &str, series: &Series) -> String {
    let total = series.total();
    let tally = &total.tally;
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| Unit::Milliseconds.show(tally.latency_ms(quantile)));
    let [accepted, sold_out, contention, failed] =
        [tally.accepted, tally.sold_out, tally.contention, tally.failed].map(|count| significant(count as f64));
    format!(
        "| {scenario} | {} | {} | {accepted} | {sold_out} | {contention} | {failed} | {p50} | {p99} | {p999} | {} |\n",
        series.name,
        significant(tally.rate()),
        Unit::Microseconds.show(total.cpu_us()),
    )
}

fn series_json(scenario: &str, series: &Series) -> Value {
    let slice = |slice: &Slice| {
        let tally = &slice.tally;
        json!({
            "seconds": tally.elapsed.as_secs_f64(),
            "accepted": tally.accepted,
            "soldOut": tally.sold_out,
            "contention": tally.contention,
            "failed": tally.failed,
            "p50Ms": tally.latency_ms(0.5),
            "p99Ms": tally.latency_ms(0.99),
            "p999Ms": tally.latency_ms(0.999),
            "databaseCpuUs": slice.cpu_us(),
        })
    };
    let slices: Vec<_> = series.slices.iter().map(slice).collect();
    json!({ "scenario": scenario, "side": series.name, "total": slice(&series.total()), "slices": slices })
}

/// Three significant digits; whole numbers, with their thousands marked, from 100 on.
fn significant(value: f64) -> String {
    let whole = value.round();
    if value.fract() == 0.0 && value.abs() < 100.0 {
        return format!("{whole}");
    }
    match value.abs() {
        magnitude if !magnitude.is_finite() => "∞".to_owned(),
        ..1.0 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => grouped(whole as usize),
    }
}

/// A whole number with its thousands marked.
pub fn grouped(whole: usize) -> String {
    let digits = whole.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}
