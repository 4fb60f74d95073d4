"""Runs the Dockerfile where its base image cannot be had: the first stage step by step in a directory of this machine, the
last as it is written, by podman."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def stages():
    """The instructions of every stage, as (word, rest)."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in filter(None, joined.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


class Build:
    """The first stage. Its file system is that of this machine, but for the directories that the stage makes. `profile` are
    variables by which cargo optimises less than for a release."""

    def __init__(self, directory, architecture, libc, profile):
        self.source = directory / "source"
        self.image = directory / "image"
        self.variables = {"TARGETARCH": architecture, "RELEASE_LIBC": libc, "SOURCE_DATE_EPOCH": "0", **profile}
        self.left_out = []
        # What cargo has built is kept, as a builder keeps its layers.
        for made in (self.source / "release", self.source / "src", self.image):
            shutil.rmtree(made, ignore_errors=True)
        self.source.mkdir(parents=True, exist_ok=True)

    def run(self):
        for word, rest in stages()[0]:
            if word == "COPY":
                *origins, target = rest.split()
                for origin in origins:
                    self.copy(ROOT / origin, self.source / target)
            elif word == "RUN" and rest.startswith("apt-get"):
                self.left_out.append(rest)
            elif word == "RUN":
                self.execute(rest.replace(" /image/", f" {shlex.quote(str(self.image))}/"))

    def take(self, binary):
        """What the stage makes, with a binary that is there already."""
        data = self.image / "data"
        data.mkdir(parents=True)
        data.chmod(0o1777)
        shutil.copy(binary, self.image / "entrepot")

    @staticmethod
    def copy(origin, target):
        if origin.is_dir():
            shutil.copytree(origin, target, dirs_exist_ok=True)
        else:
            # With its time, or cargo builds everything anew.
            shutil.copy2(origin, target / origin.name)

    def execute(self, line):
        environment = {**os.environ, **self.variables}
        environment.pop("CARGO_TARGET_DIR", None)
        subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=self.source, env=environment, check=True)


class Podman:
    """A podman with an empty store."""

    def __init__(self, directory):
        self.store = ["podman", f"--root={directory}/store", f"--runroot={directory}/run", "--storage-driver=vfs"]

    def __call__(self, *arguments):
        command = [*self.store, *map(str, arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return done.stdout

    def build(self, first_stage, tag):
        """The last stage, with the directory of the first in its place."""
        context = f"build={first_stage.parent}"
        self("build", "--format=docker", f"--build-context={context}", f"--tag={tag}", "--file", ROOT / "Dockerfile", ROOT)
