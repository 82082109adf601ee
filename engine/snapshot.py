"""The files of a configuration as text: read within limits, and what `{env: NAME}` and the like in them stand for.

A `Snapshot` is all the text of a configuration (site, channels, mappings) with its digest. It is what the store keeps
as a configuration version, so that a replay can run under the configuration that was in force; secrets are only named
in it (`{env: NAME}`) and never part of it: one that somebody has written out all the same is left out (`without`).
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from engine.domain.record import Record
from engine.environment import variable
from engine.errors import Problem, SettingsError
from engine.files import SECRET_BYTES_MAX, UnreadableFileError, foreign_owner, read_regular, read_with_status
from engine.yamlfile import TEXT_CHARS_MAX, Document, did_you_mean, parse, without_values

FILES_MAX: Final = 1_000
"""Of a configuration, tests included."""
ENTRIES_MAX: Final = 10_000
"""Names that may stand in a folder of the configuration, whatever they are: more is no folder of a site."""
SNAPSHOT_BYTES_MAX: Final = 4 << 20
"""Of all files together."""
VALUES_MAX: Final = 300_000
"""Keys and values of all files together."""

FOLDERS: Final = ("channels", "mappings")
"""Keys of config.yaml, and the folders beside it unless told."""
FOLDER_CHARS_MAX: Final = 4096
MAPPING_FOLDERS: Final = (
    "access",
    "appointments",
    "care",
    "destinations",
    "fields",
    "medications",
    "oncall",
    "privacy",
    "protocols",
    "risk",
    "tables",
    "texts",
)
EXAMPLES: Final = "examples"
"""A folder below the channels' or mappings' that nothing is read from: messages and files to copy."""
_TEST_ENDING: Final = ".test.yaml"
_NEVER_MEANT: Final = re.compile(
    r"(?i)(?!.*\.ya?ml\.)(readme.*|license.*|.*\.(md|txt|hl7|dat|pem|crt|cer|csr|key|p12|pfx|jks|sh|py|gitignore|gitkeep))"
)
"""Files that stand beside a configuration and are none of it."""


class Loaded(Record, frozen=True, kw_only=True):
    """One loading of a configuration by a daemon: at its start, or by a reload."""

    id: str
    at: datetime
    who: str
    """The operating system's user, as far as the kernel told us."""
    by: str
    """`run` or `reload`."""


@dataclass(frozen=True)
class Snapshot:
    """All text of a configuration. Keys are paths relative to `base` (`config.yaml`, `channels/main-campus.yaml`)."""

    base: Path
    """The folder of config.yaml: relative paths in the configuration are relative to it."""
    site_file: str
    files: Mapping[str, str] = field(repr=False)
    tests: Mapping[str, str] = field(default_factory=dict)
    """The test files beside them, which are no part of the version."""
    remarks: tuple[Problem, ...] = ()
    """What was found on reading: problems and warnings about files that are not read, or that others may change."""
    loaded: Loaded | None = None
    """By whom a daemon was given it; none: it is only looked at."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Files that hold secrets -> their text without these."""

    @classmethod
    def read(cls, config: Path) -> Snapshot:
        """Read config.yaml and what stands below its channels and mappings folders. Raises SettingsError."""
        base = config.resolve().parent
        reading = _Reading(base)
        text = reading.read(config, config.name)
        document = parse(text, config.name)
        files: dict[str, str] = {config.name: text}
        tests: dict[str, str] = {}
        for key, folder in _folders(document).items():
            root = _inside(base, folder)
            if root is None:
                where = document.problem((key,), f"must be a folder below {base}, not {folder}")
                raise SettingsError((where,))
            if not (base / root).is_dir():
                where = document.problem((key,), f"the folder {folder} does not exist")
                raise SettingsError((where,))
            for path in reading.walk(base / root, mappings=key == "mappings"):
                name = path.relative_to(base).as_posix()
                try:
                    (tests if name.endswith(_TEST_ENDING) else files)[name] = reading.read(path, name)
                except SettingsError as error:
                    reading.remarks.extend(error.problems)
        return cls(base, config.name, files, tests, tuple(reading.remarks))

    @classmethod
    def alone(cls, config: Path) -> Snapshot:
        """config.yaml without the files that it leads to. Raises SettingsError."""
        base = config.resolve().parent
        return cls(base, config.name, {config.name: _Reading(base).read(config, config.name)})

    def with_file(self, name: str, path: Path) -> Snapshot:
        """These files with another in the place of the one of this name. Raises SettingsError, which names that one."""
        text = _Reading(path.resolve().parent).read(path, str(path))
        return Snapshot(self.base, self.site_file, {**self.files, name: text})

    def with_folder(self, folder: Path) -> Snapshot:
        """These files with those of a folder in their place or besides.

        The folder is laid out as a site: files of channels and mappings, each below the folder that config.yaml names;
        with a config.yaml it is a whole site, and nothing of this one is left. Raises SettingsError.
        """
        if (folder / self.site_file).is_file():
            other = Snapshot.read(folder / self.site_file)
            return Snapshot(self.base, self.site_file, other.files, remarks=other.remarks)
        base = folder.resolve()
        reading = _Reading(base)
        found: dict[str, str] = {}
        for key, below in _folders(self.document(self.site_file)).items():
            root = _inside(base, below)
            if root is None or not (base / root).is_dir():
                continue
            for path in reading.walk(base / root, mappings=key == "mappings"):
                name = path.relative_to(base).as_posix()
                if not name.endswith(_TEST_ENDING):
                    found[name] = reading.read(path, name)
        if not found:
            folders = " or ".join(f"{one}/" for one in _folders(self.document(self.site_file)).values())
            raise _unusable(str(folder), f"holds no YAML file in {folders}")
        return Snapshot(self.base, self.site_file, {**self.files, **found}, remarks=tuple(reading.remarks))

    @cached_property
    def version(self) -> str:
        """Digest of what is recorded; names it in the store."""
        return version_of(self.recorded)

    @property
    def recorded(self) -> Mapping[str, str]:
        """The files as the store keeps them."""
        return {**self.files, **self.left_out}

    def without(self, secrets: Mapping[str, Collection[tuple[str | int, ...]]]) -> Snapshot:
        """The same, recorded without the values that stand at these places of these files."""
        left_out = {
            file: without_values(self.files[file], paths, UNRESOLVED) for file, paths in secrets.items() if paths
        }
        return replace(self, left_out=left_out)

    def document(self, file: str) -> Document:
        """A parsed file. Raises SettingsError."""
        parsed = self._parsed
        if file not in parsed:
            document = parse(self.files[file], file)
            if sum(len(one.places) for one in parsed.values()) + len(document.places) > VALUES_MAX:
                text = f"with this file the configuration holds more than {VALUES_MAX:,} values"
                raise SettingsError((Problem(file, 1, 1, "", text),))
            parsed[file] = document
        return parsed[file]

    @cached_property
    def _parsed(self) -> dict[str, Document]:
        return {}

    def below(self, folder: str) -> tuple[str, ...]:
        """The files below a folder, in order of name."""
        prefix = os.path.normpath(folder) + "/"
        return tuple(name for name in sorted(self.files) if name.startswith(prefix))


def version_of(files: Mapping[str, str]) -> str:
    """The digest that names a configuration of these files."""
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        digest.update(f"{name}\0{len(text)}\0{text}".encode())
    return digest.hexdigest()[:16]


References = Literal["required", "optional", "never"]
"""What becomes of `{env: ...}` and the like: their values must be there; they may be missing (a check without the
production's secrets); they are not looked up (a recorded configuration: its text comes from the store)."""


UNRESOLVED: Final = "unresolved"
"""Stands for a value that is kept elsewhere and is not there; a name and a URL like any other, as far as checks go."""


def _folders(site: Document) -> dict[str, str]:
    """The two keys of config.yaml that say which other files there are. Raises SettingsError."""
    value = site.value if isinstance(site.value, dict) else {}
    found = {key: value.get(key, key) for key in FOLDERS}
    problems = [
        site.problem((key,), "must be the name of a folder, as a text")
        for key, folder in found.items()
        if not isinstance(folder, str) or not 0 < len(folder) <= FOLDER_CHARS_MAX
    ]
    if problems:
        raise SettingsError(tuple(problems))
    return found


def _inside(base: Path, folder: str) -> str | None:
    """A folder of the configuration as a path below its base; none when it lies elsewhere."""
    try:
        relative = os.path.relpath(os.path.normpath(base / folder), base)
    except ValueError:
        return None
    return None if relative == "." or relative.startswith("..") or "\0" in folder else relative


class _Reading:
    """Reads the files of a configuration within limits, and remarks on those that are not read."""

    def __init__(self, base: Path) -> None:
        self.remarks: list[Problem] = []
        self._base = base
        self._bytes = 0
        self._files = 0

    def read(self, path: Path, name: str) -> str:
        """Raises SettingsError."""
        try:
            raw, status = read_with_status(path, bytes_max=TEXT_CHARS_MAX)
        except UnreadableFileError as error:
            raise _unusable(name, error.reason) from None
        self._bytes += len(raw)
        if self._bytes > SNAPSHOT_BYTES_MAX:
            raise _unusable(name, f"with this file the configuration is larger than {SNAPSHOT_BYTES_MAX >> 20} MiB")
        if status.st_mode & stat.S_IWOTH:
            self._remark(name, "everybody on this machine may change this file: chmod o-w", "problem")
        elif foreign_owner(status, path.parent):
            self._remark(name, "belongs to another user, who may change it: chown it to root or to the service's user")
        return _decoded(raw, name)

    def walk(self, root: Path, *, mappings: bool) -> list[Path]:
        """The YAML files below a folder. Raises SettingsError for a folder that can't be read, or is none of a site."""
        found: list[Path] = []
        folders, entries = [root], 0
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as listed:
                    for entry in listed:
                        entries += 1
                        if entries > ENTRIES_MAX:
                            text = f"holds more than {ENTRIES_MAX:,} files and folders: it can't be one of a site"
                            raise _unusable(str(root.relative_to(self._base)), text)
                        if folder == root and entry.name == EXAMPLES:
                            self._examples(Path(entry.path))
                        elif entry.name.startswith("."):
                            self._hidden(entry)
                        elif entry.is_dir(follow_symlinks=False):
                            self._folder(Path(entry.path), root, mappings=mappings)
                            folders.append(Path(entry.path))
                        elif self._is_meant(Path(entry.path), root, mappings=mappings):
                            found.append(Path(entry.path))
            except OSError as error:
                raise _unusable(str(error.filename or folder), f"can't be read: {error.strerror}") from None
        self._files += len(found)
        if self._files > FILES_MAX:
            raise _unusable(str(root.relative_to(self._base)), f"more than {FILES_MAX:,} files of YAML")
        return sorted(found)

    def _hidden(self, entry: os.DirEntry[str]) -> None:
        """An editor's, or what links to a mounted folder lead to; a file of YAML may have been meant."""
        yaml = entry.name.lower().endswith((".yaml", ".yml"))
        if yaml and not entry.name.startswith((".#", "..")) and not entry.is_dir(follow_symlinks=False):
            self._remark(
                self._name(Path(entry.path)), "not read: its name begins with a dot (rename it, or take it away)"
            )

    def _examples(self, folder: Path) -> None:
        """Nothing is read from there, but people copy from it: what is no file would hold them up."""
        try:
            odd = [path for path in sorted(folder.iterdir())[:ENTRIES_MAX] if path.exists()]
        except OSError:
            return
        for path in odd:
            if not path.is_file() and not path.is_dir():
                self._remark(self._name(path), "not read: it is a pipe, a socket or a device, not a file")

    def _folder(self, folder: Path, root: Path, *, mappings: bool) -> None:
        if folder.name.endswith((".yaml", ".yml")):
            self._remark(self._name(folder), "not read as a file: it is a folder", "problem")
        elif mappings and folder.parent == root and folder.name not in MAPPING_FOLDERS:
            near = did_you_mean(folder.name, MAPPING_FOLDERS)
            self._remark(
                self._name(folder), f"not read: {root.name} has the folders {', '.join(MAPPING_FOLDERS)}{near}"
            )

    def _is_meant(self, path: Path, root: Path, *, mappings: bool) -> bool:
        """Whether it is a file of the configuration; if it only looks like one, that is remarked."""
        name, below = path.name, path.parent.relative_to(root).parts
        if path.is_dir():
            self._remark(self._name(path), "not read: a link to a folder is not followed")
        elif name.endswith(".yaml") and name != ".yaml":
            if mappings and (len(below) != 1 or below[0] not in MAPPING_FOLDERS):
                if not below or below[0] in MAPPING_FOLDERS:
                    where = (
                        f"{root.name}/{below[0]}"
                        if below
                        else f"a folder of {root.name}: " + ", ".join(MAPPING_FOLDERS)
                    )
                    self._remark(self._name(path), f"not read: move it into {where}", "problem")
                return False
            return True
        elif name.lower().endswith((".yaml", ".yml")):
            self._remark(self._name(path), f"not read: its name must end in .yaml ({path.stem}.yaml)", "problem")
        elif not _NEVER_MEANT.fullmatch(name):
            self._remark(self._name(path), "not read: only names that end in .yaml are (rename it, or take it away)")
        return False

    def _name(self, path: Path) -> str:
        return path.relative_to(self._base).as_posix()

    def _remark(self, name: str, message: str, level: Literal["problem", "warning"] = "warning") -> None:
        self.remarks.append(Problem(name, 1, 1, "", message, level))


def _unusable(name: str, message: str) -> SettingsError:
    return SettingsError((Problem(name, 1, 1, "", message),))


def _decoded(raw: bytes, name: str) -> str:
    """The text of a file, in words that help when it is none. Raises SettingsError."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or raw[:2].count(0) == 1:
        raise _unusable(name, "is UTF-16 text: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        text = f"the byte {raw[error.start]:02X} is not UTF-8 (Latin-1 or Windows-1252?): save the file as UTF-8"
        raise SettingsError((Problem(name, line, column, "", text),)) from None


_PLACES: Final = ("trail", "checkpoints")
"""A list whose items name a place: `{file: PATH}` there is a file to write to, and no value that stands elsewhere."""


def resolve_references(
    document: Document,
    value: Any,
    path: tuple[str | int, ...],
    base: Path,
    problems: list[Problem],
    *,
    mode: References,
) -> Any:
    """Replace `{env: NAME}`, `{file: PATH}` and `{credential: NAME}` by what they name."""
    if isinstance(value, list):
        return [
            resolve_references(document, item, (*path, index), base, problems, mode=mode)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and path[:-1] != _PLACES:
        kind, name = next(iter(value.items()))
        if kind in {"env", "file", "credential"} and isinstance(name, str):
            found, reason = _look_up(kind, name, base) if mode != "never" else (None, None)
            if not found and mode != "required":
                return UNRESOLVED
            if not found:
                problems.append(document.problem(path, f"{kind} {name} {reason or 'is not there or is empty'}"))
                return UNRESOLVED
            return found
    return {
        key: resolve_references(document, item, (*path, key), base, problems, mode=mode) for key, item in value.items()
    }


def _look_up(kind: str, name: str, base: Path) -> tuple[str | None, str | None]:
    """The value, and why there is none when it is not simply missing."""
    if kind == "env":
        return variable(name), None
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) if kind == "credential" else base
    try:
        return read_regular(folder / name, bytes_max=SECRET_BYTES_MAX).decode().strip(), None
    except UnreadableFileError as error:
        return None, None if error.missing else error.reason
    except UnicodeDecodeError:
        return None, "is not UTF-8 text"
