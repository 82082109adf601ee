"""`handoff quality`: faults of feeds, listed, explained, resolved."""

from __future__ import annotations

from site_with_store import Site, first_messages


def faulty(site: Site) -> None:
    admit, discharge = first_messages(site)
    site.receive(admit.replace(b"|I|", b"|Q|", 1), discharge.replace(b"20261110", b"yesterday", 1))
    site.process()


def test_the_list_counts_and_names_an_example(stocked: Site) -> None:
    assert stocked.json("quality", "list", "--kind", "class_unknown") == []
    faulty(stocked)
    found = stocked.json("quality", "list")
    assert found
    for one in found:
        assert {"id", "kind", "channel", "count", "first_at", "last_at", "example_entry", "state"} <= one.keys()
        assert (one["channel"], one["state"]) == ("main-campus", "open")
        assert stocked.json("messages", "show", str(one["example_entry"]))["deviations"]
    assert stocked.json("quality", "list", "--channel", "main-campus", "--kind", found[0]["kind"])[0] in found
    assert stocked.run("quality", "list", "--channel", "elsewhere").code == 2
    assert f"{found[0]['kind']}" in stocked.run("quality", "list").out


def test_a_message_says_its_faults_before_and_after_it_is_sent(stocked: Site) -> None:
    faulty(stocked)
    one = stocked.json("quality", "list")[0]
    entry = str(one["example_entry"])
    assert {"kind": one["kind"], "detail": one["detail"]} in stocked.json("messages", "show", entry)["quality"]
    assert f"fault {one['kind']} ({one['detail']}): " in stocked.run("messages", "show", entry).out
    file = stocked.folder / "faulty.hl7"
    file.write_bytes(first_messages(stocked)[0].replace(b"|I|", b"|Q|", 1))
    assert {"kind": one["kind"], "detail": one["detail"]} in stocked.json("try", "main-campus", str(file))["quality"]
    assert f"fault {one['kind']}" in stocked.run("try", "main-campus", str(file)).out


def test_an_item_says_what_it_means_and_what_to_do(stocked: Site) -> None:
    faulty(stocked)
    one = stocked.json("quality", "list")[0]
    shown = stocked.run("quality", "show", str(one["id"])).out
    assert one["text"] in shown
    assert one["remedy"] in shown
    assert f"handoff messages show {one['example_entry']}" in shown
    assert stocked.run("quality", "show", "999").code == 1


def test_resolve_and_reopen_are_acts_with_a_reason(stocked: Site) -> None:
    faulty(stocked)
    one = stocked.json("quality", "list")[0]
    number = str(one["id"])
    assert stocked.run("quality", "resolve", number).code == 2
    done = stocked.json("quality", "resolve", number, "--reason", "the sender fills it now")
    assert (done["state"], done["decided_by"] is not None) == ("done", True)
    assert "the sender" not in str(done)
    assert one["id"] not in [each["id"] for each in stocked.json("quality", "list", "--state", "open")]
    shown = stocked.json("quality", "show", number, "--reveal", "--reason", "audit")
    assert shown["decision"] == "the sender fills it now"
    (noted,) = stocked.json("audit", "list", "--action", "quality-resolved")
    assert noted["subject"] == f"quality:{number}"
    assert stocked.json("quality", "reopen", number, "--reason", "it goes on")["state"] == "open"
    assert [entry["channel"] for entry in stocked.json("messages", "list", "--kind", "act")] == ["@act", "@act"]


def test_without_a_daemon_nothing_is_resolved(stocked: Site) -> None:
    faulty(stocked)
    number = str(stocked.json("quality", "list")[0]["id"])
    assert stocked.run_alone("quality", "resolve", number, "--reason", "seen to").code == 69
    assert stocked.json("quality", "show", number)["state"] == "open"


def test_status_counts_what_is_open(stocked: Site) -> None:
    faulty(stocked)
    found = stocked.json("quality", "list")
    shown = stocked.json("status", code=69)  # no daemon
    assert sum(shown["quality"].values()) == len(found)
    assert "handoff quality list" in stocked.run("status").out


def test_a_clock_that_runs_backwards_in_a_feed_is_one_item(stocked: Site) -> None:
    admit = first_messages(stocked)[0]
    field = admit.split(b"|")[6]
    for hour in (b"12", b"10", b"11", b"08"):
        stocked.receive(admit.replace(b"|" + field + b"|", b"|" + field[:8] + hour + b"0000|", 1).replace(
            b"|" + admit.split(b"|")[9] + b"|", b"|CLOCK" + hour + b"|", 1))  # fmt: skip
    stocked.process()
    (item,) = stocked.json("quality", "list", "--kind", "clock_backwards")
    assert (item["count"], item["detail"], item["channel"]) == (2, "MSH-7", "main-campus")
