"""Which backups of a folder are old enough to be deleted: none that a younger one rests on, and never the newest."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from engine.errors import BackupError, KeyMissingError
from engine.store.backup.archive import SUFFIX, ArchiveFile, Manifest, siblings
from engine.store.keys import KeyRing


def delete_older(folder: Path, keys: KeyRing, before: datetime) -> list[Path]:
    """Delete backups as of an earlier time. Files that can't be read are left: they may be somebody else's.

    Raises BackupError when one can't be deleted.
    """
    there = [(path, found) for path in siblings(folder) if (found := _manifest(path, keys)) is not None]
    needed = {id_ for number, (_, one) in enumerate(there) if number == 0 or one.as_of >= before for id_ in one.files}
    gone = [path for path, one in there if one.id not in needed]
    for path in gone:  # the newest first: cut off here, what is left has all that it rests on
        try:
            path.unlink()
        except OSError as error:
            raise BackupError(f"{path}: can't be deleted: {error.strerror}") from None
    return gone


def _manifest(path: Path, keys: KeyRing) -> Manifest | None:
    if not path.name.endswith(SUFFIX):
        return None
    try:
        file = ArchiveFile(path, keys)
    except (BackupError, KeyMissingError):
        return None
    try:
        return file.manifest()[0]
    except BackupError:
        return None
    finally:
        file.close()
