"""Clients of a server on loopback, each run in a process of its own and checked to have got what it asked for."""

import concurrent.futures
import json
import os
import re
import subprocess
import sys

from content import MANIFEST_TYPE
from processes import Failure

HERE = os.path.dirname(os.path.abspath(__file__))

# What a client that pulls says it understands; docker-registry answers 404 to others.
ACCEPT = f"Accept: {MANIFEST_TYPE}, */*"

# Longest run of one client. The slowest, a large crowd at a server that asks upstream for each, takes minutes.
CLIENT_SECONDS = 900


def curl(port, path, size, cores=None):
    """One download by curl: seconds until its end, and until its first byte."""
    write_out = "%{http_code} %{size_download} %{time_total} %{time_starttransfer}"
    command = ["curl", "--silent", "--show-error", "--output", "/dev/null", "--write-out", write_out]
    code, received, seconds, first_byte = _run([*command, f"http://127.0.0.1:{port}{path}"], cores).split()
    if code != "200" or int(received) != size:
        raise Failure(f"answered {code} with {received} of {size} bytes")
    return float(seconds), float(first_byte)


def fetch(port, path):
    """Asks for `path` once, so that it is in the cache afterwards."""
    command = ["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--header", ACCEPT]
    _run([*command, f"http://127.0.0.1:{port}{path}"])


def wrk(port, path, connections, seconds, cores):
    """As many requests as `connections` get answered: their number, and how long it took."""
    threads = min(connections, len(cores) if cores else 2)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-H", ACCEPT]
    said = _run([*command, f"http://127.0.0.1:{port}{path}"], cores)
    if "Non-2xx" in said or "Socket errors" in said:
        raise Failure(" ".join(line.strip() for line in said.splitlines() if "Non-2xx" in line or "Socket" in line))
    requests, took, unit = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)\b", said).groups()
    return int(requests), float(took) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def load(port, path, connections, seconds, cores):
    """The same for larger bodies, in one process for each processor: body bytes per second."""
    shares = _shares(connections, len(cores) if cores else 1)
    arguments = [{"port": port, "path": path, "clients": share, "seconds": seconds} for share in shares]
    with concurrent.futures.ThreadPoolExecutor(len(shares)) as pool:
        results = list(pool.map(lambda given: traffic("load", cores, **given), arguments))
    return sum(result["bytes"] / result["seconds"] for result in results)


def _shares(count, parts):
    """`count` in at most `parts` parts, as even as can be."""
    parts = min(count, parts)
    return [count // parts + (part < count % parts) for part in range(parts)]


def traffic(what, cores=None, **arguments):
    """One of the functions of `traffic.py`."""
    return json.loads(_run([sys.executable, "-B", f"{HERE}/traffic.py", what, json.dumps(arguments)], cores))


def _run(command, cores=None):
    if cores:
        command = ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command]
    environment = {"PATH": os.environ["PATH"]}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"a client was not done after {CLIENT_SECONDS} s") from error
    if result.returncode != 0:
        raise Failure(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"{command[0]} failed")
    return result.stdout
