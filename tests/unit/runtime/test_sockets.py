"""A taken port is said with who has it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from engine.runtime.listener import ListenError, bind
from engine.runtime.sockets import who_has


@pytest.fixture(params=["127.0.0.1", "::1"])
def taken(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((request.param, 0))
        listening.listen()
        yield request.param, listening.getsockname()[1]


def test_who_listens_at_a_port_is_found(taken: tuple[str, int]) -> None:
    assert (who_has(taken[1]) or "").startswith(f"pid {os.getpid()} (")


def test_nobody_has_a_free_port() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        assert who_has(bound.getsockname()[1]) is None


async def test_the_one_in_the_way_is_named_with_what_to_do(taken: tuple[str, int]) -> None:
    with pytest.raises(ListenError) as caught:
        await bind(*taken, "channel west")
    assert f"port {taken[1]} is taken by pid {os.getpid()} (" in str(caught.value)
    assert "give channel west another port" in str(caught.value)
