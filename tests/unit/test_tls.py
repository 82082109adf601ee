"""What our TLS connections have in common."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError

import engine
from engine.connectors.http import tls_context as of_calls
from engine.connectors.mllp import tls_context as of_mllp
from engine.settings import TlsClient
from engine.simulator.sender import Tls
from engine.tls import harden

CONTEXTS = {
    "listener": lambda: harden(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)),
    "calls": lambda: of_calls(None),
    "mllp": lambda: of_mllp(TlsClient(), Path),
    "send": lambda: Tls().context(),
}


@pytest.mark.parametrize("kind", CONTEXTS)
def test_every_suite_that_is_offered_is_an_authenticated_one_with_forward_secrecy(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = CONTEXTS[kind]()
    suites = context.get_ciphers()
    assert {suite["protocol"] for suite in suites} == {"TLSv1.2", "TLSv1.3"}
    assert all(suite["aead"] for suite in suites)
    assert all(suite["kea"] in {"kx-ecdhe", "kx-any"} for suite in suites)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.keylog_filename is None


@pytest.mark.parametrize("written", ["1.3", 1.3])
def test_the_least_version_is_read_with_quotes_and_without(written: object) -> None:
    tls = TlsClient.model_validate({"minimum": written})
    assert of_mllp(tls, Path).minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("written", ["1.1", 1.0, 13, "TLS1.3", None])
def test_no_other_version_can_be_asked_for(written: object) -> None:
    with pytest.raises(ValidationError):
        TlsClient.model_validate({"minimum": written})


NO_CONNECTION = {"runtime/peers.py", "tlsfiles.py", "connectors/salesforce.py", "simulator/bench/framer.py",
                 "simulator/bench/load.py"}  # fmt: skip
"""They only look at files, or measure."""


def test_whoever_makes_a_context_for_a_connection_hardens_it() -> None:
    root = Path(engine.__file__).parent
    making = {
        path.relative_to(root).as_posix(): text
        for path in root.rglob("*.py")
        if "create_default_context(" in (text := path.read_text()) or "ssl.SSLContext(" in text
    }
    assert making.keys() >= NO_CONNECTION
    assert [name for name, text in making.items() if name not in NO_CONNECTION and "harden(" not in text] == []
