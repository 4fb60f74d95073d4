"""The object store behind compose/ and swarm/: Garage in place of MinIO, which is not packaged."""

import json
import os
import shutil
import time

import rig
from rig import holds, same

# Where the files of deploy/ look for it.
PORT, BUCKET, REGION = 9000, "entrepot", "us-east-1"
# Made-up keys, of the form that Garage wants.
ACCESS_KEY = "GK00112233445566778899aabb"
SECRET_KEY = "00112233445566778899aabbccddeeff" * 2
# Longest upload of a small image, in seconds.
UPLOAD_SECONDS = 20

IMAGE = "http://127.0.0.1:3000/v2/library/app"


def start(world):
    """Starts it; ends with the folder."""
    home = world.scratch / "garage"
    home.mkdir(exist_ok=True)
    file = home / "garage.toml"
    file.write_text(
        f'metadata_dir = "{home}/meta"\ndata_dir = "{home}/data"\ndb_engine = "sqlite"\nreplication_factor = 1\n'
        f'rpc_bind_addr = "127.0.0.1:3901"\nrpc_secret = "{SECRET_KEY}"\n'
        f'[s3_api]\ns3_region = "{REGION}"\napi_bind_addr = "127.0.0.1:{PORT}"\n'
    )
    environment = {
        **os.environ,
        "GARAGE_DEFAULT_BUCKET": BUCKET,
        "GARAGE_DEFAULT_ACCESS_KEY": ACCESS_KEY,
        "GARAGE_DEFAULT_SECRET_KEY": SECRET_KEY,
    }
    server = ("garage", "-c", file, "server", "--single-node", "--default-bucket")
    world.daemon("garage", *server, ready=lambda: rig.accepts(PORT), environment=environment)


def is_shared(world, configuration, environment=None):
    """Pulls by one mirror of this configuration, then by another one with an empty disk."""

    def shared():
        if not shutil.which("garage"):
            raise rig.LeftOut("Garage is not here, and MinIO is not packaged")
        start(world)
        first = world.mirror(configuration, environment=environment)
        manifest, *blobs = parts()
        for url in (manifest, *blobs):
            how(url)
        wait_until_uploaded()
        world.end_process(first)
        world.mirror(configuration, environment=environment)
        same(how(manifest), "entrepot; hit")
        for url in blobs:
            same(how(url), "entrepot; hit; detail=shared")

    world.check("what one mirror has pulled another one has from the object store", shared)
    world.end_processes()


def parts():
    """Where the image is: its manifest, then its blobs."""
    url = f"{IMAGE}/manifests/1.0"
    code, _, body = rig.ask(url)
    same(code, 200)
    manifest = json.loads(body)
    return [url, *(f"{IMAGE}/blobs/{blob['digest']}" for blob in (manifest["config"], *manifest["layers"]))]


def how(url):
    """How the mirror came by an answer."""
    code, headers, _ = rig.ask(url, "--output", "/dev/null", "--dump-header", "-")
    same(code, 200)
    return headers["cache-status"]


def wait_until_uploaded():
    deadline = time.monotonic() + UPLOAD_SECONDS
    while True:
        lines = rig.ask("http://127.0.0.1:3000/metrics")[2].splitlines()
        if {"entrepot_inflight_fills 0", "entrepot_shared_waiting 0"} <= set(lines):
            return
        holds(time.monotonic() < deadline, "it is not uploaded")
        time.sleep(0.02)
