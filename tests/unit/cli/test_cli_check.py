"""`handoff check`: every problem is named where it stands, in words that its reader understands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from site_with_store import Site

from engine.bootstrap import _remember, examine, open_store
from engine.connectors.registry import load
from engine.errors import SettingsError, StoreUnavailableError
from engine.pipeline.doubts import doubts
from engine.runtime.configurations import recorded_snapshot
from engine.runtime.status import running_status
from engine.snapshot import Snapshot

CHANNEL = "channels/main-campus.yaml"


def edit(site: Site, file: str, pattern: str, replacement: str) -> None:
    path = site.folder / file
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1, f"{pattern!r} is not in {file}"
    path.write_text(text)


def run_daemon(site: Site) -> subprocess.CompletedProcess[str]:
    """As a process of its own: it sets up signals."""
    command = [sys.executable, "-P", "-m", "engine", "run", "--config", str(site.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


_HOOK = "  hook: {type: webhook, url: 'https://x.example', secret: whsec_CanaryCanaryCanaryCanaryCanaryxy}\n"


async def test_a_secret_in_a_file_fails_the_check_and_a_start_goes_on_without_recording_it(bare: Site) -> None:
    edit(bare, "config.yaml", "(?m)^destinations:.*\n", "destinations:\n" + _HOOK)
    done = bare.run("check", "--json")
    [problem] = bare.json("check", code=1)["problems"]
    assert (done.code, problem["level"], problem["key"]) == (1, "problem", "destinations.hook.secret")
    assert "{env: NAME}" in problem["message"]
    examined = examine(bare.config)  # what a daemon starts by
    assert [one.key for one in examined.failures] == ["destinations.hook.secret"]
    with open_store(examined.configuration, "tool") as store:
        await _remember(store, examined.configuration, datetime.now(UTC), 0)
        version = examined.configuration.snapshot.version
        recorded = recorded_snapshot(store, bare.folder, version)
    assert recorded is not None
    assert "Canary" not in "".join(recorded.files.values())
    shown = [
        bare.run(*command) for command in (("config", "diff", version), ("status",), ("check",), ("config", "list"))
    ]
    assert all("Canary" not in one.out + one.err for one in (done, *shown))
    assert not any(b"Canary" in path.read_bytes() for path in (bare.folder / "var").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "key", "words"),
    [
        ("config.yaml", "url: sqlite.*", "url: mysql://x", "store.url", "must be sqlite:///PATH or postgresql"),
        ("config.yaml", "url: sqlite.*", "url: handoff.db", "store.url", "must be sqlite:///PATH or postgresql"),
        ("config.yaml", "url: sqlite.*", "url: 'postgresql+psycopg://h:x/d'", "store.url", "can't be read"),
        ("config.yaml", "type: file", "type: fil", "destinations.files.type", "must be one of 'file', 'mllp'"),
        ("config.yaml", "type: file, path: [^}]*", "type: file", "destinations.files.path", "'path' is missing"),
        ("config.yaml", "node: .*", "node: a b", "node", "must have the form"),
        ("config.yaml", "node: .*", "node: 7", "node", "must be a valid string"),
        ("config.yaml", "^", "clock: {offset_seconds_file: x}\n", "clock", "say `purpose: test`"),
        ("config.yaml", "^", "purpose: production\nclock: {offset_seconds_file: x}\n", "clock", "the real time"),
        ("config.yaml", "^", "clock: {offset_seconds_file: x}\npurpose: tests\n", "purpose", "must be 'production'"),
        ("config.yaml", "^", "purpose: test\nclock: {offset_seconds_file: }\n", "clock.offset_seconds_file", "must"),
        ("config.yaml", "^", "purpose: test\nclock: {offset_seconds_file: x, offset: 5}\n", "clock.offset", "unknown"),
        ("config.yaml", "port: 8080", "port: 99999", "console.port", "must be less than or equal to 65535"),
        ("config.yaml", "port: 8080", "port: 2575", "listen.port", "the console listens there already"),
        (CHANNEL, "allow: .*", "allow: [127.0.0.0/8, 10.0.0.300]", "listen.allow[1]", "is not a network"),
        (CHANNEL, "mode: live", "mode: dead", "mode", "must be 'live', 'shadow' or 'paused'"),
    ],
)
def test_a_problem_is_said_once_in_words_and_at_its_place(
    bare: Site, file: str, pattern: str, replacement: str, key: str, words: str
) -> None:
    edit(bare, file, pattern, replacement)
    (problem,) = bare.json("check", code=1)["problems"]
    assert (problem["key"], words in problem["message"]) == (key, True), problem
    line = (bare.folder / problem["file"]).read_text().splitlines()[problem["line"] - 1]
    assert key.rpartition(".")[2].partition("[")[0] in line or "files:" in line


def test_what_check_finds_is_why_the_daemon_does_not_start(bare: Site) -> None:
    edit(bare, "config.yaml", "url: sqlite.*", "url: 'postgresql+psycopg://h:x/d'")
    for command in ("ledger", "db status", "check"):
        done = bare.run(*command.split())
        assert done.code == (1 if command == "check" else 78)
        assert "config.yaml:6:3: store.url" in done.out + done.err
    daemon = run_daemon(bare)
    assert (daemon.returncode, "config.yaml:6:3: store.url" in daemon.stderr) == (78, True)


# --- files for TLS ---------------------------------------------------------------------------------------------------


def with_tls(site: Site) -> Path:
    edit(site, CHANNEL, "# tls: .*", "tls: {cert: tls/server.pem, key: tls/server.key}")
    (site.folder / "channels/tls").mkdir()
    return site.folder / "channels/tls"


def test_a_file_for_tls_that_is_not_there_is_a_problem_of_the_configuration(bare: Site) -> None:
    folder = with_tls(bare)
    (folder / "server.pem").write_text("")
    (problem,) = bare.json("check", code=1)["problems"]
    assert problem["file"] == CHANNEL
    assert problem["key"] == "listen.tls.key"
    assert "tls/server.key can't be read: No such file" in problem["message"]
    assert run_daemon(bare).returncode == 78


def test_files_for_tls_that_are_none_are_a_problem_of_the_configuration(bare: Site) -> None:
    folder = with_tls(bare)
    for name in ("server.pem", "server.key"):
        (folder / name).write_text("no PEM")
    (problem,) = bare.json("check", code=1)["problems"]
    assert problem["key"] == "listen.tls.cert"
    assert problem["message"] == "tls/server.pem holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"


def test_files_that_a_destination_needs_are_checked_too(bare: Site) -> None:
    lab = "  lab: {type: mllp, host: 10.0.0.9, port: 2576, tls: {ca: nowhere.pem}}\n\ncalendar:"
    edit(bare, "config.yaml", "\ncalendar:", lab)
    (problem,) = bare.json("check", code=1)["problems"]
    assert problem["key"] == "destinations.lab.tls.ca"


# --- what would drop everybody, or let everybody in ---------------------------------------------------------------


def found(site: Site, *options: str) -> list[dict[str, Any]]:
    done = site.run("check", "--json", *options)
    problems: list[dict[str, Any]] = done.json["problems"]
    assert done.code == int(any(problem["level"] == "problem" for problem in problems) or "--strict" in options)
    return problems


FILTER = r"# filter: .*"
CRM = "\n  crm: {{type: salesforce, login_url: 'https://o.example.com', client_id: c, client_secret: {}}}\n  # crm: "


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "key", "words"),
    [
        ("config.yaml", "holidays: US", "holidays: Bayern", "calendar.holidays", "no table for 'Bayern'"),
        ("config.yaml", "holidays: US", "holidays: US-XX", "calendar.holidays", "no table for 'US-XX'"),
        ("config.yaml", "holidays: US", "holidays: DE-", "calendar.holidays", "no table for 'DE-'"),
        ("mappings/tables/patient-class.yaml", "  E: E ", "  STAT: INPATIENT ", "values.STAT", "class INPATIENT"),
        ("mappings/tables/patient-class.yaml", "unknown: keep", "unknown: {value: INP}", "unknown.value", "class INP"),
        ("mappings/tables/sex.yaml", "  M: M", "  M^X: M", "values.M^X", "never in it"),
        (CHANNEL, FILTER, "filter: \"MSH-9 == 'ADT^A01'\"", "filter", "MSH-9.1 == 'ADT' and MSH-9.2 == 'A01'"),
        (CHANNEL, FILTER, "filter: \"PV1-3 not in ('A^B', 'C')\"", "filter", "never equals one component"),
        (CHANNEL, FILTER, "filter: \"PID-3 == 'A~B'\"", "filter", "each repetition"),
        (CHANNEL, FILTER, "filter: \"PV1-200 in ('I')\"", "filter", "PV1 has 54 fields"),
        (CHANNEL, FILTER, "filter: \"PID-3.13 == '1'\"", "filter", "PID-3 has 12 components"),
        (CHANNEL, FILTER, "filter: \"PVI-2 == 'I'\"", "filter", "PVI is no segment of HL7"),
        (CHANNEL, FILTER, "filter: \"PID.8 == 'F'\"", "filter", "write PID-8"),
        (CHANNEL, FILTER, "filter: \"PID-5-1 == 'DOE'\"", "filter", "write PID-5.1"),
        (CHANNEL, FILTER, "filter: \"msg['PV1']['PV1.2'] == 'I'\"", "filter", "write PV1-2"),
        ("mappings/fields/adt.yaml", "patient.birth_date: .*", "patient.birth_date: PID-300", "patient.birth_date",
         "PID has 40 fields"),
        ("mappings/fields/adt.yaml", "patient.birth_date: .*", "patient.birth_date: PID.7", "patient.birth_date",
         "write PID-7"),
        (CHANNEL, r'types: \["ADT.*"\]', "types: [ADT_A01]", "accept.types", "write ADT^A01"),
        (CHANNEL, r'types: \["ADT.*"\]', "types: [ADT-A03]", "accept.types", "write ADT^A03"),
        (CHANNEL, r'types: \["ADT.*"\]', "types: [A01]", "accept.types", "as in ADT^A01"),
        (CHANNEL, r'types: \["ADT.*"\]', "types: []", "accept.types", "at least one"),
        (CHANNEL, r"processing_ids: \[P\]", "processing_ids: []", "accept.processing_ids", "at least one"),
        (CHANNEL, r"processing_ids: \[P\]", "versions: []", "accept.versions", "at least one"),
        (CHANNEL, r"processing_ids: \[P\]", "processing_ids: [production]", "accept.processing_ids",
         "P (production)"),
        (CHANNEL, "what: .*", "what: []}", "deliver[0].what", "at least one"),
        (CHANNEL, FILTER, "filter: \"PV1-2 == 'I' and PV1-2 == 'E'\"", "filter", "is `or` meant?"),
        (CHANNEL, FILTER, "filter: \"PID-8 in ('F') and (MSH-11) and PID-8 in ('M', 'O')\"", "filter",
         "is `or` meant?"),
        (CHANNEL, r"processing_ids: \[P\]", "versions: ['2.x']", "accept.versions", "no version of HL7"),
        (CHANNEL, "what: .*", "what: [patient, appointments]}", "deliver[0].what[1]",
         "'task', 'appointment', 'message', 'page', 'text', 'request' or 'mail'"),
        (CHANNEL, "what: .*", "what: [patient, mail]}", "deliver[0].what", "a destination of type file takes"),
        ("config.yaml", "  files: .*", "  files: {type: mllp, host: 127.0.0.1, port: 1}", "deliver[0].what",
         "takes message"),
        ("config.yaml", "keys: var/keys.json", "keys: '{\"format\": 1}'", "store.keys", "must not stand in this file"),
        ("config.yaml", "node: main-1", "channels: ../..", "channels", "must be a folder below"),
        ("config.yaml", "node: main-1", "mappings: /etc", "mappings", "must be a folder below"),
    ],
)  # fmt: skip
def test_what_would_drop_everybody_is_a_problem_with_its_remedy(
    bare: Site, file: str, pattern: str, replacement: str, key: str, words: str
) -> None:
    edit(bare, file, pattern, replacement)
    (problem,) = found(bare)
    assert (problem["level"], problem["key"], words in problem["message"]) == ("problem", key, True), problem


@pytest.mark.parametrize(
    ("pattern", "replacement", "key", "words"),
    [
        (FILTER, "filter: \"PV1-2 in ('i', 'E')\"", "filter", "did you mean I?"),
        (FILTER, "filter: \"PV1-2 != 'Inpatient'\"", "filter", "no rule knows this class"),
        (FILTER, "filter: \"MSH-9.1 == 'ADT_A01'\"", "filter", "a message type, like ADT"),
        (FILTER, "filter: \"MSH-9 == 'ORU'\"", "filter", "`accept.types`"),
        (FILTER, "filter: \"MSH-9.2 in ('A01', 'A3')\"", "filter", "an event, like A01"),
        (FILTER, "filter: \"EVN-1 == 'a01'\"", "filter", "an event, like A01"),
        (FILTER, "filter: \"MSH-11 == 'T'\"", "filter", "`accept.processing_ids`"),
        (FILTER, "filter: \"MSH-12 == '2.51'\"", "filter", "`accept.versions`"),
        (FILTER, "filter: \"PID-3.4 == 'HOSP&1.2&ISO'\"", "filter", "separates subcomponents"),
        (r"allow: \[127.*\]", "allow: [10.0.0.0/8]", "listen.allow", "nobody can connect"),
        ("protocol: .*", "", "deliver[0].what", "no `protocol`"),
        ("risk: .*", "", "deliver[0].what", "no `risk`"),
        ("risk: .*", "risk: [lace, seed, lace]", "risk[2]", "stands twice"),
        ("what: .*", "what: [patient, encounter, patient]}", "deliver[0].what[2]", "stands twice"),
        ("(  - .*what: ).*", r"\1[patient, task]}\n  - {to: files, what: [task]}", "deliver[1].what",
         "task above already"),
        (r"processing_ids: \[P\]", "processing_ids: [P, P]", "accept.processing_ids[1]", "stands twice"),
        ("timezone: .*", "timezone: EST", "timezone", "always UTC-5, without summer time"),
        ("timezone: .*", "timezone: {default: Europe/Berlin, senders: {A: MST, B: Asia/Tokyo}}", "timezone.senders.A",
         "always UTC-7"),
        ("timezone: .*", "timezone: Etc/GMT+5", "timezone", "5 hours behind UTC"),
        ("timezone: .*", "timezone: Etc/GMT-1", "timezone", "1 hours ahead of UTC"),
        ("ack: {", "ack: {answers: one, ", "ack", "batch: single"),
    ],
)  # fmt: skip
def test_what_may_leave_everybody_out_is_a_warning(
    bare: Site, pattern: str, replacement: str, key: str, words: str
) -> None:
    edit(bare, CHANNEL, pattern, replacement)
    warnings = found(bare)
    assert {warning["level"] for warning in warnings} == {"warning"}
    assert sum(words in warning["message"] for warning in warnings if warning["key"] == key) == 1, warnings


LEFT_OUT = {"A03": "no discharge", "A13": "no cancelled discharge", "A11": "no cancelled admission", "A40": "no merge"}


@pytest.mark.parametrize(
    ("chosen", "left_out"),
    [
        ("MSH-9.2 in ('A01', 'A08', 'A11', 'A13', 'A40')", "A03"),
        ("MSH-9.2 != 'A03'", "A03"),
        ("not (EVN-1 == 'A03' or PV1-2 == 'O')", "A03"),
        ("MSH-9.2 in ('A01', 'A03', 'A11', 'A40')", "A13"),
        ("MSH-9.2 in ('A01', 'A03', 'A13', 'A40') and PV1-2 == 'I'", "A11"),
        ("PV1-2 in ('I', 'E') and MSH-9.2 not matches '^A(18|3[0469]|40)$'", "A40"),
        ("MSH-9.1 == 'SIU' or MSH-9.2 == 'A01'", "A03 A13 A11 A40"),
        ("MSH-9.2 == 'A03' and (MSH-9.2 == 'A13' or PV1-2 == 'I')", "A13 A11 A40"),
        ("PV1-2 == 'I' or MSH-9.2 == 'A40'", ""),
        ("MSH-9.2 != 'A08'", ""),
        ("not (MSH-9.2 == 'A03' and PV1-2 == 'O')", ""),
        ("MSH-9.3 == 'ADT_A01'", ""),
        ("PV1-2 != 'I' and PV1-2 matches '^[EO]$'", ""),
    ],
)
def test_a_filter_that_leaves_out_what_plans_need_is_a_warning(bare: Site, chosen: str, left_out: str) -> None:
    edit(bare, CHANNEL, r"# filter: .*", f'filter: "{chosen}"')
    said = [one["message"] for one in found(bare) if one["message"].startswith("leaves out every")]
    assert len(said) == len(left_out.split())
    for message, event in zip(said, left_out.split(), strict=True):
        assert event in message.partition(":")[0].split()
        assert LEFT_OUT[event] in message


def test_a_channel_without_a_protocol_may_leave_out_what_it_likes(bare: Site) -> None:
    edit(bare, CHANNEL, "protocol: .*", "")
    edit(bare, CHANNEL, r"# filter: .*", """filter: "MSH-9.2 == 'A28'\"""")
    assert [one for one in found(bare) if "leaves out" in one["message"]] == []


@pytest.mark.parametrize("zone", ["EST5EDT", "UTC", "CET", "Etc/UTC", "Etc/GMT", "GMT0", "America/Phoenix"])
def test_a_zone_that_says_what_it_is_is_good(bare: Site, zone: str) -> None:
    edit(bare, CHANNEL, "timezone: .*", f"timezone: {zone}")
    assert found(bare) == []


def test_certificates_of_any_name_are_a_doubt(bare: Site) -> None:
    tls = "tls: {cert: a.pem, key: a.key, client_ca: ca.pem}\n"
    edit(bare, CHANNEL, "listen:\n", f"listen:\n  {tls}")
    (warning,) = doubts(load(Snapshot.read(bare.config)))
    assert (warning.key, "client_names" in warning.message) == ("listen.tls.client_ca", True)
    edit(bare, CHANNEL, "client_ca: ca.pem", "client_ca: ca.pem, client_names: [epic.example]")
    assert doubts(load(Snapshot.read(bare.config))) == ()


def test_the_sites_zone_is_looked_at_too(bare: Site) -> None:
    edit(bare, "config.yaml", "timezone: America/New_York", "timezone: HST")
    (warning,) = [one for one in found(bare) if one["level"] == "warning"]
    assert (warning["key"], "always UTC-10" in warning["message"]) == ("calendar.timezone", True)


@pytest.mark.parametrize(
    "text",
    [
        "MSH-9.2 in ('A28', 'A31', 'A40') or PV1-2 in ('I', 'E', 'O', 'OBS')",
        "PV1-2 == 'I' or PV1-2 == 'E'",
        "PV1-2 in ('I', 'E') and PV1-2 in ('E', 'O') and not PV1-2 == 'I'",
        "PID-3[*].5 == 'MR' and PID-3[*].5 == 'PI'",
        "(PV1-2 == 'I' or PID-8 == 'F') and PV1-2 == 'E' and PID-8 != 'M' and PID-8 == 'F'",
        "MSH-9.1 == 'ADT' and MSH-11 == 'P' and MSH-12 in ('2.3', '2.5.1') and ZBX-1 == 'a'",
    ],
)
def test_a_filter_that_can_be_true_is_good(bare: Site, text: str) -> None:
    edit(bare, CHANNEL, FILTER, f'filter: "{text}"')
    assert found(bare) == []


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "key"),
    [
        (CHANNEL, "host: 127.0.0.1\n  port: 2575\n  allow: .*", "host: 0.0.0.0\n  port: 2575", "listen.host"),
        (CHANNEL, "host: 127.0.0.1\n  port: 2575\n  allow: .*", "host: '::'\n  port: 2575\n  allow: ['::/0']",
         "listen.host"),
        (CHANNEL, "host: 127.0.0.1\n  port: 2575\n  allow: .*", "host: 10.1.2.3\n  port: 2575\n  allow: [10.1.0.0/16]",
         "listen.host"),
        (CHANNEL, "host: 127.0.0.1\n  port: 2575\n  allow: .*", "host: 0.0.0.0\n  port: 2575\n  plaintext: a test",
         "listen.host"),
        (CHANNEL, "ack: {", "ack: {return_to: {host: 10.0.0.9, port: 1}, ", "ack.return_to.host"),
        ("config.yaml", "^", "hooks: {host: '::', port: 8081}\n", "hooks.host"),
        ("config.yaml", "url: .*", "url: postgresql+psycopg://h@db.example.com/x?sslmode=verify-ca", "store.url"),
        ("config.yaml", "  # lab: .*", "  lab: {type: mllp, host: 10.0.0.9, port: 2576}", "destinations.lab.host"),
        ("config.yaml", "host: 127.0.0.1, port: 8080", "host: 0.0.0.0, port: 8080", "console.host"),
        ("config.yaml", "url: .*", "url: postgresql+psycopg://h@db.example.com/x", "store.url"),
    ],
)  # fmt: skip
def test_what_lets_others_read_along_is_a_warning_and_a_problem_when_strict(
    bare: Site, file: str, pattern: str, replacement: str, key: str
) -> None:
    edit(bare, file, pattern, replacement)
    (warning,) = found(bare)
    assert (warning["level"], warning["key"]) == ("warning", key)
    assert found(bare, "--strict") == [warning]
    assert bare.json("check", "--strict", code=1)["ok"] is False
    assert "1 warning" in bare.run("check").out


@pytest.mark.parametrize(
    ("file", "pattern", "replacement"),
    [
        (CHANNEL, "host: 127.0.0.1\n  port: 2575\n  allow: .*",
         "host: 0.0.0.0\n  port: 2575\n  allow: [10.1.0.0/16]\n  plaintext: VPN of the hospital"),
        (CHANNEL, "ack: {", "ack: {return_to: {host: 10.0.0.9, port: 1, plaintext: VPN}, "),
        ("config.yaml", "  # lab: .*", "  lab: {type: mllp, host: 10.0.0.9, port: 2576, plaintext: an IPsec tunnel}"),
        ("config.yaml", "  # lab: .*", "  lab: {type: mllp, host: '127.0.0.2', port: 2576}"),
        ("config.yaml", "  # lab: .*", "  lab: {type: mllp, host: lab.example, port: 2576, tls: {}}"),
        ("config.yaml", "host: 127.0.0.1, port: 8080", "host: 0.0.0.0, port: 8080, plaintext: nginx before it"),
        ("config.yaml", "^", "hooks: {host: '::', port: 8081, plaintext: nginx before it}\n"),
        ("config.yaml", "url: .*", "url: postgresql+psycopg://h@db.example.com/x\n  plaintext: own wire"),
        ("config.yaml", "url: .*", "url: postgresql+psycopg://h@db.example.com/x?sslmode=verify-full"),
    ],
)  # fmt: skip
def test_what_is_in_clear_on_purpose_or_not_at_all_is_good(
    bare: Site, file: str, pattern: str, replacement: str
) -> None:
    edit(bare, file, pattern, replacement)
    assert bare.json("check", "--strict") == {"ok": True, "problems": []}


@pytest.mark.parametrize("reason", ["''", "true", "null", "7"])
def test_a_reason_is_a_text(bare: Site, reason: str) -> None:
    edit(bare, CHANNEL, "host: 127.0.0.1\n  port: 2575", f"host: 10.1.2.3\n  plaintext: {reason}\n  port: 2575")
    assert [one["key"] for one in found(bare)] == ["listen.host" if reason == "null" else "listen.plaintext"]


def test_tls_and_a_reason_for_none_contradict_each_other(bare: Site) -> None:
    edit(bare, "config.yaml", "  # lab: .*", "  lab: {type: mllp, host: a.example, port: 1, tls: {}, plaintext: x}")
    (problem,) = found(bare)
    assert (problem["level"], "take one of them away" in problem["message"]) == ("problem", True)


def test_a_secret_that_is_not_here_is_no_problem_of_a_check_without_secrets(bare: Site) -> None:
    edit(bare, "config.yaml", "\n  # crm: ", CRM.format("{env: NO_SUCH}"))
    assert [problem["key"] for problem in found(bare)] == ["destinations.crm.client_secret"]
    assert found(bare, "--without-secrets") == []


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("channels/west.yml", "problem", "its name must end in .yaml (west.yaml)"),
        ("channels/west.YAML", "problem", "its name must end in .yaml"),
        ("mappings/tables/codes.yml", "problem", "its name must end in .yaml"),
        ("mappings/codes.yaml", "problem", "move it into a folder of mappings"),
        ("mappings/tables/local/codes.yaml", "problem", "move it into mappings/tables"),
        ("channels/west.yaml.bak", "warning", "not read"),
        ("channels/west.json", "warning", "not read"),
        ("channels/west.yaml~", "warning", "not read"),
        ("channels/west.yaml.txt", "warning", "not read"),
        ("channels/west", "warning", "not read"),
        ("channels/.west.yaml", "warning", "begins with a dot"),
        ("channels/.west.yml", "warning", "begins with a dot"),
        ("channels/.west.test.yaml", "warning", "begins with a dot"),
        ("mappings/tables/.codes.yaml", "warning", "begins with a dot"),
    ],
)
def test_a_file_that_is_not_read_is_said_with_its_name(bare: Site, name: str, level: str, words: str) -> None:
    path = bare.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("name: west\n")
    (problem,) = found(bare)
    assert (problem["file"], problem["level"], words in problem["message"]) == (name, level, True), problem


def test_a_test_that_is_not_run_is_a_warning(bare: Site) -> None:
    (bare.folder / "channels/west.test.yaml").write_text("cases: []\n")
    (problem,) = found(bare)
    assert (problem["file"], problem["level"]) == ("channels/west.test.yaml", "warning")
    assert "not run" in problem["message"]


def test_the_tests_of_an_example_that_does_not_fit_the_site_are_not_run_and_it_is_said(bare: Site) -> None:
    config = bare.folder / "config.yaml"
    config.write_text(config.read_text().replace("files:", "elsewhere:"))
    for channel in (bare.folder / "channels").glob("*.yaml"):
        channel.write_text(channel.read_text().replace("to: files", "to: elsewhere"))
    (problem,) = found(bare)
    assert (problem["file"], problem["level"]) == ("mappings/oncall/on-call.test.yaml", "warning")
    assert "page nobody" in problem["message"]


@pytest.mark.parametrize("name", ["west.test.yaml", "first.hl7"])
def test_what_is_no_file_among_the_examples_is_said(bare: Site, name: str) -> None:
    os.mkfifo(bare.folder / "channels/examples" / name)
    (warning,) = found(bare)
    assert (warning["file"], warning["level"]) == (f"channels/examples/{name}", "warning")
    assert "a pipe" in warning["message"]


def test_a_folder_that_nothing_is_read_from_is_said(bare: Site) -> None:
    (bare.folder / "mappings/table").mkdir()
    (bare.folder / "mappings/table/codes.yaml").write_text("name: codes\n")
    (problem,) = found(bare)
    assert (problem["file"], problem["level"]) == ("mappings/table", "warning")
    assert "did you mean tables?" in problem["message"]


def test_a_site_without_channels_is_a_problem(bare: Site) -> None:
    (bare.folder / CHANNEL).rename(bare.folder / "channels/main-campus.yaml.off")
    assert [(problem["key"], problem["level"]) for problem in found(bare)] == [
        ("channels", "problem"),
    ]


def test_what_stands_beside_a_configuration_is_let_be(bare: Site) -> None:
    for name in ("channels/README.md", "channels/server.pem", "channels/.west.yaml.swp", "mappings/tables/notes.txt"):
        (bare.folder / name).write_text("x")
    (bare.folder / "channels/.#west.yaml").symlink_to("somebody@somewhere.1")  # an editor's lock
    (bare.folder / "channels/..data").mkdir()  # of a mounted folder
    (bare.folder / "channels/..data/west.yaml").write_text("x")
    assert found(bare) == []


# --- mistakes of an edit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "words"),
    [
        (CHANNEL, "  port: 2575", "\tport: 2575", "a tab: indent with blanks"),
        (CHANNEL, "listen:", "listener:", "did you mean listen?"),
        (CHANNEL, "# filter: ", "filters: ", "did you mean filter?; the keys here are name, mode,"),
        (CHANNEL, "  port: 2575", "  port: 2575\n  commit_blocks: yes", "true or false, without quotes"),
        (CHANNEL, "port: 2575", 'port: "2575"', "a whole number, without quotes and without a leading 0"),
        (CHANNEL, "port: 2575", "port: 02575", "without a leading 0"),
        (CHANNEL, "risk: .*", "risk: lace", "must be a list: [lace]"),
        (CHANNEL, r"processing_ids: \[P\]", "versions: [2.5]", 'put it in quotes: "2.5"'),
        (CHANNEL, "allow: .*", "allow: [10.0.0.5/8]", "write 10.0.0.0/8 for the network, or 10.0.0.5 for the host"),
        ("config.yaml", "type: file, path", "type: file, paht: x, path", "did you mean path?"),
        ("config.yaml", "  files: .*", "  files: {type: file, path: x, timeout: 5}", "did you mean timeout_seconds?"),
        ("config.yaml", "calendar: .*", "calendar: US", "must be keys with values (timezone, weekend, holidays"),
        ("config.yaml", "node: .*", "node: @main", "@ can't begin a text: put it in quotes"),
        ("config.yaml", "node: .*", "node: 99999999999999999999", "this number is too long"),
        ("mappings/protocols/post-discharge.yaml", r"due: \{[^}]*\}", "due: 2 days",
         "must be keys with values: {days: 2}"),
    ],
)  # fmt: skip
def test_a_mistake_of_an_edit_is_told_with_what_to_write(
    bare: Site, file: str, pattern: str, replacement: str, words: str
) -> None:
    edit(bare, file, pattern, replacement)
    assert any(words in problem["message"] for problem in found(bare)), found(bare)


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("utf-16", "UTF-16 text: save it as UTF-8"), ("utf-16-le", "UTF-16"), ("latin-1", "the byte E4")],
)
def test_a_file_in_another_encoding_is_told_by_its_name(bare: Site, encoding: str, words: str) -> None:
    (bare.folder / CHANNEL).write_bytes("# Käfer\nname: x\n".encode(encoding))
    assert words in found(bare)[0]["message"]


def test_a_wrong_filter_is_shown_with_its_place(bare: Site) -> None:
    edit(bare, CHANNEL, FILTER, "filter: \"PV1-2 = 'I'\"")
    (problem,) = found(bare)
    shown, caret = problem["message"].splitlines()[1:]
    assert shown[caret.index("^")] == "="


@pytest.mark.parametrize(
    "broken", ["tables/sex.yaml", "protocols/post-discharge.yaml", "risk/lace.yaml", "fields/adt.yaml"]
)
def test_a_broken_file_is_not_taken_for_one_that_is_missing(bare: Site, broken: str) -> None:
    (bare.folder / "mappings" / broken).write_text("name: [\n")
    problems = found(bare)
    assert problems[0]["file"] == f"mappings/{broken}"
    assert all("see there" in problem["message"] for problem in problems[1:])
    assert len(problems) <= 2


def test_a_name_that_leads_nowhere_is_told_with_one_that_is_near(bare: Site) -> None:
    edit(bare, CHANNEL, "mapping: adt", "mapping: atd")
    assert "there is no mappings/fields/atd.yaml; did you mean adt?" in found(bare)[0]["message"]


# --- values that stand elsewhere -------------------------------------------------------------------------------------


def test_a_value_that_is_not_there_is_the_only_problem(bare: Site) -> None:
    edit(bare, "config.yaml", "url: sqlite.*", "url: {env: HANDOFF_TEST_NOWHERE}")
    (problem,) = bare.json("check", code=1)["problems"]
    assert problem["message"] == "env HANDOFF_TEST_NOWHERE is not there or is empty"


def test_entries_are_replayed_under_a_configuration_whose_node_name_stood_elsewhere(
    bare: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was written into the files is recorded; what a reference leads to may have gone since, or changed."""
    monkeypatch.setenv("HANDOFF_TEST_NODE", "north")
    edit(bare, "config.yaml", "node: .*", "node: {env: HANDOFF_TEST_NODE}")
    message = (
        b"MSH|^~\\&|EHR|MAIN|||20261104081500||ADT^A28|M1|P|2.5.1\rEVN|A28|20261104081500\rPID|1||7^^^MRN^MR||ROE^R\r"
    )
    bare.receive(message)
    bare.process()
    edit(bare, "config.yaml", "node: .*", "node: south")
    monkeypatch.delenv("HANDOFF_TEST_NODE")
    assert bare.json("replay", "--all", "--config-as-of", "then")["entries"] == [2]
    bare.process()
    assert [entry["state"] for entry in bare.json("messages", "list")] == ["processed", "processed"]


# --- what may not be read --------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(bare: Site) -> Iterator[Path]:
    """A copy of the site in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="handoff-") as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(bare.folder, Path(folder) / "site"))


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_of_channels_that_may_not_be_read_is_not_taken_for_an_empty_one(elsewhere: Path) -> None:
    (elsewhere / "channels").chmod(0)
    try:
        with as_somebody_else(), pytest.raises(SettingsError) as caught:
            Snapshot.read(elsewhere / "config.yaml")
    finally:
        (elsewhere / "channels").chmod(0o755)
    (problem,) = caught.value.problems
    assert (problem.file, problem.message) == (str(elsewhere / "channels"), "can't be read: Permission denied")


def test_a_daemon_that_one_may_not_know_of_is_not_taken_for_none(elsewhere: Path) -> None:
    configuration = load(Snapshot.read(elsewhere / "config.yaml"))
    (elsewhere / "var").chmod(0)
    try:
        with as_somebody_else(), pytest.raises(StoreUnavailableError, match="can't be looked into"):
            running_status(configuration)
    finally:
        (elsewhere / "var").chmod(0o700)


@pytest.mark.parametrize("text", ["just a text\n", "[a, b]\n", "7\n", "\n"])
@pytest.mark.parametrize("file", ["fields/adt", "tables/patient-class", "protocols/post-discharge", "risk/lace"])
def test_a_file_that_holds_no_keys_is_a_problem_and_breaks_nothing(bare: Site, file: str, text: str) -> None:
    (bare.folder / "mappings" / f"{file}.yaml").write_text(text)
    problems = bare.json("check", code=1)["problems"]
    assert any(problem["file"].endswith(f"{file}.yaml") for problem in problems)


@pytest.mark.parametrize("host", ["0.0.0.0", "'::'", "10.1.2.3", "handoff.example"])
def test_nobody_logs_in_over_a_network_in_clear(bare: Site, host: str) -> None:
    edit(bare, "config.yaml", "^", "access: {provider: local}\n")
    edit(bare, "config.yaml", "host: 127.0.0.1, port: 8080", f"host: {host}, port: 8080")
    problems = [one for one in bare.json("check", code=1)["problems"] if one["level"] == "problem"]
    assert [one["key"] for one in problems] == ["console.host"]
    edit(bare, "config.yaml", "port: 8080", "port: 8080, plaintext: a proxy with TLS before it")
    bare.json("check")


def test_a_certificate_of_the_console_that_can_not_be_used_is_a_problem(bare: Site) -> None:
    edit(bare, "config.yaml", "port: 8080", "port: 8080, tls: {cert: none.pem, key: none.key}")
    (problem,) = bare.json("check", code=1)["problems"]
    assert problem["key"] == "console.tls.cert"
