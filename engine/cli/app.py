"""The `handoff` command: finds the command asked for, and turns every error into a text and an exit code."""

from __future__ import annotations

import importlib
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

from engine.cli.common import NO, UNAVAILABLE, USAGE, WRONG_CONFIGURATION, Cli, config_option, meant
from engine.errors import (
    AlteredSchemaError,
    CandidateError,
    HandoffError,
    KeyFileError,
    KeyMissingError,
    SettingsError,
    StoreUnavailableError,
    WhichError,
)

COMMANDS: Final[Mapping[str, str]] = {
    "init": "engine.cli.init:init",
    "run": "engine.cli.run:run",
    "status": "engine.cli.status:status",
    "reload": "engine.cli.status:reload",
    "check": "engine.cli.check:check",
    "test": "engine.cli.test:test",
    "config": "engine.cli.config:config",
    "try": "engine.cli.dryrun:try_",
    "compare": "engine.cli.compare:compare",
    "send": "engine.cli.send:send",
    "simulate": "engine.cli.simulate:simulate",
    "connections": "engine.cli.connections:connections",
    "senders": "engine.cli.senders:senders",
    "gaps": "engine.cli.gaps:gaps",
    "messages": "engine.cli.messages:messages",
    "ledger": "engine.cli.ledger:ledger",
    "dead": "engine.cli.dead:dead",
    "held": "engine.cli.held:held",
    "quality": "engine.cli.quality:quality",
    "destinations": "engine.cli.destinations:destinations",
    "resend": "engine.cli.resend:resend",
    "replay": "engine.cli.replay:replay",
    "patients": "engine.cli.patients:patients",
    "why": "engine.cli.why:why",
    "tasks": "engine.cli.tasks:tasks",
    "plans": "engine.cli.plans:plans",
    "consents": "engine.cli.consents:consents",
    "consent": "engine.cli.consent:consent",
    "texts": "engine.cli.texts:texts",
    "phone": "engine.cli.phone:phone",
    "appointments": "engine.cli.appointments:appointments",
    "pages": "engine.cli.pages:pages",
    "oncall": "engine.cli.oncall:oncall",
    "medications": "engine.cli.medications:medications",
    "risk": "engine.cli.risk:risk",
    "outbox": "engine.cli.outbox:outbox",
    "keys": "engine.cli.keys:keys",
    "db": "engine.cli.db:db",
    "break-glass": "engine.cli.glass:break_glass",
    "backup": "engine.cli.backup:backup",
    "restore": "engine.cli.backup:restore",
    "users": "engine.cli.users:users",
    "audit": "engine.cli.audit:audit",
    "breach": "engine.cli.breach:breach",
    "evidence": "engine.cli.evidence:evidence",
    "legal-hold": "engine.cli.retention:legal_hold",
    "sweep": "engine.cli.retention:sweep",
    "inventory": "engine.cli.inventory:inventory",
    "schema": "engine.cli.schema:schema",
    "demo": "engine.cli.demo:demo",
    "bench": "engine.cli.bench:bench",
    "help": "engine.cli.manual:help_",
    "completion": "engine.cli.manual:completion",
    "manual": "engine.cli.manual:manual",
}
"""In the order of the help; `module:attribute`."""

_REPORT: Final = "Nothing was lost. Please report this line; it holds no patient data."

_UNLISTED: Final[Mapping[str, str]] = {
    "worker": "engine.cli.run:worker",
    "console": "engine.cli.run:console",
}


class _Lazy(click.Group):
    """A group that imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        target = COMMANDS.get(cmd_name) or _UNLISTED.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = meant(args[0], COMMANDS) if args and not args[0].startswith("-") else ""
            raise click.UsageError(f"{error.message}{near}", ctx) from None


@click.group("handoff", cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@config_option
@click.version_option(package_name="handoff-engine", prog_name="handoff")
def handoff() -> None:
    """Handoff: an HL7 v2 MLLP interface engine that makes sure nobody falls through between hospital and home."""


def run(arguments: Sequence[str], command: click.Command = handoff) -> int:
    """Run one command and return its exit code. Nothing is raised, and no traceback is printed.

    command: another one that is to end the same way (a tool of the source tree).
    """
    cli = Cli()
    try:
        code = command.main(list(arguments), prog_name=command.name, standalone_mode=False, obj=cli)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        cli.json = cli.json or "--json" in arguments  # it may not have come so far
        error.show()
        cli.fail_json(error.format_message())
        return error.exit_code
    except WhichError as error:
        cli.fail(f"{error}{meant(error.name, error.known)}")
        return USAGE
    except click.Abort:
        cli.fail("stopped")
        return NO
    except HandoffError as error:
        cli.fail(str(error), hint=_hint(error, cli), problems=getattr(error, "problems", ()))
        return exit_code(error)
    except OSError as error:
        if error.filename is None:
            cli.fail(_unexpected(error), hint=_REPORT)
        else:
            cli.fail(f"{error.filename}: {error.strerror}")
        return NO
    except Exception as error:  # noqa: BLE001 - the one place where the unexpected ends, so that no traceback is shown
        cli.fail(_unexpected(error), hint=_REPORT)
        return NO
    return code if isinstance(code, int) else 0


def exit_code(error: HandoffError) -> int:
    if isinstance(error, StoreUnavailableError | AlteredSchemaError):
        return UNAVAILABLE
    if isinstance(error, SettingsError | KeyMissingError | KeyFileError):
        return WRONG_CONFIGURATION
    return NO


def _hint(error: HandoffError, cli: Cli) -> str | None:
    if isinstance(error, CandidateError):
        return "The candidate is a channel's file, or a folder laid out as a site (channels/, mappings/)."
    if isinstance(error, SettingsError):
        return "`handoff check` shows every problem of the configuration."
    if isinstance(error, KeyMissingError):
        return "Put the key file back that `store.keys` of config.yaml names. (`handoff keys create`: for a new site.)"
    if isinstance(error, StoreUnavailableError) and cli.store is not None:
        return f"The store is {cli.store} (`store.url` of config.yaml)."
    return None


def _unexpected(error: Exception) -> str:
    """An id, the type and the place; never the text of the error, which could hold a value of a message."""
    from engine.logs import frames, type_name

    places = frames(error.__traceback__)
    at = f" at {places[-1]}" if places else ""
    return f"internal error {secrets.token_hex(4)}: {type_name(error)}{at}"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
