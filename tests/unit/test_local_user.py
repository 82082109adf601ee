"""Who sits at the command line, as the kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.desk.local import local_user

UNSET = "4294967295"


def proc(folder: Path, login: str | None, *above: tuple[int, str]) -> Path:
    """A /proc with this login uid and these processes (real uid, name), this one first."""
    for number, (uid, _) in enumerate(above):
        here = folder / ("self" if number == 0 else str(100 + number))
        here.mkdir()
        parent = 101 + number if number + 1 < len(above) else 0
        (here / "status").write_text(f"Name:\tx\nPPid:\t{parent}\nUid:\t{uid}\t0\t0\t0\n")
    if login is not None:
        (folder / "self").mkdir(exist_ok=True)
        (folder / "self/loginuid").write_text(login)
    return folder


@pytest.mark.parametrize(
    ("login", "above", "uid", "person"),
    [
        ("1001", [(0, "handoff"), (0, "sudo"), (1001, "bash")], 0, 1001),
        ("1001", [(990, "handoff"), (0, "sudo"), (0, "bash")], 990, 1001),  # root's shell, and before that a person
        (UNSET, [(0, "handoff"), (0, "sudo"), (1001, "bash"), (0, "sshd")], 0, 1001),
        (UNSET, [(990, "handoff"), (0, "runuser"), (1001, "bash")], 990, 1001),
        (UNSET, [(1002, "handoff"), (0, "su"), (1001, "bash")], 1002, 1001),
        (UNSET, [(1001, "handoff"), (1001, "bash"), (0, "sshd")], 1001, 1001),
        (UNSET, [(990, "handoff"), (0, "cron"), (0, "init")], 990, 990),
        (UNSET, [(0, "handoff"), (0, "init")], 0, 0),
        (None, [(0, "handoff"), (1001, "bash")], 0, 1001),  # a kernel without audit
        ("nonsense", [(0, "handoff")], 0, 0),
        (None, [], 7, 7),  # no /proc at all
    ],
)
def test_the_person_is_who_logged_in_whoever_they_became(
    tmp_path: Path, login: str | None, above: list[tuple[int, str]], uid: int, person: int
) -> None:
    assert local_user(proc=proc(tmp_path, login, *above), uid=uid).uid == person


def test_who_owns_the_keys_keeps_them_and_so_does_root(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.touch()
    own = keys.stat().st_uid
    folder = tmp_path / "proc"
    folder.mkdir()
    other = local_user(keys, proc=proc(folder, "54321", (own, "handoff")), uid=own)
    assert (other.owns_keys, other.opens_keys) == (False, True)
    assert local_user(keys, proc=tmp_path / "none", uid=own).owns_keys
    assert local_user(keys, proc=tmp_path / "none", uid=0).owns_keys
    assert not local_user(tmp_path / "gone", proc=tmp_path / "none", uid=54321).owns_keys


def test_nothing_of_the_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "SUDO_USER", "SUDO_UID", "LNAME"):
        monkeypatch.setenv(name, "1001")
    assert local_user(proc=proc(tmp_path, UNSET, (1002, "handoff")), uid=1002).uid == 1002
