"""Lines of a file that only their reader can open: sealed to a public key whose other half is not on this machine.

A sealed line is `{"idempotency_key", "key", "sealed"}`. `sealed` is AES-256-GCM over the line as it would have been
written in clear, with the idempotency key as associated data; `key` is the key of that, sealed to the reader by HPKE
(RFC 9180: DHKEM X25519, HKDF-SHA256, AES-256-GCM). A new one is made whenever a file is opened, so that a line costs
no public-key operation. Whoever has the disk, the store and `keys.json` reads nothing of them.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from engine.errors import KeyFileError, TamperedError

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO: Final = b"handoff outbox line key 1"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class _Sealed(msgspec.Struct, frozen=True):
    idempotency_key: str
    key: str
    sealed: str


class _Line(msgspec.Struct, frozen=True):
    idempotency_key: str
    sealed: str | None = None


class LineSealer:
    """Seals lines to one reader. Not for several threads at once."""

    def __init__(self, reader: str) -> None:
        """reader: the public key, as `new_reader` gives it. Raises ValueError."""
        self._reader = X25519PublicKey.from_public_bytes(_decoded(reader))
        self.renew()

    def renew(self) -> None:
        """Take another key for the lines from here on: nonces are random, and a key is used for one file."""
        key = os.urandom(_KEY_BYTES)
        self._cipher = AESGCM(key)
        self._key = _encoded(_SUITE.encrypt(key, self._reader, info=_INFO))

    def seal(self, idempotency_key: str, line: bytes) -> bytes:
        """line: without its end; so is what is returned."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, line, idempotency_key.encode())
        return msgspec.json.encode(_Sealed(idempotency_key, self._key, _encoded(sealed)))


class LineOpener:
    """Opens lines with the reader's private key."""

    def __init__(self, private: bytes) -> None:
        """private: the content of the reader's file. Raises KeyFileError."""
        try:
            self._private = X25519PrivateKey.from_private_bytes(_decoded(private.decode("ascii").strip()))
        except (ValueError, UnicodeDecodeError):
            raise KeyFileError("the reader's key file is not one that `handoff outbox key` has made") from None
        self._ciphers: dict[str, AESGCM] = {}

    def open(self, line: bytes) -> bytes:
        """A line in clear, without its end. One that is in clear already stays. Raises TamperedError."""
        try:
            if msgspec.json.decode(line, type=_Line).sealed is None:
                return line.rstrip(b"\n")
            found = msgspec.json.decode(line, type=_Sealed)
            sealed = base64.b64decode(found.sealed, validate=True)
            cipher = self._ciphers.get(found.key)
            if cipher is None:
                self._ciphers.clear()  # one file has few, one after the other
                raw = _SUITE.decrypt(base64.b64decode(found.key, validate=True), self._private, info=_INFO)
                cipher = self._ciphers[found.key] = AESGCM(raw)
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], found.idempotency_key.encode())
        except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, ValueError, InvalidTag):
            raise TamperedError("outbox line") from None


def new_reader() -> tuple[bytes, str]:
    """A new reader: the content of the private file, and the public key."""
    private = X25519PrivateKey.generate()
    return _encoded(private.private_bytes_raw()).encode() + b"\n", _encoded(private.public_key().public_bytes_raw())


def check_reader(text: str) -> str:
    """The public key, if it is one. Raises ValueError."""
    _decoded(text)
    return text


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decoded(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise ValueError("must be a public key as `handoff outbox key FILE` prints it")
    return raw
