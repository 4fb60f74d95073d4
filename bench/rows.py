"""The work that is measured, row by row of the tables."""

import statistics
from dataclasses import dataclass
from typing import Callable

import clients
from content import GIB, KIB, MIB
from processes import Failure, Memory
from servers import LIMIT_BYTES_PER_SECOND

CACHES = ["entrepôt", "nginx cache", "docker-registry"]
USUAL = "nginx cache, usual buffers"
FILES = ["nginx file", "nginx file, kept open"]

# The upstream itself, in the row that compares with it.
DIRECT = "upstream itself"

# Before a load is measured: pages are faulted in, connections are open, windows have grown.
WARM_UP_SECONDS = 1

# Connections to upstream are open after these.
WARM_UP_BLOBS = 20


@dataclass(frozen=True)
class Figure:
    """One thing that a row measures; `scale` turns it into `unit`."""

    key: str
    label: str
    unit: str = ""
    scale: float = 1.0
    # Whether a ratio means anything: a difference near zero has none, a share of a processor is no merit.
    is_compared: bool = True


@dataclass(frozen=True)
class Row:
    """One kind of work. `measure(lab, server)` does it once, and returns figures by key."""

    name: str
    table: str
    title: str
    servers: list
    figures: list
    measure: Callable
    # Rows that take minutes are repeated less often than asked for.
    repeats_at_most: int = 100


@dataclass(frozen=True)
class Sizes:
    """How much of it is done."""

    large: int
    crowd_blob: int
    thousand_blob: int
    small_blobs: int
    hot_seconds: int
    # Servers that take part in the crowd of 200.
    crowd: list


SIZES = {
    "quick": Sizes(128 * MIB, 32 * MIB, 8 * MIB, 60, 1, CACHES[:2]),
    "default": Sizes(GIB, 512 * MIB, 128 * MIB, 200, 3, CACHES[:2]),
    "full": Sizes(GIB, 512 * MIB, 512 * MIB, 500, 5, CACHES),
}

HOT_SMALL = 64 * KIB
HOT_LARGE = 64 * MIB

# One more byte than a power of two, so that no buffer ends where the blob does.
SMALL_BLOB = 64 * KIB + 1

WALL = Figure("wall", "time", "s")
CPU = Figure("cpu", "CPU", "s")
UPSTREAM_BODY = Figure("upstream_body", "upstream body bytes / size", "×")
CONNECTIONS = Figure("connections", "upstream connections", is_compared=False)


def rows(sizes):
    """All rows, in the order of the tables."""
    def size(count):
        return f"{count / GIB:g} GiB" if count >= GIB else f"{count / MIB:g} MiB"

    large = size(sizes.large)
    limit = f"{LIMIT_BYTES_PER_SECOND / MIB:g} MiB/s"
    crowd = [
        WALL,
        Figure("first_byte", "first byte, last client", "s"),
        CPU,
        UPSTREAM_BODY,
        Figure("memory", "memory above idle", "MiB", 1 / MIB),
    ]
    idle = Figure("memory_idle", "memory when idle", "MiB", 1 / MIB)
    small = [
        Figure("p50", "p50", "ms", 1000),
        Figure("p99", "p99", "ms", 1000),
        Figure("p50_added", "p50 less the upstream's own", "ms", 1000, is_compared=False),
        Figure("p99_added", "p99 less the upstream's own", "ms", 1000, is_compared=False),
    ]
    throughput = Figure("throughput", "throughput", "GiB/s", 1 / GIB)
    hot = [
        Figure("rate", "requests/s"),
        Figure("cpu_per_request", "CPU per request", "µs", 1e6),
        Figure("cpu_per_gib", "CPU per GiB", "s"),
        Figure("busy", "processor used", "%", 100, is_compared=False),
    ]
    return [
        Row("cold", "cold", f"{large} over TLS, one client", [*CACHES, USUAL], [WALL, CPU, UPSTREAM_BODY, CONNECTIONS],
            lambda lab, server: _download(lab, server, one_core=True)),
        Row("cold-shared", "cold", f"{large} over TLS, processors shared with upstream and client", CACHES,
            [WALL, CPU, UPSTREAM_BODY, CONNECTIONS],
            lambda lab, server: _download(lab, server)),
        Row("limited", "cold", f"{large}, upstream limited to {limit} per connection", CACHES,
            [WALL, CPU, UPSTREAM_BODY, CONNECTIONS],
            lambda lab, server: _download(lab, server, limited=True)),
        Row("crowd-16", "cold", f"{size(sizes.crowd_blob)}, 16 clients at once", CACHES, [*crowd, idle],
            lambda lab, server: _crowd(lab, server, sizes.crowd_blob, 16)),
        Row("crowd-200", "cold", f"{size(sizes.crowd_blob)}, 200 clients at once", sizes.crowd, crowd,
            lambda lab, server: _crowd(lab, server, sizes.crowd_blob, 200), 1),
        Row("crowd-1000", "cold", f"{size(sizes.thousand_blob)}, 1 000 clients at once", CACHES[:2], crowd,
            lambda lab, server: _crowd(lab, server, sizes.thousand_blob, 1000), 1),
        Row("streams-1000", "hot", f"{size(sizes.thousand_blob)} that are cached, 1 000 clients at once", CACHES[:1] + FILES[:1],
            [WALL, CPU, Figure("memory", "memory above idle", "MiB", 1 / MIB)],
            lambda lab, server: _crowd(lab, server, sizes.thousand_blob, 1000, is_warm=True), 1),
        Row("miss", "miss", f"{sizes.small_blobs} blobs of 64 KiB + 1", [DIRECT, *CACHES], small, _first_byte),
        Row("hot-manifest", "hot", "manifest of 2 KiB by tag, 64 connections", CACHES[:1] + FILES + CACHES[1:],
            hot[:2] + hot[3:], _hot_manifest),
        Row("quiet-manifest", "hot", "the same, no requests logged", CACHES[:1] + FILES, hot[:2] + hot[3:],
            lambda lab, server: _hot_manifest(lab, server, is_quiet=True)),
        Row("hot-64k", "hot", "blob of 64 KiB, 32 connections", CACHES[:1] + FILES + CACHES[1:], hot,
            lambda lab, server: _hot_blob(lab, server, HOT_SMALL, 32)),
        Row("hot-64m", "hot", "blob of 64 MiB, 8 connections", CACHES[:1] + FILES[:1] + CACHES[1:],
            [throughput, *hot[2:]],
            lambda lab, server: _hot_blob(lab, server, HOT_LARGE, 8)),
        Row("beside-warm", "hot", f"manifest by tag beside a download of {large} that is in memory",
            CACHES[:1] + FILES[:1], [*small[:2], throughput], _beside),
        Row("beside-disk", "hot", f"the same, all of the {large} on disk", CACHES[:1] + FILES[:1],
            [*small[:2], throughput], lambda lab, server: _beside(lab, server, on_disk=True)),
    ]


def _download(lab, name, limited=False, one_core=False):
    blob = lab.blob(lab.sizes.large)
    manifest = lab.image_of(blob)
    with lab.start(name, limited, one_core) as (server, port):
        clients.fetch(port, manifest)
        server.wait_until_idle()
        mark, cpu = lab.upstream.mark(), server.cpu_seconds()
        wall, _ = clients.curl(port, blob.path, blob.size, lab.client_cores if one_core else None)
        server.wait_until_idle()
        cpu = server.cpu_seconds() - cpu
    # Whatever was still under way is in the upstream's log now that its client has gone.
    sent, connections = lab.upstream_sent(mark, blob)
    return {"wall": wall, "cpu": cpu, "upstream_body": sent / blob.size, "connections": connections}


def _crowd(lab, name, size, count, is_warm=False):
    blob = lab.blob(size)
    with lab.start(name) as (server, port):
        if is_warm:
            _warm(server, port, blob.path)
        server.wait_until_idle()
        mark, cpu = lab.upstream.mark(), server.cpu_seconds()
        with Memory(server) as memory:
            result = clients.traffic(
                "crowd", port=port, path=blob.path, size=size, digest=blob.digest, clients=count, seconds=800
            )
            server.wait_until_idle()
        cpu = server.cpu_seconds() - cpu
    if result["errors"]:
        raise Failure(f"{result['errors']} of {count} clients failed: {result['error']}")
    sent, connections = lab.upstream_sent(mark, blob)
    return {
        "wall": result["seconds"],
        "first_byte": result["first_byte_last"],
        "first_byte_median": result["first_byte_median"],
        "cpu": cpu,
        "upstream_body": sent / size,
        "connections": connections,
        "memory": memory.above_idle,
        "memory_idle": memory.idle,
    }


def _first_byte(lab, name):
    blobs = [blob.path for blob in lab.blobs(SMALL_BLOB, WARM_UP_BLOBS + lab.sizes.small_blobs)]
    arguments = {"paths": blobs[WARM_UP_BLOBS:], "warm_up": blobs[:WARM_UP_BLOBS]}
    if name == DIRECT:
        authority = lab.certificates.authority
        seconds = clients.traffic("first_bytes", port=lab.upstream.port, authority=authority, **arguments)
    else:
        with lab.start(name) as (_, port):
            seconds = clients.traffic("first_bytes", port=port, authority=None, **arguments)
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    figures = {"p50": percentiles[49], "p99": percentiles[98]}
    # In turn, so the upstream itself has just been measured.
    if name == DIRECT:
        lab.direct = dict(figures)
    elif lab.direct:
        figures |= {f"{key}_added": figures[key] - lab.direct[key] for key in ("p50", "p99")}
    return figures


def _hot_manifest(lab, name, is_quiet=False):
    path = lab.manifest_path
    with lab.start(name, one_core=True, is_quiet=is_quiet) as (server, port):
        _warm(server, port, path)
        clients.wrk(port, path, 64, WARM_UP_SECONDS, lab.client_cores)
        cpu = server.cpu_seconds()
        requests, seconds = clients.wrk(port, path, 64, lab.sizes.hot_seconds, lab.client_cores)
        cpu = server.cpu_seconds() - cpu
    return {"rate": requests / seconds, "cpu_per_request": cpu / requests, "busy": cpu / seconds}


def _hot_blob(lab, name, size, connections):
    path, seconds = lab.blob(size).path, lab.sizes.hot_seconds
    with lab.start(name, one_core=True) as (server, port):
        _warm(server, port, path)
        clients.load(port, path, connections, WARM_UP_SECONDS, lab.client_cores)
        cpu = server.cpu_seconds()
        throughput = clients.load(port, path, connections, seconds, lab.client_cores)
        cpu = server.cpu_seconds() - cpu
    received = throughput * seconds
    return {
        "rate": throughput / size,
        "throughput": throughput,
        "cpu_per_request": cpu / (received / size),
        "cpu_per_gib": cpu / (received / GIB),
        "busy": cpu / seconds,
    }


def _beside(lab, name, on_disk=False):
    path, large = lab.manifest_path, lab.blob(lab.sizes.large).path
    with lab.start(name, one_core=True) as (server, port):
        for one in (path, large):
            _warm(server, port, one)
        if on_disk:
            lab.forget_pages(server.directory)
        seconds = 0 if on_disk else lab.sizes.hot_seconds
        result = clients.traffic(
            "beside", lab.client_cores, port=port, path=path, large=large, seconds=seconds, pause=0.001
        )
    percentiles = statistics.quantiles(result["took"], n=100, method="inclusive")
    throughput = result["bytes"] / result["seconds"]
    return {"p50": percentiles[49], "p99": percentiles[98], "throughput": throughput}


def _warm(server, port, path):
    """Has it cached, and whatever follows a first request done with."""
    clients.fetch(port, path)
    server.wait_until_idle()
    clients.fetch(port, path)
    server.wait_until_idle()
