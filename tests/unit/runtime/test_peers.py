"""By which of its names a client's certificate is known."""

from __future__ import annotations

import pytest

from engine.runtime.peers import Certificate

CN, DNS, URI = ("CN", "epic-prod"), ("DNS", "epic.example"), ("URI", "urn:epic:prod")


def certificate(*names: tuple[str, str]) -> Certificate:
    return Certificate(names=names, fingerprint="ab" * 32, expires=0.0, der=b"")


@pytest.mark.parametrize("wanted", ["CN:epic-prod", "CN=epic-prod", "epic-prod"])
def test_a_common_name_counts_only_in_a_certificate_without_dns_names(wanted: str) -> None:
    assert certificate(CN).is_named(wanted)
    assert certificate(CN, URI).is_named(wanted)
    assert not certificate(CN, DNS).is_named(wanted)
    assert not certificate(CN, URI, DNS).is_named(wanted)


@pytest.mark.parametrize(
    "wanted", ["DNS:EPIC.example", "epic.example", "URI:urn:epic:prod", "SHA256:" + "AB:" * 31 + "AB"]
)
def test_its_other_names_count_beside_a_common_name(wanted: str) -> None:
    assert certificate(CN, DNS, URI).is_named(wanted)


def test_a_dns_name_is_no_common_name() -> None:
    assert not certificate(CN, ("DNS", "other.example")).is_named("epic-prod")
    assert not certificate(("CN", "epic.example"), ("DNS", "other.example")).is_named("DNS:epic.example")
