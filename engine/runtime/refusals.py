"""Who could not connect lately, and why: for the question "why can sender Z not connect?"."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from engine.domain.record import Record

_KEPT_MAX: Final = 100
"""Different peers and reasons of a channel; the one that was heard of longest ago makes room."""

MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "not-in-allow-list": ("its address is not in `listen.allow`", "add its network, or find out who it is"),
    "too-many": ("the channel has `listen.connections_max`", "does the sender close its connections? else raise it"),
    "too-many-of-peer": ("its address has `listen.connections_per_peer_max`", "as above"),
    "no-client-certificate": ("it showed no certificate", "the sender sets up its client certificate"),
    "client-name": ("its certificate is good, and not in `tls.client_names`", "add the name that `openssl x509` shows"),
    "unknown-ca": ("no authority of `tls.client_ca` signed its certificate", "add the authority"),
    "certificate-expired": ("its certificate is over", "the sender renews it"),
    "certificate-not-yet-valid": ("its certificate is not valid yet", "look at both clocks"),
    "certificate-revoked": ("its certificate is in `tls.crl`", "the sender gets a new one"),
    "certificate-purpose": ("its certificate is not for clients", "the sender gets one with that purpose"),
    "certificate-invalid": ("its certificate does not hold for another reason", "try it with `openssl verify`"),
    "crl-missing": ("`tls.crl` has no list of the authority that signed", "add that authority's list"),
    "crl-expired": ("`tls.crl` is past its next update", "fetch the new list, then `handoff reload`"),
    "plain-text-on-tls-port": ("it does not speak TLS", "the sender turns TLS on"),
    "tls-on-plain-port": ("it speaks TLS, the channel does not", "set `listen.tls`, or the sender turns TLS off"),
    "tls-version": ("it knows nothing newer than TLS 1.1", "the sender is updated"),
    "no-shared-cipher": ("it knows none of our ciphers", "the sender allows AES-GCM"),
    "our-certificate-refused": ("it does not trust our certificate", "the sender trusts the authority of `tls.cert`"),
    "handshake-timeout": ("it did not shake hands in ten seconds", "a firewall, or no TLS on the other side"),
    "handshake-broken-off": ("it left in the middle; probes of load balancers do", "ask the sender for its own log"),
    "handshake-failed": ("TLS failed in another way", "ask the sender for its own log"),
    "gone": ("it was gone before it was served", "nothing"),
    "draining": ("the channel is being closed", "nothing: it comes again"),
    "no-descriptor": ("the system has no descriptor or memory left", "raise LimitNOFILE"),
    "idle": ("closed: silent for `listen.idle_seconds_max`", "nothing"),
    "slow-frame": ("closed: a frame took `listen.frame_seconds_max`", "the network, or a sender that stands still"),
    "slow-reader": ("closed: its answers were not taken for `listen.write_seconds_max`", "as above"),
    "made-room": ("closed: silent, and others needed the place", "does the sender close its connections?"),
    "unavailable": ("closed instead of a refusal (`ack.unavailable: close`)", "see `handoff status`"),
}  # fmt: skip
"""Why a connection was refused, or closed by us: what it means, and what to do. The labels of the metrics."""
REASONS: Final[Mapping[str, str]] = {name: f"{meaning}: {remedy}" for name, (meaning, remedy) in MEANINGS.items()}


class Refusal(Record, frozen=True, kw_only=True):
    """Connections of one peer that were refused for one reason. peer: its address, without the port."""

    channel: str
    peer: str
    reason: str
    count: int
    first_at: datetime
    last_at: datetime


class Refusals:
    """Of one channel; few are kept, however many knock."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Refusal] = {}

    def note(self, channel: str, peer: str, reason: str, now: datetime) -> bool:
        """Keep it; whether this peer and reason are new, or were not heard of for an hour."""
        old = self._known.pop((peer, reason), None)
        count, first = (old.count, old.first_at) if old is not None else (0, now)
        self._known[peer, reason] = Refusal(
            channel=channel, peer=peer, reason=reason, count=count + 1, first_at=first, last_at=now
        )
        while len(self._known) > _KEPT_MAX:
            del self._known[next(iter(self._known))]
        return old is None or (now - old.last_at).total_seconds() > 3600

    def listed(self) -> list[Refusal]:
        """The latest first."""
        return list(reversed(self._known.values()))
