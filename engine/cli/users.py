"""`handoff users`: accounts of people and services."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import (
    Cli,
    Said,
    asked_for,
    clock_time,
    config_option,
    json_option,
    limit_option,
    list_options,
    named_time,
    time_column,
)
from engine.cli.desk import PatientKey, open_desk
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.domain.account import Account, Ticket

_NAME: Final = click.argument("name", metavar="NAME")


class _AccountName(click.ParamType[str]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        import re

        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", str(value)) is None:
            self.fail("is of letters, digits and _ . @ -, 64 at most, and begins with a letter or digit", param, ctx)
        return str(value)


@click.group("users")
@config_option
def users() -> None:
    """Accounts of people and services: who they are, and what they come in by."""


def _whose(function: Any) -> Any:
    """The options that say whose patients are theirs; each is a field of `Account`."""
    for option in (
        click.option("--also", metavar="NAME", multiple=True, help="What rosters call them; may be repeated."),
        click.option(
            "--panel", "panels", metavar="ID", multiple=True,
            help="Id of a primary care provider whose patients are theirs, too; may be repeated.",
        ),
        click.option("--provider", metavar="ID", help="Their id as senders write it (PV1-7.1, PD1-4.1)."),
        click.option("--unit", "units", metavar="UNIT", multiple=True, help="PV1-3.1; may be repeated."),
    ):  # fmt: skip
        function = option(function)
    return function


@users.command("add")
@click.argument("name", metavar="NAME", type=_AccountName())
@click.option("--role", "roles", metavar="ROLE", multiple=True, required=True, help="A role; may be repeated.")
@_whose
@click.option("--service", is_flag=True, help="It is no person: it comes in by tokens only.")
@json_option
@config_option
@click.pass_obj
def add(cli: Cli, /, name: str, roles: tuple[str, ...], service: bool, **whose: Any) -> None:
    """Make an account. It comes in by a password (`users password`, `users mfa`), by a token, or as the user of this
    machine who has its name.
    """
    from engine.domain.account import Account

    with open_desk(cli) as desk:
        made = desk.accounts.add(
            Account(
                name=name,
                kind="service" if service else "person",
                roles=tuple(dict.fromkeys(roles)),
                created_at=desk.now,
                created_by=str(desk.actor),
                **whose,
            ),
            desk.policy(),
        )
    cli.print(shape_of(made), f"{name} has an account: {', '.join(made.roles)}.")


@users.command("change")
@_NAME
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="These roles in place of the former ones.")
@_whose
@json_option
@config_option
@click.pass_obj
def change(cli: Cli, /, name: str, provider: str | None, **given: tuple[str, ...]) -> None:
    """Give an account other roles, units or names. What is not given stays; an empty text takes away what there is."""
    fields: dict[str, Any] = {key: tuple(filter(None, value)) for key, value in given.items() if value}
    if provider is not None:
        fields["provider"] = provider or None
    if not fields:
        raise click.UsageError("say what is to change: --role, --unit, --provider, --panel or --also")
    if fields.get("roles") == ():
        raise click.UsageError("an account has a role: `handoff users disable` keeps somebody out")
    with open_desk(cli) as desk:
        changed = desk.accounts.change(name, desk.policy(), **fields)
    cli.print(shape_of(changed), f"{name} is changed: {', '.join(changed.roles)}.")


@users.command("list")
@limit_option
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli, limit: int) -> None:
    """List accounts, with what they come in by."""
    with open_desk(cli) as desk, desk.store.reader() as conn:
        every = desk.store.users.every(conn)
        tickets = [one for one in desk.store.users.tickets(conn) if one.stands(desk.now)]
    if len(every) > limit:
        cli.cut(limit, len(every))
    shapes = [shape_of(one, tickets) for one in every[:limit]]
    rows = [
        (s["name"], s["kind"], ", ".join(s["roles"]), ", ".join(s["units"]), s["provider"], s["state"],
         _comes_in_by(s)) for s in shapes
    ]  # fmt: skip
    columns = (
        Column("name", least=8), Column("kind", drop=2), Column("roles", least=8), Column("units", drop=1),
        Column("provider", drop=1), Column("state", alarm={"disabled", "unconfirmed"}),
        Column("comes in by", least=8, drop=1),
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "No accounts: `handoff users add NAME --role ROLE` makes one.")


@users.command("show")
@_NAME
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, name: str) -> None:
    """Show one account, with its tokens and sessions."""
    with open_desk(cli) as desk:
        account = desk.accounts.get(name)
        with desk.store.reader() as conn:
            tickets = desk.store.users.tickets(conn, name)
        shape = shape_of(account, [one for one in tickets if one.stands(desk.now)])
        shape |= {"tickets": [_ticket_shape(one, desk) for one in tickets]}
    lines = [f"{key.replace('_', ' ')}: {_text(value)}" for key, value in shape.items() if key != "tickets" and value]
    cli.print(shape, "\n".join(lines) + "\n\n" + _ticket_table(shape["tickets"]))


@users.command("disable")
@_NAME
@click.option("--reason", type=Said(), metavar="TEXT", help="Why; written to the trail.")
@json_option
@config_option
@click.pass_obj
def disable(cli: Cli, name: str, reason: str | None) -> None:
    """Shut an account out at once: its sessions and tokens end with it."""
    with open_desk(cli) as desk:
        shape = shape_of(desk.accounts.disable(name, reason))
    cli.print(shape, f"{name} is out: sessions and tokens have ended.")


@users.command("enable")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@config_option
@click.pass_obj
def enable(cli: Cli, names: tuple[str, ...]) -> None:
    """Let accounts in again. They need new passwords; tokens that were ended stay ended.

    Of one account `--json` prints it, of several a list.
    """
    with open_desk(cli) as desk:
        shapes = [shape_of(one) for one in desk.accounts.enable(*names)]
    lines = [f"{one} may come in again, with a new password (`handoff users password {one}`)." for one in names]
    cli.print(shapes if len(names) > 1 else shapes[0], "\n".join(lines))


@users.command("token", epilog=TIMES)
@_NAME
@click.option(
    "--scope", "scopes", metavar="SCOPE", multiple=True, required=True,
    help="What it may be used for: an action, an area (`task.*`), read, or all; may be repeated.",
)  # fmt: skip
@click.option("--until", type=When(ahead=True), required=True, help="When it ends: a time, or a span (90d).")
@json_option
@config_option
@click.pass_obj
def token(cli: Cli, name: str, scopes: tuple[str, ...], until: datetime) -> None:
    """Make a token, print it this once. It never allows more than its account."""
    with open_desk(cli) as desk:
        named = tuple(part for scope in scopes for part in scope.replace(",", " ").split())
        secret, made = desk.accounts.make_token(name, named, until)
        shape = {"token": secret} | _ticket_shape(made, desk)
    cli.say(
        f"Token {made.id} of {name}, until {named_time(made.ends)}. It is shown this once; keep it where nobody reads."
    )
    cli.print(shape, secret)


@users.command("tokens")
@click.option("--of", metavar="NAME", help="Of this account.")
@limit_option
@list_options
@config_option
@click.pass_obj
def tokens(cli: Cli, of: str | None, limit: int) -> None:
    """List tokens and sessions; never what they are made of."""
    with open_desk(cli) as desk:
        if of is not None:
            desk.accounts.get(of)
        with desk.store.reader() as conn:
            found = desk.store.users.tickets(conn, of)
        if len(found) > limit:
            cli.cut(limit, len(found))
        shapes = [_ticket_shape(one, desk) for one in found[:limit]]
    cli.print(shapes, _ticket_table(shapes) or "No tokens, and nobody is logged in.")


@users.command("revoke")
@click.argument("ticket", metavar="ID")
@json_option
@config_option
@click.pass_obj
def revoke(cli: Cli, ticket: str) -> None:
    """End a token or a session at once; `users tokens` lists their ids."""
    with open_desk(cli) as desk:
        shape = _ticket_shape(desk.accounts.revoke(ticket), desk)
    cli.print(shape, f"The {shape['kind']} {ticket} of {shape['account']} has ended.")


@users.command("password")
@_NAME
@json_option
@config_option
@click.pass_obj
def password(cli: Cli, name: str) -> None:
    """Set the password of an account. It is asked for, or read from standard input when that is no terminal."""
    with open_desk(cli) as desk:
        desk.accounts.get(name)
        shape = shape_of(desk.accounts.set_password(name, asked_for("Password", again=True)))
    cli.print(shape, f"The password of {name} is set; sessions have ended.")


@users.command("mfa")
@_NAME
@click.option("--remove", is_flag=True, help="Take the second factor away: then nobody can log in with the password.")
@json_option
@config_option
@click.pass_obj
def mfa(cli: Cli, name: str, remove: bool) -> None:
    """Give an account a new second factor, and print its secret this once, for an app that shows codes (RFC 6238)."""
    with open_desk(cli) as desk:
        if remove:
            cli.print(shape_of(desk.accounts.remove_factor(name)), f"{name} has no second factor any more.")
            return
        secret, uri = desk.accounts.set_factor(name)
    cli.say(f"The second factor of {name}. It is shown this once: put it into the app, and nowhere else.")
    cli.print({"name": name, "secret": secret, "uri": uri}, f"{secret}\n{uri}")


@users.command("roles")
@json_option
@config_option
@click.pass_obj
def roles(cli: Cli) -> None:
    """List the roles of this site, as its file has them."""
    from engine.access.roles import shown

    with open_desk(cli) as desk:
        policy = desk.policy()
    shapes = shown(policy) if policy is not None else []
    rows = [(s["role"], s["says"], _text(s["patients"]), _text(s["sees"])) for s in shapes]
    cli.print(shapes, table(("role", Column("what it is", least=20), "patients", Column("sees", least=12)), rows))


@users.command("actions")
@json_option
@config_option
@click.pass_obj
def actions(cli: Cli) -> None:
    """List the actions that roles and tokens can be given."""
    from engine.access.actions import CATALOGUE, GRANTED

    shapes = [
        {"action": str(one), "says": CATALOGUE[one].says, "patients": CATALOGUE[one].patients,
         "writes": CATALOGUE[one].writes} for one in GRANTED
    ]  # fmt: skip
    rows = [(s["action"], s["says"]) for s in shapes]
    cli.print(shapes, table(("action", Column("who has it may", least=20)), rows))


@users.command("may")
@_NAME
@click.argument("action", metavar="ACTION")
@click.option("--patient", metavar="KEY", type=PatientKey(), help="To this patient; - asks for it.")
@click.option("--purpose", metavar="CODE", help="For this purpose: TREAT, HPAYMT, ...")
@json_option
@config_option
@click.pass_obj
def may_(cli: Cli, name: str, action: str, patient: str | None, purpose: str | None) -> int:
    """Say whether somebody may do something, why, and which line of the roles decides. Exit code 1: they may not."""
    from engine.desk.asking import may_they

    with open_desk(cli) as desk:
        shape = may_they(desk, name, action, patient, purpose)
    said = f"{'Yes' if shape['allowed'] else 'No'}: {shape['why']}. ({shape['rule'] or 'no rule'})"
    cli.print(shape, said + (f"\nsees: {_text(shape['sees'])}" if shape["allowed"] else ""))
    return 0 if shape["allowed"] else 1


def shape_of(account: Account, tickets: list[Ticket] | None = None) -> dict[str, Any]:
    """An account as it is shown: nothing that opens it."""
    from engine.domain.shapes import plain

    own = [one for one in tickets or () if one.account == account.name]
    return {
        "name": account.name,
        "kind": account.kind,
        "roles": list(account.roles),
        "units": list(account.units),
        "provider": account.provider,
        "panels": list(account.panels),
        "also": list(account.also),
        "state": account.state.value,
        "password": account.password is not None,
        "mfa": account.totp is not None,
        "tokens": sum(one.kind == "token" for one in own),
        "sessions": sum(one.kind == "session" for one in own),
        "created_at": plain(account.created_at),
        "created_by": account.created_by,
        "disabled_at": plain(account.disabled_at),
        "waits_until": plain(account.waits_until),
    }


def _ticket_shape(one: Ticket, desk: Desk) -> dict[str, Any]:
    from engine.domain.shapes import plain

    return {
        "id": one.id,
        "account": one.account,
        "kind": one.kind,
        "scopes": None if one.scopes is None else list(one.scopes),
        "began_at": plain(one.began),
        "ends_at": plain(one.ends),
        "seen_at": plain(one.seen),
        "revoked_at": plain(one.revoked_at),
        "state": "revoked" if one.revoked_at else "ended" if one.ends <= desk.now else "standing",
        "by": one.by,
    }


def _ticket_table(shapes: list[dict[str, Any]]) -> str:
    rows = [
        (s["id"], s["account"], s["kind"], _text(s["scopes"] or []), clock_time(s["ends_at"]), s["state"])
        for s in shapes
    ]
    columns = ("id", "account", "kind", Column("scopes", least=8, drop=1), time_column("ends"), "state")
    return table(columns, rows)


def _comes_in_by(shape: dict[str, Any]) -> str:
    ways = []
    if shape["password"]:
        ways.append("password" if shape["mfa"] else "password, without a second factor yet")
    ways += [f"{shape[what]} {what}" for what in ("tokens", "sessions") if shape[what]]
    return ", ".join(ways)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
