"""What the courier and a destination's connector owe each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.domain.delivery import QueuedDelivery
from engine.domain.record import Record
from engine.errors import DeliveryFailure


class Result(Record, frozen=True, kw_only=True):
    """What became of one delivery.

    error: our own stable code (`unable-to-lock-row`). text: a fixed sentence of ours, never the destination's words,
    which can hold the payload. attempted: false when the destination never got to see the delivery (the connection
    was lost before its turn); it then stays as it is and no attempt is counted.
    """

    delivered: bool
    failure: DeliveryFailure | None = None
    error: str = ""
    text: str = ""
    retry_after_seconds: float | None = None
    attempted: bool = True


DELIVERED = Result(delivered=True)
NOT_ATTEMPTED = Result(delivered=False, attempted=False)


def failed(failure: DeliveryFailure, error: str, text: str, *, retry_after_seconds: float | None = None) -> Result:
    return Result(delivered=False, failure=failure, error=error, text=text, retry_after_seconds=retry_after_seconds)


class Connector(Protocol):
    """One destination. All calls come from one courier task, one at a time.

    The courier calls `connect` before every batch, `deliver` when that succeeded, and `close` once at the end. It hands
    over the next batch only when the results of the last one are in the store: a connector can rely on that no more
    than its last batch was done but not recorded when the process was killed.
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

    async def deliver(self, batch: Sequence[QueuedDelivery]) -> list[Result]:
        """One result for each delivery, in the same order.

        What is wrong with one delivery is in its result. Raises DeliveryError for what is wrong with the destination as
        a whole: it holds for every delivery of the batch, of which none was done (transient) or it is not known which
        were (ambiguous).
        """
        ...

    async def close(self) -> None:
        """Let go of connections and files. Never raises; `connect` may follow."""
        ...
