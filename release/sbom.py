"""What the released binary is made of, as CycloneDX 1.6 on standard output: the crates that are linked or that compile
those, with their licences and checksums, from Cargo.lock and what cargo knows of it."""

import json
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from os import environ
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The targets that are released.
TARGETS = ("x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl")


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version=1"]
    command += [f"--filter-platform={target}" for target in TARGETS]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def checksums():
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in locked}


def dependencies(found):
    """What every package needs to be built, tests aside, of all that the program needs."""
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    result, waiting = {}, [found["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package not in result:
            needed = {
                dependency["pkg"]
                for dependency in nodes[package]["deps"]
                if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
            }
            result[package] = sorted(needed)
            waiting += needed
    return result


def component(package, checksum, is_program):
    name, version = package["name"], package["version"]
    result = {
        "type": "application" if is_program else "library",
        "bom-ref": reference(package),
        "name": name,
        "version": version,
        "description": package["description"] or "",
        "purl": reference(package),
        # As Cargo spelled it before SPDX.
        "licenses": [{"expression": (package["license"] or "NOASSERTION").replace("/", " OR ")}],
    }
    if checksum:
        result["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        result["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return result


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def bill():
    found, sums = metadata(), checksums()
    packages = {package["id"]: package for package in found["packages"]}
    needed = dependencies(found)
    program = found["resolve"]["root"]

    def described(package_id):
        package = packages[package_id]
        return component(package, sums[package["name"], package["version"]], package_id == program)

    libraries = sorted((p for p in needed if p != program), key=lambda p: reference(packages[p]))
    moment = datetime.fromtimestamp(int(environ.get("SOURCE_DATE_EPOCH", "0")), timezone.utc)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same for the same program.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(sorted(map(str, sums.items()))))}",
        "version": 1,
        "metadata": {"timestamp": moment.isoformat().replace("+00:00", "Z"), "component": described(program)},
        "components": [described(package) for package in libraries],
        "dependencies": [
            {"ref": reference(packages[p]), "dependsOn": [reference(packages[d]) for d in needed[p]]}
            for p in [program, *libraries]
        ],
    }


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1, ensure_ascii=False)
    print()
