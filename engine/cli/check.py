"""`handoff check`: is this configuration right? Touches neither the store nor the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from engine.cli.common import NO, Cli, config_option, counted, json_option, problem_shape

if TYPE_CHECKING:
    from engine.errors import Problem


@click.command("check")
@click.option("--strict", is_flag=True, help="Exit code 1 for warnings too.")
@click.option("--without-secrets", is_flag=True, help="Values of {env: ...} and the like may be missing here.")
@json_option
@config_option
@click.pass_obj
def check(cli: Cli, strict: bool, without_secrets: bool) -> int:
    """Validate the whole configuration.

    Names file, line, column and key of every problem in config.yaml, channels and mappings, and runs the tests beside
    them; touches neither store nor network. Exit code 1 when there is a problem; a warning is for you to judge.
    """
    from engine.bootstrap import examine, side_problems
    from engine.errors import SettingsError

    found: tuple[Problem, ...]
    good = ""
    try:
        examined = examine(cli.existing_config(), references="optional" if without_secrets else "required")
        found = (*examined.failures, *side_problems(examined), *examined.warnings)
        good = f"{counted(len(examined.configuration.channels), 'channel')}, " + counted(
            len(examined.configuration.site.destinations), "destination"
        )
    except SettingsError as error:
        found = error.problems
    problems = [problem for problem in found if problem.level == "problem"]
    warnings = [problem for problem in found if problem.level == "warning"]
    ok = not problems and not (strict and warnings)
    counts = [counted(len(problems), "problem")] * bool(problems) + [counted(len(warnings), "warning")] * bool(warnings)
    last = f"{', '.join(counts)}." if problems else f"Good: {', '.join([good, *counts])}."
    if warnings and strict and not problems:
        last = f"{', '.join(counts)}, and --strict takes them for problems."
    shown = [problem_shape(problem) for problem in (*problems, *warnings)]
    cli.print({"ok": ok, "problems": shown}, "\n".join([*map(str, (*problems, *warnings)), last]))
    return 0 if ok else NO
