//! `stockhold check`: whether the stock is as the scripts left it, and mending it.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::output::{complain, print};
use super::runtime;
use super::target::Target;
use crate::engine::{Census, Checked, Damage, Engine, Finding, Thoroughness};
use crate::keys::{self, Sku};
use crate::redis::Redis;
use crate::sweeper;

/// Beyond the interval of the sweeper: what a sweep may take.
const SWEEP_GRACE_MS: u64 = 1000;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// SKUs to check; without any, all, and no reservation is missed
    skus: Vec<String>,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// Tell what could be mended; mends nothing without --apply
    #[arg(long)]
    repair: bool,

    /// Mend it; every change is told in the audit
    #[arg(long, requires = "repair")]
    apply: bool,

    /// Newest events of each SKU that are replayed, at most
    #[arg(long, default_value_t = 10_000, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    events: u64,

    /// As of the servers that sweep
    #[arg(long, env = "STOCKHOLD_SWEEP_INTERVAL_MS", default_value_t = sweeper::DEFAULT_INTERVAL.as_millis() as u64, value_name = "MILLISECONDS")]
    sweep_interval_ms: u64,

    #[command(flatten)]
    target: Target,
}

/// What was found, over all SKUs.
#[derive(Default)]
struct Report {
    skus: u64,
    events: usize,
    reservations: usize,
    lines: Vec<Line>,
}

struct Line {
    sku: String,
    finding: Finding,
    fate: &'static str,
}

/// Exit status 0 when all is well, or mended; 1 when something is left; 2 when it could not be found out.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    find_out(args).unwrap_or_else(|error| {
        complain(format_args!("cannot check: {error:#}"));
        ExitCode::from(2)
    })
}

fn find_out(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let report = runtime()?.block_on(check_target(args))?;
    if args.json {
        print(format_args!("{:#}", report.json()))?;
    } else {
        report.print()?;
    }
    Ok(ExitCode::from(u8::from(report.lines.iter().any(|line| line.fate != MENDED))))
}

const MENDED: &str = "mended";

async fn check_target(args: &CheckArgs) -> anyhow::Result<Report> {
    let redis = args.target.redis()?;
    let address = redis.address();
    check(args, redis).await.with_context(|| format!("the Redis at {address}"))
}

async fn check(args: &CheckArgs, redis: Redis) -> anyhow::Result<Report> {
    let published = redis.hash(keys::SCRIPTS).await?.fields;
    let engine = Engine::new(redis);
    let how = Thoroughness {
        events: usize::try_from(args.events)?,
        overdue_ms: args.sweep_interval_ms.saturating_add(SWEEP_GRACE_MS),
    };
    let mut census = Census::new();
    if args.skus.is_empty() || published.is_empty() {
        census = engine.census().await?;
        // The wrong database looks like one in which all is well.
        ensure!(
            !census.is_empty() || !published.is_empty(),
            "there is nothing of stockhold, no stock and no scripts: is it the right one?"
        );
    }
    if !args.skus.is_empty() {
        census = args.skus.iter().map(|sku| (sku.clone(), Vec::new())).collect();
    }
    let mut report = Report::default();
    for (name, suspects) in &census {
        report.skus += 1;
        let Ok(sku) = Sku::parse(name) else {
            let finding = Finding {
                damage: Damage::Unreadable,
                reservation: String::new(),
                what: "no SKU has such a name".into(),
            };
            report.lines.push(Line { sku: name.clone(), finding, fate: "" });
            continue;
        };
        let checked = engine.check(&sku, suspects, how).await?;
        report.events += checked.events;
        report.reservations += checked.reservations;
        if args.apply {
            let before = checked.findings.clone();
            let mended = engine.mend(checked, suspects, how).await?;
            report.add_mended(before, &mended.checked, mended.left);
        } else {
            report.add(&checked, args.repair);
        }
    }
    Ok(report)
}

impl Report {
    fn add(&mut self, checked: &Checked, tells_fate: bool) {
        for finding in checked.findings.iter().cloned() {
            let fate = match (tells_fate, finding.damage.is_mendable()) {
                (false, _) => "",
                (true, true) => "can be mended",
                (true, false) => "cannot be mended",
            };
            self.lines.push(Line { sku: checked.sku.to_string(), finding, fate });
        }
    }

    /// What was found at first and is gone was mended; what is there now is left.
    fn add_mended(&mut self, before: Vec<Finding>, after: &Checked, left: Option<String>) {
        let sku = after.sku.to_string();
        let gone = before.into_iter().filter(|finding| !after.findings.contains(finding));
        self.lines.extend(gone.map(|finding| Line { sku: sku.clone(), finding, fate: MENDED }));
        for mut finding in after.findings.iter().cloned() {
            if let Some(why) = left.as_ref().filter(|_| finding.damage.is_mendable()) {
                finding.what += &format!("; left, for {why}");
            }
            self.lines.push(Line { sku: sku.clone(), finding, fate: "not mended" });
        }
    }

    fn print(&self) -> io::Result<()> {
        let mut parts: BTreeMap<&str, usize> = BTreeMap::new();
        for Line { sku, finding: Finding { damage, reservation, what }, fate } in &self.lines {
            let about = if reservation.is_empty() { String::new() } else { format!("reservation {reservation}: ") };
            let fate_shown = if fate.is_empty() { String::new() } else { format!(" [{fate}]") };
            print(format_args!("{sku:<20} {damage:<10} {about}{what}{fate_shown}"))?;
            *parts.entry(fate).or_default() += 1;
        }
        let Self { skus, events, reservations, lines } = self;
        let fates = parts.iter().filter(|(fate, _)| !fate.is_empty()).map(|(fate, count)| format!(", {count} {fate}"));
        let found = if lines.is_empty() { "all is well".to_owned() } else { format!("{} findings", lines.len()) };
        let fates: String = fates.collect();
        print(format_args!("{skus} SKUs, {events} events, {reservations} reservations: {found}{fates}"))
    }

    fn json(&self) -> Value {
        let line = |Line { sku, finding, fate }: &Line| {
            json!({
                "sku": sku,
                "damage": finding.damage.to_string(),
                "reservationId": finding.reservation,
                "what": finding.what,
                "mendable": finding.damage.is_mendable(),
                "mended": *fate == MENDED,
            })
        };
        json!({
            "skus": self.skus,
            "events": self.events,
            "reservations": self.reservations,
            "findings": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }
}
