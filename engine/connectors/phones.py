"""A phone network of our own: numbers, what was said by them, and what the network still has to tell us.

One SQLite file beside the store, which the daemon, its workers and `handoff phone` open for a moment each. Words and
numbers are sealed (AES-256-GCM) with a key in a file beside it that belongs to the daemon's user, as the store's own
keys do; numbers are found by a keyed hash. A text that it is given twice (by its key) it has once.

It does what carriers do: STOP alone blocks the sender and is answered by the network, START ends that, a text to a
blocked sender is refused (21610), a landline gets nothing (30006), a phone that is off gets it later.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field

from engine.domain.record import Phi, Record
from engine.errors import HandoffError
from engine.yamlmodel import StrictModel

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_WAIT_SECONDS: Final = 10.0
_TRANSCRIPT_MAX: Final = 10_000
STOPS: Final = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"})
"""Alone, and in any case: words that carriers take for themselves."""
STARTS: Final = frozenset({"START", "UNSTOP"})
_STOPPED: Final = "You have been unsubscribed and will get no more messages from this number. Reply START to return."
_STARTED: Final = "You have been resubscribed. Reply STOP to unsubscribe."
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS said (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE, phone BLOB NOT NULL, at REAL NOT NULL, direction TEXT NOT NULL,
    sealed BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS said_phone ON said (phone, id);
CREATE TABLE IF NOT EXISTS blocked (phone BLOB PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS word (id INTEGER PRIMARY KEY, due REAL NOT NULL, sealed BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS word_due ON word (due);
"""


class PhoneError(HandoffError):
    """The phone network's file can't be used."""


class Habit(StrictModel):
    """What whoever has a phone does with a text."""

    share: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many phones are so, compared with the shares of the others."""
    delivered_after_minutes: Annotated[float, Field(ge=0, le=10_080)] = 0
    """The phone is off for so long."""
    error: Annotated[int, Field(ge=1)] | None = None
    """It gets nothing: the carrier's code (30006: a landline)."""
    after_minutes: Annotated[float, Field(ge=0, le=10_080)] = 5
    """So long after it has a text it is answered."""
    says: str | None = None
    """Whatever the text, once for a phone: `STOP`, `Who is this?`."""
    answers: dict[str, str] = {}
    """Word in the text -> what is answered to it: `{CONFIRM: confirm}`."""


class Habits(StrictModel):
    """A file of habits."""

    habits: dict[str, Habit]
    """Name of a habit -> what it is."""
    phones: dict[str, str] = {}
    """Number -> the habit of that phone; of any other the number says, by the shares."""

    def of(self, number: str) -> Habit:
        named = self.habits.get(self.phones.get(number, ""))
        if named is not None:
            return named
        every = [one for one in self.habits.values() for _ in range(one.share)]
        if not every:
            return Habit()
        return every[int.from_bytes(hashlib.sha256(number.encode()).digest()[:8]) % len(every)]


SILENT: Final = Habits(habits={})
"""Every phone gets its texts, and says nothing by itself."""


class Said(Phi, frozen=True, kw_only=True):
    """One text. direction: `out`, to the phone; `in`, from it."""

    at: datetime
    direction: Literal["out", "in"]
    text: str


class Taken(Record, frozen=True, kw_only=True):
    """What became of a text: its id there, or the carrier's code."""

    sid: str
    error: int | None = None


class Word(Phi, frozen=True, kw_only=True):
    """Something that the network has to tell us."""

    kind: Literal["incoming", "delivered", "failed"]
    sid: str
    key: str = ""
    """Of a text that we sent."""
    error: int | None = None
    number: str = ""
    to: str = ""
    channel: str = "sms"
    text: str = ""
    answered: str | None = None


class Phones:
    """file: `NAME.db`; its key is `NAME.key` beside it, made when it is first needed."""

    def __init__(self, file: Path, habits: Habits = SILENT) -> None:
        self._file = file
        self._habits = habits
        self._key: bytes | None = None

    @property
    def is_there(self) -> bool:
        return self._file.exists()

    def send(self, key: str, number: str, text: str, now: datetime, *, channel: str = "sms", sender: str = "") -> Taken:
        """A text to a phone. key: the same for the same text. Raises PhoneError."""
        with self._opened() as db:
            known = db.execute("SELECT id FROM said WHERE key = ?", (key,)).fetchone()
            if known is not None:
                return Taken(sid=_sid(known[0]))
            phone, habit = self._found(number), self._habits.of(number)
            blocked = "SELECT 1 FROM blocked WHERE phone = ? AND since <= ?"
            if db.execute(blocked, (phone, now.timestamp())).fetchone() is not None:
                return Taken(sid="", error=21610)
            sid = self._say(db, phone, "out", text, now, key)
            if habit.error is not None:
                self._tell(db, now, Word(kind="failed", sid=sid, key=key, error=habit.error))
                return Taken(sid=sid)
            arrives = now + timedelta(minutes=habit.delivered_after_minutes)
            self._tell(db, arrives, Word(kind="delivered", sid=sid, key=key))
            answer = self._answer(db, phone, habit, text)
            if answer is not None:
                at = arrives + timedelta(minutes=habit.after_minutes)
                self._reply(db, number, answer, at, to=sender, channel=channel)
            return Taken(sid=sid)

    def reply(self, number: str, text: str, now: datetime, *, to: str = "", channel: str = "sms") -> str:
        """Somebody writes with a phone; its id there. Raises PhoneError."""
        with self._opened() as db:
            return self._reply(db, number, text, now, to=to, channel=channel)

    def transcript(self, number: str, now: datetime) -> list[Said]:
        """What was said to and from a phone until now, the oldest first. Raises PhoneError."""
        if not self.is_there:
            return []
        with self._opened() as db:
            rows = db.execute(
                "SELECT at, direction, sealed FROM (SELECT * FROM said WHERE phone = ? AND at <= ? ORDER BY id DESC"
                " LIMIT ?) ORDER BY at, id",
                (self._found(number), now.timestamp(), _TRANSCRIPT_MAX),
            ).fetchall()
        return [Said(at=_time(at), direction=direction, text=self._open(sealed)) for at, direction, sealed in rows]

    def words(self, now: datetime, limit: int) -> list[tuple[int, Word]]:
        """What the network has to tell us by now, the earliest first; until `told`. Raises PhoneError."""
        with self._opened() as db:
            rows = db.execute(
                "SELECT id, sealed FROM word WHERE due <= ? ORDER BY due, id LIMIT ?", (now.timestamp(), limit)
            ).fetchall()
        return [(number, msgspec.json.decode(self._open(sealed), type=Word)) for number, sealed in rows]

    def told(self, numbers: Sequence[int]) -> None:
        """We have heard these. Raises PhoneError."""
        with self._opened() as db:
            db.executemany("DELETE FROM word WHERE id = ?", [(number,) for number in numbers])

    def _reply(self, db: sqlite3.Connection, number: str, text: str, at: datetime, *, to: str, channel: str) -> str:
        phone, word = self._found(number), text.strip().upper()
        sid = self._say(db, phone, "in", text, at)
        answered, answer = None, None
        if word in STOPS:
            db.execute("INSERT OR IGNORE INTO blocked (phone, since) VALUES (?, ?)", (phone, at.timestamp()))
            answered, answer = "STOP", _STOPPED
        elif word in STARTS:
            db.execute("DELETE FROM blocked WHERE phone = ?", (phone,))
            answered, answer = "START", _STARTED
        if answer is not None:
            self._say(db, phone, "out", answer, at)
        said = Word(kind="incoming", sid=sid, number=number, to=to, channel=channel, text=text, answered=answered)
        self._tell(db, at, said)
        return sid

    def _answer(self, db: sqlite3.Connection, phone: bytes, habit: Habit, text: str) -> str | None:
        if habit.says is not None:
            before = db.execute("SELECT 1 FROM said WHERE phone = ? AND direction = 'in'", (phone,)).fetchone()
            return habit.says if before is None else None
        return next((answer for word, answer in habit.answers.items() if word in text), None)

    def _say(
        self, db: sqlite3.Connection, phone: bytes, direction: str, text: str, at: datetime, key: str | None = None
    ) -> str:
        row = (key, phone, at.timestamp(), direction, self._seal(text))
        done = db.execute("INSERT INTO said (key, phone, at, direction, sealed) VALUES (?, ?, ?, ?, ?)", row)
        return _sid(done.lastrowid or 0)

    def _tell(self, db: sqlite3.Connection, due: datetime, word: Word) -> None:
        sealed = self._seal(msgspec.json.encode(word).decode())
        db.execute("INSERT INTO word (due, sealed) VALUES (?, ?)", (due.timestamp(), sealed))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(self._file, timeout=_WAIT_SECONDS, isolation_level=None)
            try:
                db.executescript(_SCHEMA)
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            finally:
                db.close()
        except (sqlite3.Error, OSError):
            raise PhoneError(f"{self._file} can't be used: folder and files must belong to the daemon's user") from None

    @property
    def _secret(self) -> bytes:
        if self._key is None:
            file = self._file.with_suffix(".key")
            with contextlib.suppress(FileExistsError):
                _write_whole(file, os.urandom(_KEY_BYTES))
            self._key = file.read_bytes()
        return self._key

    def _found(self, number: str) -> bytes:
        return hmac.digest(self._secret, b"phone/" + number.encode(), "sha256")

    def _seal(self, text: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._secret).encrypt(nonce, text.encode(), None)

    def _open(self, sealed: bytes) -> str:
        try:
            return AESGCM(self._secret).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None).decode()
        except (InvalidTag, ValueError):
            raise PhoneError(f"{self._file} and its key do not fit: take both away, it holds no store's data") from None


def _write_whole(file: Path, data: bytes) -> None:
    """All of it or no file, also when two processes begin at once. Raises FileExistsError."""
    new = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
        os.link(new, file)
    finally:
        os.close(fd)
        new.unlink()


def _sid(number: int) -> str:
    return f"SM{number:032x}"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
