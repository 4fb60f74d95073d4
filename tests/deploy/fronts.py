"""TLS in front: nginx and Caddy."""

import os
import shutil

import rig
from rig import DEPLOY, holds, run, same

NAMES = {
    "docker.io.registry.example.com/library/app:1.0": "docker.io",
    "ghcr.io.registry.example.com/org/app:1.0": "ghcr.io",
    "quay.io.registry.example.com/org/only-quay:1.0": "quay.io",
    "registry.k8s.io.registry.example.com/coredns/coredns:1.0": "registry.k8s.io",
    "registry.example.com/quay.io/org/only-quay:1.0": "quay.io",
}


def nginx_and_caddy(world):
    configuration = rig.read_yaml("nginx-caddy/entrepot.yaml")
    world.check(
        "entrepot.yaml is accepted by the mirror",
        lambda: rig.check_configuration((DEPLOY / "nginx-caddy/entrepot.yaml").read_text()),
    )
    if not world.with_clients:
        return
    world.mirror(configuration, port=None, listening=[3000])
    text = (DEPLOY / "nginx-caddy/nginx.conf").read_text()
    start_nginx(world, text)
    pulls(world, "nginx", world.tls / "ca.crt")
    world.end_process(world.processes.pop())
    caddy(world)


def start_nginx(world, text, live="/etc/letsencrypt/live/registry.example.com"):
    """Tests and starts nginx with a file of conf.d; only the place of the certificate is another one."""
    text = text.replace(f"{live}/fullchain.pem", str(world.tls / "tls.crt")).replace(
        f"{live}/privkey.pem", str(world.tls / "tls.key")
    )
    directory = world.scratch / f"nginx-{len(list(world.scratch.glob('nginx-*')))}"
    directory.mkdir()
    (directory / "site.conf").write_text(text)
    paths = "".join(
        f"    {kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(f"""pid {directory}/pid;
daemon off;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
{paths}    include {directory}/site.conf;
}}
""")
    nginx = ("nginx", "-c", directory / "nginx.conf", "-p", directory)
    world.check("nginx -t", lambda: run(*nginx, "-t", "-e", directory / "error.log"))
    world.daemon(directory.name, *nginx, "-e", directory / "error.log", ready=lambda: rig.accepts(80))


def pulls(world, front, authority):
    certificates = world.scratch / f"certificates-{front}"
    certificates.mkdir(exist_ok=True)
    shutil.copy(authority, certificates / "ca.crt")
    for name, registry in NAMES.items():

        def pull(name=name, registry=registry):
            target = world.scratch / "fronts" / front / registry
            target.parent.mkdir(parents=True, exist_ok=True)
            run(
                "skopeo",
                "--insecure-policy",
                "copy",
                "--src-cert-dir",
                certificates,
                f"docker://{name}",
                f"dir:{target}",
            )

        world.check(f"skopeo pulls {name} through {front}", pull)

    def namespace():
        url = "https://quay.io.registry.example.com/v2/org/only-quay/manifests/1.0"
        status, headers, _ = rig.ask(url, "--cacert", authority)
        same((status, headers.get("oci-namespace")), (200, "quay.io"))

    world.check(f"{front} passes on which registry is meant", namespace)

    def unknown():
        status, _, _ = rig.ask("https://unknown.registry.example.com/v2/org/app/manifests/1.0", "--insecure")
        same(status, 404)

    if front == "nginx":
        world.check("a host name that means no registry is answered with 404", unknown)

        def plain():
            status, headers, _ = rig.ask("http://quay.io.registry.example.com/v2/")
            same((status, headers["location"]), (308, "https://quay.io.registry.example.com/v2/"))

        world.check("port 80 sends to TLS", plain)

    def ranged():
        url = "https://docker.io.registry.example.com/v2/library/app/blobs/"
        layer = layer_of(authority)
        done = run(
            "curl",
            "--silent",
            "--fail",
            "--cacert",
            authority,
            "--range",
            "0-9",
            "--dump-header",
            "-",
            "--output",
            os.devnull,
            url + layer,
        )
        holds(" 206" in done.stdout.splitlines()[0] and "content-range: bytes 0-9/" in done.stdout.lower(), done.stdout)

    world.check(f"{front} passes ranges on", ranged)


def layer_of(authority):
    _, _, body = rig.ask("https://docker.io.registry.example.com/v2/library/app/manifests/1.0", "--cacert", authority)
    return rig.json.loads(body)["layers"][0]["digest"]


def caddy(world):
    file = DEPLOY / "nginx-caddy/Caddyfile"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(world.scratch),
        "XDG_DATA_HOME": str(world.scratch / "caddy"),
        "XDG_CONFIG_HOME": str(world.scratch / "caddy"),
    }
    world.check(
        "caddy validate", lambda: run("caddy", "validate", "--adapter", "caddyfile", "--config", file, env=environment)
    )
    # Certificates from a CA of its own, since none can be had from outside.
    own = world.scratch / "Caddyfile"
    own.write_text("{\n\tlocal_certs\n\tskip_install_trust\n}\n" + file.read_text())
    authority = world.scratch / "caddy/caddy/pki/authorities/local/root.crt"

    def ready():
        return authority.exists() and all(
            run(
                "curl",
                "--silent",
                "--cacert",
                authority,
                "--max-time",
                "2",
                f"https://{name.partition('/')[0]}/v2/",
                check=False,
            ).returncode
            == 0
            for name in NAMES
        )

    world.daemon(
        "caddy", "caddy", "run", "--adapter", "caddyfile", "--config", own, ready=ready, environment=environment
    )
    pulls(world, "Caddy", authority)
    world.report.leave_out("certificates by ACME: there is no such server here")
