"""Fuzzing guided by coverage, with atheris (libFuzzer).

    make fuzz SECONDS=600                                              # all targets, so long together
    .venv/bin/python -m tests.fuzz.run --seconds 60 heart reader       # some of them
    .venv/bin/python -m tests.fuzz.run --keep                          # put what covers more into the kept corpus

What covers something new is gathered in `.fuzz/` and used by the next run. An input that breaks a target is written to
`.fuzz/findings/`, the exit code is then 1: put it into `corpus/TARGET/` under a name that says what it is, and mend.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).parent / "corpus"
GATHERED: Final = ROOT / ".fuzz"
NAMES: Final = (
    "framer", "wide", "intake", "acknowledgment", "batch", "reader", "heart", "filter", "path", "mapping",
    "configuration",
)  # fmt: skip
MEMORY_MIB_MAX: Final = 1024
INPUT_SECONDS_MAX: Final = 10
"""One input may take so long (instrumented, that is some ten times as long as without)."""
INPUT_BYTES_MAX: Final = 8192
KEPT_BYTES_MAX: Final = 512
"""Larger inputs are not put into the tree."""
_ENGINE: Final = str(ROOT / "engine")

_Step = tuple[str, int, int]
_Trace = Callable[[FrameType, str, object], Any]


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        _fuzz(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="for all of them together")
    parser.add_argument("--keep", action="store_true", help="merge what was gathered into the kept corpus")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    chosen = options.targets or NAMES
    if options.keep:
        for name in chosen:
            _keep(name)
        return 0
    sys.stdout.write(f"{'target':<15} {'inputs':>9} {'a second':>9} {'covered':>9} {'MiB':>5}  found\n")
    found = [name for name in chosen if not _run(name, max(1, options.seconds // len(chosen)))]
    return 1 if found else 0


def _run(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own; whether it held."""
    gathered, findings = GATHERED / name, GATHERED / "findings"
    for folder in (gathered, findings):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        seeds, words = _prepare(name, Path(scratch))
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.run", "--inside", name, str(gathered), str(seeds), f"-dict={words}",
             f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_SECONDS_MAX}",
             f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1"],
            cwd=ROOT, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    said = done.stdout + done.stderr
    runs, memory = (_number(rf"stat::{what}:\s+(\d+)", said) for what in ("number_of_executed_units", "peak_rss_mb"))
    covered = _number(r"cov: (\d+)(?!.*cov: )", said, re.DOTALL)
    sys.stdout.write(f"{name:<15} {runs:>9} {runs // seconds:>9} {covered:>9} {memory:>5}  ")
    if done.returncode == 0:
        sys.stdout.write("nothing\n")
        return True
    file = re.search(r"Test unit written to (\S+)", said)
    sys.stdout.write(f"{file[1] if file else 'an error'}\n")
    sys.stderr.write(said[-4000:])
    return False


def _fuzz(name: str, *arguments: str) -> None:
    """The fuzzing process."""
    import atheris

    with atheris.instrument_imports(include=["engine"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *arguments], TARGETS[name].check)
    atheris.Fuzz()


def _keep(name: str) -> None:
    """Add to the kept corpus the gathered inputs that lead where neither it nor the seeds do."""
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    known: set[_Step] = set()
    for data in target.corpus():
        known |= _steps(target.check, data)
    added = 0
    for file in sorted((GATHERED / name).iterdir(), key=lambda file: (file.stat().st_size, file.name)):
        if file.stat().st_size <= KEPT_BYTES_MAX:
            new = _steps(target.check, file.read_bytes()) - known
            if new:
                known |= new
                added += 1
                (CORPUS / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, CORPUS / name / f"covers-{file.name[:12]}")
    sys.stdout.write(f"{name}: {added} added\n")


def _steps(check: Callable[[bytes], None], data: bytes) -> set[_Step]:
    """From which line to which line of the engine an input leads."""
    found: set[_Step] = set()

    def enter(frame: FrameType, _event: str, _argument: object) -> _Trace | None:
        file = frame.f_code.co_filename
        if not file.startswith(_ENGINE):
            return None
        before = 0

        def line(frame: FrameType, event: str, _argument: object) -> _Trace:
            nonlocal before
            if event == "line":
                found.add((file, before, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        check(data)
    finally:
        sys.settrace(None)
    return found


def _prepare(name: str, folder: Path) -> tuple[Path, Path]:
    """A folder with the target's corpus, and a file with its words."""
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    seeds, words = folder / "seeds", folder / "words"
    seeds.mkdir()
    for index, seed in enumerate(target.corpus()):
        (seeds / str(index)).write_bytes(seed)
    with words.open("w") as file:
        for word in target.tokens:
            file.write('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n')
    return seeds, words


def _number(pattern: str, text: str, flags: int = 0) -> int:
    found = re.search(pattern, text, flags)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
