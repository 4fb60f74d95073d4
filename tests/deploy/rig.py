"""What every check stands on: processes, upstream registries with a few small images, and the mirror."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BINARY = os.environ["ENTREPOT"]

# Longest run of one command of a client, in seconds: each takes one or two.
COMMAND_SECONDS = 180
# Longest start of a daemon, in seconds.
READY_SECONDS = 30

# The registries that are played, each with the port of its stand-in.
MAIN_PORT, OTHER_PORT, CORP_PORT = 4000, 4001, 5000
UPSTREAMS = {
    "docker.io": MAIN_PORT,
    "ghcr.io": MAIN_PORT,
    "gcr.io": MAIN_PORT,
    "registry.k8s.io": MAIN_PORT,
    "registry.corp.example:5000": MAIN_PORT,
    f"127.0.0.1:{MAIN_PORT}": MAIN_PORT,
    "quay.io": OTHER_PORT,
}
# Host names that are this machine.
NAMES = [
    "localhost",
    "mirror.example.com",
    "minio",
    "registry.corp.example",
    "hub.example.com",
    "registry.example.com",
    "docker.io.registry.example.com",
    "ghcr.io.registry.example.com",
    "quay.io.registry.example.com",
    "registry.k8s.io.registry.example.com",
    "unknown.registry.example.com",
]


class Failure(Exception):
    """What was expected did not hold."""


class LeftOut(Exception):
    """What cannot be tried here, and why."""


def same(found, expected):
    if found != expected:
        raise Failure(f"found {found!r}, expected {expected!r}")


def holds(condition, otherwise):
    if not condition:
        raise Failure(otherwise)


class Report:
    """Counts what held, and prints each line as it comes."""

    def __init__(self):
        self.folder = ""
        self.passed, self.failed, self.left_out = 0, 0, 0

    def check(self, fact, attempt):
        """Whether `attempt` went through, which says that `fact` holds."""
        try:
            attempt()
        except LeftOut as reason:
            self.leave_out(f"{fact}: {reason}")
            return False
        except (Failure, subprocess.SubprocessError, OSError) as error:
            self.fail(fact, error)
            return False
        self.passed += 1
        print(f"ok      {self.folder:12} {fact}", flush=True)
        return True

    def fail(self, fact, error):
        self.failed += 1
        print(f"FAILED  {self.folder:12} {fact}\n{error}", flush=True)

    def leave_out(self, what):
        self.left_out += 1
        print(f"LEFT OUT: deploy/{self.folder}: {what}", flush=True)

    def end(self):
        print(f"\ndeploy: {self.passed} passed, {self.failed} failed, {self.left_out} left out")
        return 1 if self.failed else 0


def run(*command, check=True, seconds=COMMAND_SECONDS, **options):
    """Runs a command to its end and gives its outputs, as text."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )
    if check and done.returncode != 0:
        raise Failure(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done


class World:
    """One machine of its own: its registries, its mirror, its scratch directory."""

    def __init__(self, scratch, report, with_clients):
        self.scratch, self.report, self.with_clients = scratch, report, with_clients
        self.check = report.check
        self.processes, self.registries = [], []
        self.images = {}
        if with_clients:
            self.start()

    def start(self):
        hosts = self.scratch / "hosts"
        hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in NAMES))
        run("mount", "--bind", hosts, "/etc/hosts")
        self.authority()
        self.registries = [
            self.registry("main", MAIN_PORT),
            self.registry("other", OTHER_PORT),
            self.registry("main", CORP_PORT, tls=True),
        ]
        for repository in ("library/app", "org/app", "coredns/coredns", "pause", "kube-apiserver"):
            self.push(MAIN_PORT, f"{repository}:1.0", repository)
        for repository in ("org/app", "org/only-quay"):
            self.push(OTHER_PORT, f"{repository}:1.0", repository)

    # --- processes

    def daemon(self, name, *command, ready, environment=None, keep=False):
        """Starts what ends with this folder, or with everything."""
        log = open(self.scratch / f"{name}.log", "ab")
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
        process.name = name
        if not keep:
            self.processes.append(process)
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise Failure(f"{name} does not start:\n{self.log(name)}")
            time.sleep(0.05)
        return process

    def log(self, name):
        return (self.scratch / f"{name}.log").read_text(errors="replace")[-3000:]

    def end_process(self, process):
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end_processes(self):
        while self.processes:
            self.end_process(self.processes.pop())

    def end(self):
        self.end_processes()
        for process in self.registries:
            self.end_process(process)

    # --- upstreams

    def authority(self):
        """A CA, and a certificate for every host name that is this machine."""
        (self.scratch / "san").write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in NAMES))
        directory = self.scratch / "tls"
        directory.mkdir()
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run(
            "openssl",
            "req",
            "-x509",
            *new,
            "-subj",
            "/CN=test CA",
            "-days",
            "2",
            "-keyout",
            directory / "ca.key",
            "-out",
            directory / "ca.crt",
        )
        run(
            "openssl",
            "req",
            *new,
            "-subj",
            "/CN=mirror",
            "-keyout",
            directory / "tls.key",
            "-out",
            directory / "tls.csr",
        )
        run(
            "openssl",
            "x509",
            "-req",
            "-in",
            directory / "tls.csr",
            "-CA",
            directory / "ca.crt",
            "-CAkey",
            directory / "ca.key",
            "-days",
            "2",
            "-extfile",
            self.scratch / "san",
            "-out",
            directory / "tls.crt",
        )
        self.tls = directory

    def registry(self, storage, port, tls=False):
        http = {"addr": f"127.0.0.1:{port}"}
        if tls:
            http["tls"] = {"certificate": str(self.tls / "tls.crt"), "key": str(self.tls / "tls.key")}
        configuration = {
            "version": "0.1",
            "log": {"level": "warn"},
            "http": http,
            "storage": {"filesystem": {"rootdirectory": str(self.scratch / storage)}},
        }
        file = self.scratch / f"registry-{port}.yml"
        file.write_text(json.dumps(configuration))
        return self.daemon(f"registry-{port}", "docker-registry", "serve", file, ready=lambda: accepts(port), keep=True)

    def push(self, port, name, content):
        """Puts an image of one layer that holds `content` into a registry."""
        layout = self.scratch / "images" / re.sub(r"\W", "-", content)
        if content not in self.images:
            self.images[content] = write_image(layout, content)
        run(
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            f"oci:{layout}:image",
            f"docker://127.0.0.1:{port}/{name}",
        )

    # --- the mirror

    def mirror(self, configuration=None, port=3000, listening=(), environment=None, runner=()):
        """Starts the mirror with a configuration of deploy/, its registries turned to the stand-ins."""
        configuration = with_stand_ins(configuration or {})
        name = f"mirror-{len(list(self.scratch.glob('mirror-*.yaml')))}"
        file = self.scratch / f"{name}.yaml"
        file.write_text(yaml.safe_dump(configuration))
        flags = ["--port", port] if port else []
        process = self.daemon(
            name,
            *runner,
            BINARY,
            "--config",
            file,
            "--cache-dir",
            self.scratch / f"cache-{name}",
            *flags,
            environment={"PATH": os.environ["PATH"], **(environment or {})},
            ready=lambda: all(is_ready(each) for each in (listening or [port])),
        )
        process.mirror = name
        return process


def with_stand_ins(configuration):
    configuration = json.loads(json.dumps(configuration))
    upstreams = configuration.setdefault("upstreams", {})
    for name, port in UPSTREAMS.items():
        upstreams.setdefault(name, {})["endpoints"] = [f"http://127.0.0.1:{port}"]
        # They want no password.
        upstreams[name].pop("credentials", None)
    cache = configuration.setdefault("cache", {})
    cache.pop("directory", None)
    # How full the disk of this machine is decides nothing here.
    cache["min_free"] = "0%"
    return configuration


def check_configuration(text, environment=None):
    """`--check-config` of a text."""
    done = run(BINARY, "--check-config", check=False, env={"ENTREPOT_CONFIG_YAML": text, **(environment or {})})
    holds(done.returncode == 0, done.stderr)


def accepts(port):
    done = run("curl", "--silent", "--insecure", "--max-time", "2", f"http://127.0.0.1:{port}/", check=False)
    return done.returncode not in (7, 28)


def is_ready(port):
    return (
        run("curl", "--silent", "--fail", "--max-time", "2", f"http://127.0.0.1:{port}/readyz", check=False).returncode
        == 0
    )


def ask(url, *arguments):
    """Status, headers in lower case, and body of an answer."""
    done = run("curl", "--silent", "--show-error", "--include", "--max-time", "20", *arguments, url)
    head, _, body = done.stdout.partition("\n\n")
    lines = head.splitlines()
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), headers, body


def write_image(layout, content):
    """An image of one layer with one file, as an OCI layout. Gives the digest of its manifest."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        entry = tarfile.TarInfo("content")
        entry.size = len(content.encode())
        archive.addfile(entry, io.BytesIO(content.encode()))
    kind = "application/vnd.oci.image"
    layer = put(gzip.compress(plain.getvalue(), mtime=0), f"{kind}.layer.v1.tar+gzip")
    diff = "sha256:" + hashlib.sha256(plain.getvalue()).hexdigest()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": put(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [layer],
    }
    described = put(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    described["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return described["digest"]


def read_yaml(path):
    return yaml.safe_load((DEPLOY / path).read_text())
