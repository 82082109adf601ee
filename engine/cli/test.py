"""`handoff test`: the tests that stand beside the YAML files of a site."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from engine.cli.common import NO, Cli, config_option, counted, json_option, problem_shape


@click.command("test")
@click.argument("paths", metavar="[PATH...]", nargs=-1, type=click.Path(path_type=Path))
@json_option
@config_option
@click.pass_obj
def test(cli: Cli, paths: tuple[Path, ...]) -> int:
    """Run the tests beside channels, mappings, tables, scores, protocols and care rules.

    PATH is a test file, the file it stands beside, or a folder; without one all tests of the site are run. Each failure
    is named with file, line, what was expected and what came. Nothing is written. Exit code 1 when one fails, or when a
    PATH has no tests.
    """
    from engine.bootstrap import examine
    from engine.errors import HandoffError
    from engine.trial.cases import run_tests

    config = cli.existing_config()
    examined = examine(config, references="optional", tests=False)
    snapshot = examined.configuration.snapshot
    chosen = {name for path in paths for name in _chosen(path, config.resolve().parent, snapshot.tests)}
    for path in paths:
        if not any(_chosen(path, config.resolve().parent, snapshot.tests)):
            raise HandoffError(f"{path}: there are no tests here; test files are called NAME.test.yaml")
    report = run_tests(examined.compiled, snapshot, only=lambda name: not paths or name in chosen)
    ok = not report.failures
    counts = [f"{report.passed} passed"] + [f"{len(report.failures)} failed"] * (not ok)
    shown = [problem_shape(problem) for problem in report.failures]
    skipped = [problem_shape(problem) for problem in report.skipped]
    document = {"ok": ok, "passed": report.passed, "failed": len(shown), "failures": shown, "skipped": skipped}
    lines = [
        *map(str, report.skipped),
        *map(str, report.failures),
        f"{counted(len(chosen or snapshot.tests), 'file')}: ",
    ]
    cli.print(document, "\n".join(lines) + f"{', '.join(counts)}.")
    return 0 if ok else NO


def _chosen(path: Path, base: Path, tests: Iterable[str]) -> list[str]:
    """The test files that a path of the command line means."""
    wanted = path.resolve()
    found = []
    for name in tests:
        file = (base / name).resolve()
        beside = file.with_name(file.name.removesuffix(".test.yaml") + ".yaml")
        if wanted in {file, beside} or file.is_relative_to(wanted):
            found.append(name)
    return found
