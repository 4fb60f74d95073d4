"""Ansible."""

import json
import re
import shutil
import subprocess

import fronts
import machines
import nodes
import rig
from playbook import TOOLS, environment, play
from rig import BINARY, DEPLOY, holds, run, same

# Longest run of ansible-lint, in seconds: it is the slowest of all, and runs beside the playbook.
LINT_SECONDS = 120

# What the certbot command asks for, by challenge.
NAMES = {
    "http-01": ["--webroot", "-d 'docker.io.registry.example.com'", "-d 'registry.k8s.io.registry.example.com'"],
    "dns-01": ["--dns-cloudflare", "-d '*.io.registry.example.com'", "-d '*.k8s.io.registry.example.com'"],
}


class Scratch:
    """The role, a directory that stands for the root of a machine, and how one is put on the other."""

    def __init__(self, world, directory):
        self.world, self.directory = world, directory
        self.root = world.scratch / "ansible-root"
        self.root.mkdir()
        self.inventory = world.scratch / "inventory.ini"
        self.inventory.write_text(
            "[mirror]\nlocalhost\n[nodes]\nlocalhost\n[all:vars]\nansible_connection=local\nansible_become=false\n"
        )

    def play(self, challenge):
        """Runs the playbook and gives what it prints."""
        owner, group = (run("id", flag).stdout.strip() for flag in ("-un", "-gn"))
        variables = {
            "ansible_become": False,
            "entrepot_root": str(self.root),
            "entrepot_binary": BINARY,
            "entrepot_manage_services": False,
            "entrepot_owner": owner,
            "entrepot_group": group,
            "entrepot_challenge": challenge,
            "entrepot_hosts": {"hub.example.com": "docker.io"},
            "entrepot_config": {"manifests": {"ttl": "5m"}},
            "entrepot_credentials": {"docker.io": {"username": "me", "password": "secret"}},
            "entrepot_environment": {"HTTPS_PROXY": "http://proxy.example.com:3128"},
        }
        playbook = self.directory / "site.yml"
        return play(self.world, "--inventory", self.inventory, "--extra-vars", json.dumps(variables), playbook).stdout

    def path(self, name):
        return self.root / name


def ansible(world):
    directory = world.scratch / "ansible"
    shutil.copytree(DEPLOY / "ansible", directory)
    lint = subprocess.Popen(
        [TOOLS / "ansible-lint", "--offline", "--profile", "production", "--strict", "."],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        role(world, Scratch(world, directory))
    finally:
        said = lint.communicate(timeout=LINT_SECONDS)[0]
    world.check("ansible-lint, profile production", lambda: holds(lint.returncode == 0, said))


def role(world, scratch):
    said = {}

    def first():
        said["http-01"] = scratch.play("http-01")

    def second():
        said["dns-01"] = scratch.play("dns-01")
        holds("changed=0" in said["dns-01"], said["dns-01"])

    if not world.check("the playbook runs on a scratch root", first):
        return
    world.check("a second run, with another challenge, changes nothing", second)
    for challenge, wanted in NAMES.items():
        world.check(
            f"it prints the certbot command of {challenge}",
            lambda wanted=wanted, text=said[challenge]: asks_for(text, wanted),
        )
    installed(world, scratch)
    site = scratch.path("etc/nginx/conf.d/entrepot.conf")
    world.check(
        "without a certificate nginx listens on port 80 alone",
        lambda: holds("listen 443" not in site.read_text(), site.read_text()),
    )
    certificate = scratch.path("etc/letsencrypt/live/registry.example.com/fullchain.pem")
    certificate.parent.mkdir(parents=True)
    certificate.write_text("there")
    world.check("with a certificate it puts TLS in front", lambda: scratch.play("http-01"))
    if world.with_clients:
        clients(world, scratch, site)


def asks_for(text, wanted):
    commands = re.findall(r"certbot certonly [^\n]*", text)
    same(len(commands), 1)
    for part in [*wanted, "-d 'registry.example.com'", "-d 'hub.example.com'"]:
        holds(part in commands[0], f"{part} is not in {commands[0]}")


def installed(world, scratch):
    program, configuration, credentials = (
        scratch.path(name)
        for name in ("usr/local/bin/entrepot", "etc/entrepot/entrepot.yaml", "etc/entrepot/credentials.yaml")
    )
    world.check(
        "the installed binary accepts configuration and credentials",
        lambda: run(program, "--check-config", "--config", configuration, "--creds-file", credentials, env={}),
    )
    world.check("credentials are for root alone", lambda: same(credentials.stat().st_mode & 0o777, 0o600))
    unit = scratch.path("etc/systemd/system/entrepot.service")
    world.check("the installed unit is verified by systemd-analyze", lambda: machines.verify(world, unit))


def clients(world, scratch, site):
    """Pulls through what the role has written."""
    configuration = rig.yaml.safe_load(scratch.path("etc/entrepot/entrepot.yaml").read_text())
    world.mirror(configuration, port=None, listening=[3000])
    fronts.start_nginx(world, site.read_text())
    authority = world.tls / "ca.crt"
    fronts.pulls(world, "nginx", authority)

    def by_name():
        url = "https://hub.example.com/v2/library/app/manifests/1.0"
        same(rig.ask(url, "--cacert", authority)[1].get("oci-namespace"), "docker.io")

    world.check("a host name of another form means its registry", by_name)
    client = nodes.Containerd(world)
    hosts = scratch.path("etc/containerd/certs.d/_default/hosts.toml")
    hosts.write_text(f'{hosts.read_text()}  ca = "{authority}"\n')
    image = "quay.io/org/only-quay:1.0"
    world.check(
        f"the nodes' hosts.toml pulls {image} over TLS (containerd)", lambda: client.pull(hosts.parents[1], image)
    )
