"""The trail's keys: one for the MACs of its records, one for the signatures of its checkpoints.

Both are derived from a root that the key file holds for them alone (HKDF-Expand of RFC 5869, one block each), so that
nothing that is sealed or looked up by the other keys tells anything of them.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_HASH: Final = "sha256"
_MAC: Final = b"handoff trail mac\x01"
_SIGN: Final = b"handoff trail checkpoint\x01"


class TrailKeys:
    """roots: all there were, the one in use last."""

    def __init__(self, roots: Sequence[bytes]) -> None:
        self._roots = tuple(roots)
        self._macs = [hmac.digest(root, _MAC, _HASH) for root in self._roots]

    def __repr__(self) -> str:
        return f"<TrailKeys: {self.number}>"

    @property
    def number(self) -> int:
        """Of the root in use, counted from 1."""
        return len(self._roots)

    def mac(self, number: int, data: bytes) -> bytes:
        """32 bytes. number: of the root, which there is."""
        return hmac.digest(self._macs[number - 1], data, _HASH)

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature (64 bytes) with the key in use."""
        return self._signing[-1].sign(data)

    def is_signed(self, number: int, data: bytes, signature: bytes) -> bool:
        """Whether we have signed this, with the key of this number."""
        from cryptography.exceptions import InvalidSignature

        if not 0 < number <= self.number:
            return False
        try:
            self._signing[number - 1].public_key().verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def public_key(self, number: int) -> bytes:
        """Of the signatures (32 bytes, RFC 8032): whoever has it can check a checkpoint without the key file."""
        return self._signing[number - 1].public_key().public_bytes_raw()

    @cached_property
    def _signing(self) -> list[Ed25519PrivateKey]:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return [Ed25519PrivateKey.from_private_bytes(hmac.digest(root, _SIGN, _HASH)) for root in self._roots]
