//! What containerd's own configuration says: whether it looks at `certs.d` at all.

use std::collections::BTreeMap;
use std::path::Path;

use globset::Glob;
use serde::Deserialize;
use toml_edit::{DocumentMut, Item};

use super::folder;
use super::{Finding, NodeError};

/// The file in containerd's directory.
const FILE: &str = "config.toml";

/// Where containerd is found that has no configuration.
const PROGRAMS: [&str; 3] = [
    "usr/bin/containerd",
    "usr/local/bin/containerd",
    "bin/containerd",
];

/// Where k3s and RKE2 are told of mirrors, from which they write the `hosts.toml` files themselves.
const RANCHER: [&str; 2] = ["etc/rancher/k3s", "etc/rancher/rke2"];

/// What is read of `registries.yaml`.
#[derive(Deserialize)]
struct Registries {
    #[serde(default)]
    mirrors: BTreeMap<String, Mirror>,
}

#[derive(Deserialize)]
struct Mirror {
    #[serde(default)]
    endpoint: Vec<String>,
}

/// Whether the runtime below `root`, configured in `config`, reads `certs`: paths as the node knows them.
pub(super) fn check(
    root: &Path,
    config: &Path,
    certs: &Path,
    mirror: &str,
) -> Result<Finding, NodeError> {
    let shown = config.join(FILE);
    if let Some(text) = folder::text(&super::below(root, &shown))? {
        let mut texts = vec![text];
        texts.extend(imported(root, config, &texts[0])?);
        return Ok(containerd(&texts, &shown, certs));
    }
    for directory in RANCHER {
        if root.join(directory).is_dir() {
            let shown = Path::new("/").join(directory).join("registries.yaml");
            let text = folder::text(&super::below(root, &shown))?;
            return Ok(rancher(&text.unwrap_or_default(), &shown, mirror));
        }
    }
    if PROGRAMS.iter().any(|program| root.join(program).exists()) {
        return Ok(Finding::Problem(format!(
            "containerd has no configuration: write `containerd config default` to {}, set config_path = \"{}\" in it, and \
             restart containerd",
            shown.display(),
            certs.display()
        )));
    }
    Ok(Finding::Warning(format!(
        "no container runtime found: there is no {}, and no containerd",
        shown.display()
    )))
}

/// The texts of the files that a configuration imports: by pattern, as `/etc/containerd/conf.d/*.toml`.
fn imported(root: &Path, config: &Path, text: &str) -> Result<Vec<String>, NodeError> {
    let mut texts = Vec::new();
    // What is not TOML is told with the file itself.
    let document: DocumentMut = text.parse().unwrap_or_default();
    let imports = document.get("imports").and_then(Item::as_array);
    for pattern in imports
        .into_iter()
        .flatten()
        .filter_map(|import| import.as_str())
    {
        let pattern = config.join(pattern);
        let (Some(directory), Some(name)) = (
            pattern.parent(),
            pattern.file_name().and_then(|name| name.to_str()),
        ) else {
            continue;
        };
        // containerd does not start with a pattern that is none.
        let Ok(glob) = Glob::new(name) else { continue };
        let glob = glob.compile_matcher();
        let directory = super::below(root, directory);
        for file in folder::entries(&directory)?
            .iter()
            .filter(|file| glob.is_match(file))
        {
            texts.extend(folder::text(&directory.join(file))?);
        }
    }
    Ok(texts)
}

/// Whether containerd reads `certs`, with the configuration in `file`, whose text is the first, and what it imports.
fn containerd(texts: &[String], file: &Path, certs: &Path) -> Finding {
    let documents: Result<Vec<DocumentMut>, _> = texts.iter().map(|text| text.parse()).collect();
    let documents = match documents {
        Ok(documents) => documents,
        Err(error) => {
            return Finding::Problem(format!(
                "{} or an import is not TOML: {error}",
                file.display()
            ));
        }
    };
    let plugin = documents.first().map_or("cri", plugin);
    // What is imported counts before the file itself, the last before the first.
    let of_registry = |key: &str| {
        let mut documents = documents.iter().rev();
        documents.find_map(|document| {
            document
                .get("plugins")?
                .get(plugin)?
                .get("registry")?
                .get(key)
        })
    };
    let config_path = of_registry("config_path").and_then(Item::as_str);
    let mirrors = of_registry("mirrors");
    match config_path.unwrap_or_default() {
        "" => {
            let removed = if mirrors.is_some_and(has_entries) {
                ", take out the registry.mirrors that containerd refuses beside it"
            } else {
                ""
            };
            Finding::Problem(format!(
                "containerd does not look at {certs} yet: add config_path = \"{certs}\" below \
                 [plugins.\"{plugin}\".registry] in {file}{removed}, and restart containerd",
                certs = certs.display(),
                file = file.display()
            ))
        }
        paths if paths.split(':').any(|path| Path::new(path) == certs) => {
            Finding::Fine(format!("containerd reads {}", certs.display()))
        }
        paths => Finding::Problem(format!(
            "containerd looks at {paths} in place of {}: name that with --certs-dir",
            certs.display()
        )),
    }
}

/// The name of the plug-in that pulls, which depends on the version of the configuration.
fn plugin(document: &DocumentMut) -> &'static str {
    match document.get("version").and_then(Item::as_integer) {
        None | Some(..=1) => "cri",
        Some(2) => "io.containerd.grpc.v1.cri",
        Some(3..) => "io.containerd.cri.v1.images",
    }
}

fn has_entries(table: &Item) -> bool {
    table.as_table_like().is_some_and(|table| !table.is_empty())
}

/// Whether k3s or RKE2 with `registries.yaml` of this text uses the mirror for every registry.
fn rancher(text: &str, file: &Path, mirror: &str) -> Finding {
    let registries = match serde_yaml::from_str::<Option<Registries>>(text) {
        Ok(registries) => registries,
        Err(error) => {
            return Finding::Problem(format!("{} cannot be read: {error}", file.display()));
        }
    };
    let every = registries
        .as_ref()
        .and_then(|registries| registries.mirrors.get("*"));
    if every.is_some_and(|every| every.endpoint.iter().any(|url| url == mirror)) {
        return Finding::Fine(format!("{} names {mirror}", file.display()));
    }
    Finding::Problem(format!(
        "k3s and RKE2 write their own hosts.toml: add mirrors: {{\"*\": {{endpoint: [\"{mirror}\"]}}}} to {}, and restart \
         them",
        file.display()
    ))
}
