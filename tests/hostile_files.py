"""Files that nobody should put into a configuration, and somebody will; the names say what they are."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

TEXTS: Final[dict[str, str]] = {
    "open brackets": "[" * 500_000,
    "open braces": "{" * 500_000,
    "nested flow": "[" * 20_000 + "]" * 20_000,
    "nested flow mappings": "{a: " * 20_000,
    "nested blocks": "\n".join(" " * depth + "a:" for depth in range(1_200)),
    "nested lists": "- " * 100_000 + "x",
    "nested complex keys": "? " * 100_000,
    "alias bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    "a wide alias bomb": "\n".join(
        [f"a0: &a0 [{'x, ' * 30}]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 9))]
    ),
    "an anchor that holds itself": "a: &a [*a, *a]\n",
    "a merge key that holds itself": "a: &a\n  <<: *a\n",
    "a huge scalar": "a: " + "x" * 5_000_000,
    "a huge quoted scalar": 'a: "' + "\\n" * 600_000 + '"',
    "a huge key": "x" * 900_000 + ": 1",
    "many keys": "\n".join(f"k{n}: {n}" for n in range(80_000)),
    "a huge number": "a: " + "9" * 100_000,
    "a number without end": "a: 1e999999999",
    "a type of Python": "!!python/object/apply:os.system [id]\n",
    "NUL": "a: \0b\n",
    "two documents": "a: 1\n---\na: 2\n",
    "nothing but anchors": " ".join(f"&a{n}" for n in range(100_000)),
    "tags without end": "!" * 500_000,
    "tabs": "\t" * 500_000,
    "a directive": "%YAML 9.9\n---\na: 1\n",
}
"""What a YAML file may hold."""

RAW: Final[dict[str, bytes]] = {
    "UTF-16": "name: x\n".encode("utf-16"),
    "UTF-16 without its mark": "name: x\n".encode("utf-16-be"),
    "Latin-1": "name: Käfer\n".encode("latin-1"),
    "zeros": bytes(1_000),
    "any bytes": bytes(range(256)) * 40,
}


def _socket(path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_RDONLY)
    try:  # the path of a socket may be short only
        listening.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
        listening.close()


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


KINDS: Final[dict[str, Callable[[Path], object]]] = {
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a folder": Path.mkdir,
    "a link to a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to a pipe": lambda path: (os.mkfifo(path.parent / ".pipe"), path.symlink_to(".pipe")),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a terabyte": _sparse,
    "a file of the kernel without end": lambda path: path.symlink_to("/proc/self/mem"),
}
"""What may stand where a file is expected; each is called with the path to make it at."""
