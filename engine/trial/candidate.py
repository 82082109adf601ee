"""A candidate: a configuration that is not in force, read from a file or folder in the place of the site's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.connectors.registry import load
from engine.errors import CandidateError, Problem, SettingsError
from engine.pipeline.channel import CompiledConfiguration, Key
from engine.pipeline.compiling import compile_configuration
from engine.settings import Configuration


def load_candidate(site: Configuration, channel: str, given: Path, key: Key) -> CompiledConfiguration:
    """The site's configuration with the channel's file, or the files of a folder, taken from `given`.

    Raises CandidateError with all problems.
    """
    own = site.channel_documents[channel].file
    is_folder = given.is_dir()

    def named(problem: Problem) -> Problem:
        """A place as whoever wrote the candidate knows it."""
        if is_folder and (given / problem.file).is_file():
            return replace(problem, file=str(given / problem.file))
        return replace(problem, file=str(given)) if problem.file == own and not is_folder else problem

    def attempt() -> CompiledConfiguration:
        snapshot = site.snapshot.with_folder(given) if is_folder else site.snapshot.with_file(own, given)
        loaded = load(snapshot, references="optional")
        if channel not in loaded.channels:
            raise SettingsError((_another(loaded, own, channel, is_folder=is_folder),))
        return compile_configuration(loaded, key)

    return _named(attempt, named)


def _another(loaded: Configuration, own: str, channel: str, *, is_folder: bool) -> Problem:
    if not is_folder:
        document = loaded.snapshot.document(own)
        text = f"must be {channel}, the channel that it is compared with: its messages and patients belong to that name"
        return document.problem(("name",), text)
    return Problem(own, 1, 1, "name", f"no file of the candidate is the channel {channel}")


def _named(work: Callable[[], CompiledConfiguration], named: Callable[[Problem], Problem]) -> CompiledConfiguration:
    try:
        return work()
    except SettingsError as error:
        raise CandidateError(tuple(named(problem) for problem in error.problems)) from None
