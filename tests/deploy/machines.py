"""Compose and systemd: the mirror on one machine."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import rig
import stores
from rig import DEPLOY, holds, run, same

# What systemd-analyze says must not get worse than this, in tenths: 0 is least exposed, 100 most.
EXPOSURE_MOST = 15


def compose(world):
    tool = Path(sys.executable).parent / "docker-compose"
    directory = world.scratch / "compose"
    shutil.copytree(DEPLOY / "compose", directory)
    shutil.copy(directory / "env.example", directory / ".env")

    def rendered(*files, environment=()):
        flags = [part for file in files for part in ("--file", file)]
        done = run(
            tool,
            *flags,
            "config",
            "--format",
            "json",
            cwd=directory,
            env={"PATH": "/usr/bin", "HOME": str(world.scratch), **dict(environment)},
        )
        return json.loads(done.stdout)

    def service(of):
        return of["services"]["entrepot"]

    def plain():
        read = rendered("compose.yaml")
        same(service(read)["restart"], "unless-stopped")
        same(service(read)["user"], "65532:65532")
        same(read["networks"]["entrepot"]["name"], "entrepot")
        same(service(read)["ports"][0]["published"], "3000")
        same([volume["target"] for volume in service(read)["volumes"]], ["/data", "/etc/entrepot"])

    world.check("docker compose reads compose.yaml with env.example as it is", plain)

    def accepted(environment, *files):
        read = service(rendered(*files, environment=environment))
        variables = {name: value or "" for name, value in read["environment"].items() if name != "ENTREPOT_CACHE_DIR"}
        configuration = directory / "config" / Path(variables.pop("ENTREPOT_CONFIG")).name
        rig.check_configuration(configuration.read_text(), variables)

    proxied = {
        "HTTPS_PROXY": "http://proxy.example.com:3128",
        "NO_PROXY": "10.0.0.0/8",
        "DOCKERHUB_USERNAME": "me",
        "DOCKERHUB_PASSWORD": "secret",
    }
    world.check(
        "its configuration is accepted by the mirror, without credentials", lambda: accepted({}, "compose.yaml")
    )
    world.check("and with credentials and a proxy", lambda: accepted(proxied, "compose.yaml"))

    store = ("compose.yaml", "object-store/compose.yaml")
    keys = {"S3_ACCESS_KEY": stores.ACCESS_KEY, "S3_SECRET_KEY": stores.SECRET_KEY}

    def with_store():
        read = rendered(*store, environment=keys)
        same(sorted(read["services"]), ["bucket", "entrepot", "minio"])
        same(service(read)["restart"], "unless-stopped")
        same(service(read)["environment"]["ENTREPOT_CONFIG"], "/etc/entrepot/object-store.yaml")

    world.check("docker compose reads it with object-store/compose.yaml", with_store)
    world.check(
        "the object store without keys is refused",
        lambda: holds(refused(lambda: rendered(*store)), "it was accepted"),
    )
    world.check("the object store's configuration is accepted by the mirror", lambda: accepted(keys, *store))
    if world.with_clients:
        stores.is_shared(world, rig.read_yaml("compose/config/object-store.yaml"), keys)
    world.report.leave_out("containers of compose: their images cannot be pulled here")


def refused(attempt):
    try:
        attempt()
    except rig.Failure:
        return True
    return False


def unit_root(world, unit):
    """A root with the unit, and what it runs."""
    root = world.scratch / f"root-{len(list(world.scratch.glob('root-*')))}"
    for program in ("usr/local/bin/entrepot", "bin/kill"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("#!/bin/sh\n")
        (root / program).chmod(0o755)
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    shutil.copy(unit, units / "entrepot.service")
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    return root


def verify(world, unit):
    done = run("systemd-analyze", f"--root={unit_root(world, unit)}", "verify", "/etc/systemd/system/entrepot.service")
    complaints = [line for line in done.stderr.splitlines() if "entrepot" in line]
    same(complaints, [])


def systemd(world):
    unit = DEPLOY / "systemd/entrepot.service"
    world.check("systemd-analyze verify has no complaint", lambda: verify(world, unit))
    done = run(
        "systemd-analyze",
        f"--root={unit_root(world, unit)}",
        "--offline=true",
        f"--threshold={EXPOSURE_MOST}",
        "security",
        "entrepot.service",
        check=False,
    )
    score = re.search(r"Overall exposure level for entrepot.service: ([0-9.]+)", done.stdout)
    world.check(f"systemd-analyze security says {score and score[1]}", lambda: same(done.returncode, 0))
    quoted = re.search(r"gives it ([0-9.]+) ", (DEPLOY / "systemd/README.md").read_text())
    world.check("the README quotes that", lambda: same(quoted and quoted[1], score and score[1]))
    if not world.with_clients:
        return
    world.check("the mirror makes no system call that the unit refuses", lambda: within_filter(world, unit))
    world.report.leave_out(
        "the unit in a running systemd: there is none here. Its system calls are held against the filter instead"
    )


def within_filter(world, unit):
    """Holds what the mirror does during pulls against SystemCallFilter."""
    trace = world.scratch / "trace"
    mirror = world.mirror(runner=("strace", "-f", "-qq", "-o", trace))
    url = "http://127.0.0.1:3000/v2/library/app/manifests/1.0"
    for _ in range(2):
        status, _, body = rig.ask(url)
        same(status, 200)
        layer = json.loads(body)["layers"][0]["digest"]
        same(
            rig.ask(
                f"http://127.0.0.1:3000/v2/library/app/blobs/{layer}",
                "--output",
                "/dev/null",
                "--write-out",
                "HTTP/1.1 %{http_code}\n\n",
            )[0],
            200,
        )
    (child,) = Path(f"/proc/{mirror.pid}/task/{mirror.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    mirror.wait(20)
    made = set(re.findall(r"^[0-9]+ +([a-z0-9_]+)\(", trace.read_text(), re.MULTILINE))
    groups = {}
    for line in run("systemd-analyze", "syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            group = groups.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            group.add(line.strip())

    def flat(name):
        return set().union(*(flat(each) if each.startswith("@") else {each} for each in groups[name]))

    allowed = set()
    for names in re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE):
        calls = set().union(*(flat(name) for name in names.removeprefix("~").split()))
        allowed = allowed - calls if names.startswith("~") else allowed | calls
    holds(made, "nothing was traced")
    same(made - allowed, set())
    # What ProcSubset hides. The C library looks for the last one, and does well without.
    files = {file for file in re.findall(r'"(/proc/[^"]*)"', trace.read_text()) if not file.startswith("/proc/self/")}
    same(files - {"/proc/sys/vm/overcommit_memory"}, set())
