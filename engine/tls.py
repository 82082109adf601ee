"""What every TLS connection of ours has in common, whichever end of it we are."""

from __future__ import annotations

import ssl
from typing import Final, Literal

Minimum = Literal["1.2", "1.3"]

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_AEAD: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: with forward secrecy, and authenticated as one with the encryption (RFC 9325, section 4.2). Those of 1.3
are all such."""


def harden(context: ssl.SSLContext, minimum: Minimum = "1.2") -> ssl.SSLContext:
    """The same context: no old version, no suite of another kind, no renegotiation, nothing of the environment."""
    context.minimum_version = _VERSIONS[minimum]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_AEAD)
    context.keylog_filename = None  # type: ignore[assignment]  # what SSLKEYLOGFILE of the environment has set
    return context
