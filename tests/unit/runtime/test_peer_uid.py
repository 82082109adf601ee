"""Who made a connection, as the kernel's tables say it."""

from __future__ import annotations

import os
import socket

import pytest

from engine.runtime.peeruid import find_uid, peer_uid

OURS, THEIRS = "0100007F:1F90", "0100007F:C001"
MAPPED = "0000000000000000FFFF0000"


def line(local: str, remote: str, state: str, uid: int) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  {uid}        0 1 1 0 20 4 30 10 -1"


@pytest.mark.parametrize(
    ("lines", "uid"),
    [
        ([line(THEIRS, OURS, "01", 1000)], 1000),
        ([line(OURS, THEIRS, "01", 0), line(THEIRS, OURS, "01", 1000)], 1000),  # our own end is ours
        ([line(MAPPED + THEIRS, MAPPED + OURS, "01", 7)], 7),
        ([line(THEIRS, OURS, "04", 0)], None),  # closed by its process: the kernel names nobody, which reads as root
        ([line(THEIRS, OURS, "06", 0)], None),
        ([line(THEIRS, "0100007F:1F91", "01", 0)], None),
        (["", "nonsense"], None),
        ([], None),
    ],
)
def test_the_owner_is_that_of_the_peers_open_socket(lines: list[str], uid: int | None) -> None:
    assert find_uid(iter(lines), THEIRS, OURS) == uid


class Transport:
    def __init__(self, sock: socket.socket) -> None:
        self._names = {"peername": sock.getpeername(), "sockname": sock.getsockname()}

    def get_extra_info(self, name: str) -> object:
        return self._names[name]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_of_our_own_is_ours_and_one_that_is_closed_is_nobodys(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        accepted, _ = server.accept()
        with accepted:
            assert peer_uid(Transport(accepted)) == os.geteuid()
            transport = Transport(accepted)
            client.close()
            assert peer_uid(transport) is None
