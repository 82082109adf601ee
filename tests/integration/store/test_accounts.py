"""Accounts, and what people come in by, on both stores."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pyotp
import pytest
from sqlalchemy import select, update
from store_builders import NOW

from engine.access.actions import Action
from engine.access.roles import load_policy
from engine.desk.accounts import NO_ENTRY, SESSION_PREFIX, TOKEN_PREFIX, Accounts, Limits
from engine.desk.gate import limits_of, of_actor
from engine.domain.account import Account
from engine.domain.glass import Glass
from engine.errors import AccountError, TamperedError, WhichError
from engine.store import Store
from engine.store.schema import account, glass, ticket
from engine.trial.access import chart_of
from engine.yamlfile import parse

ROLES: Final = Path(__file__).parents[3] / "mappings/access/roles.yaml"
GOOD = "brass lantern over quiet hills"
LIMITS = Limits(session_minutes_max=60, idle_minutes_max=15, tries_max=3)


def at(store: Store, minutes: float = 0) -> Accounts:
    return Accounts(store, "boss", NOW + timedelta(minutes=minutes), limits=LIMITS)


def made(store: Store, name: str = "dana", **more: Any) -> Account:
    fields: dict[str, Any] = {"roles": ("nurse",), "units": ("3W",), "created_at": NOW, "created_by": "boss"}
    return at(store).add(Account(name=name, **fields | more), None)


def with_password(store: Store) -> str:
    """An account that can log in; the secret of its second factor."""
    made(store)
    at(store).set_password("dana", GOOD)
    return at(store).set_factor("dana")[0]


def code(secret: str, minutes: float = 0) -> str:
    return pyotp.TOTP(secret).at(NOW + timedelta(minutes=minutes))


def trail(store: Store) -> list[tuple[str, str, str]]:
    with store.reader() as conn:
        return [(one.actor, one.action, one.subject) for one in reversed(store.audit.find(conn))]


def test_every_change_is_on_the_trail(store: Store) -> None:
    with_password(store)
    accounts = at(store)
    accounts.change("dana", None, units=("4E",))
    _, token = accounts.make_token("dana", ["read"], NOW + timedelta(days=1))
    accounts.revoke(token.id)
    accounts.remove_factor("dana")
    accounts.disable("dana", "has left")
    accounts.enable("dana")
    assert trail(store) == [
        ("boss", action, "account:dana")
        for action in (
            "account-added", "password-set", "factor-set", "account-changed", "token-made", "token-revoked",
            "factor-removed", "account-disabled", "account-enabled",
        )
    ]  # fmt: skip


def test_a_change_whose_record_fails_does_not_happen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made(store)

    def fail(*_: object) -> None:
        raise RuntimeError("no trail")

    monkeypatch.setattr(store.audit, "append", fail)
    with pytest.raises(RuntimeError):
        at(store).disable("dana")
    with pytest.raises(RuntimeError):
        made(store, "eve")
    with store.reader() as conn:
        assert [(one.name, one.active) for one in store.users.every(conn)] == [("dana", True)]


def test_a_session_needs_password_and_code(store: Store) -> None:
    secret = with_password(store)
    entry = at(store).log_in("dana", GOOD, code(secret))
    assert entry.secret.startswith(SESSION_PREFIX)
    assert entry.actor.roles == {"nurse"}
    assert at(store, 1).enter(entry.secret) == entry.actor


@pytest.mark.parametrize("given", [None, "", "000000x", "12345", "abcdef", "１２３４５６"])
def test_what_is_no_code_is_wrong(store: Store, given: str | None) -> None:
    with_password(store)
    with pytest.raises(AccountError, match=NO_ENTRY):
        at(store).log_in("dana", GOOD, given)


def test_a_code_is_taken_once(store: Store) -> None:
    secret = with_password(store)
    at(store).log_in("dana", GOOD, code(secret))
    with pytest.raises(AccountError, match=NO_ENTRY):
        at(store).log_in("dana", GOOD, code(secret))
    with pytest.raises(AccountError, match=NO_ENTRY):  # nor an older one that is still in time
        at(store).log_in("dana", GOOD, code(secret, -0.5))


def test_a_password_without_a_second_factor_lets_nobody_in(store: Store) -> None:
    made(store)
    at(store).set_password("dana", GOOD)
    with pytest.raises(AccountError, match="second factor"):
        at(store).log_in("dana", GOOD, None)


def test_nobody_learns_which_accounts_there_are(store: Store) -> None:
    secret = with_password(store)
    for name, password, given in (("eve", GOOD, "000000"), ("dana", "wrong " + GOOD, code(secret))):
        with pytest.raises(AccountError) as error:
            at(store).log_in(name, password, given)
        assert str(error.value) == NO_ENTRY
    assert ("boss", "login-failed", "account:unknown") in trail(store)
    assert ("boss", "login-failed", "account:eve") not in trail(store)


def test_after_too_many_tries_none_counts_for_a_while_and_sessions_go_on(store: Store) -> None:
    secret = with_password(store)
    entry = at(store).log_in("dana", GOOD, code(secret))
    for _ in range(LIMITS.tries_max):
        with pytest.raises(AccountError):
            at(store, 1).log_in("dana", "something else entirely", "1")
    with pytest.raises(AccountError, match=NO_ENTRY):
        at(store, 1).log_in("dana", GOOD, code(secret, 1))
    assert at(store, 1).enter(entry.secret).name == "dana"
    assert at(store, 2).log_in("dana", GOOD, code(secret, 2)).actor.name == "dana"
    with store.reader() as conn:
        assert store.users.get(conn, "dana").failures == 0


def test_each_further_wrong_try_waits_longer_up_to_a_limit(store: Store) -> None:
    with_password(store)
    waits = []
    for number in range(12):
        now = 20.0 * number
        with pytest.raises(AccountError):
            at(store, now).log_in("dana", "something else entirely", "1")
        with store.reader() as conn:
            until = store.users.get(conn, "dana").waits_until
        waits.append(0 if until is None else (until - NOW - timedelta(minutes=now)).total_seconds())
    assert waits == [0, 0, 30, 60, 120, 240, 480, *[900] * 5]


def test_sessions_end_and_idle_ones_too(store: Store) -> None:
    secret = with_password(store)
    entry = at(store).log_in("dana", GOOD, code(secret))
    for minutes in (10, 20, 30, 40, 50, 59):
        assert at(store, minutes).enter(entry.secret)
    with pytest.raises(AccountError):
        at(store, 60).enter(entry.secret)
    other = at(store, 100).log_in("dana", GOOD, code(secret, 100))
    with pytest.raises(AccountError):
        at(store, 116).enter(other.secret)


def test_who_logs_out_is_out(store: Store) -> None:
    secret = with_password(store)
    entry = at(store).log_in("dana", GOOD, code(secret))
    assert trail(store)[-1] == ("dana", "logged-in", "account:dana")
    at(store).log_out(entry.secret)
    with pytest.raises(AccountError):
        at(store).enter(entry.secret)
    assert trail(store)[-1] == ("dana", "logged-out", "account:dana")


@pytest.mark.parametrize("how", ["disable", "set_password", "set_factor", "remove_factor"])
def test_what_changes_how_one_comes_in_ends_all_sessions(store: Store, how: str) -> None:
    secret = with_password(store)
    entry = at(store).log_in("dana", GOOD, code(secret))
    getattr(at(store), how)("dana", *([GOOD + " again"] if how == "set_password" else []))
    with pytest.raises(AccountError):
        at(store).enter(entry.secret)


def test_a_leaver_is_out_by_every_way_at_once(store: Store) -> None:
    secret = with_password(store)
    entry = at(store).log_in("dana", GOOD, code(secret))
    token, _ = at(store).make_token("dana", ["all"], NOW + timedelta(days=1))
    assert at(store).enter(token).scopes == {"all"}
    at(store).disable("dana")
    for one in (entry.secret, token):
        with pytest.raises(AccountError):
            at(store).enter(one)
    with pytest.raises(AccountError):
        at(store, 5).log_in("dana", GOOD, code(secret, 5))
    with pytest.raises(AccountError):
        at(store).let_in("dana", "oidc")
    with pytest.raises(AccountError):
        at(store).make_token("dana", ["all"], NOW + timedelta(days=1))
    at(store).enable("dana")
    with pytest.raises(AccountError):  # what counted before does not count again
        at(store).enter(token)


def test_an_account_is_whoever_signed_on_first_until_it_is_enabled_anew(store: Store) -> None:
    """A name at the provider may be changed by its owner, or given to the next one who has it."""
    made(store)
    at(store).let_in("dana", "oidc", "1234")
    assert at(store).let_in("dana", "oidc", "1234").actor.name == "dana"
    for other in ("99", None):
        with pytest.raises(AccountError, match="another person"):
            at(store).let_in("dana", "oidc", other)
    at(store).disable("dana")
    at(store).enable("dana")
    assert at(store).let_in("dana", "oidc", "99").actor.name == "dana"
    with pytest.raises(AccountError):
        at(store).let_in("dana", "oidc", "1234")
    with pytest.raises(AccountError):
        at(store).let_in("x" * 5000, "oidc", "1")
    assert trail(store).count(("boss", "login-failed", "account:dana")) == 3
    assert trail(store).count(("boss", "login-failed", "account:unknown")) == 1


def test_a_token_ends_can_be_revoked_and_is_kept_as_a_hash(store: Store) -> None:
    made(store)
    token, kept = at(store).make_token("dana", ["worklist.read", "page.*"], NOW + timedelta(minutes=30))
    assert token.startswith(TOKEN_PREFIX)
    assert at(store, 29).enter(token).scopes == {"worklist.read", "page.*"}
    with pytest.raises(AccountError):
        at(store, 30).enter(token)
    other, kept = at(store).make_token("dana", ["read"], NOW + timedelta(days=9))
    at(store).revoke(kept.id)
    with pytest.raises(AccountError):
        at(store).enter(other)
    with store.reader() as conn:
        rows = conn.execute(select(ticket)).all()
    assert not any(other.encode() in bytes(value) for row in rows for value in row if isinstance(value, bytes))


@pytest.mark.parametrize(
    ("scopes", "days", "error"),
    [(["patient.reed"], 1, WhichError), (["read"], 0, AccountError), (["read"], -1, AccountError),
     (["read"], 3650, AccountError)],
)  # fmt: skip
def test_a_token_that_makes_no_sense_is_not_made(
    store: Store, scopes: list[str], days: int, error: type[Exception]
) -> None:
    made(store)
    with pytest.raises(error):
        at(store).make_token("dana", scopes, NOW + timedelta(days=days))


@pytest.mark.parametrize("weak", ["short", "dana dana dana", "aaaaaaaaaaaaaaaa", "x" * 300, "handoff-handoff", ""])
def test_a_weak_password_is_refused(store: Store, weak: str) -> None:
    made(store)
    with pytest.raises(AccountError):
        at(store).set_password("dana", weak)


def test_who_writes_the_database_without_the_key_makes_no_admin(store: Store) -> None:
    made(store)
    made(store, "boss", roles=("admin",))
    with store.reader() as conn:
        of_boss = conn.execute(select(account).where(account.c.name == "boss")).one()
    change = update(account).where(account.c.name == "dana").values(document=of_boss.document)
    store.charts_ledger.write_now(lambda conn: conn.execute(change))
    with pytest.raises(TamperedError), store.reader() as conn:
        store.users.get(conn, "dana")


@pytest.mark.parametrize("column", ["account", "ends_at", "secret_hash", "id"])
def test_who_writes_the_database_without_the_key_lends_no_token(store: Store, column: str) -> None:
    made(store)
    made(store, "boss", roles=("admin",))
    token, kept = at(store).make_token("dana", ["all"], NOW + timedelta(days=1))
    other, _ = at(store).make_token("boss", ["all"], NOW + timedelta(days=1))
    values: dict[str, Any] = {"account": "boss", "ends_at": 1 << 60, "id": "000000000000", "secret_hash": b"\x00" * 32}
    change = update(ticket).where(ticket.c.id == kept.id).values({column: values[column]})
    store.charts_ledger.write_now(lambda conn: conn.execute(change))
    with pytest.raises((TamperedError, AccountError)):
        at(store).enter(token)
    assert at(store).enter(other).name == "boss"


def test_nothing_that_opens_an_account_stands_in_the_database_or_in_a_text(store: Store) -> None:
    secret = with_password(store)
    with store.reader() as conn:
        one = store.users.get(conn, "dana")
        raw = bytes(conn.execute(select(account.c.document)).scalar_one())
    assert one is not None
    assert one.password.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert secret.encode() not in raw
    assert b"argon2" not in raw
    assert secret not in repr(one)


def test_a_token_sees_at_its_gate_what_its_account_may_within_its_scopes(store: Store) -> None:
    policy = load_policy(parse(ROLES.read_text(), "roles.yaml"))
    made(store, roles=("nurse",), units=("3W",))
    token, _ = at(store).make_token("dana", ["worklist.read"], NOW + timedelta(days=1))
    gate = of_actor(policy, at(store).enter(token), store, NOW)
    theirs, other = (chart_of({"stays": [{"unit": unit}]}) for unit in ("3W", "4E"))
    assert gate.of(Action.WORKLIST_READ, theirs).allowed
    assert not gate.of(Action.WORKLIST_READ, other).allowed
    assert not gate.of(Action.PATIENT_READ, theirs).allowed
    assert not gate.at_all(Action.USERS_MANAGE).allowed


def test_a_glass_is_seen_through_by_who_comes_in_by_a_session_too(store: Store) -> None:
    policy = load_policy(parse(ROLES.read_text(), "roles.yaml"))
    account = made(store, roles=("nurse",), units=("3W",))
    chart = chart_of({"stays": [{"unit": "4E"}]})
    broken = Glass(
        id="g1",
        actor="dana",
        chart_id=chart.id,
        reason="called",
        because="x",
        begins=NOW,
        ends=NOW + timedelta(hours=2),
    )
    store.charts_ledger.write_now(lambda conn: store.users.break_glass(conn, broken))
    for minutes, seen in ((0, True), (119, True), (120, False)):
        gate = of_actor(policy, account.actor(), store, NOW + timedelta(minutes=minutes))
        assert gate.of(Action.PATIENT_READ, chart).allowed is seen


def test_the_limits_are_those_of_the_configuration() -> None:
    assert limits_of({"provider": "local", "tries_max": 7, "idle_minutes_max": 5}) == Limits(720, 5, 7)


@pytest.mark.parametrize("column", ["actor", "chart_id", "ends_at", "attested", "begins_at"])
def test_who_writes_the_database_without_the_key_lends_no_glass(store: Store, column: str) -> None:
    broken = Glass(
        id="g1", actor="dana", chart_id="c1", reason="called", because="x", begins=NOW, ends=NOW + timedelta(hours=2)
    )
    store.charts_ledger.write_now(lambda conn: store.users.break_glass(conn, broken))
    value: Any = "other" if column in {"actor", "chart_id"} else 1 << 59 if column == "ends_at" else 1
    store.charts_ledger.write_now(lambda conn: conn.execute(update(glass).values({column: value})))
    with pytest.raises(TamperedError), store.reader() as conn:
        store.users.glasses(conn)
