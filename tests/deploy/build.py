"""BuildKit."""

import tomllib

import nodes
import schemas
from rig import DEPLOY, holds


def buildkit(world):
    read = tomllib.loads((DEPLOY / "buildkit/buildkitd.toml").read_text())
    world.check("buildkitd.toml fits its schema", lambda: nodes.validate(read, schemas.BUILDKIT))

    def named():
        registries = read["registry"]
        mirrors = {mirror for registry in registries.values() for mirror in registry.get("mirrors", [])}
        holds(all(registries.get(mirror, {}).get("http") for mirror in mirrors), "a mirror is not said to be http")

    world.check("buildkitd.toml says how each mirror is reached", named)
    world.report.leave_out("buildkitd itself: not in Debian, PyPI or npm")
