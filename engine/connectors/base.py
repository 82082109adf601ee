"""What the courier and a destination's connector owe each other."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from engine.clock import Clock
from engine.domain.delivery import QueuedDelivery
from engine.domain.record import Phi, Record
from engine.errors import DeliveryFailure, HandoffError, Problem
from engine.pipeline.admit import Rule
from engine.settings import Configuration, DestinationBase

if TYPE_CHECKING:
    from engine.connectors.checkpoints import Place


class Result(Record, frozen=True, kw_only=True):
    """What became of one delivery.

    error: our own stable code (`unable-to-lock-row`). text: a fixed sentence of ours, never the destination's words,
    which can hold the payload. attempted: false when the destination never got to see the delivery (the connection
    was lost before its turn); it then stays as it is and no attempt is counted. of_destination: the failure is one of
    the destination rather than of this delivery (its database is down, it takes nothing today): it would be the same
    with any other, so the breaker is told and the delivery pays no attempt for it. answered: the destination spoke, and
    refused without a reason: that is no sign that it is down, so no breaker opens and no other patient waits.
    attempts_max: so often at most is it tried, where that is less than the destination's `retry.attempts_max`.
    receipt: the far end's id of what it took, or the code of its answer: to find it there, and to know what later words
    of the far end are about. It may hold anything, so it is stored sealed and shown masked. not_before: the far end
    asks not to be spoken to before (`Retry-After`); also with a delivery that was made.
    """

    delivered: bool
    failure: DeliveryFailure | None = None
    error: str = ""
    text: str = ""
    attempted: bool = True
    of_destination: bool = False
    answered: bool = False
    attempts_max: int | None = None
    receipt: str | None = None
    not_before: datetime | None = None
    in_doubt: bool = False
    """It may have been done, and the far end can be asked later whether it was (`LooksUp`)."""


DELIVERED = Result(delivered=True)


def delivered(receipt: str | None, not_before: datetime | None = None) -> Result:
    return Result(delivered=True, receipt=receipt, not_before=not_before)


NOTHING_TO_SEND = Result(delivered=True, attempted=False)
"""Done without a word to the destination."""
NOT_ATTEMPTED = Result(delivered=False, attempted=False)


def failed(
    failure: DeliveryFailure,
    error: str,
    text: str,
    *,
    not_before: datetime | None = None,
    of_destination: bool = False,
    answered: bool = False,
    attempts_max: int | None = None,
) -> Result:
    return Result(
        delivered=False,
        failure=failure,
        error=error,
        text=text,
        not_before=not_before,
        of_destination=of_destination,
        answered=answered,
        attempts_max=attempts_max,
    )


def in_doubt(error: str, text: str) -> Result:
    """Of a connector that can look up what became of a delivery."""
    return Result(
        delivered=False,
        failure=DeliveryFailure.AMBIGUOUS,
        error=error,
        text=text,
        of_destination=True,
        in_doubt=True,
    )


def always() -> bool:
    return True


class Connector(Protocol):
    """One destination. All calls come from one courier task, one at a time.

    The courier calls `connect` before every batch, `deliver` when that succeeded, and `close` once at the end. It hands
    over the next batch only when the results of the last one are in the store: a connector can rely on that no more
    than its last batch was done but not recorded when the process was killed.

    No single step of a connector (a connection, a log-in, a call, a message with its answer) takes longer than the
    destination's `timeout_seconds`, whatever the other side does: after `stop` it has to be over, and recorded, in the
    time that the worker has for stopping.
    """

    @property
    def name(self) -> str:
        """The destination's name in config.yaml."""
        ...

    @property
    def idempotent(self) -> bool:
        """The destination takes a delivery twice without acting twice."""
        ...

    @property
    def ordered_batches(self) -> bool:
        """A batch may hold several deliveries of one patient, because they are done in order and all or none."""
        ...

    async def connect(self) -> None:
        """Make ready to deliver; costs nothing when it is ready already.

        Raises DeliveryError when the destination can't be reached.
        """
        ...

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        """One result for each delivery, in the same order.

        may_go_on: to be asked before every step. False: what is left is not attempted, for this process has hung since
        the last one, and another may be at work at the destination by now.

        What is wrong with one delivery is in its result. Raises DeliveryError for what is wrong with the destination as
        a whole: it holds for every delivery of the batch, of which none was done (transient) or it is not known which
        were (ambiguous).
        """
        ...

    def stop(self) -> None:
        """Begin no further step: what of the batch in hand was not begun is not attempted. `close` follows."""
        ...

    async def close(self) -> None:
        """Let go of connections and files. Never raises; `connect` may follow."""
        ...


@runtime_checkable
class LooksUp(Protocol):
    """A connector whose far end does not know a delivery that it gets twice, but can be asked what it has."""

    @property
    def look_up_seconds(self) -> float:
        """So long after an attempt that may have been done it is asked about."""
        ...

    async def look_up(self, queued: QueuedDelivery) -> Sequence[str]:
        """Receipts of all that the far end has and that may be this delivery, the oldest first; after `connect`, and
        without doing anything there. Those of other deliveries may be among them: the courier knows them.

        Raises DeliveryError: transient, it can't be asked now; else a person has to look.
        """
        ...


class Called(Phi, frozen=True, kw_only=True):
    """A call of a far end at our door, as it came."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    now: float
    """By the machine's clock (seconds since 1970): signatures are not good for ever."""
    url: str = ""
    """The address that was called, as it is known outside, with its query as it came."""


class UnsignedError(HandoffError):
    """A call is not signed as it should be: who has made it can't be told."""


class Acknowledgment(Record, frozen=True, kw_only=True):
    """Somebody has acknowledged a page at a far end. once: names this word of it, however often it is said."""

    page: str
    by: str
    once: str


class Incoming(Phi, frozen=True, kw_only=True):
    """A text that came in at a carrier."""

    id: str
    """The carrier's."""
    channel: str
    """`sms`, `whatsapp`."""
    number: str
    """E.164, from whom."""
    to: str
    """Our own number."""
    text: str
    answered: str | None = None
    """The carrier has taken it for a word of its own, and has answered: `STOP`, `START`, `HELP`."""


class CarrierWord(Record, frozen=True, kw_only=True):
    """What a carrier says of a text that it was given. Such words come late, twice, and in any order."""

    key: str
    """The idempotency key of the delivery that it is about, as it was told with the text."""
    receipt: str | None
    """Its id there."""
    result: str
    """`sent`, `delivered`, `failed`."""
    detail: str | None = None
    """Why it has failed, as a code of ours."""


class Heard(Phi, frozen=True, kw_only=True):
    """Something that a far end had to tell us when it was asked. id: its number there."""

    id: int
    said: Incoming | CarrierWord


class Ear(Protocol):
    """A far end that is asked for its words, because it can't call. Not by several at once."""

    def hear(self, clock: Clock, limit: int) -> Sequence[Heard]:
        """What it has to tell us by now, the oldest first, until `heard`. Raises HandoffError."""
        ...

    def heard(self, ids: Sequence[int]) -> None:
        """These are in the journal. Raises HandoffError."""
        ...


class DestinationSettings(DestinationBase):
    """A type of destination: its keys in config.yaml, and all that follows from them."""

    @abstractmethod
    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> Connector:
        """Its connector. Nothing is opened: what is wrong is the configuration. Raises SettingsError.

        The settings are those of `Configuration.destination`, whose timeout fits into the time for stopping.
        """

    def made_from(self, configuration: Configuration) -> tuple[object, ...]:  # noqa: ARG002
        """What besides the settings the connector is made from: a reload makes it anew when that is another."""
        return ()

    def admission(self) -> Sequence[Rule]:
        """Its own rules of what may go out now (consent, quiet hours, caps), asked right before a delivery is sent."""
        return ()

    def acknowledgment(self, call: Called) -> Acknowledgment | None:  # noqa: ARG002
        """What a call at `/hooks/NAME/ack` says; none: nothing of ours, or the far end has no such calls.

        Raises UnsignedError, and ValueError for a body that can't be read.
        """
        return None

    def incoming(self, call: Called) -> Incoming | None:  # noqa: ARG002
        """The text that a call at `/hooks/NAME/message` brings; none: the far end brings no texts.

        Raises UnsignedError, and ValueError for a body that can't be read.
        """
        return None

    def carrier_word(self, call: Called) -> CarrierWord | None:  # noqa: ARG002
        """What a call at `/hooks/NAME/status` says of a text; none: nothing of ours.

        Raises UnsignedError, and ValueError for a body that can't be read.
        """
        return None

    def ear(self, name: str, configuration: Configuration) -> Ear | None:  # noqa: ARG002
        """Where its words are asked for; none: it calls us, or says nothing."""
        return None

    def checkpoint_place(self, name: str, configuration: Configuration) -> Place:
        """Where checkpoints of the trail go to, of a type that takes them (`takes_checkpoints`)."""
        raise NotImplementedError(f"destination {name} takes no checkpoints ({configuration.site.node})")

    @property
    def folder(self) -> str | None:
        """The folder in which it writes files, and nobody else may."""
        return None

    def check_files(self, name: str, configuration: Configuration) -> Iterator[Problem]:  # noqa: ARG002
        """What on this machine can't be used as it is: certificates, keys, folders. Until then its deliveries wait."""
        return iter(())


def stamps(configuration: Configuration, *files: str | None) -> tuple[object, ...]:
    """For `made_from`: files that a connector reads, as far as it can be seen that they were written anew."""
    found: list[object] = []
    for file in files:
        status = None
        if file is not None:
            with contextlib.suppress(OSError):
                status = configuration.path(file).stat()
        found.append(None if status is None else (status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)
