"""Who could not connect lately, and why: for the question "why can sender Z not connect?"."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from engine.domain.record import Record

_KEPT_MAX: Final = 100
"""Different peers and reasons of a channel; the one that was heard of longest ago makes room."""

REASONS: Final[Mapping[str, str]] = {
    "not-allowed": "its address is not in `listen.allow` of the channel",
    "too-many": "the channel has `listen.connections_max` connections: does the sender leave old ones open?",
    "no-descriptor": "the daemon has no file descriptor left: raise LimitNOFILE of the service",
    "draining": "the daemon was stopping, or the channel was being taken away",
    "gone": "it hung up before the connection was made: a port scan, a load balancer's probe, or a firewall",
    "plain-sender": "it speaks no TLS and the channel does: set TLS at the sender, or take `listen.tls` away",
    "no-client-certificate": "it shows no certificate and the channel wants one (`listen.tls.client_ca`)",
    "client-certificate-foreign": "its certificate is signed by nobody of `listen.tls.client_ca`",
    "client-certificate-expired": "its certificate has ended: the sender needs a new one",
    "client-certificate-invalid": "its certificate can't be verified",
    "our-certificate-refused": "it does not trust our certificate: give it the authority that signed `listen.tls.cert`",
    "tls-version": "it offers only TLS versions or ciphers that we do not take: TLS 1.2 is the least",
    "handshake-timeout": "it began no TLS handshake, or did not finish it: does it speak TLS at all?",
    "handshake": "the TLS handshake failed in another way",
}
"""What each reason means, for whoever has to tell the sender."""

_BY_TLS_REASON: Final[Mapping[str, str]] = {
    "HTTP_REQUEST": "plain-sender",
    "WRONG_VERSION_NUMBER": "plain-sender",
    "UNKNOWN_PROTOCOL": "plain-sender",
    "PACKET_LENGTH_TOO_LONG": "plain-sender",
    "RECORD_LAYER_FAILURE": "plain-sender",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no-client-certificate",
    "UNSUPPORTED_PROTOCOL": "tls-version",
    "NO_SHARED_CIPHER": "tls-version",
    "NO_PROTOCOLS_AVAILABLE": "tls-version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "tls-version",
    "TLSV1_ALERT_UNKNOWN_CA": "our-certificate-refused",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "our-certificate-refused",
    "SSLV3_ALERT_BAD_CERTIFICATE": "our-certificate-refused",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our-certificate-refused",
}
_EXPIRED: Final = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""
_FOREIGN: Final = frozenset({2, 18, 19, 20, 21})
"""X509_V_ERR: no issuer certificate, self-signed, chain not known."""


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


def reason_of(error: BaseException) -> str:
    """Why a TLS handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _EXPIRED:
            return "client-certificate-expired"
        return "client-certificate-foreign" if error.verify_code in _FOREIGN else "client-certificate-invalid"
    if isinstance(error, ssl.SSLError):
        return _BY_TLS_REASON.get(error.reason or "", "handshake")
    if isinstance(error, TimeoutError):
        return "handshake-timeout"
    if isinstance(error, ConnectionAbortedError) and "timeout" in str(error).lower():
        return "handshake-timeout"
    return "gone" if isinstance(error, ConnectionError) else "handshake"
