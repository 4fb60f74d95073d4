"""Docker Engine, its swarm, and Podman with its relatives."""

import contextlib
import json
import shutil
import time

import rig
import stores
from rig import BINARY, DEPLOY, holds, run, same


class Engine:
    """A Docker Engine with an empty store."""

    def __init__(self, world, configuration):
        directory = world.scratch / f"docker-{time.monotonic_ns()}"
        directory.mkdir()
        self.socket = f"unix://{directory}/docker.sock"
        world.daemon(
            directory.name,
            "dockerd",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--config-file",
            configuration,
            "--storage-driver=vfs",
            "--data-root",
            directory / "data",
            "--exec-root",
            directory / "exec",
            "--pidfile",
            directory / "docker.pid",
            "--host",
            self.socket,
            ready=lambda: self.docker("version", check=False).returncode == 0,
        )

    def docker(self, *arguments, check=True, **options):
        return run("docker", "--host", self.socket, *arguments, check=check, **options)


def docker(world):
    for name in ("daemon.json", "containerd-store.json"):
        world.check(f"{name} is JSON", lambda name=name: json.loads((DEPLOY / "docker" / name).read_text()))
    world.report.leave_out(
        "the containerd store, and certs.d with it: Debian 12 has Engine 20.10. containerd reads the same file"
    )
    if not world.with_clients:
        return
    world.mirror()
    engine = Engine(world, DEPLOY / "docker/daemon.json")

    def configured():
        info = json.loads(engine.docker("info", "--format", "{{json .RegistryConfig}}").stdout)
        same(info["Mirrors"], ["http://mirror.example.com:3000/"])
        same(info["IndexConfigs"]["mirror.example.com:3000"]["Secure"], False)

    world.check("dockerd takes daemon.json", configured)
    for name in (
        "app:1.0",
        "org/app:1.0",
        "mirror.example.com:3000/ghcr.io/org/app:1.0",
        "mirror.example.com:3000/quay.io/org/app:1.0",
    ):
        world.check(f"docker pull {name}", lambda name=name: engine.docker("pull", name))
    world.end_processes()
    world.check(
        "dockerd takes containerd-store.json",
        lambda: Engine(world, DEPLOY / "docker/containerd-store.json").docker("info"),
    )


def swarm(world):
    secrets = world.scratch / "secrets"
    secrets.mkdir()
    for name, value in (("s3_access_key", stores.ACCESS_KEY), ("s3_secret_key", stores.SECRET_KEY)):
        (secrets / name).write_text(f"{value}\n")
    configuration = (DEPLOY / "swarm/entrepot.yaml").read_text().replace("/run/secrets", str(secrets))
    world.check("entrepot.yaml is accepted by the mirror", lambda: rig.check_configuration(configuration))
    world.check("entrepot hold waits for SIGTERM", lambda: holds_until_told(world))
    if not world.with_clients:
        return
    stores.is_shared(world, rig.yaml.safe_load(configuration))
    plain = world.scratch / "plain.json"
    plain.write_text("{}")
    engine = Engine(world, plain)
    engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    for name in ("s3_access_key", "s3_secret_key"):
        engine.docker("secret", "create", name, secrets / name)
    deployed = world.check(
        "docker stack deploy takes stack.yaml",
        lambda: engine.docker("stack", "deploy", "--compose-file", "stack.yaml", "entrepot", cwd=DEPLOY / "swarm"),
    )
    if not deployed:
        return

    def inspect(service):
        return json.loads(engine.docker("service", "inspect", f"entrepot_{service}").stdout)[0]["Spec"]

    def holds_on_every_node():
        spec = inspect("hold")
        same(spec["Mode"], {"Global": {}})
        same(spec["TaskTemplate"]["ContainerSpec"]["Args"], ["hold"])
        image = inspect("entrepot")["TaskTemplate"]["ContainerSpec"]["Image"]
        same(spec["TaskTemplate"]["ContainerSpec"]["Image"], image)

    world.check("hold is one task on every node, of the image of the mirror", holds_on_every_node)

    def overlay():
        network = json.loads(engine.docker("network", "inspect", "entrepot_store").stdout)[0]
        same((network["Driver"], network["Scope"]), ("overlay", "swarm"))

    world.check("the store is in an overlay network", overlay)
    world.report.leave_out("tasks of the swarm: their images cannot be pulled here")


def holds_until_told(world):
    process = world.daemon("hold", BINARY, "hold", ready=lambda: True, environment={})
    time.sleep(0.2)
    holds(process.poll() is None, "it ended by itself")
    world.end_process(process)
    same(process.returncode, 0)


@contextlib.contextmanager
def registries_conf(world):
    """The file of podman-crio, where Podman and Skopeo look for it."""
    directory = world.scratch / "registries.conf.d"
    directory.mkdir(exist_ok=True)
    shutil.copy(DEPLOY / "podman-crio/50-entrepot.conf", directory)
    run("mount", "--bind", directory, "/etc/containers/registries.conf.d")
    try:
        yield
    finally:
        run("umount", "/etc/containers/registries.conf.d")


def podman_pull(world, store, name):
    """Pulls into a store of that name."""
    policy = world.scratch / "policy.json"
    policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    root = world.scratch / f"podman-{store}"
    run(
        *("podman", "--root", root / "root", "--runroot", root / "run", "--tmpdir", root / "tmp"),
        *("--storage-driver=vfs", "--events-backend=none"),
        *("pull", "--quiet", "--signature-policy", policy, name),
    )


def podman(world):
    if not world.with_clients:
        return
    world.mirror()
    names = (
        "docker.io/library/app:1.0",
        "ghcr.io/org/app:1.0",
        "quay.io/org/app:1.0",
        "registry.k8s.io/coredns/coredns:1.0",
    )
    with registries_conf(world):
        for name in names:
            target = world.scratch / "skopeo" / name.partition("/")[0]
            target.parent.mkdir(exist_ok=True)
            world.check(
                f"skopeo copies {name}",
                lambda name=name, target=target: run(
                    "skopeo", "--insecure-policy", "copy", f"docker://{name}", f"dir:{target}"
                ),
            )
        for name in names[::2]:
            world.check(f"podman pull {name}", lambda name=name: podman_pull(world, "folder", name))
    world.report.leave_out("CRI-O itself: not in Debian 12. It reads the file with the library of the other two")
