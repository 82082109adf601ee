"""What far ends tell the daemon: an acknowledgment at PagerDuty, or by a signed call, is one here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request

import pytest
from harness import Daemon, MakeDaemon, Site, eventually

FIRST = "channels/examples/first-message.hl7"
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
DUTY_SECRET = "duty-webhook-secret-of-a-test"


@pytest.fixture
def paged(site: Site, make_daemon: MakeDaemon) -> tuple[Site, Daemon, str]:
    """A site with hooks, and the id of a page that waits."""
    site.edit(
        "config.yaml",
        (
            r"(?m)^destinations:",
            (
                "hooks: {port: 0}\ndestinations:\n"
                f"  hook: {{type: webhook, url: 'http://127.0.0.1:9', secret: {SECRET}}}\n"
                "  duty: {type: pagerduty, url: 'http://127.0.0.1:9', routing_key: k,"
                f" webhook_secret: {DUTY_SECRET}}}\n"
                "  mute: {type: pagerduty, url: 'http://127.0.0.1:9', routing_key: k}"
            ),
        ),
    )
    daemon = make_daemon(site)
    site.json("send", f"127.0.0.1:{daemon.port()}", FIRST, "--shift-to-now")
    (page,) = eventually(lambda: [one for one in site.json("pages", "list") if one["state"] == "sent"])
    return site, daemon, page["id"]


def call(daemon: Daemon, name: str, body: bytes, headers: dict[str, str]) -> int:
    hooks = daemon.site.json("status", code=None)["hooks"]
    url = f"http://{hooks['host']}:{hooks['port']}/hooks/{name}/ack"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def signed(body: bytes, *, key: bytes = KEY, sent_at: float | None = None, message_id: str = "m1") -> dict[str, str]:
    stamp = str(int(time.time() if sent_at is None else sent_at))
    text = b".".join((message_id.encode(), stamp.encode(), body))
    signature = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}


def of_duty(page: str, *, event_type: str = "incident.acknowledged", event_id: str = "e1") -> bytes:
    event = {
        "id": event_id, "event_type": event_type, "resource_type": "incident", "occurred_at": "2026-11-30T18:00:00Z",
        "agent": {"id": "PLH1HKV", "type": "user_reference", "summary": "Tenex Engineer"},
        "data": {"id": "PGR0VU2", "type": "incident", "status": "acknowledged", "incident_key": page},
    }  # fmt: skip
    return json.dumps({"event": event}).encode()


def duty_signed(body: bytes, secret: str = DUTY_SECRET) -> dict[str, str]:
    own = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-PagerDuty-Signature": f"v1={'0' * 64},v1={own}"}


def state(site: Site, page: str) -> tuple[str, str | None]:
    shown = site.json("pages", "show", page)
    return shown["state"], shown["acknowledged_by"]


def test_an_acknowledgment_at_pagerduty_is_one_here(paged: tuple[Site, Daemon, str]) -> None:
    site, daemon, page = paged
    for event_type in ("incident.triggered", "incident.escalated", "pagey.ping"):
        body = of_duty(page, event_type=event_type, event_id=event_type)
        assert call(daemon, "duty", body, duty_signed(body)) == 202
    assert state(site, page) == ("sent", None)
    body = of_duty(page)
    assert call(daemon, "duty", body, duty_signed(body)) == 200
    eventually(lambda: state(site, page) == ("acknowledged", "Tenex Engineer"))
    assert call(daemon, "duty", body, duty_signed(body)) == 200, "PagerDuty sends again what it got no answer to"
    replies = site.json("messages", "list", "--kind", "reply")
    assert sum(one["type"] == "page-answered" for one in replies) == 1
    assert any(one["actor"] == "destination:duty" for one in site.json("audit", "list"))


def test_a_signed_call_acknowledges_and_any_other_does_nothing(paged: tuple[Site, Daemon, str]) -> None:
    site, daemon, page = paged
    body = json.dumps({"page": page, "by": "lee"}).encode()
    refused = [
        ("hook", body, {}, 401),
        ("hook", body, signed(body, key=bytes(32)), 401),
        ("hook", body, signed(body, sent_at=time.time() - 600), 401),
        ("hook", body, signed(body + b" "), 401),
        ("hook", body, signed(body) | {"webhook-timestamp": "soon"}, 401),
        ("hook", b"{}", signed(b"{}"), 400),
        ("hook", b"\xff\xfe", signed(b"\xff\xfe"), 400),
        ("duty", body, signed(body), 401),
        ("duty", of_duty(page), duty_signed(of_duty(page), "another"), 401),
        ("mute", of_duty(page), duty_signed(of_duty(page), ""), 401),
        ("files", body, signed(body), 202),
        ("nobody", body, signed(body), 404),
    ]
    for name, payload, headers, status in refused:
        assert call(daemon, name, payload, headers) == status, (name, payload, headers)
    unknown = json.dumps({"page": "pffff", "by": "lee"}).encode()
    assert call(daemon, "hook", unknown, signed(unknown)) == 202
    assert state(site, page) == ("sent", None)
    assert "lee" not in daemon.log.read_text()
    assert call(daemon, "hook", body, signed(body)) == 200
    eventually(lambda: state(site, page) == ("acknowledged", "lee"))
    with urllib.request.urlopen(daemon.console + "/metrics", timeout=30) as answer:
        counted = answer.read()
    assert b'handoff_hooks_total{destination="hook",result="taken"} 1.0' in counted
    assert b'handoff_hooks_total{destination="mute",result="refused"} 1.0' in counted


def test_hooks_are_shut_unless_the_site_opens_them(site: Site, daemon: Daemon) -> None:
    assert site.json("status")["hooks"] is None
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{daemon.console}/hooks/files/ack", data=b"{}", timeout=30)
    assert caught.value.code == 404
