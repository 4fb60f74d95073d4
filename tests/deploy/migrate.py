"""The tables of migrate/: the configuration of each does what the old set-up did."""

import re

import yaml

import rig
from rig import DEPLOY, ROOT, holds, same

TITLES = [
    "One `registry:2`",
    "A proxy with",
    "One TLS host name",
    "An nginx by virtual host",
    "A cache that goes by `ns`",
]


def tables(world):
    text = (DEPLOY / "migrate/README.md").read_text()
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    world.check(
        "there is one section for each kind of set-up",
        lambda: same([any(title.startswith(start) for title in sections) for start in TITLES], [True] * 5),
    )
    blocks = []
    for title, section in sections.items():
        block = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)[1]
        blocks.append(yaml.safe_load(block))
        world.check(f"{title}: its configuration is accepted", lambda block=block: rig.check_configuration(block))
    world.check("every key that the tables name is documented", lambda: named_keys(text))
    if not world.with_clients:
        return
    for attempt, block in zip((ports, search, names, virtual_hosts, kept_for_ever), blocks, strict=True):
        attempt(world, block)
        world.end_processes()


def named_keys(text):
    documented = set(
        re.findall(r"^\| `([a-z_.<>\[\]]+)` (?:⟳ )?\|", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    )
    named = set(re.findall(r"`((?:listen\[\]|upstreams\.<name>|manifests|cache|authentication)\.[a-z_.]+)`", text))
    missing = {key for key in named if not any(key == each or each.startswith(f"{key}.") for each in documented)}
    same(missing, set())


def answer(url, *arguments):
    status, headers, body = rig.ask(url, *arguments)
    return status, headers.get("oci-namespace"), body


def ports(world, configuration):
    listening = [int(listener["address"].rpartition(":")[2]) for listener in configuration["listen"]]
    # One of them is taken by a stand-in here.
    moved = {5000: 6000}
    for listener in configuration["listen"]:
        listener["address"] = re.sub(r"5000$", "6000", listener["address"])
    world.mirror(configuration, port=None, listening=[moved.get(port, port) for port in listening])
    repositories = {
        "docker.io": "library/app",
        "registry.k8s.io": "coredns/coredns",
        "quay.io": "org/only-quay",
        "ghcr.io": "org/app",
    }
    for listener in configuration["listen"]:
        registry, port = listener["upstream"], listener["address"].rpartition(":")[2]
        url = f"http://127.0.0.1:{port}/v2/{repositories[registry]}/manifests/1.0"
        world.check(
            f"port {port} is {registry}", lambda url=url, registry=registry: same(answer(url)[:2], (200, registry))
        )


def search(world, configuration):
    world.mirror(configuration)
    base = "http://127.0.0.1:3000/v2"
    world.check(
        "what the first registry has comes from there",
        lambda: same(answer(f"{base}/org/app/manifests/1.0")[:2], (200, "docker.io")),
    )
    world.check(
        "what only another has comes from that",
        lambda: same(answer(f"{base}/org/only-quay/manifests/1.0")[:2], (200, "quay.io")),
    )
    world.check(
        "a registry in the path is that registry",
        lambda: same(answer(f"{base}/ghcr.io/org/app/manifests/1.0")[:2], (200, "ghcr.io")),
    )
    world.check("`library/` is put there", lambda: same(answer(f"{base}/app/manifests/1.0")[:2], (200, "docker.io")))


def by_host(world, port, hosts):
    for host, (path, expected) in hosts.items():
        url = f"http://127.0.0.1:{port}/v2/{path}/manifests/1.0"
        world.check(
            f"{host} is {expected[1] or 'nothing'}",
            lambda url=url, host=host, expected=expected: same(answer(url, "--header", f"Host: {host}")[:2], expected),
        )


def names(world, configuration):
    world.mirror(configuration, port=None, listening=[3000])
    by_host(
        world,
        3000,
        {
            "dockerhub.registry-cache.example.com": ("library/app", (200, "docker.io")),
            "ghcr.registry-cache.example.com": ("org/app", (200, "ghcr.io")),
            "quay.io.registry-cache.example.com": ("org/only-quay", (200, "quay.io")),
            "other.example.com": ("org/app", (404, None)),
        },
    )


def virtual_hosts(world, configuration):
    # The port is taken by a stand-in here.
    world.mirror(configuration, port=6000)
    by_host(
        world,
        6000,
        {
            "docker.io.registry.example.com:5000": ("library/app", (200, "docker.io")),
            "ghcr.io.registry.example.com:5000": ("org/app", (200, "ghcr.io")),
            "quay.io.registry.example.com:5000": ("org/only-quay", (200, "quay.io")),
            "nothing.registry.example.com:5000": ("org/app", (404, None)),
        },
    )


def kept_for_ever(world, configuration):
    """Tags that move upstream: `latest` is seen to, others are not."""
    tags = {tag: f"http://127.0.0.1:3000/v2/org/moving/manifests/{tag}?ns=quay.io" for tag in ("1.0", "latest")}
    for tag in tags:
        world.push(rig.OTHER_PORT, f"org/moving:{tag}", "before")
    world.mirror(configuration)
    before = {tag: answer(url)[2] for tag, url in tags.items()}
    for tag in tags:
        world.push(rig.OTHER_PORT, f"org/moving:{tag}", "after")
    after = {tag: answer(url)[2] for tag, url in tags.items()}
    world.check("a tag is kept for ever", lambda: same(after["1.0"], before["1.0"]))
    world.check("`latest` is asked for every time", lambda: holds(after["latest"] != before["latest"], "it was kept"))
    other = world.registries[1]
    world.end_process(other)
    try:
        world.check("without upstream a tag is still given", lambda: same(answer(tags["1.0"])[0], 200))
        world.check("without upstream `latest` is not", lambda: holds(answer(tags["latest"])[0] >= 500, "it was given"))
    finally:
        world.registries[1] = world.registry("other", rig.OTHER_PORT)
