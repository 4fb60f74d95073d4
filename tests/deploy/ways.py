"""One process, one image, every way in: upstream gives each digest once."""

import hashlib
import json
import re
import shutil

import engines
import fronts
import nodes
import rig
from rig import DEPLOY, holds, run, same

IMAGE = "library/ways:1.0"
# The listener that has a registry of its own.
OWN_PORT = 5001
# The listener that speaks TLS itself.
TLS_PORT = 3443


def every_way_in(world):
    if not world.with_clients:
        return
    world.push(rig.MAIN_PORT, IMAGE, "ways")
    configuration = rig.read_yaml("nginx-caddy/entrepot.yaml")
    pair = {"certificate": str(world.tls / "tls.crt"), "key": str(world.tls / "tls.key")}
    configuration["listen"] += [
        {"address": f"127.0.0.1:{OWN_PORT}", "upstream": "docker.io"},
        {"address": f"127.0.0.1:{TLS_PORT}", "tls": pair},
    ]
    mirror = world.mirror(configuration, port=None, listening=[3000, OWN_PORT])
    fronts.start_nginx(world, (DEPLOY / "nginx-caddy/nginx.conf").read_text())
    before = len(asked(world))

    client = nodes.Containerd(world)
    one = world.scratch / "ways-one"
    shutil.copytree(DEPLOY / "containerd/docker.io", one / "docker.io")
    name = f"docker.io/{IMAGE}"
    world.check("containerd, _default", lambda: client.pull(DEPLOY / "containerd", name))
    client = nodes.Containerd(world)
    world.check("containerd, a file for the registry", lambda: client.pull(one, name))
    # Where host names mean registries, one that means none is not Docker Hub's mirror.
    daemon = world.scratch / "ways-daemon.json"
    daemon.write_text((DEPLOY / "docker/daemon.json").read_text().replace("mirror.example.com", "127.0.0.1"))
    for fact, reference in (
        ("docker, registry-mirrors", "ways:1.0"),
        ("docker, the registry in the path", f"127.0.0.1:3000/docker.io/{IMAGE}"),
        ("docker, no registry at all", f"127.0.0.1:3000/{IMAGE}"),
        ("docker, a port for the registry", f"127.0.0.1:{OWN_PORT}/{IMAGE}"),
    ):
        engine = engines.Engine(world, daemon)
        world.check(fact, lambda engine=engine, reference=reference: engine.docker("pull", reference))
    with engines.registries_conf(world):
        world.check("podman, a mirror by prefix", lambda: engines.podman_pull(world, "ways", name))
    certificates = world.scratch / "ways-certificates"
    certificates.mkdir()
    shutil.copy(world.tls / "ca.crt", certificates)
    for fact, host in (
        ("skopeo, a host name for the registry, over our own TLS", f"docker.io.registry.example.com:{TLS_PORT}"),
        ("skopeo, a host name for the registry, over the TLS of nginx", "docker.io.registry.example.com"),
    ):
        copy = world.scratch / f"ways-skopeo-{len(host)}"
        command = ("skopeo", "--insecure-policy", "copy", "--src-cert-dir", certificates)
        world.check(
            fact, lambda command=command, host=host, copy=copy: run(*command, f"docker://{host}/{IMAGE}", f"dir:{copy}")
        )

    world.check("skopeo, past a host name that means no registry", lambda: falls_back(world, mirror))

    def once():
        # The manifest by its tag or by its digest.
        blobs = [f"/v2/library/ways/blobs/{digest}" for digest in blobs_of(world, "ways")]
        targets = asked(world)[before:]
        same(sorted(target for target in targets if target in blobs), sorted(blobs))
        same(len([target for target in targets if "/manifests/" in target]), 1)

    world.check("upstream was asked once for each digest", once)


def falls_back(world, mirror):
    """A mirror by a host name that nobody mapped is passed over: what comes is of the registry that was meant."""
    name = f"127.0.0.1:{rig.OTHER_PORT}/{IMAGE}"
    world.push(rig.OTHER_PORT, IMAGE, "the same name elsewhere")
    file = world.scratch / "ways-registries.conf"
    file.write_text(f"""[[registry]]
prefix = "{name.partition("/")[0]}"
location = "{name.partition("/")[0]}"
insecure = true
[[registry.mirror]]
location = "unknown.registry.example.com:{TLS_PORT}"
insecure = true
""")
    copy = world.scratch / "ways-elsewhere"
    command = ("skopeo", "--insecure-policy", "--registries-conf", file, "copy")
    run(*command, f"docker://{name}", f"dir:{copy}")
    digest = hashlib.sha256((copy / "manifest.json").read_bytes()).hexdigest()
    same(f"sha256:{digest}", world.images["the same name elsewhere"])
    refused = [line for line in world.log(mirror.mirror).splitlines() if f"{IMAGE.partition(':')[0]}/manifests" in line]
    holds(any("404" in line for line in refused), f"the mirror was not asked first: {world.log(mirror.mirror)}")


def blobs_of(world, content):
    """The digests of configuration and layers of an image."""
    layout = world.scratch / "images" / content
    manifest = json.loads((layout / "blobs/sha256" / world.images[content].removeprefix("sha256:")).read_text())
    return [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]


def asked(world):
    """What the stand-in was asked to give, in order."""
    log = (world.scratch / f"registry-{rig.MAIN_PORT}.log").read_text()
    found = re.findall(r'"GET (/v2/library/ways/\S+) HTTP/1.1" 200', log)
    holds(log, "the stand-in writes no log")
    return found
