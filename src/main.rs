//! The `entrepot` command: flags → configuration → log → mirror, until a signal ends it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use entrepot::cache::{ImportRule, PruneRule};
use entrepot::cli::health::{self, HealthError};
use entrepot::cli::hosts::{self, Client, Hosts};
use entrepot::cli::node::{self, Finding, Node, NodeError};
use entrepot::cli::probe::Probe;
use entrepot::cli::{Hangup, Signals, logging, upkeep};
use entrepot::clock::Clock;
use entrepot::config::{
    self, Arguments, Command, Config, Files, HostsClient, LogFormat, NodeAction, NodePlace, Reading,
};
use entrepot::server;
use entrepot::storage::Audience;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bad usage or configuration: `EX_USAGE` of sysexits(3).
const BAD_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments.at_place(),
        Err(usage) => {
            // Help and version come this way too. Where they cannot be printed, nobody is left to tell.
            let _ = usage.print();
            return ExitCode::from(if usage.use_stderr() { BAD_USAGE } else { 0 });
        }
    };
    match &arguments.command {
        Some(Command::Hold { time }) => return told(hold(time.map(Into::into))),
        Some(Command::Health {
            mirror: Some(url),
            pull,
        }) => {
            let probe = Probe::of_url(url).map_err(HealthError::from);
            return told(probe.and_then(|probe| health_of(&probe, pull.as_deref())));
        }
        Some(Command::Node { action }) => return on_node(action),
        // Which mirror, and which cache, the configuration says.
        None
        | Some(
            Command::Health { mirror: None, .. }
            | Command::Hosts { .. }
            | Command::Scrub { .. }
            | Command::Usage { .. }
            | Command::Prune { .. }
            | Command::Import { .. },
        ) => {}
    }
    let Reading { config, files } = Config::read(&arguments, &config::environment);
    let config = match config {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("entrepot: {problems}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    if let Some(Command::Hosts {
        client,
        mirror,
        registry,
    }) = &arguments.command
    {
        return told(print_hosts(&config, *client, mirror.as_deref(), registry));
    }
    if let Some(Command::Health { pull, .. }) = &arguments.command {
        let probes = config
            .listen
            .first()
            .map(|listener| Probe::of_listener(listener.address));
        return told(probes.map_or(Ok(()), |probe| health_of(&probe, pull.as_deref())));
    }
    let filter = config.log.filter.clone();
    // Until the end: the last lines are written then.
    let _log = match config.log.format {
        LogFormat::Text => logging::start_text(filter),
        LogFormat::Json => logging::start_json(filter),
    };
    for warning in &config.warnings {
        warn!("{warning}");
    }
    if arguments.check_config {
        return ExitCode::SUCCESS;
    }
    if let Some(command) = &arguments.command {
        return on_cache(command, &config).unwrap_or_else(|mistake| {
            eprintln!("entrepot: {mistake}");
            ExitCode::from(BAD_USAGE)
        });
    }
    match run(config, arguments, files) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of a command that ended with `outcome`, once its failure is told.
fn told<E: std::fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("entrepot: {failure:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what `command` says to the cache that is configured.
///
/// # Errors
/// What one of its flags should be.
fn on_cache(command: &Command, config: &Config) -> Result<ExitCode, String> {
    let (directory, access) = (&config.cache_directory, config.cache_access);
    Ok(match command {
        Command::Scrub { rate, .. } => {
            let rate = size("--rate", rate.as_deref())?;
            found(upkeep::scrub(directory, access, rate))
        }
        Command::Usage { .. } => told(upkeep::usage(directory, access)),
        Command::Prune {
            unused_for,
            namespace,
            repository,
            to,
            dry_run,
            ..
        } => {
            let rule = PruneRule {
                unused_for: unused_for.map(Into::into),
                namespaces: parsed("--namespace", namespace)?,
                repositories: parsed("--repository", repository)?,
                to_bytes: size("--to", to.as_deref())?,
            };
            found(upkeep::prune(directory, access, &rule, *dry_run))
        }
        Command::Import {
            source,
            namespace,
            repository,
            private,
            ..
        } => {
            let rule = ImportRule {
                namespace: parsed("--namespace", namespace.as_slice())?.pop(),
                repository: parsed("--repository", repository.as_slice())?.pop(),
                audience: if *private {
                    Audience::Entitled
                } else {
                    Audience::Everybody
                },
            };
            let budget = config.budget;
            found(upkeep::import(directory, access, budget, source, &rule))
        }
        // They are done by now.
        Command::Health { .. }
        | Command::Hold { .. }
        | Command::Hosts { .. }
        | Command::Node { .. } => ExitCode::SUCCESS,
    })
}

/// What the values of a flag say, or which of them says nothing.
fn parsed<T: FromStr<Err: std::fmt::Display>>(
    flag: &str,
    values: &[String],
) -> Result<Vec<T>, String> {
    let parse = |value: &String| {
        let rule = |error| format!("{flag} {value:?}: {error}");
        value.parse().map_err(rule)
    };
    values.iter().map(parse).collect()
}

/// What a flag says of a size, if it is there.
fn size(flag: &str, value: Option<&str>) -> Result<Option<u64>, String> {
    let rule = |error| format!("{flag} {:?}: {error}", value.unwrap_or_default());
    value.map(upkeep::bytes_of).transpose().map_err(rule)
}

/// The exit code of a command that looks whether all is well.
fn found<E: std::fmt::Display>(outcome: Result<bool, E>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => told(Err(failure)),
    }
}

/// Asks the mirror whether it is ready and, if wanted, for an image.
fn health_of(mirror: &Probe, image: Option<&str>) -> Result<(), HealthError> {
    health::ready(mirror)?;
    if let Some(image) = image {
        let pulled = health::pull(mirror, image)?;
        eprintln!(
            "{image}: {} objects, {} bytes, every one of them right",
            pulled.objects, pulled.bytes
        );
    }
    Ok(())
}

/// Prints what `client`, or each, has to be told; what is to be done beside that goes to standard error.
fn print_hosts(
    config: &Config,
    client: Option<HostsClient>,
    mirror: Option<&str>,
    registries: &[String],
) -> anyhow::Result<()> {
    let listeners: Vec<_> = config
        .listen
        .iter()
        .map(|listen| hosts::Listener {
            address: listen.address,
            is_encrypted: listen.tls.is_some(),
        })
        .collect();
    let hosts = Hosts::of(
        &listeners,
        &config.ways,
        &config.upstream,
        mirror,
        registries,
    )?;
    let mut printed = hosts::Printed::default();
    match client.map(client_of) {
        Some(client) => printed.add(hosts.files(client)?, hosts.notes(client)),
        None => {
            for client in Client::ALL {
                match hosts.files(client) {
                    Ok(files) => printed.add(files, hosts.notes(client)),
                    Err(cannot) => printed.add(Vec::new(), vec![cannot.to_string()]),
                }
            }
        }
    }
    for note in &printed.notes() {
        eprintln!("{note}");
    }
    // Standard output may be a file on a full disk.
    std::io::stdout()
        .write_all(printed.text().as_bytes())
        .context("cannot print")
}

/// The client that `named` is.
fn client_of(named: HostsClient) -> Client {
    match named {
        HostsClient::Containerd => Client::Containerd,
        HostsClient::Docker => Client::Docker,
        HostsClient::Podman => Client::Podman,
        HostsClient::K3s => Client::K3s,
        HostsClient::Buildkit => Client::Buildkit,
    }
}

/// Does `action`, and tells what came of it.
fn on_node(action: &NodeAction) -> ExitCode {
    let outcome = match action {
        NodeAction::Install {
            place,
            mirror,
            registry,
            dry_run,
        } => install(place, mirror, registry, *dry_run),
        NodeAction::Verify {
            place,
            mirror,
            listen: Some(address),
            ..
        } => watch(place, mirror, *address),
        NodeAction::Verify {
            place,
            mirror,
            pull,
            listen: None,
        } => verify(place, mirror, pull.as_deref()),
        NodeAction::Remove { place, dry_run } => remove(place, *dry_run),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => told(Err(failure)),
    }
}

/// Names the mirror on a node, and warns where that is not enough.
fn install(
    place: &NodePlace,
    mirror: &str,
    registries: &[String],
    dry: bool,
) -> anyhow::Result<ExitCode> {
    let mirror = node::Mirror::at(mirror)?;
    let node = node_at(place)?;
    tell_changes(&node.install(&mirror, registries, dry)?, dry);
    eprintln!("{}", node.runtime(&mirror));
    Ok(ExitCode::SUCCESS)
}

/// Tells whether a node uses the mirror and, if wanted, whether `image` comes the way that its configuration takes.
fn verify(place: &NodePlace, mirror: &str, image: Option<&str>) -> anyhow::Result<ExitCode> {
    let node = node_at(place)?;
    let findings = node.verify(&node::Mirror::at(mirror)?)?;
    tell_findings(&findings);
    if let Some(image) = image {
        let registry = health::registry_of(image);
        let first = node.asks_first(registry)?;
        let url = first.with_context(|| format!("no mirror is asked for {registry}"))?;
        health_of(
            &Probe::of_url(&url).map_err(HealthError::from)?,
            Some(image),
        )?;
    }
    let is_problem = |finding: &Finding| matches!(finding, Finding::Problem(_));
    Ok(ExitCode::from(u8::from(findings.iter().any(is_problem))))
}

/// Tells Prometheus whether a node uses the mirror, until a signal comes.
fn watch(place: &NodePlace, mirror: &str, address: SocketAddr) -> anyhow::Result<ExitCode> {
    let node = node_at(place)?;
    let mirror = node::Mirror::at(mirror)?;
    single_threaded()?.block_on(async {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let socket = server::bind(address)?;
        let listener = server::Listener { socket, tls: None };
        let asked = async {
            let _ = signals.next().await;
        };
        node::watch(&node, &mirror, listener, tell_findings, asked).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn tell_findings(findings: &[Finding]) {
    for finding in findings {
        eprintln!("{finding}");
    }
}

/// Puts back what was on a node.
fn remove(place: &NodePlace, dry: bool) -> anyhow::Result<ExitCode> {
    tell_changes(&node_at(place)?.remove(dry)?, dry);
    Ok(ExitCode::SUCCESS)
}

fn node_at(place: &NodePlace) -> Result<Node, NodeError> {
    Node::at(
        place.root.clone(),
        place.certs_dir.clone(),
        place.config_dir.clone(),
    )
}

fn tell_changes(changes: &[String], dry: bool) {
    if changes.is_empty() {
        eprintln!("nothing to change");
    }
    for change in changes {
        eprintln!("{}{change}", if dry { "would " } else { "" });
    }
}

/// Waits for a signal, or until `time` is over.
fn hold(time: Option<Duration>) -> anyhow::Result<()> {
    single_threaded()?.block_on(async {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        // No signal within the time is as good an end as one.
        match time {
            Some(time) => drop(tokio::time::timeout(time, signals.next()).await),
            None => drop(signals.next().await),
        }
        Ok(())
    })
}

/// A runtime for what has little to do.
fn single_threaded() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Runs the mirror until a signal ends it, and keeps it up with its configuration meanwhile.
fn run(config: Config, arguments: Arguments, files: Files) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let hangup = Hangup::listen().context("cannot listen for signals")?;
        let mirror = entrepot::start(config, Clock::system()).await?;
        for address in mirror.addresses() {
            info!(%address, "listening");
        }
        let (ask, asked) = oneshot::channel::<()>();
        let keeping_up = mirror.reload().keep_up(arguments, files, hangup);
        // A sender that is gone asks just as well as a message.
        let running = mirror.run(async { drop(asked.await) });
        let asking = async {
            let signal = signals.next().await;
            info!(signal, "draining; a second signal ends at once");
            drop(ask);
            signals.next().await
        };
        tokio::select! {
            drained = running => info!(?drained, "ended"),
            never = keeping_up => match never {},
            signal = asking => anyhow::bail!("ended at once, by a second signal ({signal})"),
        }
        Ok(())
    });
    // Nothing is waited for that outlived the drain, such as a read from a disk that does not answer.
    runtime.shutdown_background();
    outcome
}
