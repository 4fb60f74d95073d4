"""Tries every folder of deploy/, and prints what held, what did not, and what was left out."""

import pathlib
import re
import sys
import time
import traceback

import build
import clusters
import engines
import fronts
import machines
import migrate
import nodes
import provision
import rig
import ways

FOLDERS = {
    "containerd": nodes.containerd,
    "docker": engines.docker,
    "podman-crio": engines.podman,
    "k3s-k3d": nodes.k3s,
    "kubeadm": nodes.kubeadm,
    "kubespray": nodes.kubespray,
    "buildkit": build.buildkit,
    "compose": machines.compose,
    "swarm": engines.swarm,
    "kubernetes": clusters.kubernetes,
    "systemd": machines.systemd,
    "nginx-caddy": fronts.nginx_and_caddy,
    "ansible": provision.ansible,
    "migrate": migrate.tables,
}
# What is about several of them.
ACROSS = {"every way in": ways.every_way_in}

# What two machines share between them that are tried side by side: Ansible takes longer than most of the rest.
SECOND_HALF = ["kubespray", "ansible"]
HALVES = {
    "--first-half": [name for name in [*FOLDERS, *ACROSS] if name not in SECOND_HALF],
    "--second-half": SECOND_HALF,
}


def readmes():
    for file in rig.DEPLOY.rglob("README.md"):
        text = file.read_text()
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            rig.holds((file.parent / link).exists(), f"{file}: there is no {link}")
    for folder in FOLDERS:
        text = (rig.DEPLOY / folder / "README.md").read_text()
        rig.holds("**Delete**" in text or folder == "migrate", f"{folder}: what to delete is not said")
        # A role and what compose mounts are copied as a whole.
        files = [
            file
            for file in (rig.DEPLOY / folder).rglob("*")
            if file.is_file() and not {"roles", "config"} & set(file.parts)
        ]
        unnamed = [file.name for file in files if file.name != "README.md" and file.name not in text]
        rig.same(unnamed, [])


def main(scratch, *arguments):
    with_clients = "--without-clients" not in arguments
    wanted = [name for name in arguments if not name.startswith("--")]
    for half, names in HALVES.items():
        wanted += names if half in arguments else []
    report = rig.Report()
    if "--second-half" not in arguments:
        folders = {entry.name for entry in rig.DEPLOY.iterdir() if entry.is_dir()}
        report.check("every folder of deploy/ is tried", lambda: rig.same(folders, set(FOLDERS)))
        report.check("every README names every file, and leads to what is there", readmes)
    if not with_clients:
        report.leave_out("all clients: they take root, and mounts and a network of their own")
    world = rig.World(pathlib.Path(scratch), report, with_clients)
    try:
        for name in wanted:
            start = time.monotonic()
            report.folder = name
            try:
                {**FOLDERS, **ACROSS}[name](world)
            except Exception:  # a folder that cannot be tried is a failure, and the next is tried all the same
                report.fail("could be tried", traceback.format_exc())
            finally:
                world.end_processes()
            print(f"--- {name}: {time.monotonic() - start:.1f} s", flush=True)
    finally:
        world.end()
    return report.end()


sys.exit(main(*sys.argv[1:]))
