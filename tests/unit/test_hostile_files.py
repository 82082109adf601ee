"""No text and no kind of file in a configuration stops, kills or fills whoever reads it."""

from __future__ import annotations

import resource
import shutil
import time
from pathlib import Path

import pytest
from hostile_files import KINDS, RAW, TEXTS
from hypothesis import given
from hypothesis import strategies as st

from engine.connectors.registry import load
from engine.errors import KeyFileError, KeyMissingError, SettingsError
from engine.files import UnreadableFileError, read_regular
from engine.snapshot import Snapshot
from engine.store.keys import KeyRing
from engine.yamlfile import DEPTH_MAX, NODES_MAX, parse

SECONDS_MAX = 5.0
BYTES_MAX = 200 << 20


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    for name in ("config.yaml", "channels", "mappings"):
        source = Path(__file__).parents[2] / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    return folder


@pytest.fixture
def site(shipped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped, tmp_path / "site"))


def refused(site: Path) -> str:
    """Why the configuration is refused; that takes neither long nor much memory."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SettingsError) as caught:
        load(Snapshot.read(site / "config.yaml"))
    assert time.monotonic() - began < SECONDS_MAX
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < BYTES_MAX
    return str(caught.value)


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_text_is_refused_with_its_place(site: Path, name: str) -> None:
    (site / "channels/x.yaml").write_text(TEXTS[name])
    assert refused(site).startswith("channels/x.yaml:")


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_text_are_refused_with_what_they_are(site: Path, name: str) -> None:
    (site / "channels/x.yaml").write_bytes(RAW[name])
    assert refused(site).startswith("channels/x.yaml:")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("place", ["channels/x.yaml", "channels/x.test.yaml", "mappings/tables/x.yaml"])
def test_what_is_no_file_is_refused_where_one_is_expected(site: Path, name: str, place: str) -> None:
    KINDS[name](site / place)
    assert place in refused(site)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_file_is_refused_behind_a_reference(site: Path, name: str) -> None:
    KINDS[name](site / "secret")
    text = (site / "config.yaml").read_text()
    (site / "config.yaml").write_text(text.replace("node: main-1", "node: {file: secret}"))
    assert refused(site).startswith("config.yaml:4:1: node: file secret ")


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_file_is_no_key_file(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / "keys.json")
    with pytest.raises((KeyFileError, KeyMissingError)):
        KeyRing.load(tmp_path / "keys.json")


def test_a_folder_of_very_many_files_is_refused_before_they_are_read(site: Path) -> None:
    for number in range(12_000):
        (site / f"channels/{number}").touch()
    assert "holds more than 10,000 files" in refused(site)


def test_very_many_files_of_yaml_are_refused(site: Path) -> None:
    for number in range(1_100):
        (site / f"mappings/tables/{number}.yaml").touch()
    assert "more than 1,000 files" in refused(site)


def test_files_that_are_large_only_together_are_refused(site: Path) -> None:
    for number in range(6):
        (site / f"mappings/tables/{number}.yaml").write_text("# " + "x" * 900_000)
    assert "the configuration is larger than" in refused(site)


def test_a_filter_that_is_nested_without_end_is_refused(site: Path) -> None:
    channel = site / "channels/main-campus.yaml"
    channel.write_text(channel.read_text() + f'filter: "{"(" * 4_000}"\n')
    from engine.bootstrap import examine

    with pytest.raises(SettingsError, match="nested more than"):
        examine(site / "config.yaml")


def test_files_of_the_kernel_that_say_they_are_empty_are_read_within_the_limit(tmp_path: Path) -> None:
    assert read_regular(Path("/proc/self/status"), bytes_max=1 << 20).startswith(b"Name:")
    with pytest.raises(UnreadableFileError, match="larger than"):
        read_regular(Path("/proc/self/status"), bytes_max=16)


def test_a_linked_file_is_read_as_mounted_configurations_need_it(site: Path) -> None:
    """Kubernetes mounts a ConfigMap as links into a hidden folder."""
    (site / "channels/..data").mkdir()
    (site / "channels/main-campus.yaml").rename(site / "channels/..data/main-campus.yaml")
    (site / "channels/main-campus.yaml").symlink_to("..data/main-campus.yaml")
    assert list(load(Snapshot.read(site / "config.yaml")).channels) == ["main-campus"]


def test_what_everybody_may_change_is_refused(site: Path) -> None:
    (site / "mappings/fields/adt.yaml").chmod(0o666)
    assert "everybody on this machine may change this file" in refused(site)


# --- the parser ------------------------------------------------------------------------------------------------------


@given(st.text(alphabet="[]{}:,-?&*!|>'\"%@`#ab1 \n\t") | st.text())
def test_any_text_is_a_document_or_a_problem(text: str) -> None:
    try:
        parse(text, "x.yaml")
    except SettingsError:  # and nothing else
        return


def test_a_document_at_the_limits_is_read() -> None:
    assert parse("[" * DEPTH_MAX + "]" * DEPTH_MAX, "x").value
    assert len(parse("\n".join(f"- {n}" for n in range(NODES_MAX - 1)), "x").value) == NODES_MAX - 1
    with pytest.raises(SettingsError, match="holds more than"):
        parse("\n".join(f"- {n}" for n in range(NODES_MAX)), "x")
    with pytest.raises(SettingsError, match="levels deep"):
        parse("[" * (DEPTH_MAX + 2) + "]" * (DEPTH_MAX + 2), "x")
