//! Which registry, and which repository of it, the name in a path belongs to. Pure.

use super::route::{RouteError, Target};
use super::ways::Meant;
use crate::oci::{Namespace, RepositoryName};
use crate::upstream::Directory;

/// Finds out which registry a name belongs to: the one that is `meant` by the way in, else the one its first part names,
/// else the default one. `asked` is `ns`, as the client wrote it.
pub(super) fn locate(
    name: &str,
    asked: Option<Namespace>,
    meant: Meant,
    directory: &Directory,
) -> Result<Target, RouteError> {
    let (namespace, rest, is_placed) = match (meant, first_as_namespace(name, directory)) {
        (Meant::Registry(meant), first) => {
            // BuildKit's `mirrors`, k3s's rewrites and `override_path` say it twice.
            let rest = match first {
                Some((first, rest)) if first == meant => rest,
                Some(_) | None => name,
            };
            (meant, rest, true)
        }
        (Meant::Anything | Meant::Named, Some((first, rest))) if directory.serves(&first) => {
            (first, rest, true)
        }
        (Meant::Anything, _) => (directory.default_upstream().clone(), name, false),
        (Meant::Named, _) => return Err(RouteError::Host),
    };
    let name: RepositoryName = rest.parse()?;
    let unplaced = (!is_placed).then(|| name.clone());
    let repository = directory.repository_name(&namespace, name)?;
    Ok(Target {
        namespace,
        asked,
        repository,
        unplaced,
    })
}

/// The first part of a name as a registry, where it looks like one and a repository follows, and that.
fn first_as_namespace<'a>(name: &'a str, directory: &Directory) -> Option<(Namespace, &'a str)> {
    let (first, rest) = name.split_once('/')?;
    let host_shaped = first.bytes().any(|c| c == b'.' || c == b':') || first == "localhost";
    let namespace: Namespace = host_shaped.then(|| first.parse().ok())??;
    Some((directory.canonical(&namespace), rest))
}
