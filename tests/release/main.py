"""Tests of what is released; see `run` beside this file."""

import hashlib
import io
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from dockerfile import ROOT, Build, Podman

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TAG = "localhost/entrepot:test"

# What the image may have, in bytes, and how long the mirror may take until it is ready, in seconds.
IMAGE_BYTES_MAX = 25_000_000
START_SECONDS_MAX = 0.05

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

AS_RELEASED = "--as-released" in sys.argv[1:]
BUILD_ONLY = "--build-only" in sys.argv[1:]

# Without what makes a release fast and its build slow: the same code and the same linking, in a third of the time. For
# size, which is what is held against a bound.
PROFILE = {} if AS_RELEASED else {
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "s",
}


def libc():
    """musl, unless rustup cannot get it."""
    target = f"{platform.machine()}-unknown-linux-musl"
    if subprocess.run(["rustup", "target", "add", target], capture_output=True).returncode:
        print(f"!!! LEFT OUT: musl, as rustup cannot get {target}; the binary is linked with this machine's glibc")
        return "gnu"
    return "musl"


def first_stage():
    """That of the Dockerfile, not yet run."""
    return Build(TARGET / ("image-as-released" if AS_RELEASED else "image"), ARCHITECTURE, libc(), PROFILE)


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        # The user of the image has to get at it.
        cls.directory.chmod(0o755)
        build = first_stage()
        if built := os.environ.get("ENTREPOT_BINARY"):
            build.take(Path(built))
        else:
            build.run()
        for line in build.left_out:
            print(f"    not run, as the base image has it or a mirror of it: {line}")
        cls.binary = build.image / "entrepot"
        cls.podman = Podman(cls.directory)
        cls.podman.build(build.image, TAG)
        cls.root = cls.directory / "root"
        cls.unpack()

    @classmethod
    def unpack(cls):
        archive = cls.directory / "image.tar"
        cls.podman("save", "--output", archive, TAG)
        with tarfile.open(archive) as saved:
            manifest = json.load(saved.extractfile("manifest.json"))[0]
            for layer in manifest["Layers"]:
                content = io.BytesIO(saved.extractfile(layer).read())
                with tarfile.open(fileobj=content) as files:
                    files.extractall(cls.root)

    def start(self, user, cache, arguments=()):
        """The unpacked image as `user` names it, with a root that takes no writes and `cache` as its volume."""
        script = """
            set -e
            mount --bind "$1" "$1"
            mount --bind "$2" "$1/data"
            mount -o remount,bind,ro "$1"
            root=$1 user=$3
            shift 3
            exec /usr/bin/env -i ENTREPOT_CACHE_DIR=/data ENTREPOT_PORT=3000 /usr/bin/setpriv --no-new-privs --inh-caps=-all \
                --bounding-set=-all,+sys_chroot,+setuid,+setgid \
                /usr/sbin/chroot --userspec="$user" --groups= "$root" /entrepot "$@"
        """
        # A network of its own: the port is always free, and nothing can leave.
        command = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-c", f"ip link set lo up\n{script}"]
        command += ["sh", self.root, cache, user, *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)

    def beside(self, process, *command):
        """Runs `command` in the namespaces of `process`."""
        inside = ["nsenter", f"--target={process.pid}", "--net", "--mount", "--root", "--wd=/", "--", *command]
        return subprocess.run(inside, capture_output=True, text=True, env={"ENTREPOT_PORT": "3000"})

    def cache_of(self, user):
        cache = Path(tempfile.mkdtemp(dir=self.directory))
        number = int(user.split(":")[0])
        os.chown(cache, number, number)
        return cache

    def healthy(self, process):
        """Waits until the image's own health check says so."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.assertIsNone(process.poll(), "it has ended")
            health = self.beside(process, "/entrepot", "health")
            if health.returncode == 0:
                return
        self.fail(health.stderr)

    def test_the_dockerfile_is_clean(self):
        subprocess.run([Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"], check=True)

    def test_the_binary_is_static(self):
        said = subprocess.run(["ldd", self.binary], capture_output=True, text=True)
        self.assertRegex(said.stdout + said.stderr, "statically linked|not a dynamic executable")

    def test_the_binary_tells_no_path_of_the_machine_that_built_it(self):
        content = self.binary.read_bytes()
        home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
        for path in (ROOT, TARGET, home):
            self.assertNotIn(str(path.resolve()).encode() + b"/", content, path)

    def test_the_image_is_small_and_says_what_it_is(self):
        (image,) = json.loads(self.podman("image", "inspect", TAG))
        print(f"{image['Size'] / 1e6:.1f} MB ", end="")
        self.assertLess(image["Size"], IMAGE_BYTES_MAX)
        config = image["Config"]
        self.assertEqual(config["Entrypoint"], ["/entrepot"])
        self.assertEqual(config["User"], "65532:65532")
        self.assertIn("ENTREPOT_CACHE_DIR=/data", config["Env"])
        self.assertEqual(config["Volumes"], {"/data": {}})
        self.assertEqual(image["HealthCheck" if "HealthCheck" in image else "Healthcheck"]["Test"], ["CMD", "/entrepot", "health"])
        for label in ("title", "description", "licenses", "version", "revision"):
            self.assertIn(f"org.opencontainers.image.{label}", config["Labels"])
        files = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))
        self.assertEqual(files, ["data", "entrepot"])

    def test_it_runs_as_its_user_and_as_any_other_that_owns_the_volume(self):
        for user in ("65532:65532", "1000:1000"):
            with self.subTest(user):
                process = self.start(user, self.cache_of(user))
                self.healthy(process)
                status = Path(f"/proc/{process.pid}/status").read_text()
                self.assertIn(f"Uid:\t{user.split(':')[0]}\t", status)
                self.assertIn("CapEff:\t0000000000000000\n", status)
                with self.assertRaises(OSError):
                    Path(f"/proc/{process.pid}/root/file").write_text("")
                self.end(process)
                self.assertEqual(process.returncode, 0)

    def test_a_mirror_that_is_gone_is_not_healthy(self):
        process = self.start("65532:65532", self.cache_of("65532:65532"), ["hold"])
        while not self.reached_entrepot(process):
            self.assertIsNone(process.poll(), "it has ended")
        health = self.beside(process, "/entrepot", "health")
        self.assertEqual(health.returncode, 1)
        self.assertIn("/readyz", health.stderr)

    @staticmethod
    def reached_entrepot(process):
        return os.readlink(f"/proc/{process.pid}/exe").endswith("/entrepot")

    def test_it_is_ready_in_less_than_50_ms(self):
        times = []
        for _ in range(5):
            cache = self.cache_of("0:0")
            port = "38" + str(os.getpid() % 1000).zfill(3)
            environment = {"ENTREPOT_PORT": port, "ENTREPOT_CACHE_DIR": str(cache)}
            began = time.perf_counter()
            process = subprocess.Popen([self.binary], env=environment, stderr=subprocess.DEVNULL)
            try:
                while not is_ready(f"http://127.0.0.1:{port}/readyz"):
                    self.assertIsNone(process.poll(), "it has ended")
                times.append(time.perf_counter() - began)
            finally:
                process.terminate()
                process.wait(30)
        print(f"{1000 * min(times):.0f} ms at best, {1000 * statistics.median(times):.0f} ms mostly ", end="")
        # Others use this machine, too; the program itself is as fast as it is when they do not.
        self.assertLess(min(times), START_SECONDS_MAX)


def is_ready(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


class BillOfMaterials(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1"}
        command = [sys.executable, ROOT / "release" / "sbom.py"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        cls.text = done.stdout
        cls.bill = json.loads(done.stdout)

    def test_it_is_cyclonedx(self):
        self.assertIsNone(JsonStrictValidator(SchemaVersion.V1_6).validate_str(self.text))

    def test_it_has_what_is_linked_and_nothing_that_only_tests_use(self):
        names = {component["name"] for component in self.bill["components"]}
        print(f"{len(names)} crates ", end="")
        self.assertLessEqual({"hyper", "rustls", "ring", "mimalloc", "tokio", "webpki-roots"}, names)
        self.assertEqual({"proptest", "tempfile", "rcgen"} & names, set())

    def test_every_crate_has_a_licence_and_a_checksum(self):
        for component in self.bill["components"]:
            self.assertNotIn("NOASSERTION", component["licenses"][0]["expression"], component["name"])
            self.assertRegex(component["hashes"][0]["content"], "^[0-9a-f]{64}$", component["name"])


# What the header of a program says of its processor (ELF, `e_machine`).
MACHINES = {"amd64": 0x3E, "arm64": 0xB7}

# The segment that names a dynamic linker.
PT_INTERP = 3


def machine_of(binary):
    """The processor of a program, and whether it asks for a dynamic linker."""
    content = binary.read_bytes()
    assert content[:6] == b"\x7fELF\x02\x01", "64 bits, little endian"
    (machine,) = struct.unpack_from("<H", content, 18)
    (start,), (size, count) = struct.unpack_from("<Q", content, 32), struct.unpack_from("<HH", content, 54)
    kinds = [struct.unpack_from("<I", content, start + size * index)[0] for index in range(count)]
    return machine, PT_INTERP in kinds


class Binaries(unittest.TestCase):
    """Both architectures as they are released, each built twice, in directories that have nothing in common."""

    @classmethod
    def setUpClass(cls):
        cls.built = []
        for place in (TARGET / "image-as-released/source", TARGET / "image-once-more/in/another/directory"):
            for part in ("release", "src", "Cargo.toml", "Cargo.lock"):
                place.mkdir(parents=True, exist_ok=True)
                Build.copy(ROOT / part, place / part if (ROOT / part).is_dir() else place)
            environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
            environment.pop("CARGO_TARGET_DIR", None)
            subprocess.run(["release/build", "--binary-only"], cwd=place, env=environment, check=True)
            cls.built.append({name: place / f"target/release-files/entrepot-{name}" for name in MACHINES})

    def test_each_is_for_its_architecture_and_static(self):
        for name, binary in self.built[0].items():
            self.assertEqual(machine_of(binary), (MACHINES[name], False), name)
            print(f"{name} {binary.stat().st_size / 1e6:.1f} MB ", end="")

    def test_each_runs(self):
        for name, binary in self.built[0].items():
            emulator = [] if name == ARCHITECTURE else [f"qemu-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}[name]}-static"]
            done = subprocess.run([*emulator, binary, "--check-config"], capture_output=True, text=True, env={})
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_same_source_gives_the_same_bytes_anywhere(self):
        for name in MACHINES:
            once, again = (hashlib.sha256(built[name].read_bytes()).hexdigest() for built in self.built)
            print(f"{name} {once} ", end="")
            self.assertEqual(once, again, name)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("tests/release/run needs root, for mounts of its own")
    for needed in ("podman", "unshare", "nsenter", "setpriv", "rustup"):
        if not shutil.which(needed):
            sys.exit(f"{needed} is not on this machine")
    if not AS_RELEASED:
        # A command of its own: see `run`.
        del Binaries
    if BUILD_ONLY:
        first_stage().run()
        sys.exit()
    arguments = [argument for argument in sys.argv if argument not in ("--as-released", "--build-only")]
    program = unittest.main(argv=arguments, verbosity=2, exit=False, testRunner=unittest.TextTestRunner(stream=sys.stdout, verbosity=2))
    result = program.result
    bad = len({test.id() for test, _ in result.failures + result.errors})
    verdict = "FAILED" if bad else "ok"
    # The line that tests/run adds up.
    print(f"test result: {verdict}. {result.testsRun - bad} passed; {bad} failed; 0 ignored")
    sys.exit(bool(bad))
