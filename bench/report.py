"""Results as Markdown tables, and the machine they are from."""

import hashlib
import os
import platform
import statistics
import time

TABLES = {
    "cold": "Cold pulls",
    "miss": "First byte on a miss",
    "hot": "Cached",
}

# Whom entrepot's figures are divided by.
PEERS = {
    "cold": ["nginx cache", "nginx cache, usual buffers", "docker-registry"],
    "miss": ["nginx cache", "docker-registry"],
    "hot": ["nginx file", "nginx cache", "docker-registry"],
}

NOTES = {
    "cold": [
        "CPU is user and system time of all processes of the server, until it is idle again.",
        "nginx cache: `proxy_cache_lock` without a time-out, so it fetches once and the others wait for the whole.",
        "Upstream body bytes are what the upstream's log says was sent of the blob; connections, those it was sent on.",
        "Memory is the peak of resident memory above what the idle server had; several processes are added up.",
    ],
    "miss": [
        "From request to first byte of the body, one after the other on one connection, each blob for the first time; "
        "connections to upstream are open already. The upstream itself is asked over TLS.",
    ],
    "hot": [
        "One processor for the server, the others for its clients. Where it is not used up, clients are the limit, "
        "and CPU is the figure that counts. Clients are wrk for the manifest, `traffic.py` for blobs.",
        "nginx with `sendfile` and no access log; *kept open* has `open_file_cache` as well. "
        "entrepôt logs every request but where it says so. docker-registry asks upstream for every tag.",
    ],
}


class Results:
    """Figures of all runs, by row, server and key; and what went wrong."""

    def __init__(self):
        self.runs = {}
        self.failures = {}

    def add(self, row, server, figures):
        """One more run."""
        self.runs.setdefault(row.name, {}).setdefault(server, []).append(figures)

    def fail(self, row, server, reason):
        """A run without figures."""
        self.failures.setdefault(row.name, {}).setdefault(server, []).append(reason)

    def values(self, row, server, figure):
        """What was measured, in the figure's unit."""
        runs = self.runs.get(row.name, {}).get(server, [])
        return [run[figure.key] * figure.scale for run in runs if figure.key in run]


def tables(rows, results):
    """Markdown for those of `rows` that were run."""
    parts = []
    for table, title in TABLES.items():
        of_table = [row for row in rows if row.table == table]
        if of_table:
            parts.append(f"### {title}\n\n{_table(table, of_table, results)}\n")
            parts.append("".join(f"* {note}\n" for note in NOTES[table]))
    failures = [
        f"* {row.name}, {server}: {reason}\n"
        for row in rows
        for server, reasons in results.failures.get(row.name, {}).items()
        for reason in sorted(set(reasons))
    ]
    if failures:
        parts.append("### Failed\n\n" + "".join(failures))
    return "\n".join(parts)


def _table(table, rows, results):
    servers = max((row.servers for row in rows), key=len)
    peers = [peer for peer in PEERS[table] if peer in servers]
    lines = [["work", "", *servers, *(f"÷ {peer}" for peer in peers)]]
    lines.append(["---", "---", *["--:"] * (len(servers) + len(peers))])
    for row in rows:
        title = row.title
        for figure in row.figures:
            cells = [_cell(row, server, figure, results) for server in servers]
            lines.append([title, figure.label, *cells, *(_ratio(row, peer, figure, results) for peer in peers)])
            title = ""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(row, server, figure, results):
    """Median, and least and most where there are several."""
    values = results.values(row, server, figure)
    if not values:
        return "failed" if results.failures.get(row.name, {}).get(server) else ""
    text = _number(statistics.median(values))
    low, high = _number(min(values)), _number(max(values))
    spread = f" ({low}–{high})" if low != high else ""
    unit = f" {figure.unit}" if figure.unit else ""
    return f"**{text}**{unit}{spread}"


def _ratio(row, peer, figure, results):
    ours = results.values(row, "entrepôt", figure)
    theirs = results.values(row, peer, figure)
    if not ours or not theirs or not figure.is_compared:
        return ""
    theirs = statistics.median(theirs)
    return f"{statistics.median(ours) / theirs:.2f}" if theirs > 0 else ""


def _number(value):
    """Three digits that matter, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if value == int(value) else f"{value:.2f}"


def machine(directory, versions):
    """What this was measured on, as one line for a reader and as a dictionary."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    about = {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "kernel": platform.release(),
        "filesystem": _filesystem(directory),
        "load_before": os.getloadavg()[0],
        "sha256_gib_per_second": _sha256_rate(),
        **versions,
    }
    line = (
        f"{about['processor']}, {about['cores']} cores, {memory:.0f} GiB, Linux {about['kernel']}, "
        f"{about['filesystem']}, SHA-256 {about['sha256_gib_per_second']:.2f} GiB/s, "
        f"load {about['load_before']:.1f} before; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )
    return line, about


def _sha256_rate():
    """GiB that one processor hashes in a second: what a cold pull costs whoever verifies it, and nobody else."""
    piece, count = bytes(1 << 20), 256
    began = time.process_time()
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(piece)
    return count * len(piece) / (time.process_time() - began) / (1 << 30)


def _filesystem(directory):
    """The type of the file system that holds `directory`: that of the longest mount point above it."""
    best, kind = "", "?"
    with open("/proc/mounts", encoding="utf-8") as file:
        for mount in file:
            _, point, this, *_ = mount.split()
            if os.path.commonpath([point, directory]) == point and len(point) >= len(best):
                best, kind = point, this
    return kind
