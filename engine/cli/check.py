"""`handoff check`: is this configuration right? Touches neither the store nor the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from engine.cli.common import NO, Cli, config_option, json_option, problem_shape

if TYPE_CHECKING:
    from engine.yamlfile import Problem


@click.command("check")
@json_option
@config_option
@click.pass_obj
def check(cli: Cli) -> int:
    """Validate the whole configuration.

    Names file, line, column and key of every problem in config.yaml, channels and mappings; touches neither store nor
    network. Exit code 1 when there is one.
    """
    from engine.bootstrap import check_configuration
    from engine.errors import SettingsError

    problems: tuple[Problem, ...] = ()
    good = ""
    try:
        configuration = check_configuration(cli.existing_config())
        good = f"Good: {len(configuration.channels)} channel(s), {len(configuration.site.destinations)} destination(s)."
    except SettingsError as error:
        problems = error.problems
    shown = [problem_shape(problem) for problem in problems]
    lines = [*map(str, problems), f"{len(problems)} problem(s)."]
    cli.print({"ok": not problems, "problems": shown}, "\n".join(lines) if problems else good)
    return NO if problems else 0
