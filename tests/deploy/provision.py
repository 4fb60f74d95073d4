"""Ansible."""

import re
import shutil

import fronts
import machines
import nodes
import rig
from playbook import TOOLS, environment, play
from rig import BINARY, DEPLOY, holds, run, same


def ansible(world):
    directory = world.scratch / "ansible"
    shutil.copytree(DEPLOY / "ansible", directory)
    world.check(
        "ansible-lint, profile production",
        lambda: run(
            TOOLS / "ansible-lint",
            "--offline",
            "--profile",
            "production",
            "--strict",
            ".",
            cwd=directory,
            env=environment(),
            seconds=120,
        ),
    )
    for challenge in ("http-01", "dns-01"):
        run_role(world, directory, challenge)


def run_role(world, directory, challenge):
    root = world.scratch / f"ansible-{challenge}"
    root.mkdir()
    inventory = world.scratch / "inventory.ini"
    inventory.write_text(
        "[mirror]\nlocalhost\n[nodes]\nlocalhost\n[all:vars]\nansible_connection=local\nansible_become=false\n"
    )
    owner, group = (run("id", flag).stdout.strip() for flag in ("-un", "-gn"))
    variables = {
        "entrepot_root": str(root),
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
    extra = ("--extra-vars", rig.json.dumps(variables), "--become-user", owner, "--extra-vars", "ansible_become=false")
    command = ("--inventory", inventory, *extra, directory / "site.yml")
    first = {}

    def runs():
        first["output"] = play(world, *command).stdout

    if not world.check(f"{challenge}: the playbook runs on a scratch root", runs):
        return

    commands = re.findall(r"certbot certonly [^\n]*", first["output"].replace('\\"', '"'))

    def prints():
        same(len(commands), 1)
        for name in ("registry.example.com", "hub.example.com"):
            holds(f"-d '{name}'" in commands[0], commands[0])
        wanted = (
            ["--webroot", "-d 'docker.io.registry.example.com'", "-d 'registry.k8s.io.registry.example.com'"]
            if challenge == "http-01"
            else ["--dns-cloudflare", "-d '*.io.registry.example.com'", "-d '*.k8s.io.registry.example.com'"]
        )
        holds(all(part in commands[0] for part in wanted), commands[0])

    world.check(f"{challenge}: it prints the certbot command", prints)
    if challenge != "http-01":
        return

    def unchanged():
        output = play(world, *command).stdout
        holds("changed=0" in output, output)

    world.check("a second run changes nothing", unchanged)
    world.check(
        "the installed binary accepts configuration and credentials",
        lambda: run(
            root / "usr/local/bin/entrepot",
            "--check-config",
            "--config",
            root / "etc/entrepot/entrepot.yaml",
            "--creds-file",
            root / "etc/entrepot/credentials.yaml",
            env={},
        ),
    )
    world.check(
        "credentials are for root alone",
        lambda: same((root / "etc/entrepot/credentials.yaml").stat().st_mode & 0o777, 0o600),
    )
    world.check(
        "the installed unit is verified by systemd-analyze",
        lambda: machines.verify(world, root / "etc/systemd/system/entrepot.service"),
    )
    site = root / "etc/nginx/conf.d/entrepot.conf"
    world.check(
        "without a certificate nginx listens on port 80 alone",
        lambda: holds("listen 443" not in site.read_text(), site.read_text()),
    )
    live = root / "etc/letsencrypt/live/registry.example.com"
    live.mkdir(parents=True)
    (live / "fullchain.pem").write_text("there")
    world.check("with a certificate the playbook puts TLS in front", lambda: play(world, *command))
    if not world.with_clients:
        return
    world.mirror(rig.yaml.safe_load((root / "etc/entrepot/entrepot.yaml").read_text()), port=None, listening=[3000])
    fronts.start_nginx(world, site.read_text())
    fronts.pulls(world, "nginx", world.tls / "ca.crt")

    def by_name():
        _, headers, _ = rig.ask(
            "https://hub.example.com/v2/library/app/manifests/1.0", "--cacert", world.tls / "ca.crt"
        )
        same(headers.get("oci-namespace"), "docker.io")

    world.check("a host name of another form means its registry", by_name)
    client = nodes.Containerd(world)
    hosts = root / "etc/containerd/certs.d/_default/hosts.toml"
    hosts.write_text(hosts.read_text() + f'  ca = "{world.tls / "ca.crt"}"\n')
    world.check(
        "the nodes' hosts.toml pulls over TLS (containerd)",
        lambda: client.pull(hosts.parents[1], "quay.io/org/only-quay:1.0"),
    )
