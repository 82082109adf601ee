"""Lines of the outbox that only their reader opens."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.connectors.sealedlines import LineOpener, LineSealer, new_reader
from engine.errors import KeyFileError, TamperedError

LINE = b'{"idempotency_key":"k1","operation":"upsert_patient","patient":{"name":"ZQXMARKER"}}'
PRIVATE, PUBLIC = new_reader()


def test_a_sealed_line_is_ndjson_with_its_key_and_nothing_else_to_read() -> None:
    sealed = LineSealer(PUBLIC).seal("k1", LINE)
    assert b"ZQX" not in sealed
    assert b"\n" not in sealed
    assert set(json.loads(sealed)) == {"idempotency_key", "key", "sealed"}
    assert sealed.startswith(b'{"idempotency_key":"k1"')
    assert LineOpener(PRIVATE).open(sealed + b"\n") == LINE


def test_lines_of_several_files_are_opened_in_any_order() -> None:
    sealer = LineSealer(PUBLIC)
    first = sealer.seal("k1", LINE)
    sealer.renew()
    second = sealer.seal("k1", LINE)
    assert json.loads(first)["key"] != json.loads(second)["key"]
    opener = LineOpener(PRIVATE)
    assert [opener.open(one) for one in (second, first, second)] == [LINE] * 3


def test_a_line_in_clear_stays_as_it_is() -> None:
    assert LineOpener(PRIVATE).open(LINE + b"\n") == LINE


@given(at=st.integers(0, 10_000), change=st.integers(1, 255))
def test_an_altered_line_is_never_opened_to_something_else(at: int, change: int) -> None:
    sealed = bytearray(LineSealer(PUBLIC).seal("k1", LINE))
    sealed[at % len(sealed)] ^= change
    try:
        opened = LineOpener(PRIVATE).open(bytes(sealed))
    except TamperedError:
        return
    assert opened in {LINE, bytes(sealed)}  # blanks in base64, or no sealed line any more


def test_another_reader_opens_nothing() -> None:
    with pytest.raises(TamperedError):
        LineOpener(new_reader()[0]).open(LineSealer(PUBLIC).seal("k1", LINE))


def test_a_line_moved_under_another_idempotency_key_is_not_opened() -> None:
    sealed = LineSealer(PUBLIC).seal("k1", LINE).replace(b'"k1"', b'"k2"')
    with pytest.raises(TamperedError):
        LineOpener(PRIVATE).open(sealed)


@pytest.mark.parametrize("public", ["", "abc", "AAAA", "QUFB" * 10, "QUFB" * 11, "é" * 44])
def test_what_is_no_public_key_is_refused(public: str) -> None:
    with pytest.raises(ValueError, match="public key"):
        LineSealer(public)


@pytest.mark.parametrize("private", [b"", b"nothing", b"\xff", b"QUFB" * 10])
def test_what_is_no_private_key_is_refused_and_not_shown(private: bytes) -> None:
    with pytest.raises(KeyFileError) as caught:
        LineOpener(private)
    assert "nothing" not in str(caught.value)
