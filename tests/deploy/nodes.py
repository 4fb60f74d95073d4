"""containerd, and what makes its configuration: k3s, kubeadm, Kubespray."""

import json
import shutil
import time
import tomllib

import jsonschema

import fronts
import rig
import schemas
from playbook import play
from rig import DEPLOY, holds, run, same


class Containerd:
    """A containerd with an empty store."""

    def __init__(self, world):
        self.world = world
        self.directory = world.scratch / f"containerd-{time.monotonic_ns()}"
        self.directory.mkdir()
        self.socket = self.directory / "containerd.sock"
        configuration = self.directory / "config.toml"
        configuration.write_text(f"""version = 2
root = "{self.directory}/root"
state = "{self.directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{self.socket}"
[ttrpc]
  address = "{self.socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.directory}/opt"
""")
        self.process = world.daemon(
            self.directory.name,
            "containerd",
            "--config",
            configuration,
            ready=lambda: self.socket.exists() and self.ctr("version", check=False).returncode == 0,
        )

    def ctr(self, *arguments, check=True):
        return run("ctr", "--address", self.socket, *arguments, check=check)

    def pull(self, hosts, name, check=True):
        """Pulls an image that is not there, and gives how long that took."""
        self.ctr("images", "rm", "--sync", name, check=False)
        start = time.monotonic()
        done = self.ctr("images", "pull", "--snapshotter", "native", "--hosts-dir", hosts, name, check=check)
        self.seconds = time.monotonic() - start
        return done


def containerd(world):
    for file in sorted((DEPLOY / "containerd").rglob("*.toml")):
        fact = f"{file.relative_to(DEPLOY / 'containerd')} is TOML"
        world.check(fact, lambda file=file: tomllib.loads(file.read_text()))
    world.report.leave_out(
        "config-2.toml by containerd 2, and dial_timeout, which it is the first to read: Debian 12 has 1.6"
    )
    if not world.with_clients:
        return

    def config_path():
        dump = run("containerd", "--config", DEPLOY / "containerd/config.toml", "config", "dump").stdout
        holds('config_path = "/etc/containerd/certs.d"' in dump, dump)

    world.check("config.toml sets config_path (containerd)", config_path)
    client = Containerd(world)
    mirror = world.mirror()
    everything = DEPLOY / "containerd"
    for name in ("docker.io/library/app:1.0", "quay.io/org/app:1.0", f"127.0.0.1:{rig.MAIN_PORT}/org/app:1.0"):
        world.check(f"_default pulls {name}", lambda name=name: client.pull(everything, name))
    strict = world.scratch / "strict"
    shutil.copytree(DEPLOY / "containerd/strict", strict / "_default")
    world.check("strict pulls docker.io/library/app:1.0", lambda: client.pull(strict, "docker.io/library/app:1.0"))
    one = world.scratch / "one"
    shutil.copytree(DEPLOY / "containerd/docker.io", one / "docker.io")
    world.check(
        "docker.io alone pulls docker.io/library/app:1.0", lambda: client.pull(one, "docker.io/library/app:1.0")
    )
    corp = world.scratch / "corp" / "registry.corp.example_5000_"
    shutil.copytree(DEPLOY / "containerd" / corp.name, corp)
    file = corp / "hosts.toml"
    file.write_text(
        file.read_text().replace(
            "/etc/containerd/certs.d/registry.corp.example_5000_/ca.crt", str(world.tls / "ca.crt")
        )
    )
    private = "registry.corp.example:5000/org/app:1.0"
    world.check(f"a registry with a port pulls {private}", lambda: client.pull(corp.parent, private))

    world.end_process(mirror)
    name = f"127.0.0.1:{rig.MAIN_PORT}/org/app:1.0"

    def falls_back(hosts, name):
        client.pull(hosts, name)
        holds(client.seconds < 2, f"took {client.seconds:.1f} s")

    world.check("without a mirror, _default falls back within 2 s", lambda: falls_back(everything, name))
    world.check("without a mirror, a registry with its own CA is pulled from", lambda: falls_back(corp.parent, private))
    world.check(
        "without a mirror, strict pulls nothing",
        lambda: holds(client.pull(strict, name, check=False).returncode != 0, "it was pulled"),
    )


def hosts_of_k3s(world, mirrors, directory):
    """What k3s writes for containerd from `mirrors` of registries.yaml."""
    for registry, mirror in mirrors.items():
        target = directory / ("_default" if registry == "*" else registry)
        target.mkdir(parents=True)
        lines = []
        for endpoint in mirror["endpoint"]:
            lines.append(f'[host."{endpoint}/v2"]\n  capabilities = ["pull", "resolve"]\n  override_path = true\n')
            if endpoint.startswith("https:"):
                lines.append(f'  ca = "{world.tls / "ca.crt"}"\n')
        (target / "hosts.toml").write_text("".join(lines))


def k3s(world):
    files = {
        "registries.yaml": schemas.REGISTRIES,
        "registries-by-host.yaml": schemas.REGISTRIES,
        "k3d.yaml": schemas.K3D,
    }
    for name, schema in files.items():
        world.check(
            f"{name} fits its schema",
            lambda name=name, schema=schema: validate(rig.read_yaml(f"k3s-k3d/{name}"), schema),
        )
    printed = ["--upstream", "registry.example.com:5000=http://10.0.0.5:5000", "hosts", "k3s"]
    world.check(
        "what `entrepot hosts` prints fits the schema, too",
        lambda: validate(rig.yaml.safe_load(rig.run(rig.BINARY, *printed, env={}).stdout), schemas.REGISTRIES),
    )
    embedded = rig.yaml.safe_load(rig.read_yaml("k3s-k3d/k3d.yaml")["registries"]["config"])
    world.check("registries in k3d.yaml fit their schema", lambda: validate(embedded, schemas.REGISTRIES))

    def same_network():
        network = rig.read_yaml("compose/compose.yaml")["networks"]["entrepot"]["name"]
        same(rig.read_yaml("k3s-k3d/k3d.yaml")["network"], network)

    world.check("k3d.yaml joins the network of compose", same_network)
    world.report.leave_out(
        "k3s and k3d themselves: not in Debian, PyPI or npm. What k3s makes of the files is given to containerd"
    )
    if not world.with_clients:
        return
    client = Containerd(world)
    world.mirror()
    hosts = world.scratch / "k3s"
    hosts_of_k3s(world, rig.read_yaml("k3s-k3d/registries.yaml")["mirrors"], hosts)
    for name in ("docker.io/library/app:1.0", "quay.io/org/app:1.0"):
        world.check(f"registries.yaml pulls {name}", lambda name=name: client.pull(hosts, name))
    world.end_processes()
    world.mirror(rig.read_yaml("nginx-caddy/entrepot.yaml"), port=None, listening=[3000])
    fronts.start_nginx(world, (DEPLOY / "nginx-caddy/nginx.conf").read_text())
    client = Containerd(world)
    hosts = world.scratch / "k3s-by-host"
    hosts_of_k3s(world, rig.read_yaml("k3s-k3d/registries-by-host.yaml")["mirrors"], hosts)
    for name in ("docker.io/library/app:1.0", "quay.io/org/only-quay:1.0", "registry.k8s.io/coredns/coredns:1.0"):
        world.check(f"registries-by-host.yaml pulls {name} over TLS", lambda name=name: client.pull(hosts, name))


def validate(instance, schema):
    try:
        jsonschema.validate(instance, schema)
    except jsonschema.ValidationError as error:
        raise rig.Failure(str(error)) from error


def kubeadm(world):
    configuration = rig.read_yaml("kubeadm/kubeadm.yaml")
    world.check("kubeadm.yaml fits its schema", lambda: validate(configuration, schemas.KUBEADM))
    world.report.leave_out("kubeadm itself: not in Debian, PyPI or npm. The images it would name are pulled")
    if not world.with_clients:
        return
    client = Containerd(world)
    world.mirror()
    # How kubeadm names images: the repository of coredns is its own key, and its image only the last part.
    for image in (
        f"{configuration['imageRepository']}/kube-apiserver:1.0",
        f"{configuration['dns']['imageRepository']}/coredns:1.0",
        f"{configuration['imageRepository']}/pause:1.0",
    ):
        world.check(f"containerd pulls {image}", lambda image=image: client.pull(DEPLOY / "kubeadm", image))


# What is read of Kubespray's variables.
KUBESPRAY = [
    "containerd_registries_mirrors",
    "kube_image_repo",
    "docker_image_repo",
    "quay_image_repo",
    "coredns_image_repo",
]


def kubespray(world):
    read = {}
    for name in ("entrepot.yml", "by-name.yml"):
        world.check(f"{name} is read by Ansible", lambda name=name: read.update({name: variables(world, name)}))
        mirrors = read[name]["containerd_registries_mirrors"]
        world.check(f"{name} fits its schema", lambda mirrors=mirrors: validate(mirrors, schemas.KUBESPRAY))
    world.report.leave_out("Kubespray itself: not packaged. What it makes of the variables is given to containerd")
    if not world.with_clients:
        return
    client = Containerd(world)
    world.mirror()
    by_name = read["by-name.yml"]
    pulled = {
        "entrepot.yml": [
            "docker.io/library/app:1.0",
            "ghcr.io/org/app:1.0",
            "quay.io/org/app:1.0",
            "registry.k8s.io/coredns/coredns:1.0",
        ],
        "by-name.yml": [
            f"{by_name['kube_image_repo']}/kube-apiserver:1.0",
            f"{by_name['coredns_image_repo']}:1.0",
            f"{by_name['docker_image_repo']}/library/app:1.0",
            f"{by_name['quay_image_repo']}/org/app:1.0",
        ],
    }
    for name, images in pulled.items():
        hosts = world.scratch / f"kubespray-{name}"
        hosts_of_kubespray(read[name]["containerd_registries_mirrors"], hosts)
        for image in images:
            world.check(f"{name} pulls {image}", lambda hosts=hosts, image=image: client.pull(hosts, image))


def variables(world, name):
    """The variables of a file, as Ansible fills them in."""
    out = world.scratch / f"kubespray-{name}.json"
    wanted = ", ".join(f"{key}={key} | default(none)" for key in KUBESPRAY)
    task = {"dest": str(out), "mode": "0644", "content": f"{{{{ dict({wanted}) | to_json }}}}"}
    play_of_one = {
        "hosts": "localhost",
        "gather_facts": False,
        "connection": "local",
        "tasks": [{"ansible.builtin.copy": task}],
    }
    playbook = world.scratch / "kubespray.yml"
    playbook.write_text(json.dumps([play_of_one]))
    play(world, "--inventory", "localhost,", "--extra-vars", f"@{DEPLOY / 'kubespray' / name}", playbook)
    return json.loads(out.read_text())


def hosts_of_kubespray(items, directory):
    """What Kubespray writes for containerd from `containerd_registries_mirrors`."""
    for item in items:
        target = directory / item["prefix"]
        target.mkdir(parents=True)
        lines = [f'server = "{item.get("server", "https://" + item["prefix"])}"\n']
        for mirror in item["mirrors"]:
            capabilities = json.dumps(mirror["capabilities"])
            lines.append(f'[host."{mirror["host"]}"]\n  capabilities = {capabilities}\n  skip_verify = false\n')
        (target / "hosts.toml").write_text("".join(lines))
