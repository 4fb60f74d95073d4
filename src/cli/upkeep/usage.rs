//! `entrepot usage`: how much room what takes.

use std::io::{self, Write};

use super::in_words;
use crate::cache::{Amounts, Usage};

/// Writes `usage` as a table: what there is, what of it would go without this registry or repository, and what it is.
pub(super) fn write(usage: &Usage, output: &mut impl Write) -> io::Result<()> {
    writeln!(output, "{:>12} {:>12} {:>8}  OF", "SIZE", "ALONE", "BLOBS")?;
    let none = Amounts::default();
    for namespace in &usage.namespaces {
        let name = namespace.namespace.to_string();
        line(output, namespace.all, namespace.alone, &name)?;
        for repository in &namespace.repositories {
            let name = format!("  {name}/{}", repository.repository);
            line(output, repository.all, repository.alone, &name)?;
        }
    }
    if usage.unknown != none {
        line(
            output,
            usage.unknown,
            usage.unknown,
            "(no repository is known)",
        )?;
    }
    line(output, usage.total, usage.total, "(all, each blob once)")
}

fn line(output: &mut impl Write, all: Amounts, alone: Amounts, of: &str) -> io::Result<()> {
    let (size, alone) = (in_words(all.bytes), in_words(alone.bytes));
    writeln!(output, "{size:>12} {alone:>12} {:>8}  {of}", all.blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{NamespaceUsage, RepositoryUsage};

    #[test]
    fn what_is_shared_is_told_beside_what_is_not() {
        let amounts = |blobs, mebibytes: u64| Amounts {
            blobs,
            bytes: mebibytes << 20,
        };
        let usage = Usage {
            total: amounts(4, 10),
            unknown: amounts(1, 1),
            namespaces: vec![NamespaceUsage {
                namespace: "ghcr.io".parse().expect("a registry"),
                all: amounts(3, 9),
                alone: amounts(3, 9),
                repositories: vec![RepositoryUsage {
                    repository: "team/app".parse().expect("a name"),
                    all: amounts(2, 8),
                    alone: amounts(1, 2),
                }],
            }],
        };
        let mut table = Vec::new();
        write(&usage, &mut table).expect("written");
        let table = String::from_utf8(table).expect("text");
        let expected = "        SIZE        ALONE    BLOBS  OF\n     \
             9.0 MiB      9.0 MiB        3  ghcr.io\n     \
             8.0 MiB      2.0 MiB        2    ghcr.io/team/app\n     \
             1.0 MiB      1.0 MiB        1  (no repository is known)\n    \
             10.0 MiB     10.0 MiB        4  (all, each blob once)\n";
        assert_eq!(table, expected);
    }
}
