"""Tries every folder of deploy/, and prints what held, what did not, and what was left out."""

import pathlib
import sys
import tempfile
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


def main(arguments):
    with_clients = "--without-clients" not in arguments
    wanted = [name for name in arguments if not name.startswith("--")] or list(FOLDERS)
    report = rig.Report()
    folders = {entry.name for entry in rig.DEPLOY.iterdir() if entry.is_dir()}
    report.check("every folder of deploy/ is tried", lambda: rig.same(folders, set(FOLDERS)))
    if not with_clients:
        report.leave_out("all clients: they take root, and mounts and a network of their own")
    with tempfile.TemporaryDirectory(prefix="deploy-") as scratch:
        world = rig.World(pathlib.Path(scratch), report, with_clients)
        try:
            for name in wanted:
                start = time.monotonic()
                report.folder = name
                try:
                    FOLDERS[name](world)
                except Exception:  # a folder that cannot be tried is a failure, and the next is tried all the same
                    report.fail("could be tried", traceback.format_exc())
                finally:
                    world.end_processes()
                print(f"--- {name}: {time.monotonic() - start:.1f} s", flush=True)
        finally:
            world.end()
    return report.end()


sys.exit(main(sys.argv[1:]))
