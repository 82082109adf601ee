"""A destination answers nonsense, or nothing, or through a bad network. Its neighbours and the senders notice nothing.

What is in doubt is held for a person where twice would harm, and repeated where the receiver is known to deduplicate.
More of the same, without a daemon around it: tests/integration/connectors/test_mllp_connector.py, test_courier.py and
test_salesforce_connector.py.
"""

from __future__ import annotations

import pytest
from harness import Daemon, MakeDaemon, Site
from peers.fault_proxy import FaultProxy
from receiver import Receiver, deliver_to
from test_kill import admission
from watch import eventually, metric

AA = b"MSA|AA"


def deliveries(site: Site) -> dict[str, int]:
    found: dict[str, int] = site.json("ledger", code=None)[0]["deliveries"]
    return found


def files_are_served(daemon: Daemon, messages: int) -> bool:
    return metric(daemon, "deliveries_total", destination="files", state="delivered") >= 4 * messages


@pytest.mark.parametrize("answer", ["garbage", "silent", "close"])
def test_a_destination_that_answers_nonsense_or_nothing_leaves_one_message_held_and_gets_the_next(
    site: Site, make_daemon: MakeDaemon, answer: str
) -> None:
    with Receiver() as lab:
        lab.behave(answer)
        deliver_to(site, lab.port, timeout_seconds=3.0 if answer == "silent" else 30.0)
        daemon = make_daemon(site)
        assert all(AA in said for said in daemon.send(*map(admission, range(1, 4))))
        [row] = daemon.settled()
        assert (row["processed"], row["balanced"]) == (3, True)
        assert (row["deliveries"]["held"], row["deliveries"]["dead"]) == (1, 0)
        assert lab.control_ids() == ["C1", "C2", "C3"]
        eventually(lambda: files_are_served(daemon, 3))
        eventually(lambda: metric(daemon, "deliveries_total", destination="lab", state="held") == 1)
        [held] = site.json("held", "list")
        assert held["destination"] == "lab"
        site.run("held", "release", str(held["id"]))
        eventually(lambda: lab.control_ids() == ["C1", "C2", "C3", "C1"])
        eventually(lambda: deliveries(site)["held"] == 0)
        assert daemon.stop() == 0


def test_a_network_that_cuts_connections_costs_no_delivery_where_the_receiver_deduplicates(
    site: Site, make_daemon: MakeDaemon
) -> None:
    with Receiver() as lab, FaultProxy("127.0.0.1", lab.port) as network:
        deliver_to(site, network.port, deduplicates=True, timeout_seconds=3.0)
        daemon = make_daemon(site)
        network.cut_after_bytes = 900  # two messages, and a part of the third
        network.chunk_bytes = 50
        assert all(AA in said for said in daemon.send(*map(admission, range(1, 21))))
        [row] = daemon.settled()
        assert (row["deliveries"]["held"], row["deliveries"]["dead"]) == (0, 0)
        assert set(lab.control_ids()) == {f"C{number}" for number in range(1, 21)}
        assert network.connections > 5
        eventually(lambda: files_are_served(daemon, 20))
        assert daemon.stop() == 0


def test_a_network_that_goes_silent_holds_what_was_under_way_and_nothing_else(
    site: Site, make_daemon: MakeDaemon
) -> None:
    with Receiver() as lab, FaultProxy("127.0.0.1", lab.port) as network:
        deliver_to(site, network.port, timeout_seconds=0.7)
        daemon = make_daemon(site)
        assert AA in daemon.send(admission(1))[0]
        eventually(lambda: lab.control_ids() == ["C1"])
        network.frozen = True
        assert all(AA in said for said in daemon.send(*map(admission, range(2, 6))))
        eventually(lambda: deliveries(site)["held"] > 0)
        eventually(lambda: files_are_served(daemon, 5))
        network.frozen = False
        network.reset_all()
        [row] = daemon.settled()
        held = row["deliveries"]["held"]
        assert row["balanced"]
        assert row["deliveries"]["dead"] == 0
        # Everything either arrived or is held; what is held may have arrived.
        arrived = set(lab.control_ids())
        assert len(arrived) + held >= 5
        for letter in site.json("held", "list"):
            site.run("held", "release", str(letter["id"]))
        eventually(lambda: set(lab.control_ids()) == {f"C{number}" for number in range(1, 6)})
        assert daemon.stop() == 0
