//! What the whole run of the tests writes down, and what must not be in it: kept for the check at the end of `tests/run`.
//!
//! Nothing has to be told about a secret: whatever a client or the mirror shows as one is taken down as it goes over
//! the wire, and so is what stands in a credentials file or in the query of a redirect. Without a directory for it,
//! nothing is kept.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process;
use std::sync::{Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// Where `tests/run` wants it.
const DIRECTORY: &str = "ENTREPOT_TEST_LOGS";

/// Shortest text that counts as a secret: shorter ones stand in any log by chance.
const SECRET_CHARACTERS_MIN: usize = 6;

/// How a secret came to be known. The check wants to see some of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// In an `Authorization` or `Cookie` header.
    Header,
    /// In a file of credentials.
    File,
    /// In the query of a URL that somebody signed.
    Query,
}

/// The files of this process.
struct Kept {
    log: File,
    planted: Mutex<(File, HashSet<(Kind, String)>)>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is no configuration of the mirror"
)]
fn kept() -> Option<&'static Kept> {
    static KEPT: OnceLock<Option<Kept>> = OnceLock::new();
    KEPT.get_or_init(|| {
        let directory = PathBuf::from(std::env::var_os(DIRECTORY)?);
        let file = |folder: &str| {
            let folder = directory.join(folder);
            fs::create_dir_all(&folder).expect("a directory");
            let path = folder.join(format!("it-{}", process::id()));
            let file = File::options().create(true).append(true).open(path);
            file.expect("a file")
        };
        let planted = Mutex::new((file("planted"), HashSet::new()));
        let log = file("logs");
        Some(Kept { log, planted })
    })
    .as_ref()
}

/// Keeps what this process logs from now on, every word of ours.
pub fn keep_log() {
    let Some(kept) = kept() else {
        return;
    };
    let filter = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("entrepot", LevelFilter::TRACE);
    let lines = fmt::layer()
        .with_ansi(false)
        .with_writer(|| &kept.log)
        .with_filter(filter);
    // Once is enough.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// Keeps some lines of a log that a test reads itself.
pub fn keep_lines(lines: &[u8]) -> io::Result<()> {
    match kept() {
        // The libraries below tell what they please at TRACE, and only tests let them.
        Some(kept) if lines.windows(8).any(|word| word == b"entrepot") => {
            (&kept.log).write_all(lines)
        }
        Some(_) | None => Ok(()),
    }
}

/// Takes down that `secret` was planted.
pub fn plant(kind: Kind, secret: &str) {
    let Some(kept) = kept() else {
        return;
    };
    let is_text = secret.chars().all(|c| !c.is_control());
    if secret.chars().count() < SECRET_CHARACTERS_MIN || !is_text {
        return;
    }
    let mut planted = kept.planted.lock().unwrap_or_else(PoisonError::into_inner);
    let (file, known) = &mut *planted;
    if known.insert((kind, secret.to_owned())) {
        let kind = match kind {
            Kind::Header => "header",
            Kind::File => "file",
            Kind::Query => "query",
        };
        writeln!(file, "{kind}\t{secret}").expect("written");
    }
}

/// Takes down what a header shows, where it shows anything.
pub fn plant_header(name: &str, value: &str) {
    if name.eq_ignore_ascii_case("cookie") {
        plant(Kind::Header, value);
    }
    if !name.eq_ignore_ascii_case("authorization") {
        return;
    }
    let Some((scheme, shown)) = value.split_once(' ') else {
        return;
    };
    plant(Kind::Header, shown.trim());
    if scheme.eq_ignore_ascii_case("basic")
        && let Ok(pair) = BASE64_STANDARD.decode(shown.trim())
        && let Ok(pair) = String::from_utf8(pair)
        && let Some((_, password)) = pair.split_once(':')
    {
        plant(Kind::Header, password);
    }
}

/// Takes down the values in the text of a credentials file that are nobody's name.
pub fn plant_file(text: &str) {
    for key in ["password:", "token:"] {
        for (at, _) in text.match_indices(key) {
            let value = text[at + key.len()..].split([',', '}', '\n']).next();
            let value = value.unwrap_or_default().trim().trim_matches(['"', '\'']);
            plant(Kind::File, value);
        }
    }
}

/// Takes down what the query of a redirect holds that lets whoever has it in: a signature or a token, by the names that
/// stores have for them.
pub fn plant_query(location: &str) {
    let Some((_, query)) = location.split_once('?') else {
        return;
    };
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or_default();
        let key = key.to_ascii_lowercase();
        if ["sig", "token", "verify"]
            .iter()
            .any(|word| key.contains(word))
        {
            plant(Kind::Query, value);
        }
    }
}
