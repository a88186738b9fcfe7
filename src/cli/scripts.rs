//! `stockhold scripts`: what ops do with the scripts on a deploy.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::print;
use super::runtime;
use super::target::Target;
use crate::redis::Redis;
use crate::scripts::{Catalogue, ReplyWord, Script, Scripts, State};

#[derive(Debug, Args)]
pub(super) struct ScriptsArgs {
    #[command(subcommand)]
    command: Option<ScriptsCommand>,
}

#[derive(Debug, Subcommand)]
enum ScriptsCommand {
    /// Print name, SHA-1, keys, arguments and purpose of each script (the default)
    List {
        /// As JSON, with every slot and reply
        #[arg(long)]
        json: bool,
    },
    /// Load the scripts into Redis and its replicas and publish their SHA-1s; says what was new
    Load(Target),
    /// Check that Redis and its replicas have the scripts and that the published SHA-1s are theirs; exit status 1 if not
    Verify(Target),
    /// Write the scripts, SHA1SUMS and manifest.json into a folder
    Export {
        /// Created if it is missing
        folder: PathBuf,
    },
}

/// A Redis, or all primaries of a cluster, and what is there of the scripts.
struct Primary {
    scripts: Scripts,
    states: Vec<State>,
}

/// A replica, and what it lacks.
struct Replica {
    address: String,
    scripts: Scripts,
    missing: Vec<Script>,
}

impl Replica {
    async fn look(redis: Redis) -> anyhow::Result<Self> {
        let address = redis.address();
        let scripts = Scripts::new(Catalogue::embedded(), redis);
        let missing = scripts.missing().await.with_context(|| format!("cannot look at the replica {address}"))?;
        let missing = missing.into_iter().cloned().collect();
        Ok(Self { address, scripts, missing })
    }
}

/// The Redis that was named, and its replicas.
async fn nodes(target: &Target) -> anyhow::Result<(Primary, Vec<Replica>)> {
    let redis = target.redis()?;
    let scripts = Scripts::new(Catalogue::embedded(), redis.clone());
    let states = scripts.state().await.with_context(|| format!("cannot look at the Redis at {}", redis.address()))?;
    let mut replicas = Vec::new();
    for replica in redis.replicas().await.context("cannot ask for the replicas")? {
        replicas.push(Replica::look(replica).await?);
    }
    Ok((Primary { scripts, states }, replicas))
}

pub(super) fn run(args: ScriptsArgs) -> anyhow::Result<ExitCode> {
    match args.command.unwrap_or(ScriptsCommand::List { json: false }) {
        ScriptsCommand::List { json: false } => list()?,
        ScriptsCommand::List { json: true } => print(format_args!("{:#}", manifest(&Catalogue::embedded())))?,
        ScriptsCommand::Load(target) => runtime()?.block_on(load(&target))?,
        ScriptsCommand::Verify(target) => return runtime()?.block_on(verify(&target)),
        ScriptsCommand::Export { folder } => export(&folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<()> {
    print(format_args!("{:<10} {:<40}  {:<52} {:<39} PURPOSE", "NAME", "SHA-1", "KEYS", "ARGV"))?;
    for script in Catalogue::embedded().iter() {
        let keys = summary(script.contract.keys.iter().map(|slot| (slot.slot, slot.name)));
        let arguments = summary(script.contract.arguments.iter().map(|slot| (slot.slot, slot.name)));
        let Script { name, sha1, contract, previous, .. } = script;
        let mark = if *previous { "(previous) " } else { "" };
        print(format_args!("{name:<10} {sha1}  {keys:<52} {arguments:<39} {mark}{}", contract.purpose))?;
    }
    Ok(())
}

/// `audit due (inventory active reservation)+`
fn summary<'a>(slots: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let (of_each, fixed): (Vec<_>, Vec<_>) = slots.partition(|(slot, _)| slot.contains('i'));
    let fixed =
        fixed.into_iter().map(|(slot, name)| if slot.ends_with("...") { format!("{name}...") } else { name.into() });
    let names: Vec<_> = of_each.into_iter().map(|(_, name)| name).collect();
    let of_each = (!names.is_empty()).then(|| format!("({})+", names.join(" ")));
    fixed.chain(of_each).collect::<Vec<_>>().join(" ")
}

async fn load(target: &Target) -> anyhow::Result<()> {
    let (primary, replicas) = nodes(target).await?;
    primary.scripts.load().await?;
    for state in &primary.states {
        let loaded = if state.loaded { "was loaded" } else { "loaded" };
        let published = match &state.published {
            _ if state.previous => "previous version".to_owned(),
            Some(sha1) if *sha1 == state.sha1 => "was published".to_owned(),
            Some(sha1) => format!("published, in place of {sha1}"),
            None => "published".to_owned(),
        };
        print(format_args!("{:<10} {}  {loaded}, {published}", state.name, state.sha1))?;
    }
    for Replica { address, scripts, missing } in replicas {
        scripts.cache().await.with_context(|| format!("cannot load into the replica {address}"))?;
        let all = primary.states.len();
        print(format_args!("replica {address}: {} of {all} loaded, the others were", missing.len()))?;
    }
    Ok(())
}

async fn verify(target: &Target) -> anyhow::Result<ExitCode> {
    let mut defects = Vec::new();
    let mut complain = |name: &str, what: String| defects.push(format!("{name:<10} {what}"));
    let (primary, replicas) = nodes(target).await?;
    for state in &primary.states {
        if !state.loaded {
            complain(state.name, format!("is not loaded: Redis does not know {}", state.sha1));
        }
        match &state.published {
            _ if state.previous => {}
            Some(sha1) if *sha1 == state.sha1 => {}
            Some(sha1) => complain(state.name, format!("is published as {sha1}, but is {}", state.sha1)),
            None => complain(state.name, "is not published".to_owned()),
        }
    }
    for Replica { address, missing, .. } in &replicas {
        for script in missing {
            complain(script.name, format!("is missing on the replica {address}: it does not know {}", script.sha1));
        }
    }
    if defects.is_empty() {
        print(format_args!("{} scripts are loaded and published", primary.states.len()))?;
        return Ok(ExitCode::SUCCESS);
    }
    defects.iter().try_for_each(print)?;
    print("stockhold scripts load repairs this")?;
    Ok(ExitCode::FAILURE)
}

fn export(folder: &Path) -> anyhow::Result<()> {
    let catalogue = Catalogue::embedded();
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut sums = String::new();
    for script in catalogue.current() {
        write(&format!("{}.lua", script.name), script.source)?;
        sums += &format!("{}  {}.lua\n", script.sha1, script.name);
    }
    write("SHA1SUMS", &sums)?;
    write("manifest.json", &format!("{:#}\n", manifest(&catalogue)))
}

/// The contract of every script as data, read from the headers.
fn manifest(catalogue: &Catalogue) -> Value {
    let replies = |replies: &[ReplyWord]| -> Vec<Value> {
        let one = |reply: &ReplyWord| json!({ "word": reply.word, "fields": reply.fields, "meaning": reply.meaning });
        replies.iter().map(one).collect()
    };
    let script = |script: &Script| {
        let contract = &script.contract;
        let keys = contract
            .keys
            .iter()
            .map(|key| json!({ "slot": key.slot, "name": key.name, "type": key.kind, "shape": key.shape }));
        let arguments =
            contract.arguments.iter().map(|slot| json!({ "slot": slot.slot, "name": slot.name, "rule": slot.rule }));
        json!({
            "name": script.name,
            "file": format!("{}.lua", script.name),
            "sha1": script.sha1,
            "purpose": contract.purpose,
            "flags": contract.flags,
            "keys": keys.collect::<Vec<_>>(),
            "arguments": arguments.collect::<Vec<_>>(),
            "replies": replies(&contract.replies),
            "errors": replies(&contract.errors),
        })
    };
    json!({ "version": env!("CARGO_PKG_VERSION"), "scripts": catalogue.current().map(script).collect::<Vec<_>>() })
}
