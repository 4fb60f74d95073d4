"""Runs the rows that were asked for, servers in turn, and prints their tables. Started by `bench/run`."""

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time

import report
from content import GIB
from lab import Lab
from processes import Failure, remove
from rows import SIZES, rows
from servers import versions

# Content, and two caches of the largest blob: the registry's and what it holds while it fills.
SPACE_BYTES = 6 * GIB


def main():
    """The command."""
    asked = arguments()
    sizes = SIZES["quick" if asked.quick else "full" if asked.full else "default"]
    chosen = choose(rows(sizes), asked.row)
    if asked.list:
        for row in chosen:
            print(f"{row.name:14} {row.title}")
        return 0

    # Ended from outside, it cleans up all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))

    directory = tempfile.mkdtemp(prefix="entrepot-bench-")
    lab = None
    began = time.monotonic()
    results = report.Results()
    try:
        if not asked.quick and shutil.disk_usage(directory).free < SPACE_BYTES:
            sys.exit(f"{directory}: less than {SPACE_BYTES // GIB} GiB free; TMPDIR names another place")
        line, about = report.machine(directory, versions())
        print(f"{line}\n", flush=True)
        lab = Lab(directory, sizes)
        repeats = asked.repeats or (1 if asked.quick else 3)
        for row in chosen:
            run_row(lab, row, min(repeats, row.repeats_at_most), results)
    finally:
        if lab:
            lab.close()
        remove(directory)

    print(report.tables(chosen, results))
    print(f"Medians of {repeats} (least–most); larger crowds once. {time.monotonic() - began:.0f} s in all.")
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as out:
            json.dump({"machine": about, "runs": results.runs, "failures": results.failures}, out, indent=1)
            out.write("\n")
    return 1 if any("entrepôt" in of_row for of_row in results.failures.values()) else 0


def run_row(lab, row, repeats, results):
    """All servers in turn, and again: whatever the machine does meanwhile, it does to all of them."""
    for repeat in range(repeats):
        for server in row.servers:
            began = time.monotonic()
            try:
                figures = row.measure(lab, server)
            except Failure as failure:
                results.fail(row, server, str(failure))
                verdict = f"failed: {failure}"
            else:
                results.add(row, server, figures)
                verdict = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
            spent = time.monotonic() - began
            print(f"{row.name} {repeat + 1}/{repeats} {server}: {verdict} [{spent:.1f} s]", file=sys.stderr, flush=True)


def choose(all_rows, names):
    """The rows that `names` mean: whole names, or beginnings such as `hot`."""
    for name in names:
        if not any(row.name.startswith(name) for row in all_rows):
            sys.exit(f"no row is called {name}: " + " ".join(row.name for row in all_rows))
    return [row for row in all_rows if not names or any(row.name.startswith(name) for name in names)]


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="bench/run", description="Measures entrepot beside nginx and docker-registry on the same work."
    )
    parser.add_argument("row", nargs="*", help="rows to run, by name or its beginning (--list); all unless given")
    parser.add_argument("-n", "--repeats", type=int, metavar="N", help="how often each is repeated (3; 1 with --quick)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    size.add_argument("--full", action="store_true", help="nothing left out or made smaller; takes most of an hour")
    parser.add_argument("--json", metavar="FILE", help="write every single result there")
    parser.add_argument("--list", action="store_true", help="name the rows and do nothing")
    return parser.parse_args()


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
