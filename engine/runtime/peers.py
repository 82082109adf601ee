"""Who may connect: a client's certificate against a channel's names, authorities and lists; why a handshake failed."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.settings import TlsServer

_VERIFY_CODES: Final = {
    2: "unknown-ca", 18: "unknown-ca", 19: "unknown-ca", 20: "unknown-ca", 21: "unknown-ca",
    3: "crl-missing", 12: "crl-expired", 23: "certificate-revoked",
    9: "certificate-not-yet-valid", 10: "certificate-expired", 26: "certificate-purpose",
}  # fmt: skip
"""OpenSSL's codes of X509_verify_cert_error_string(3)."""
_SSL_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no-client-certificate",
    "HTTP_REQUEST": "plain-text-on-tls-port", "HTTPS_PROXY_REQUEST": "plain-text-on-tls-port",
    "WRONG_VERSION_NUMBER": "plain-text-on-tls-port", "UNEXPECTED_MESSAGE": "plain-text-on-tls-port",
    "BAD_RECORD_TYPE": "plain-text-on-tls-port", "RECORD_LAYER_FAILURE": "plain-text-on-tls-port",
    "PACKET_LENGTH_TOO_LONG": "plain-text-on-tls-port",
    "UNSUPPORTED_PROTOCOL": "tls-version", "NO_PROTOCOLS_AVAILABLE": "tls-version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "tls-version",
    "NO_SHARED_CIPHER": "no-shared-cipher",
    "TLSV1_ALERT_UNKNOWN_CA": "our-certificate-refused", "SSLV3_ALERT_BAD_CERTIFICATE": "our-certificate-refused",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "our-certificate-refused",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our-certificate-refused",
    "UNEXPECTED_EOF_WHILE_READING": "handshake-broken-off",
}  # fmt: skip
_KINDS: Final = ("DNS", "URI", "CN")


def host_of(address: Any) -> str:
    """The address of a peer, without its port."""
    return str(address[0]) if isinstance(address, tuple) else "local"


def why_no_handshake(error: BaseException) -> str:
    """The stable word of docs/hl7.md for a TLS handshake that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_CODES.get(error.verify_code, "certificate-invalid")
    if isinstance(error, ssl.SSLError):
        return _SSL_REASONS.get(error.reason or "", "handshake-failed")
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "handshake-timeout"
    # The loops tell a handshake that takes too long by an aborted connection, and their own text.
    if isinstance(error, ConnectionAbortedError):
        return "handshake-timeout"
    return "handshake-broken-off" if isinstance(error, ConnectionError | EOFError) else "handshake-failed"


@dataclass(frozen=True)
class Certificate:
    """A client's certificate, verified by the handshake. names: `CN`, `DNS`, `URI` and their values."""

    names: tuple[tuple[str, str], ...]
    fingerprint: str
    expires: float
    """Seconds since 1970."""
    der: bytes

    @classmethod
    def of(cls, transport: asyncio.BaseTransport) -> Certificate | None:
        """Of the other side of a connection; none without TLS, or without a certificate."""
        connection = transport.get_extra_info("ssl_object")
        said = transport.get_extra_info("peercert")
        if connection is None or not said:
            return None
        der = connection.getpeercert(True)  # noqa: FBT003 - the standard library's signature
        subject = [("CN", value) for part in said.get("subject", ()) for key, value in part if key == "commonName"]
        names = (*subject, *((kind, value) for kind, value in said.get("subjectAltName", ())))
        expires = float(ssl.cert_time_to_seconds(said["notAfter"])) if "notAfter" in said else float("inf")
        return cls(names=names, fingerprint=hashlib.sha256(der).hexdigest(), expires=expires, der=der)

    @property
    def name(self) -> str | None:
        """The subject's common name (`CN=epic-prod`), else the first alternative name (`DNS:epic.example`)."""
        for kind, value in self.names:
            return f"CN={value}" if kind == "CN" else f"{kind}:{value}"
        return None

    def is_named(self, wanted: str) -> bool:
        """Whether an entry of `client_names` means this certificate.

        Its common name says who it is only where it has no DNS name: RFC 6125, 6.4.4; RFC 9525 does without it.
        """
        names = [(one, said) for one, said in self.names if one != "CN" or not self._has_dns_name]
        kind, separator, value = wanted.replace("CN=", "CN:", 1).partition(":")
        if separator and kind.upper() == "SHA256":
            return value.replace(":", "").strip().lower() == self.fingerprint
        if not separator or kind.upper() not in _KINDS:
            return any(_same(one, said, wanted) for one, said in names if one in _KINDS)
        return any(_same(one, said, value.strip()) for one, said in names if one == kind.upper())

    @property
    def _has_dns_name(self) -> bool:
        return any(kind == "DNS" for kind, _ in self.names)


def _same(kind: str, said: str, wanted: str) -> bool:
    return said.lower() == wanted.lower() if kind == "DNS" else said == wanted


@dataclass(frozen=True)
class Trusted:
    """What a channel's files say about client certificates. authorities, lists: in DER and PEM."""

    authorities: frozenset[bytes] = frozenset()
    lists: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, tls: TlsServer, resolve: Callable[[str], Any]) -> Trusted:
        """Raises OSError or ValueError for files that can't be used."""
        if tls.client_ca is None:
            return cls()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(resolve(tls.client_ca))
        lists: tuple[bytes, ...] = ()
        if tls.crl is not None:
            from cryptography import x509

            mark = b"-----BEGIN X509 CRL-----"
            lists = tuple(mark + part for part in Path(resolve(tls.crl)).read_bytes().split(mark)[1:])
            if not lists:
                raise ValueError("no list of revoked certificates")
            for one in lists:
                x509.load_pem_x509_crl(one)
        return cls(frozenset(context.get_ca_certs(binary_form=True)), lists)

    def objection(self, certificate: Certificate | None, tls: TlsServer, before: Trusted) -> str | None:
        """Why a client may not send here (a stable word); none: it may. before: what its handshake was judged by."""
        if tls.client_ca is None:
            return None
        if certificate is None:
            return "no-client-certificate"
        if tls.client_names and not any(certificate.is_named(wanted) for wanted in tls.client_names):
            return "client-name"
        if before.lists != self.lists and self._revokes(certificate):
            return "certificate-revoked"
        if before.authorities - self.authorities and not self._issued(certificate):
            return "unknown-ca"
        return None

    def _issued(self, certificate: Certificate) -> bool:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature

        leaf = x509.load_der_x509_certificate(certificate.der)
        for authority in self.authorities:
            try:
                leaf.verify_directly_issued_by(x509.load_der_x509_certificate(authority))
            except (ValueError, TypeError, InvalidSignature):
                continue
            return True
        return False  # or by an intermediate, which the next handshake shows

    def _revokes(self, certificate: Certificate) -> bool:
        from cryptography import x509

        leaf = x509.load_der_x509_certificate(certificate.der)
        for one in map(x509.load_pem_x509_crl, self.lists):
            if (
                one.issuer == leaf.issuer
                and one.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None
            ):
                return True
        return False
