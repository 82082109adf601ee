"""What of others is in here: `python -m tests.supply audit | licences | sbom`.

audit: whether a locked version is one that an advisory names (`.ci/advisories.yaml`, which ships with the source: it
needs no network, and says the same tomorrow); part of `make check`. licences: writes docs/licences.md. sbom: prints a
bill of materials (CycloneDX 1.6) of the lock file, always the same for the same file.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from packaging.version import Version

ROOT: Final = Path(__file__).parent.parent
ADVISORIES: Final = ROOT / ".ci" / "advisories.yaml"
LICENCES: Final = ROOT / "docs" / "licences.md"
LOCKS: Final = tuple(sorted(ROOT.glob("requirements*.lock")))
SHIPPED: Final = ROOT / "requirements.lock"
"""What runs with the engine; the others build and test it."""

_PIN: Final = re.compile(
    r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)(?:\s*;\s*([^\\\n]+?))?\s*\\?\n((?:\s+--hash=.*\n)*)", re.MULTILINE
)
_HASH: Final = re.compile(r"--hash=(sha256):([0-9a-f]{64})")

ALLOWED: Final = frozenset({
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-0", "PSF-2.0", "ISC", "Zlib", "MPL-2.0", "LGPL-3.0-only",
})  # fmt: skip
"""Licences that a distribution under Apache-2.0 may depend on. MPL and LGPL: unchanged, as packages of their own."""
_SAID: Final[Mapping[str, str]] = {
    "jinja2": "BSD-3-Clause",
    "aiorun": "Apache-2.0", "aiosignal": "Apache-2.0", "isodate": "BSD-3-Clause", "requests-file": "Apache-2.0",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause", "requests-toolbelt": "Apache-2.0", "sqlcipher3": "Zlib",
    "uvloop": "MIT OR Apache-2.0",
}  # fmt: skip
"""What packages say that do not say it as an SPDX expression; read in their files."""
_CONTAINS: Final[Mapping[str, str]] = {
    "sqlcipher3": "SQLCipher (BSD-3-Clause) with SQLite (public domain) and OpenSSL (Apache-2.0)",
    "psycopg-binary": "libpq (PostgreSQL licence) and OpenSSL (Apache-2.0)",
    "cryptography": "OpenSSL (Apache-2.0)",
    "lxml": "libxml2 and libxslt (MIT)",
    "uvloop": "libuv (MIT)",
    "certifi": "the authorities of Mozilla (MPL-2.0)",
    "pyyaml": "libyaml (MIT)",
}
"""What is compiled into a package, and has a licence of its own."""


class Pin(NamedTuple):
    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]


def pins(lock: str) -> list[Pin]:
    return [
        Pin(name, version, marker or None, tuple(digest for _, digest in _HASH.findall(hashes)))
        for name, version, marker, hashes in _PIN.findall(lock)
    ]


def problems(found: Iterable[Pin], inside: Mapping[str, str], advisories: Mapping[str, Any]) -> Iterator[str]:
    """inside: versions of what is compiled into packages (`sqlite`). advisories: the file, as it is read."""
    accepted = advisories["accepted"]
    known = {name.lower(): entries for name, entries in advisories["packages"].items()}
    versions = [*((pin.name.lower(), pin.version) for pin in found), *inside.items()]
    for name, version in sorted(set(versions)):
        for one in known.get(name, ()):
            if Version(version) < Version(one["below"]) and one["id"] not in accepted:
                yield f"{name} {version}: {one['id']}, fixed in {one['below']}: raise it (make lock)"
    yield from (f"{pin.name} {pin.version}: has no hash" for pin in found if not pin.hashes)


def inside() -> dict[str, str]:
    """Versions of what is compiled into the packages that are installed here."""
    from cryptography.hazmat.backends.openssl import backend
    from sqlcipher3 import dbapi2

    openssl = re.search(r"\d+\.\d+\.\d+", backend.openssl_version_text())
    return {"sqlite": dbapi2.sqlite_version, "openssl": openssl[0] if openssl else "0"}


def licence(name: str) -> str:
    """As an SPDX expression. Raises LookupError when the package does not say."""
    if name in _SAID:
        return _SAID[name]
    said = metadata.metadata(name).get("License-Expression") or metadata.metadata(name).get("License") or ""
    if not said or len(said) > 80:
        raise LookupError(f"{name}: its licence has to be looked up, and written into tests/supply.py")
    return said


def foreign(expression: str) -> set[str]:
    """What of an expression is not allowed. One side of an OR is enough."""
    sides = [set(re.split(r"\s+AND\s+", side.strip(" ()"))) - ALLOWED for side in re.split(r"\s+OR\s+", expression)]
    return min(sides, key=len)


def page(found: Sequence[Pin]) -> str:
    rows = []
    for pin in sorted(found, key=lambda pin: pin.name.lower()):
        contains = _CONTAINS.get(pin.name, "")
        rows.append(f"| {pin.name} | {licence(pin.name)} | {contains} |")
    head = """# Licences of what comes with the engine

Handoff is under Apache-2.0 (see LICENSE). What `requirements.lock` installs besides is used unchanged, as packages of
their own. `make licences` writes this page; `make sbom` a bill of materials with versions and digests.

- **psycopg** is under LGPL-3.0: it is loaded as a library and may be replaced by another version of it; its source is
  where its package is.
- **certifi** is under MPL-2.0: its files stay as they are.

| package | licence | compiled in |
|---|---|---|
"""
    return head + "\n".join(rows) + "\n"


def sbom(found: Sequence[Pin], version: str) -> dict[str, Any]:
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{pin.name.lower()}@{pin.version}",
            "name": pin.name,
            "version": pin.version,
            "purl": f"pkg:pypi/{pin.name.lower()}@{pin.version}",
            "licenses": [{"expression": licence(pin.name)}],
            "properties": [
                *({"name": "handoff:sha256", "value": digest} for digest in pin.hashes),
                *([{"name": "handoff:marker", "value": pin.marker}] if pin.marker else []),
            ],
        }
        for pin in sorted(found, key=lambda pin: pin.name.lower())
    ]
    root = f"pkg:pypi/handoff-engine@{version}"
    text = json.dumps([version, components], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": root, "name": "handoff-engine", "version": version,
                          "purl": root, "licenses": [{"expression": "Apache-2.0"}]}
        },
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": [one["bom-ref"] for one in components]}],
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    shipped = pins(SHIPPED.read_text())
    match list(arguments):
        case ["audit"]:
            advisories = yaml.safe_load(ADVISORIES.read_text())
            found = list(problems([pin for lock in LOCKS for pin in pins(lock.read_text())], inside(), advisories))
            wrong = [f"{pin.name}: {', '.join(bad)}" for pin in shipped if (bad := foreign(licence(pin.name)))]
            for text in (*found, *(f"licence of {one} is not one we may use" for one in wrong)):
                print(text, file=sys.stderr)
            if not found and not wrong:
                print(f"No advisory of {advisories['looked_at']} or before concerns what is locked "
                      f"({len(advisories['accepted'])} accepted, see .ci/advisories.yaml)")  # fmt: skip
            return 1 if found or wrong else 0
        case ["licences"]:
            LICENCES.write_text(page(shipped))
            return 0
        case ["sbom"]:
            print(json.dumps(sbom(shipped, metadata.version("handoff-engine")), indent=2))
            return 0
    print("audit, licences or sbom", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
