//! What is known of the public registries before anybody asks them: aliases, endpoints, who issues their tokens, and
//! where they differ from the specification. Data only.

use std::sync::LazyLock;

use hashbrown::HashMap;

/// One registry, or a family of registries that share a form of name.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each named where it is stated"
)]
pub(super) struct Row {
    /// Canonical names; a `*` stands for any characters.
    names: &'static [&'static str],
    /// Other hosts that are the same registry as the first name.
    aliases: &'static [&'static str],
    /// The host that answers for the first name, where it is another one.
    pub(super) endpoint: Option<&'static str>,
    /// Hosts other than its own that issue its tokens.
    pub(super) realms: &'static [RealmHost],
    /// Whether a name of one part is short for one below `library/`.
    pub(super) has_library: bool,
    /// Whether a 401 to a good token means that there is no such repository.
    pub(super) unauthorized_is_missing: bool,
    /// Whether HEAD on blobs is worth trying.
    pub(super) answers_head_blob: bool,
    /// The scope its tokens are for, where it is not that of the repository.
    pub(super) scope: Option<&'static str>,
    /// Whether, as the endpoint of another registry, it must not be shown that registry's credential.
    pub(super) is_anonymous_mirror: bool,
}

/// A host that may issue tokens for another.
#[derive(Debug)]
pub(super) struct RealmHost {
    /// The host, reached over https on port 443; a `*` stands for any characters.
    host: &'static str,
    /// Whether it may see the registry's credential.
    pub(super) sees_credentials: bool,
}

impl RealmHost {
    const fn trusted(host: &'static str) -> Self {
        Self {
            host,
            sees_credentials: true,
        }
    }

    const fn anonymous(host: &'static str) -> Self {
        Self {
            host,
            sees_credentials: false,
        }
    }

    /// Whether `host` is this one.
    pub(super) fn is(&self, host: &str) -> bool {
        fits(self.host, host)
    }
}

/// What holds for a registry of which nothing is known.
pub(super) static UNKNOWN: Row = Row::of(&[]);

impl Row {
    const fn of(names: &'static [&'static str]) -> Self {
        Self {
            names,
            aliases: &[],
            endpoint: None,
            realms: &[],
            has_library: false,
            unauthorized_is_missing: false,
            answers_head_blob: true,
            scope: None,
            is_anonymous_mirror: false,
        }
    }

    const fn with_realms(mut self, realms: &'static [RealmHost]) -> Self {
        self.realms = realms;
        self
    }

    /// The row of the registry called `name`, by a canonical name or an alias.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        match INDEX.written_out.get(name) {
            Some(entry) => Some(entry.row),
            None => INDEX.pattern(name),
        }
    }

    /// The canonical name of the registry that `alias` is another name of.
    pub(super) fn canonical_of(alias: &str) -> Option<&'static str> {
        let entry = INDEX.written_out.get(alias)?;
        let first = entry.row.names.first().copied();
        first.filter(|_| entry.is_alias)
    }

    /// Every name that is written out, in the order of the table.
    pub(super) fn written_out() -> impl Iterator<Item = &'static str> {
        let names = TABLE.iter().flat_map(|row| row.names);
        names.copied().filter(|name| !name.contains('*'))
    }

    /// Whether `name` stands in the table letter by letter, so that it may be a metric label.
    pub(super) fn names_exactly(name: &str) -> bool {
        let entry = INDEX.written_out.get(name);
        entry.is_some_and(|entry| !entry.is_alias)
    }
}

/// The table by name: every request looks into it, several times.
struct Index {
    /// Names and aliases without a `*`.
    written_out: HashMap<&'static str, Entry>,
    /// The others, each with what stands behind its last `*`.
    patterns: Vec<(&'static str, &'static str, &'static Row)>,
}

/// What a name stands for.
struct Entry {
    row: &'static Row,
    is_alias: bool,
}

static INDEX: LazyLock<Index> = LazyLock::new(Index::of_the_table);

impl Index {
    fn of_the_table() -> Self {
        let mut written_out = HashMap::new();
        let mut patterns = Vec::new();
        for row in TABLE {
            for &name in row.names {
                if let Some((_, end)) = name.rsplit_once('*') {
                    patterns.push((name, end, row));
                } else {
                    let is_alias = false;
                    written_out.insert(name, Entry { row, is_alias });
                }
            }
            for &name in row.aliases {
                let is_alias = true;
                written_out.insert(name, Entry { row, is_alias });
            }
        }
        Self {
            written_out,
            patterns,
        }
    }

    /// The row of the first pattern that `name` fits. What it ends with tells nearly always that it fits none.
    fn pattern(&self, name: &str) -> Option<&'static Row> {
        let mut patterns = self.patterns.iter();
        let found = patterns.find(|(pattern, end, _)| name.ends_with(end) && fits(pattern, name));
        found.map(|(_, _, row)| *row)
    }
}

/// Whether `text` fits `pattern`, in which a `*` stands for any characters.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| fits(tail, rest)))
        }),
    }
}

static TABLE: &[Row] = &[
    Row {
        aliases: &[
            "index.docker.io",
            "registry-1.docker.io",
            "registry.hub.docker.com",
        ],
        endpoint: Some("registry-1.docker.io"),
        has_library: true,
        unauthorized_is_missing: true,
        ..Row::of(&["docker.io"]).with_realms(&[RealmHost::trusted("auth.docker.io")])
    },
    Row::of(&["dhi.io"]).with_realms(&[RealmHost::trusted("auth.docker.io")]),
    Row::of(&["ghcr.io"]),
    Row::of(&["quay.io"]),
    Row::of(&["registry.k8s.io"]),
    // Not an alias of registry.k8s.io: it is frozen and has other content.
    Row::of(&["k8s.gcr.io"]),
    Row {
        is_anonymous_mirror: true,
        ..Row::of(&["mirror.gcr.io"])
    },
    Row::of(&[
        "gcr.io",
        "us.gcr.io",
        "eu.gcr.io",
        "asia.gcr.io",
        "*.gcr.io",
    ]),
    Row::of(&["*-docker.pkg.dev"]),
    Row::of(&["mcr.microsoft.com"]),
    Row::of(&["*.azurecr.io"]),
    Row::of(&[
        "*.dkr.ecr.*.amazonaws.com",
        "*.dkr.ecr-fips.*.amazonaws.com",
        "*.dkr.ecr.*.amazonaws.com.cn",
        "*.dkr.ecr.*.amazonaws.eu",
        "*.dkr-ecr.*.on.aws",
        "*.dkr-ecr-fips.*.on.aws",
    ]),
    Row {
        // HEAD on a blob is 401 with any token; GET with the same token works.
        answers_head_blob: false,
        // What its own challenge asks for: one token reads every repository.
        scope: Some("aws"),
        ..Row::of(&["public.ecr.aws"])
    },
    Row::of(&["registry.gitlab.com"]).with_realms(&[RealmHost::trusted("gitlab.com")]),
    Row::of(&["nvcr.io"]).with_realms(&[RealmHost::trusted("authn.nvidia.com")]),
    Row::of(&["docker.elastic.co"]).with_realms(&[RealmHost::trusted("docker-auth.elastic.co")]),
    Row::of(&["lscr.io"]).with_realms(&[RealmHost::anonymous("ghcr.io")]),
    // Other names of Scarf's redirector: what stands behind them may change overnight.
    Row::of(&[
        "cr.fluentbit.io",
        "docker.getcollate.io",
        "docker.redpanda.com",
    ])
    .with_realms(&[
        RealmHost::anonymous("auth.docker.io"),
        RealmHost::anonymous("ghcr.io"),
        RealmHost::anonymous("quay.io"),
        RealmHost::anonymous("public.ecr.aws"),
    ]),
    Row::of(&["registry.access.redhat.com"]),
    Row::of(&["registry.redhat.io", "registry.connect.redhat.com"])
        .with_realms(&[RealmHost::trusted("sso.redhat.com")]),
    Row::of(&["registry.suse.com"]),
    Row::of(&["cgr.dev"]),
    Row::of(&["codeberg.org", "code.forgejo.org"]),
    Row::of(&["registry.digitalocean.com"])
        .with_realms(&[RealmHost::trusted("api.digitalocean.com")]),
    Row::of(&["registry.*.aliyuncs.com", "*.cr.aliyuncs.com"])
        .with_realms(&[RealmHost::trusted("dockerauth*.aliyuncs.com")]),
    Row::of(&["*.ocir.io", "container-registry.oracle.com"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(fits("*.azurecr.io", "contoso.azurecr.io"));
        assert!(!fits("*.azurecr.io", "azurecr.io"));
        assert!(!fits("*.azurecr.io", "contoso.azurecr.io.evil.example"));
        assert!(fits(
            "*.dkr.ecr.*.amazonaws.com",
            "123.dkr.ecr.eu-west-1.amazonaws.com"
        ));
        assert!(!fits(
            "*.dkr.ecr.*.amazonaws.com",
            "123.dkr.ecr.eu-west-1.amazonaws.com.evil.example"
        ));
        assert!(fits(
            "dockerauth*.aliyuncs.com",
            "dockerauth.cn-hangzhou.aliyuncs.com"
        ));
    }

    #[test]
    fn every_name_of_the_hub_is_docker_io() {
        for alias in [
            "index.docker.io",
            "registry-1.docker.io",
            "registry.hub.docker.com",
        ] {
            assert_eq!(Row::canonical_of(alias), Some("docker.io"), "{alias}");
        }
        assert_eq!(Row::canonical_of("docker.io"), None);
        assert_eq!(Row::canonical_of("k8s.gcr.io"), None);
    }

    #[test]
    fn a_name_is_that_of_one_registry() {
        let names = TABLE
            .iter()
            .flat_map(|row| row.names.iter().chain(row.aliases));
        let written_out = names.filter(|name| !name.contains('*')).count();
        assert_eq!(written_out, INDEX.written_out.len());
    }

    #[test]
    fn only_names_written_out_are_labels() {
        assert!(Row::names_exactly("ghcr.io"));
        assert!(!Row::names_exactly("contoso.azurecr.io"));
        assert!(Row::find("contoso.azurecr.io").is_some());
        assert!(Row::find("registry.example.com").is_none());
    }

    #[test]
    fn every_name_in_the_table_is_a_namespace() {
        let hosts = TABLE.iter().flat_map(|row| {
            let names = row.names.iter().chain(row.aliases);
            names
                .copied()
                .chain(row.endpoint)
                .chain(row.realms.iter().map(|realm| realm.host))
        });
        for host in hosts {
            let example = host.replace('*', "x");
            let parsed: Result<crate::oci::Namespace, _> = example.parse();
            assert!(parsed.is_ok_and(|name| name.as_str() == example), "{host}");
        }
    }
}
