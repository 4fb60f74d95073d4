//! The text of a `hosts.toml`: how containerd is told of a mirror, beside what its owner wrote.
//!
//! What containerd makes of it: <https://github.com/containerd/containerd/blob/main/docs/hosts.md>.

use toml_edit::{Array, DocumentMut, Item, Table, TomlError, value};

use super::Mirror;

/// The file of a registry's folder that containerd reads.
pub(super) const FILE: &str = "hosts.toml";

/// Beside it, what it was before.
pub(super) const BACKUP: &str = "hosts.toml.entrepot-backup";

/// The folder for registries that have none of their own.
pub(super) const DEFAULT: &str = "_default";

/// The first line of every file that is ours.
const MARKER: &str = "# Written by `entrepot node install`; `entrepot node remove` puts back what was here before.\n";

/// The second line, of a file that replaces one.
const MERGED: &str =
    "# Changes belong into hosts.toml.entrepot-backup: they count from the next install on.\n";

/// The second line, of a file in whose place there was none: how many folders there were not, either.
const FOLDERS: &str = "# There was no such file; folders made for it: ";

/// How long containerd tries to connect to the mirror, for every object, before it goes to the registry itself. A node
/// that is up answers within a millisecond. Read from containerd 2.1 on; those before pass over keys they do not know.
const DIAL_TIMEOUT: &str = "1s";

/// Why a `hosts.toml` cannot be added to.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// It is not TOML, so that containerd does not read it either.
    #[error("it is not TOML, correct or remove it: {0}")]
    Syntax(#[from] TomlError),
    /// Its hosts are written in a way that no table can be put before.
    #[error("its hosts are not tables, write each as [host.\"URL\"]")]
    Hosts,
}

/// How one folder's registry is reached without the mirror, where a folder says so with certificates alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Certificates {
    /// Files with certificates of authorities.
    pub(super) authorities: Vec<String>,
    /// Files with a client's certificate, and its key.
    pub(super) clients: Vec<(String, String)>,
}

impl Certificates {
    /// Those that containerd takes from a folder with these files, as long as it has no `hosts.toml`.
    pub(super) fn among(files: &[String]) -> Self {
        let with = |ending: &str| {
            let stems = files
                .iter()
                .filter_map(move |file| file.strip_suffix(ending));
            stems.map(str::to_owned).collect::<Vec<_>>()
        };
        let authorities = with(".crt").into_iter().map(|stem| stem + ".crt").collect();
        let clients = with(".cert")
            .into_iter()
            .map(|stem| (format!("{stem}.cert"), format!("{stem}.key")))
            .filter(|(_, key)| files.contains(key))
            .collect();
        Self {
            authorities,
            clients,
        }
    }

    fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.clients.is_empty()
    }

    /// As keys of the registry itself. Paths are relative to the folder.
    fn describe(&self, registry: &mut Table) {
        if !self.authorities.is_empty() {
            registry["ca"] = value(self.authorities.iter().collect::<Array>());
        }
        if !self.clients.is_empty() {
            let pairs = self.clients.iter();
            registry["client"] = value(
                pairs
                    .map(|(certificate, key)| Array::from_iter([certificate, key]))
                    .collect::<Array>(),
            );
        }
    }
}

/// Whether `text` was written here.
pub(super) fn is_ours(text: &str) -> bool {
    text.starts_with(MARKER)
}

/// How many folders were made for the file with this text; none where it replaces another file.
pub(super) fn folders_made(text: &str) -> usize {
    let line = text
        .strip_prefix(MARKER)
        .and_then(|rest| rest.strip_prefix(FOLDERS));
    line.and_then(|line| line.lines().next()?.parse().ok())
        .unwrap_or(0)
}

/// The text for `folder`, which has no `hosts.toml`, and of which `folders` had to be made.
///
/// `server` is left out, and so up to containerd, unless the folder says how to trust the registry.
pub(super) fn fresh(
    mirror: &str,
    folder: &str,
    certificates: &Certificates,
    folders: usize,
) -> String {
    let mut document = DocumentMut::new();
    if !certificates.is_empty() {
        if folder != DEFAULT {
            document["server"] = value(server(folder));
        }
        certificates.describe(&mut document);
    }
    put_first(mirror, &mut document);
    format!(
        "{MARKER}{FOLDERS}{folders}\n\n{}",
        document.to_string().trim_start()
    )
}

/// The text of a `hosts.toml` for somebody else to write: of the registry at `server`, where containerd would not find
/// it by its name.
pub(in crate::cli) fn hosts_toml(mirror: &Mirror, server: Option<&str>) -> String {
    let mut document = DocumentMut::new();
    if let Some(server) = server {
        document["server"] = value(server);
    }
    put_first(mirror.url(), &mut document);
    document.to_string().trim_start().to_owned()
}

/// Makes the mirror the only host of a document that has none.
fn put_first(mirror: &str, document: &mut DocumentMut) {
    let mut hosts = Table::new();
    hosts.set_implicit(true);
    hosts.insert(mirror, host());
    document["host"] = Item::Table(hosts);
}

/// `theirs` with the mirror before all other hosts.
///
/// # Errors
///
/// It is not TOML, or its hosts are no tables.
pub(super) fn merged(mirror: &str, theirs: &str) -> Result<String, HostsError> {
    let mut document: DocumentMut = theirs.parse()?;
    let hosts = document.entry("host").or_insert_with(|| {
        let mut hosts = Table::new();
        hosts.set_implicit(true);
        Item::Table(hosts)
    });
    let hosts = hosts.as_table_mut().ok_or(HostsError::Hosts)?;
    if hosts.is_dotted() || hosts.iter().any(|(_, host)| !is_written_out(host)) {
        return Err(HostsError::Hosts);
    }
    let mut ours = host();
    if let Some(table) = ours.as_table_mut() {
        // The first of all tables, or of those that a `[host]` precedes.
        let first = if hosts.is_implicit() {
            None
        } else {
            hosts.position()
        };
        table.set_position(Some(first.unwrap_or(0)));
        table.decor_mut().set_prefix("\n");
    }
    hosts.remove(mirror);
    hosts.insert(mirror, ours);
    Ok(format!("{MARKER}{MERGED}{document}"))
}

/// Whether the mirror is the first host of the file with this text.
///
/// # Errors
///
/// It is not TOML.
pub(super) fn names(mirror: &str, text: &str) -> Result<bool, HostsError> {
    let document: DocumentMut = text.parse()?;
    let host = document.get("host").and_then(|hosts| hosts.get(mirror));
    Ok(host.is_some_and(Item::is_table_like))
}

/// The first host of the file with this text that content is pulled from.
///
/// # Errors
///
/// It is not TOML.
pub(super) fn first(text: &str) -> Result<Option<String>, HostsError> {
    let document: DocumentMut = text.parse()?;
    let hosts = document.get("host").and_then(Item::as_table_like);
    let pulls = |host: &Item| {
        let capabilities = host.get("capabilities").and_then(Item::as_array);
        // Without any, it has all.
        capabilities.is_none_or(|all| all.iter().any(|one| one.as_str() == Some("pull")))
    };
    let mut hosts = hosts.into_iter().flat_map(|hosts| hosts.iter());
    let first = hosts.find(|(_, host)| pulls(host));
    Ok(first.map(|(url, _)| url.to_owned()))
}

/// A table with a header of its own.
fn is_written_out(host: &Item) -> bool {
    host.as_table().is_some_and(|table| !table.is_dotted())
}

/// The mirror, as a host: it is asked what a tag is and for content, never pushed to.
fn host() -> Item {
    let mut host = Table::new();
    host["capabilities"] = value(Array::from_iter(["pull", "resolve"]));
    host["dial_timeout"] = value(DIAL_TIMEOUT);
    Item::Table(host)
}

/// The URL of the registry whose folder this is: `host`, `host:port` or `host_port_`.
pub(in crate::cli) fn server(folder: &str) -> String {
    if folder == "docker.io" {
        return "https://registry-1.docker.io".to_owned();
    }
    let port = folder
        .strip_suffix('_')
        .and_then(|rest| rest.rsplit_once('_'));
    match port {
        Some((host, port)) => format!("https://{host}:{port}"),
        None => format!("https://{folder}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIRROR: &str = "http://10.0.0.1:5000";

    #[test]
    fn the_mirror_comes_before_every_other_host_and_after_the_keys_of_the_registry() {
        let theirs = "server = \"https://a.example\" # theirs\n\n# the old one\n[host.\"https://old\"]\n  skip_verify = true\n";
        let text = merged(MIRROR, theirs).unwrap();
        let [server, ours, comment, old] = ["# theirs", MIRROR, "# the old one", "https://old"]
            .map(|part| text.find(part).unwrap());
        assert!(server < ours && ours < comment && comment < old, "{text}");
        assert!(names(MIRROR, &text).unwrap());
    }

    #[test]
    fn the_mirror_follows_a_table_of_all_hosts() {
        let text = merged(
            MIRROR,
            "[header]\na = \"b\"\n[host]\n[host.\"https://old\"]\n",
        )
        .unwrap();
        assert!(text.find("[host]\n") < text.find(MIRROR), "{text}");
        assert!(text.find(MIRROR) < text.find("https://old"), "{text}");
        assert!(names(MIRROR, &text).unwrap());
    }

    #[test]
    fn hosts_that_are_no_tables_are_refused() {
        for theirs in [
            "host = { }\n",
            "host.\"https://old\".skip_verify = true\n",
            "[host]\n\"https://old\" = {}\n",
        ] {
            assert!(
                matches!(merged(MIRROR, theirs), Err(HostsError::Hosts)),
                "{theirs}"
            );
        }
        assert!(matches!(merged(MIRROR, "["), Err(HostsError::Syntax(_))));
    }

    #[test]
    fn certificates_alone_become_the_registry_itself() {
        let files = ["ca.crt", "me.cert", "me.key", "alone.cert"].map(str::to_owned);
        let text = fresh(MIRROR, "a.example_5000_", &Certificates::among(&files), 0);
        for line in [
            "server = \"https://a.example:5000\"\n",
            "ca = [\"ca.crt\"]\n",
            "client = [[\"me.cert\", \"me.key\"]]\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(
            folders_made(&fresh(MIRROR, DEFAULT, &Certificates::default(), 3)),
            3
        );
    }
}
