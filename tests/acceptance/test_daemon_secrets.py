"""Secrets beside a running daemon: workers have them, nobody else finds them, and its memory is closed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from harness import MakeDaemon, Site
from peers.webhook_receiver import WebhookReceiver

SECRET = b"canary-of-a-secret-0123456789"
FIRST = "channels/examples/first-message.hl7"


async def test_a_secret_of_the_environment_is_used_over_reloads_and_seen_nowhere(
    site: Site, make_daemon: MakeDaemon
) -> None:
    async with WebhookReceiver(SECRET) as receiver:
        hook = f"  hook: {{type: webhook, url: '{receiver.url}', secret: {{env: HOOK_SECRET}}}}\n"
        site.edit("config.yaml", ("destinations:\n", f"destinations:\n{hook}"))
        site.edit("channels/main-campus.yaml", (r"deliver:\n  - ", "deliver:\n  - {to: hook, what: [patient]}\n  - "))
        await asyncio.to_thread(_drive, site, make_daemon, receiver)


def _drive(site: Site, make_daemon: MakeDaemon, receiver: WebhookReceiver) -> None:
    daemon = make_daemon(site, {"HOOK_SECRET": SECRET.decode()})
    site.json("send", f"127.0.0.1:{daemon.port()}", FIRST)
    daemon.settled()
    assert len(receiver.taken) == 1
    site.edit("config.yaml", ("calendar:", "log_level: debug\ncalendar:"))
    reloaded = site.json("reload", code=None)
    assert reloaded["ok"], reloaded
    other = (site.folder / FIRST).read_text()
    for mine, theirs in (("558181838", "558181839"), ("FIRST-", "OTHER-"), ("V90001", "V90002")):
        other = other.replace(mine, theirs)
    (site.folder / "other.hl7").write_text(other)
    site.json("send", f"127.0.0.1:{daemon.port()}", "other.hl7")
    daemon.settled()
    assert len(receiver.taken) >= 2
    for pid in (daemon.pid, *daemon.workers()):
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max core file size        0                    0" in limits
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0  # as the kernel has it of one that can't be dumped
    files = [path for path in (site.folder / "var").rglob("*") if path.is_file()]
    shown = [site.run(*command, code=None).stdout.encode() for command in (("status", "--json"), ("config", "list"))]
    assert not any(SECRET in text for text in (*(path.read_bytes() for path in (daemon.log, *files)), *shown))
