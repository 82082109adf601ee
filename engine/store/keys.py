"""The key file: sealing values at rest, and keyed hashes to look them up by.

A sealed value is `format (1 byte) | key number (2 bytes) | nonce (12 bytes) | AES-256-GCM ciphertext and tag`.
Its associated data is those three bytes and the place it stands in (`table.column:row id`), so that a value moved to
another row does not open. (Format 1: the place alone. Such values still open.)

A nonce is 96 bits of a keyed hash of 16 random bytes, the place and the value: two nonces are the same only where all
three are. So a machine that is set back to a snapshot, or runs twice from one, may draw the same random bytes again
and repeats no nonce for another value (decision 37). NIST SP 800-38D (8.3) allows 2^32 values under one key with
nonces by chance; at sixteen sealed values a message that is 268 million messages, so rotate (`handoff keys rotate`)
well before, yearly at the latest. A rotation adds a key and keeps the old ones: what was sealed with them stays
readable. The lookup key is never rotated, because every stored hash would miss. The trail has roots of its own
(`TrailKeys`), of which a rotation adds one, too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.domain.record import Record
from engine.errors import KeyFileError, KeyMissingError, StoreError, TamperedError
from engine.files import (
    SECRET_BYTES_MAX,
    UnreadableFileError,
    foreign_folder,
    foreign_owner,
    read_with_status,
    writable_by_group,
    writable_by_others,
)
from engine.store.trailkeys import TrailKeys

_FILE_FORMAT: Final = 1
_FORMAT: Final = 2
_FORMAT_OF_RANDOM_NONCES: Final = 1
_PREFIX: Final = struct.Struct(">BH")
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_LOOKUP_BYTES: Final = 16
_CHANCE_BYTES: Final = 16
_CHANCES_A_FETCH: Final = 1024
_SEALED_BYTES_MIN: Final = _PREFIX.size + _NONCE_BYTES + 16

# Random bytes not used yet. `list.pop` is atomic, so two threads never get the same ones; a forked child drops its
# copy, so that it never uses what its parent will use.
_chances: list[bytes] = []
os.register_at_fork(after_in_child=_chances.clear)


class KeyDescription(Record, frozen=True, kw_only=True):
    """A key as `handoff keys` shows it: never the key itself."""

    number: int
    created_at: datetime
    active: bool


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    created_at: datetime
    key: str

    def __repr__(self) -> str:
        return "<key>"


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    active: int
    keys: dict[int, _Key]
    lookup: str
    audit: tuple[str, ...]
    """Roots of the trail's keys. The last one is in use."""
    retired: tuple[int, ...] = ()
    """Numbers of keys that are gone: nothing is sealed with them any more, and none gets their number."""

    def __repr__(self) -> str:
        return "<key file>"


class KeyRing:
    """The keys of one site. Use `create`, `load` or `parse`."""

    def __init__(self, content: _KeyFile, path: Path | None, read: Callable[[], _KeyFile] | None = None) -> None:
        """path: of the file; none: they came without one. read: reads them again; none: they are what they are."""
        self._path = path
        self._read = read if path is None else lambda: _decode(_read(path), str(path))
        self._lock = threading.Lock()
        self._use(content)

    def __repr__(self) -> str:
        return f"<KeyRing: {len(self._ciphers)} key(s)>"

    @classmethod
    def create(cls, path: Path) -> KeyRing:
        """Make a new key file (mode 0600). Raises StoreError when there is one already: it is never overwritten."""
        keys = {1: _Key(datetime.now(UTC), _new_key())}
        content = _KeyFile(format=_FILE_FORMAT, active=1, keys=keys, lookup=_new_key(), audit=(_new_key(),))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise StoreError(f"{path}: a key file is there already; it is never overwritten") from None
        except OSError as error:
            raise StoreError(f"{path}: the key file can't be written: {error.strerror}") from None
        with os.fdopen(handle, "wb") as file:
            file.write(_encode(content))
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
        return cls(content, path)

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read a key file.

        Raises KeyMissingError when it is not there, KeyFileError when others may read it or it is damaged. A systemd
        credential (a path below $CREDENTIALS_DIRECTORY) may look readable for its group: there the group bits show the
        mask of an access list, not a group.
        """
        return cls(_decode(_read(path), str(path)), path)

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """The key file's content from elsewhere (a secret store)."""
        return cls(_decode(text.encode(), "the key file"), None)

    @classmethod
    def printed(cls, run: Callable[[], bytes]) -> KeyRing:
        """What a command prints. Raises what `run` raises, or KeyFileError."""

        def read() -> _KeyFile:
            return _decode(run(), "what the command of store.keys prints")

        return cls(read(), None, read)

    def seal(self, place: str, plaintext: bytes) -> bytes:
        """Encrypt a value for one place (`table.column:row id`)."""
        prefix, cipher, nonces = self._sealing
        try:
            chance = _chances.pop()
        except IndexError:
            chance = _fetch_chances()
        where = prefix + place.encode()
        hashed = nonces.copy()
        hashed.update(b"%b%d:%b" % (chance, len(where), where))
        hashed.update(plaintext)
        nonce = hashed.digest()
        return prefix + nonce + cipher.encrypt(nonce, plaintext, where)

    def open(self, place: str, sealed: bytes) -> bytes:
        """Decrypt a value of a place. Raises KeyMissingError, or TamperedError when it is not what was sealed there."""
        if len(sealed) < _SEALED_BYTES_MIN:
            raise TamperedError(place)
        where = place.encode()
        if sealed[0] == _FORMAT:
            where = sealed[:3] + where
        elif sealed[0] != _FORMAT_OF_RANDOM_NONCES:
            raise TamperedError(place)
        number = key_number(sealed)
        cipher = self._ciphers.get(number) or self._after_rotation(number)
        try:
            return cipher.decrypt(sealed[3:15], sealed[15:], where)
        except InvalidTag:
            raise TamperedError(place) from None

    def lookup(self, *parts: str | bytes) -> bytes:
        """A keyed hash (16 bytes) of a value that has to be found again without being stored in clear.

        Each part goes in with its length, so that ("ab", "c") and ("a", "bc") differ.
        """
        return _fed(self._lookup, parts).digest()

    def lookup_behind(self, *first: str | bytes) -> Callable[..., bytes]:
        """`lookup` for values that all begin with these parts, which are hashed only once."""
        begun = _fed(self._lookup, first)
        return lambda *parts: _fed(begun, parts).digest()

    def id_of(self, *texts: str) -> str:
        """A keyed hash of texts in hexadecimal digits, as an id: the same texts always have the same one.

        Never the same as what `lookup` makes of them.
        """
        joined = "\0".join(texts)  # a third of the time of `lookup`, and as good where no text holds the separator
        if joined.count("\0") >= len(texts):
            return self.lookup("id", *texts).hex()
        hashed = self._ids.copy()
        hashed.update(joined.encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    def derived(self, purpose: str, salt: bytes, number: int | None = None) -> tuple[int, bytes]:
        """A key of its own (32 bytes) for what is sealed outside the store, and the number of the one it comes from.

        purpose: at most 16 letters. number: of the key; none: the one in use. Raises KeyMissingError.
        """
        content = self._content
        wanted = content.active if number is None else number
        if wanted not in content.keys:
            raise KeyMissingError(f"the key file does not hold key {wanted}")
        root = base64.b64decode(content.keys[wanted].key)
        return wanted, hashlib.blake2b(salt, key=root, digest_size=_KEY_BYTES, person=purpose.encode("ascii")).digest()

    def rotate(self) -> int:
        """Add a key, make it the active one, and write the file. Returns its number.

        Other processes seal with the old key until they `reload`; what the new one has sealed they read at once.
        """
        if self._path is None:
            raise StoreError("these keys came without a file: rotate them where they are kept")
        with self._lock:
            content = _decode(_read(self._path), str(self._path))
            number = max((*content.keys, *content.retired)) + 1
            keys = {**content.keys, number: _Key(datetime.now(UTC), _new_key())}
            audit = (*content.audit, _new_key())
            content = msgspec.structs.replace(content, active=number, keys=keys, audit=audit)
            replace_file(self._path, _encode(content))
            self._use(content)
        return number

    def retire(self, number: int) -> None:
        """Take a key out of the file. What it has sealed can never be read again. Raises StoreError."""
        if self._path is None:
            raise StoreError("these keys came without a file: retire them where they are kept")
        with self._lock:
            content = _decode(_read(self._path), str(self._path))
            if number not in content.keys:
                raise StoreError(f"there is no key {number}")
            if number == content.active:
                raise StoreError(f"key {number} is the one that is sealed with: `handoff keys rotate` comes first")
            kept = {one: key for one, key in content.keys.items() if one != number}
            content = msgspec.structs.replace(content, keys=kept, retired=(*content.retired, number))
            replace_file(self._path, _encode(content))
            self._use(content)

    def reload(self) -> None:
        """Read the file again, so that a key which another process has made active is used from now on.

        Raises KeyMissingError, and goes on with the keys it has, when the file is not those keys and perhaps more.
        """
        if self._read is not None:
            with self._lock:
                content = self._read()
                if not self._is_later(content):
                    raise KeyMissingError(
                        f"{self._path or 'store.keys'}: these are other keys than those in use; it must keep every old"
                        " one that is not retired"
                    )
                self._use(content)

    @property
    def active(self) -> int:
        """The number of the key that is sealed with."""
        return self._content.active

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(sorted(self._content.keys))

    @property
    def trail(self) -> TrailKeys:
        """What the trail is chained and its checkpoints are signed with."""
        return self._trail

    def trail_with(self, number: int) -> TrailKeys:
        """`trail`, with a key that another process has added since we read the file. Raises KeyMissingError."""
        if number > self._trail.number and self._path is not None:
            with self._lock:
                content = _decode(_read(self._path), str(self._path))
                if self._is_later(content):
                    self._use(content)
        if not 0 < number <= self._trail.number:
            raise KeyMissingError(f"a record of the trail has key {number}, which the key file does not hold")
        return self._trail

    def describe(self) -> tuple[KeyDescription, ...]:
        """What there is, oldest first."""
        return tuple(
            KeyDescription(number=number, created_at=key.created_at, active=number == self._content.active)
            for number, key in sorted(self._content.keys.items())
        )

    def _use(self, content: _KeyFile) -> None:
        self._content = content
        lookup = base64.b64decode(content.lookup)
        self._lookup = hashlib.blake2b(key=lookup, digest_size=_LOOKUP_BYTES)
        self._ids = hashlib.blake2b(key=lookup, digest_size=_LOOKUP_BYTES, person=b"id")
        self._ciphers: Mapping[int, AESGCM] = {
            number: AESGCM(base64.b64decode(key.key)) for number, key in content.keys.items()
        }
        self._trail = TrailKeys([base64.b64decode(root) for root in content.audit])
        # One tuple, so that a thread that seals during a rotation never combines the old number with the new key.
        active = base64.b64decode(content.keys[content.active].key)
        nonces = hashlib.blake2b(
            key=hashlib.blake2b(key=active, digest_size=_KEY_BYTES, person=b"nonces").digest(), digest_size=_NONCE_BYTES
        )
        self._sealing = (_PREFIX.pack(_FORMAT, content.active), self._ciphers[content.active], nonces)

    def _is_later(self, content: _KeyFile) -> bool:
        """Whether this is what we have, with keys added or retired: what is sealed stays readable, and is found."""
        ours = self._content
        return (
            content.lookup == ours.lookup
            and content.audit[: len(ours.audit)] == ours.audit
            and all(content.keys.get(number) == key or number in content.retired for number, key in ours.keys.items())
        )

    def _after_rotation(self, number: int) -> AESGCM:
        """A key that another process has added since we read the file."""
        if self._read is not None:
            with self._lock:
                if number not in self._ciphers:
                    content = self._read()
                    if number in content.keys and self._is_later(content):
                        self._use(content)
        if number not in self._ciphers:
            raise KeyMissingError(f"a stored value is sealed with key {number}, which the key file does not hold")
        return self._ciphers[number]


def key_number(sealed: bytes) -> int:
    """Which key a value was sealed with."""
    return int.from_bytes(sealed[1:3])


def _fetch_chances() -> bytes:
    block = os.urandom(_CHANCE_BYTES * _CHANCES_A_FETCH)
    fresh = [block[at : at + _CHANCE_BYTES] for at in range(0, len(block), _CHANCE_BYTES)]
    chance = fresh.pop()
    _chances.extend(fresh)
    return chance


def _new_key() -> str:
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode("ascii")


def _encode(content: _KeyFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


def _fed(begun: hashlib.blake2b, parts: Iterable[str | bytes]) -> hashlib.blake2b:
    hashed = begun.copy()  # keyed BLAKE2b: a third of the time of HMAC-SHA-256, a dozen times a message
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hashed.update(b"%d:%b" % (len(raw), raw))
    return hashed


def _decode(raw: bytes, name: str) -> _KeyFile:
    try:
        content = msgspec.json.decode(raw, type=_KeyFile)
        keys = [*(key.key for key in content.keys.values()), content.lookup, *content.audit]
        whole = all(len(base64.b64decode(key, validate=True)) == _KEY_BYTES for key in keys)
    except (msgspec.MsgspecError, binascii.Error):
        raise KeyFileError(f"{name}: is not a key file of Handoff, or it is damaged") from None
    if content.format != _FILE_FORMAT:
        raise KeyFileError(f"{name}: key file format {content.format} is not known to this version of Handoff")
    sound = content.audit and content.active in content.keys and not content.keys.keys() & set(content.retired)
    if not whole or not sound or not all(0 < number < 1 << 16 for number in content.keys):
        raise KeyFileError(f"{name}: is not a key file of Handoff, or it is damaged")
    return content


def _read(path: Path) -> bytes:
    try:
        raw, status = read_with_status(path, bytes_max=SECRET_BYTES_MAX)
    except UnreadableFileError as error:
        if error.missing:
            text = "the key file is not there; without it nothing stored can be read"
            raise KeyMissingError(f"{path}: {text}") from None
        raise KeyFileError(f"{path}: the key file {error.reason}") from None
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    is_credential = credentials is not None and path.resolve().is_relative_to(Path(credentials).resolve())
    if status.st_mode & (stat.S_IRWXO if is_credential else stat.S_IRWXO | stat.S_IRWXG):
        raise KeyFileError(f"{path}: others may read this key file; run chmod 600 on it")
    if not is_credential and foreign_owner(status, path.parent):
        raise KeyFileError(f"{path}: this key file belongs to another user: chown it to root or to the service's user")
    if not is_credential:
        _check_folders(path)
    return raw


def _check_folders(path: Path) -> None:
    """As ssh does: who may write in its folder may put another file there. Raises KeyFileError."""
    for folder in dict.fromkeys((path.absolute().parent, path.resolve().parent)):  # of a link both count
        if foreign_folder(folder):
            raise KeyFileError(f"{folder}: this folder of the key file belongs to another user; chown it")
        if writable_by_group(folder):
            raise KeyFileError(f"{folder}: a group may put another key file into this folder; run chmod g-w on it")
        if writable_by_others(folder):
            raise KeyFileError(f"{folder}: everybody may put another key file into this folder; run chmod o-w on it")


def replace_file(path: Path, raw: bytes) -> None:
    """Write a file of keys, behind a link the one it leads to: there is always either the old or the new one, whole.

    Raises StoreError.
    """
    path = path.resolve()
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: the key file can't be written: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
