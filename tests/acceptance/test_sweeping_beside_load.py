"""The daemon sweeps while senders go on: in small transactions, of what is due alone, and everybody is answered."""

from __future__ import annotations

import threading

from harness import MakeDaemon, Site, eventually
from test_erasing_killed import left, person
from test_kill import Load

from engine.store.retention import PAGE_ROWS

OLD = PAGE_ROWS + 100
SENDERS = 8


def test_a_running_daemon_sweeps_in_small_steps_beside_a_load_and_loses_nothing_that_is_not_due(
    site: Site, make_daemon: MakeDaemon
) -> None:
    ahead = site.folder / "ahead"
    ahead.write_text("0")
    settings = "purpose: test\nclock: {offset_seconds_file: ahead}\nretention: {messages_days: 20}"
    site.edit("config.yaml", (r"(?m)^node:", f"{settings}\nnode:"))
    daemon = make_daemon(site)
    stays = [f"WAITS{n}" for n in range(5)]
    daemon.send(*(person("A31", 0, one).replace(b"0^^^MRN^MR", b"") for one in stays))  # dead: a person is asked
    shares = [
        [person("A31", n % 50 + 1, f"OLD{n}") for n in range(OLD) if n % SENDERS == own] for own in range(SENDERS)
    ]
    threads = [threading.Thread(target=daemon.send, args=share) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    daemon.settled(seconds=120)
    assert daemon.stop() == 0
    before = left(site)["messages"]
    assert len(before) == OLD + len(stays)

    ahead.write_text(str(25 * 86_400))
    daemon = make_daemon(site)
    load = Load(pause_seconds=0.01)
    senders = load.run(daemon)
    due = before - set(range(1, len(stays) + 1))
    eventually(lambda: not due & left(site)["messages"], seconds=120)
    at_the_end = len(load.acknowledged)
    load.wait_for(at_the_end + 5)  # and on it goes
    assert at_the_end > 0
    assert daemon.stop() == 0
    for sender in senders:
        sender.join(timeout=30)

    daemon = make_daemon(site)
    daemon.settled(seconds=120)
    after = left(site)
    listed = site.json("messages", "list", "--limit", "1000000")
    new = {one["id"]: one["control_id"] for one in listed if (one["control_id"] or "").startswith("C")}
    assert {f"C{number}" for number in load.acknowledged} <= set(new.values())
    assert after["messages"] == set(range(1, len(stays) + 1)) | new.keys()
    assert after["noted"] == 0
    swept = [one for one in site.json("audit", "list", "--action", "swept", "--limit", "1000") if one["count"]]
    assert sum(one["count"] for one in swept) == OLD
    assert len(swept) >= OLD / PAGE_ROWS
    assert max(one["count"] for one in swept) <= PAGE_ROWS
    site.run("ledger")
    assert site.json("audit", "verify")["ok"]
