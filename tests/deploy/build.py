"""BuildKit."""

import json
import os
import tomllib

import engines
import nodes
import schemas
from rig import BINARY, DEPLOY, holds, run


def buildkit(world):
    read = tomllib.loads((DEPLOY / "buildkit/buildkitd.toml").read_text())
    world.check("buildkitd.toml fits its schema", lambda: nodes.validate(read, schemas.BUILDKIT))

    def named():
        registries = read["registry"]
        mirrors = {mirror for registry in registries.values() for mirror in registry.get("mirrors", [])}
        holds(all(registries.get(mirror, {}).get("http") for mirror in mirrors), "a mirror is not said to be http")

    def printed():
        nodes.validate(tomllib.loads(run(BINARY, "hosts", "buildkit", env={}).stdout), schemas.BUILDKIT)

    world.check("what `entrepot hosts` prints fits the schema, too", printed)
    world.check("buildkitd.toml says how each mirror is reached", named)
    world.report.leave_out(
        "buildkitd itself: not in Debian, PyPI or npm. The BuildKit in Docker Engine builds through its mirrors"
    )
    if not world.with_clients:
        return
    world.mirror()
    # As docker/README.md says of Engine 20.10, which is what Debian 12 has.
    configuration = json.loads((DEPLOY / "docker/daemon.json").read_text())
    configuration["insecure-registries"] = [f"http://{name}" for name in configuration["insecure-registries"]]
    daemon = world.scratch / "buildkit.json"
    daemon.write_text(json.dumps(configuration))
    engine = engines.Engine(world, daemon)
    context = world.scratch / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM org/app:1.0\nCOPY Dockerfile /\n")

    def builds():
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        # Debian's own client has BuildKit's in it; later ones want a plugin.
        done = run("/usr/bin/docker", "--host", engine.socket, "build", "--progress=plain", context, env=environment)
        holds("exporting to image" in done.stderr, f"that was not BuildKit:\n{done.stderr}")

    world.check("docker build, by BuildKit, starts from an image of the mirror", builds)
