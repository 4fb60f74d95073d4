//! The commands that look after a cache directory, beside a running mirror or without one. What they find out and what
//! they change is done by [`cache`]; here it is told.

use std::io;
use std::path::Path;

use crate::cache::{
    self, Budget, ImportError, ImportRule, Imported, Inventory, PruneRule, Scrubbed,
};
use crate::clock::Clock;
use crate::storage::{self, Access, Local, OpenError};

mod size;
pub use size::{SizeError, bytes_of, in_words};

mod usage;

/// Why a command that looks after a directory came to no end.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The directory fails.
    #[error("{0}: {cause}", cause = .0.cause)]
    Storage(#[from] storage::Error),
    /// The source of an import cannot be taken in.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It was not said what is to go.
    #[error(
        "say what is to go: --unused-for, --namespace, --repository or --to; what fits all that is said goes"
    )]
    NothingToPrune,
    /// The runtime cannot be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    /// What was found out cannot be told.
    #[error("cannot write the result: {0}")]
    Output(io::Error),
}

/// Reads everything in the cache at `directory` once more, at no more than `bytes_per_second`; what is wrong is moved
/// away. Tells how it goes. Gives whether all was right.
///
/// # Errors
/// See [`UpkeepError`].
pub fn scrub(
    directory: &Path,
    access: Access,
    bytes_per_second: Option<u64>,
) -> Result<bool, UpkeepError> {
    let local = Local::attach(directory, access)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(UpkeepError::Runtime)?;
    let mut told = 0;
    let tell = |so_far: Scrubbed, percent| {
        // A line for each tenth: it is read in logs, too.
        if percent / 10 > told {
            told = percent / 10;
            eprintln!("{percent} %: {}", outcome(so_far));
        }
    };
    let scrubbed = runtime.block_on(cache::scrub(&local, bytes_per_second, tell));
    eprintln!("{}", outcome(scrubbed));
    Ok(scrubbed.wrong == 0 && scrubbed.failed == 0)
}

fn outcome(scrubbed: Scrubbed) -> String {
    let Scrubbed {
        right,
        wrong,
        failed,
        bytes,
    } = scrubbed;
    let read = in_words(bytes);
    let moved = if wrong > 0 {
        " and moved to v1/quarantine"
    } else {
        ""
    };
    let text = format!("{read} read, {right} blobs right, {wrong} wrong{moved}");
    if failed == 0 {
        return text;
    }
    format!("{text}, {failed} could not be read or moved")
}

/// Writes to standard output how much room what takes in the cache at `directory`.
///
/// # Errors
/// See [`UpkeepError`].
pub fn usage(directory: &Path, access: Access) -> Result<(), UpkeepError> {
    let local = Local::attach(directory, access)?;
    let usage = Inventory::read(&local)?.usage();
    match usage::write(&usage, &mut io::stdout().lock()) {
        // Whoever reads it has read enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(UpkeepError::Output),
    }
}

/// Removes what `rule` says from the cache at `directory`, or tells what would go, where it is `dry`. Gives whether all of
/// that went.
///
/// # Errors
/// See [`UpkeepError`].
pub fn prune(
    directory: &Path,
    access: Access,
    rule: &PruneRule,
    dry: bool,
) -> Result<bool, UpkeepError> {
    if rule.is_empty() {
        return Err(UpkeepError::NothingToPrune);
    }
    let local = Local::attach(directory, access)?;
    let inventory = Inventory::read(&local)?;
    let pruned = inventory.prune(&local, rule, Clock::system().now(), dry)?;
    eprintln!(
        "{} {} blobs, {}; {} blobs, {} {} left",
        if dry { "would remove" } else { "removed" },
        pruned.gone.blobs,
        in_words(pruned.gone.bytes),
        pruned.left.blobs,
        in_words(pruned.left.bytes),
        if dry { "would be" } else { "are" },
    );
    if pruned.failed > 0 {
        eprintln!("{} blobs could not be removed", pruned.failed);
    }
    Ok(pruned.failed == 0)
}

/// Takes what is at `source` into the cache at `directory`, which is made where it is missing, within `budget`. Tells how
/// it goes. Gives whether all that the source has was what it is called.
///
/// # Errors
/// See [`UpkeepError`].
pub fn import(
    directory: &Path,
    access: Access,
    budget: Budget,
    source: &Path,
    rule: &ImportRule,
) -> Result<bool, UpkeepError> {
    let local = Local::open_for(directory, access)?;
    let now = Clock::system().now();
    let tell = |_: &Imported, image: &str| eprintln!("{image}");
    let imported = cache::import(&local, budget, source, rule, now, tell)?;
    let Imported {
        manifests,
        blobs,
        bytes,
        known,
        tags,
        missing,
        wrong,
    } = imported;
    let bytes = in_words(bytes);
    eprintln!(
        "imported {manifests} manifests, {blobs} blobs and {tags} tags, {bytes}; {known} were here already, \
         {missing} the source does not have, {wrong} were wrong and are left out"
    );
    Ok(wrong == 0)
}
